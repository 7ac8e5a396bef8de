//! What a worker's process is held to by the kernel: its user, its files, its place among victims, its CPU.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use crate::harness::home::Home;
use crate::harness::needs::{self, needs};
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, NOBODY, Signal, until};

/// A user and group without any privilege, which need no entry in a database.
const OTHER: &str = "--user 65534 --group 65534";

/// Servers whose file any user may read.
fn of_servers() -> Setup {
    Cluster::of("python3 {folder}/server.py").file("server.py", include_str!("fixtures/server.py"))
}

/// The words of a line of /proc/PID/status.
fn status(process: &Process, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line");
    line.split_whitespace().map(str::to_owned).collect()
}

fn file_of(process: &Process, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{name}", process.pid())).expect("it lives")
}

#[track_caller]
fn both_workers_answer(cluster: &Cluster) {
    let mut seen = [false; 2];
    until("both workers have answered", || {
        let answer = cluster.get("/");
        for (index, seen) in seen.iter_mut().enumerate() {
            *seen |= answer.starts_with(&format!("worker {}", index + 1));
        }
        seen.into_iter().all(|seen| seen).then_some(())
    });
}

#[test]
fn workers_run_as_the_user_that_they_are_given_and_are_served() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    let cluster = of_servers().workers(2).options(OTHER).start();
    for worker in [cluster.worker(1), cluster.worker(2)] {
        for name in ["Uid", "Gid"] {
            assert_eq!(status(&worker, name), ["65534"; 4]);
        }
        assert!(status(&worker, "Groups").iter().all(|group| group == "65534"));
        assert_eq!(status(&worker, "CapEff"), ["0000000000000000"]);
        assert_ne!(worker.environment("HOME"), std::env::var("HOME").ok());
    }
    assert_eq!(status(&cluster.primary(), "Uid"), ["0"; 4]);
    both_workers_answer(&cluster);
}

#[test]
fn workers_run_in_the_folder_that_is_asked_for_and_their_program_is_found_there() {
    let cluster =
        Cluster::of("./bin/where").file("apps/bin/where", "#!/bin/sh\necho $0 $PWD\nexec sleep 1000\n");
    let cluster = cluster
        .under(&["sh", "-c", "chmod +x apps/bin/where; exec \"$0\" \"$@\""])
        .options("--cwd apps")
        .launch();
    until("it says where it is", || {
        let lines = cluster.stdout.lines();
        lines
            .iter()
            .any(|line| line.ends_with(&*cluster.folder().join("apps").to_string_lossy()))
            .then_some(())
    });
}

#[test]
fn a_folder_that_is_gone_by_the_next_start_is_named() {
    needs!("python3");
    let cluster = Cluster::of_servers().file("apps/x", "").options("--cwd apps").start();
    std::fs::rename(cluster.folder().join("apps"), cluster.folder().join("gone")).expect("it is renamed");
    cluster.worker(1).signal(Signal::KILL);
    until("the log says what is gone", || {
        cluster.stderr.text().contains("apps: No such file or directory").then_some(())
    });
}

#[test]
fn node_workers_of_another_user_are_served() {
    needs!("node");
    if !needs::root() {
        return;
    }
    for attach in ["auto", "node", "preload"] {
        let servers = Cluster::of("node {folder}/server.js");
        let servers = servers.file("server.js", include_str!("fixtures/server.js"));
        let cluster = servers.workers(2).options(OTHER).options(&format!("--attach {attach}")).start();
        assert_eq!(status(&cluster.worker(1), "Uid"), ["65534"; 4]);
        both_workers_answer(&cluster);
    }
}

#[test]
fn without_the_right_to_look_into_workers_of_another_user_they_are_served_all_the_same() {
    needs!("node", "setpriv");
    if !needs::root() {
        return;
    }
    let servers = Cluster::of("node {folder}/server.js");
    let servers = servers.file("server.js", include_str!("fixtures/server.js"));
    let cluster = servers.workers(2).options(OTHER).under(&["setpriv", "--bounding-set=-sys_ptrace"]).start();
    both_workers_answer(&cluster);
}

#[test]
fn a_worker_of_another_user_may_open_its_standard_streams_again() {
    if !needs::root() {
        return;
    }
    let cluster = Cluster::of("sh -c").arg("echo opened again > /dev/stderr; exec sleep 1000");
    let cluster = cluster.options(OTHER).launch();
    until("the line arrives", || cluster.stderr.lines().contains(&"opened again".to_owned()).then_some(()));
}

#[test]
fn a_worker_of_another_user_does_not_outlive_clusterd() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    let cluster = of_servers().options(OTHER).start();
    let (primary, worker) = (cluster.primary(), cluster.worker(1));
    // The guardian would end it too.
    for child in primary.children().into_iter().filter(|child| child.pid() != worker.pid()) {
        child.signal(Signal::KILL);
    }
    primary.signal(Signal::KILL);
    until("the worker is gone", || (!worker.is_alive()).then_some(()));
}

/// Tells what becomes of listening on a privileged port, in a folder of root's, and in one of everybody's.
const ASKING: &str = "\
const net = require('node:net');
const listen = (name, where) => new Promise(told => {
  const server = net.createServer();
  server.on('error', error => told(`${name}: ${error.code}`));
  server.listen(where, () => told(`${name}: listens`));
});
Promise.all([listen('port', 81), listen('closed', 'closed/socket'), listen('open', 'open/socket')])
  .then(outcomes => console.log(outcomes.join(', ')));
require('node:http').createServer((request, response) => response.end()).listen(process.env.PORT);
";

#[test]
fn what_node_workers_of_another_user_ask_for_is_bound_with_their_rights() {
    needs!("node");
    if !needs::root() {
        return;
    }
    let cluster =
        Cluster::of("node asking.js").file("asking.js", ASKING).file("closed/x", "").file("open/x", "");
    let cluster = cluster.under(&["sh", "-c", "chmod 777 open; exec \"$0\" \"$@\""]);
    let cluster = cluster.options(OTHER).start();
    until("the worker has its answers", || {
        let lines = cluster.stdout.lines();
        let line = lines.iter().find(|line| line.starts_with("port: "))?;
        assert_eq!(line, "port: EACCES, closed: EACCES, open: listens");
        Some(())
    });
    let socket = std::fs::metadata(cluster.folder().join("open/socket")).expect("it is there");
    assert_eq!((socket.uid(), socket.gid()), (65534, 65534));
    cluster.get("/");
}

/// A namespace in which nothing can be written.
const READ_ONLY: [&str; 7] = [
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-c",
    "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp && mount -t tmpfs -o ro tmpfs /run && \
     mount -t tmpfs -o ro tmpfs /dev/shm && exec \"$0\" \"$@\"",
];

#[test]
fn a_shim_that_workers_of_another_user_could_not_load_is_an_error() {
    needs!("unshare");
    if !needs::root() {
        return;
    }
    let ended = Cluster::demo().options(OTHER).env("TMPDIR", "/tmp").under(&READ_ONLY).run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("cannot expose the shim to workers of another user (--user)"),
        "{}",
        ended.stderr
    );
}

#[test]
fn node_workers_of_another_user_need_nothing_that_can_be_written() {
    needs!("node", "unshare");
    if !needs::root() {
        return;
    }
    let servers = Cluster::of("node {folder}/server.js");
    let servers = servers.file("server.js", include_str!("fixtures/server.js")).env("TMPDIR", "/tmp");
    let cluster = servers.workers(2).options(OTHER).options("--attach node").under(&READ_ONLY).start();
    both_workers_answer(&cluster);
}

#[test]
fn a_user_that_is_not_there_is_an_error_before_anything_starts() {
    let ended = Cluster::demo().options("--user no-such-user").run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("there is no user no-such-user"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("listening"), "{}", ended.stderr);
}

#[test]
fn what_takes_a_privilege_is_an_error_without_it() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    for (options, expected) in [
        ("--user root", "cannot run workers as user root (0): clusterd lacks CAP_SETGID, CAP_SETUID"),
        ("--group root", "cannot run workers as group 0: clusterd lacks CAP_SETGID"),
        ("--nofile 1073741816", "cannot give workers 1073741816 open files"),
        ("--oom-score-adj -1000", "cannot give workers an oom_score_adj of -1000"),
    ] {
        let ended = Cluster::demo().options(options).owned_by_nobody().run();
        assert_eq!(ended.status.code(), Some(1), "{options}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        assert!(!ended.stderr.contains("listening"), "{}", ended.stderr);
    }
}

#[test]
fn what_clusterd_is_already_takes_no_privilege() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    Cluster::demo().options(OTHER).owned_by_nobody().start().get("/");
}

#[test]
fn workers_have_as_many_files_as_they_are_given() {
    let cluster = Cluster::demo().options("--nofile 123").start();
    let limits = file_of(&cluster.worker(1), "limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["123", "123"]);
    cluster.get("/");
}

#[test]
fn workers_are_the_first_to_go_when_memory_ends() {
    let cluster = Cluster::demo().options("--oom-score-adj 700").start();
    assert_eq!(file_of(&cluster.worker(1), "oom_score_adj").trim(), "700");
    assert_ne!(file_of(&cluster.primary(), "oom_score_adj").trim(), "700");
}

/// The scheduling policy of a process: 0 is SCHED_OTHER, 3 SCHED_BATCH (sched(7)).
fn policy(process: &Process) -> String {
    let stat = file_of(process, "stat");
    // Without the name, which may have spaces: proc_pid_stat(5) counts it as the second field, and this as the 41st.
    let fields = stat.rsplit_once(')').expect("a name").1;
    fields.split_whitespace().nth(41 - 3).expect("a policy").to_owned()
}

#[test]
fn workers_are_scheduled_as_clusterd_unless_they_are_not_to_interrupt() {
    needs!("python3");
    for (options, expected) in [("", "0"), ("--cpu-scheduling batch", "3")] {
        let cluster = Cluster::demo().options(options).start();
        assert_eq!(policy(&cluster.worker(1)), expected, "{options}");
        assert_eq!(policy(&cluster.primary()), "0");
    }
    let accepts = Cluster::of("python3 -m http.server 8080");
    let accepts = accepts.options("--attach preload --accept workers --cpu-scheduling batch").start();
    assert_eq!(policy(&accepts.worker(1)), "3");
}

#[test]
fn each_worker_has_a_cpu_of_its_own() {
    let allowed = rustix::thread::sched_getaffinity(None).expect("fewer than 1024 CPUs");
    let cpus: Vec<_> = (0..1024).filter(|&cpu| allowed.is_set(cpu)).map(|cpu| cpu.to_string()).collect();
    let cluster = Cluster::demo().workers(3).options("--cpu-affinity").start();
    for worker in 1..=3 {
        let expected = &cpus[(worker - 1) % cpus.len()];
        let slot = u32::try_from(worker).expect("small");
        assert_eq!(status(&cluster.worker(slot), "Cpus_allowed_list").join(","), *expected);
    }
}

#[test]
fn whoever_looks_at_a_clusterd_that_can_start_no_thread_does_no_harm() {
    needs!("setpriv", "prlimit");
    if !needs::root() {
        return;
    }
    let cluster = Cluster::demo().owned_by_nobody().start();
    // Threads of tokio's that have nothing to do end after ten seconds, if nobody says otherwise.
    std::thread::sleep(Duration::from_secs(11));
    let pid = cluster.primary().pid().to_string();
    let mut lower = Command::new(NOBODY[0]);
    let lower = lower.args(&NOBODY[1..]).args(["prlimit", "--nproc=1", "--pid", &pid]).status();
    assert!(lower.expect("it can be started").success());
    for words in ["list", "jlist", "connections"] {
        cluster.say(words).done();
    }
    cluster.get("/");
}

#[test]
fn with_hardly_a_descriptor_a_command_says_what_would_help() {
    needs!("prlimit");
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_clusterd");
    for files in 4..16 {
        let mut list = Command::new("prlimit");
        list.arg(format!("--nofile={files}")).args([program, "list"]).env("CLUSTERD_HOME", home.home());
        let output = list.output().expect("prlimit can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        let is_told = said.contains("Too many open files (os error 24)\nhint: raise the limit of open files");
        let is_listed = output.stdout.starts_with(b"no running clusterd found");
        assert!(is_told != is_listed, "{files}: {said}");
    }
}
