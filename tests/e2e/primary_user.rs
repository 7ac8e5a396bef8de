//! `--primary-user`: clusterd itself gives up root.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, getrlimit};

use crate::harness::needs::{self, needs};
use crate::harness::process::Process;
use crate::harness::said::Said;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, NOBODY, Signal, network, until};
use crate::upgrade::back::each_call_fails;

/// Whom clusterd becomes, and workers of another user. Neither needs an entry in a database.
const PRIMARY: &str = "--primary-user 65534:65534";
const WORKERS: &str = "--user 65533 --group 65533";

/// What a set of capabilities is in /proc.
const NONE: &str = "0000000000000000";
const NET_BIND_SERVICE: &str = "0000000000000400";
const SETGID: &str = "0000000000000040";
const KILL: &str = "0000000000000020";
const KILL_SETGID_SETUID: &str = "00000000000000e0";
const SYS_RESOURCE: &str = "0000000001000000";
const AND_SYS_PTRACE: &str = "00000000000800e0";

/// Servers whose file any user may read, and a clusterd that gives its commands a folder of that user's.
fn of_servers() -> Setup {
    let servers = Cluster::of("python3 {folder}/server.py");
    given_up(servers.file("server.py", include_str!("fixtures/server.py")))
}

fn given_up(servers: Setup) -> Setup {
    servers.folder.give_home_to_nobody();
    servers.options(PRIMARY)
}

/// The words of a line of a `status` file of /proc.
fn line(status: &str, name: &str) -> String {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.expect("a line").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn status(process: &Process, name: &str) -> String {
    line(&std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it lives"), name)
}

/// Every thread is that user, and has these capabilities and no others.
#[track_caller]
fn has_given_up(process: &Process, capabilities: &str) {
    let own = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid())).expect("it lives");
    let mut seen = 0;
    for thread in threads {
        // One that has just ended.
        let Ok(status) = std::fs::read_to_string(thread.expect("a thread").path().join("status")) else {
            continue;
        };
        seen += 1;
        let name = line(&status, "Name");
        for ids in ["Uid", "Gid"] {
            assert_eq!(line(&status, ids), "65534 65534 65534 65534", "{name}: {ids}");
        }
        assert_eq!(line(&status, "Groups"), "65534", "{name}");
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(line(&status, set), capabilities, "{name}: {set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(line(&status, set), NONE, "{name}: {set}");
        }
        // What may still be gained is not clusterd's to say: setuid programs work in workers.
        assert_eq!(line(&status, "CapBnd"), line(&own, "CapBnd"), "{name}");
    }
    assert!(seen > 3, "{seen} threads");
}

#[track_caller]
fn has_no_capabilities(process: &Process, user: &str) {
    assert_eq!(status(process, "Uid"), [user; 4].join(" "));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(process, set), NONE, "{set}");
    }
}

#[track_caller]
fn every_worker_answers(cluster: &Cluster, workers: u32) {
    let mut seen = BTreeSet::new();
    until("all workers have answered", || {
        seen.insert(cluster.get("/").split_whitespace().take(2).collect::<String>());
        (seen.len() == workers as usize).then_some(())
    });
}

#[test]
fn every_thread_gives_up_root_and_workers_are_that_user_too() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    for (options, capabilities) in [("--attach preload", NONE), ("", NET_BIND_SERVICE)] {
        let cluster = of_servers().workers(2).options(options).start();
        has_given_up(&cluster.primary(), capabilities);
        for worker in cluster.workers() {
            has_no_capabilities(&worker, "65534");
            assert_ne!(worker.environment("HOME"), std::env::var("HOME").ok());
        }
        every_worker_answers(&cluster, 2);
    }
}

#[test]
fn workers_of_another_user_or_group_take_what_is_kept_for_them() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    let cluster = of_servers().workers(2).options(WORKERS).start();
    has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
    cluster.workers().iter().for_each(|worker| has_no_capabilities(worker, "65533"));
    every_worker_answers(&cluster, 2);
    let before = cluster.pids();
    cluster.reload().expect("workers are replaced");
    assert!(before.is_disjoint(&cluster.pids()));
    cluster.workers().iter().for_each(|worker| has_no_capabilities(worker, "65533"));
    every_worker_answers(&cluster, 2);

    let cluster = of_servers().options("--attach preload --group 65533").start();
    has_given_up(&cluster.primary(), SETGID);
    let worker = cluster.worker(1);
    has_no_capabilities(&worker, "65534");
    assert_eq!(status(&worker, "Gid"), "65533 65533 65533 65533");
}

#[test]
fn workers_of_another_user_are_served_by_interception() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    let cluster = of_servers().workers(2).options(WORKERS).options("--attach seccomp").start();
    has_given_up(&cluster.primary(), AND_SYS_PTRACE);
    every_worker_answers(&cluster, 2);
    let cluster = of_servers().workers(2).options("--attach seccomp").start();
    has_given_up(&cluster.primary(), NONE);
    every_worker_answers(&cluster, 2);
}

#[test]
fn workers_that_accept_get_sockets_of_their_own_at_any_scale() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    let cluster = of_servers().workers(2).options("--attach preload --accept workers").start();
    cluster.say("scale 6").done();
    cluster.wait_for(6, "online");
    // One socket for all would do as well, and clients would not be spread.
    assert!(!cluster.stderr.text().contains("share one listening socket"), "{}", cluster.stderr.text());
    every_worker_answers(&cluster, 6);
    cluster.reload().expect("workers are replaced");
    every_worker_answers(&cluster, 6);
}

#[test]
fn ports_below_1024_are_served_and_opened_again_after_root_is_given_up() {
    needs!("python3", "node", "unshare", "ip");
    if !needs::root() {
        return;
    }
    network::run_in_its_own("primary_user::in_its_own_network");
}

/// Tells whether a port of everybody's, and one below, can be opened.
const ASKING: &str = "\
const net = require('node:net');
const server = net.createServer();
server.on('error', error => console.log(`port: ${error.code}`));
server.listen(81, () => console.log('port: listens'));
";

#[test]
#[ignore = "opens well-known ports; run by ports_below_1024_are_served_and_opened_again_after_root_is_given_up"]
fn in_its_own_network() {
    for accept in ["primary", "workers"] {
        let setup = of_servers().port("80:8080").metrics("127.0.0.1:90").workers(2);
        let cluster = setup.options("--attach preload").options(&format!("--accept {accept}")).start();
        has_given_up(&cluster.primary(), NET_BIND_SERVICE);
        every_worker_answers(&cluster, 2);
        cluster.say("scale 3").done();
        cluster.wait_for(3, "online");
        every_worker_answers(&cluster, 3);
        cluster.reload().expect("workers are replaced");
        every_worker_answers(&cluster, 3);
        cluster.say("restart all").done();
        every_worker_answers(&cluster, 3);
        cluster.say("upgrade").done();
        every_worker_answers(&cluster, 3);
        cluster.say("scale 4").done();
        cluster.wait_for(4, "online");
        every_worker_answers(&cluster, 4);
    }
    for (options, expected) in [("", "port: listens"), (WORKERS, "port: EACCES")] {
        let asking = given_up(Cluster::of("node {folder}/asking.js").file("asking.js", ASKING));
        let cluster = asking.options("--max-restarts 1 --min-uptime 30s").options(options).launch();
        until("the worker has its answer", || {
            let lines = cluster.stdout.lines();
            let answer = lines.iter().find(|line| line.starts_with("port: "))?;
            assert_eq!(answer, expected, "{options}");
            Some(())
        });
    }
}

#[test]
fn logs_are_opened_again_and_set_aside_by_that_user() {
    if !needs::root() {
        return;
    }
    let setup = given_up(Cluster::of("sh -c").arg("while :; do echo a line; sleep 0.1; done"));
    let logs = setup.folder.path().join("logs");
    std::fs::create_dir(&logs).expect("a folder");
    chown(&logs, Some(65534), Some(65534)).expect("root may");
    let file = logs.join("out.log");
    let cluster = setup
        .options("--merge-logs --log-max-size 1MiB --pid-file")
        .options(&logs.join("app.pid").to_string_lossy())
        .options(&format!("--out-file {}", file.display()))
        .launch();
    let has_lines =
        |what: &str| until(what, || std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty()));
    has_lines("lines are written");
    std::fs::rename(&file, logs.join("moved.log")).expect("it is renamed");
    cluster.primary().signal(Signal::USR1);
    has_lines("the file is made again");
    assert_eq!(std::fs::metadata(&file).expect("it is there").uid(), 65534);
    until("the pid file is written", || {
        let files = std::fs::read_dir(&logs).expect("a folder").filter_map(Result::ok);
        files.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "pid"))
    });
}

#[test]
fn what_was_kept_goes_through_upgrades_and_to_nobody_else() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    let setup = of_servers().workers(2).options(WORKERS);
    let told = setup.folder.path().join("told");
    std::fs::create_dir(&told).expect("a folder");
    chown(&told, Some(65534), Some(65534)).expect("root may");
    let cluster = setup.env("CLUSTERD_ON_EVENT", "grep '^Cap[IEAP]' /proc/self/status >> told/hooks").start();
    let pids = cluster.pids();
    for _ in 0..2 {
        cluster.say("upgrade").done();
        has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
        assert_eq!(cluster.pids(), pids);
        every_worker_answers(&cluster, 2);
    }
    cluster.say("scale 3").done();
    cluster.wait_for(3, "online");
    cluster.reload().expect("workers are replaced");
    assert!(cluster.pids().is_disjoint(&pids));
    cluster.workers().iter().for_each(|worker| has_no_capabilities(worker, "65533"));
    every_worker_answers(&cluster, 3);
    // What was ambient for the next image was so for it alone.
    let hooks = until("hooks have told what they have", || std::fs::read_to_string(told.join("hooks")).ok());
    let sets: BTreeSet<_> = hooks.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(sets, BTreeSet::from([NONE]));
}

/// The next image has it when it fails, and hands it back.
#[test]
fn what_was_kept_comes_back_from_an_upgrade_that_fails() {
    needs!("python3", "gcc");
    if !needs::root() {
        return;
    }
    let cluster = of_servers().workers(2).options(WORKERS).start();
    let pids = cluster.pids();
    for function in ["epoll_create1", "pthread_create", "signalfd"] {
        assert!(each_call_fails(&cluster, function) > 0, "{function} is called");
        has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
    }
    assert_eq!(cluster.pids(), pids);
    cluster.reload().expect("workers are replaced");
    cluster.workers().iter().for_each(|worker| has_no_capabilities(worker, "65533"));
    every_worker_answers(&cluster, 2);
    cluster.say("upgrade").done();
    has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
}

/// More open files than clusterd may have itself.
#[test]
fn workers_get_more_than_clusterd_has_after_root_is_given_up() {
    needs!("python3");
    if !needs::root() {
        return;
    }
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").expect("/proc");
    let (own, most) = (getrlimit(Resource::Nofile).maximum, most.trim().parse::<u64>().expect("a number"));
    let Some(files) = own.map(|own| own + 1000).filter(|&files| files <= most) else {
        return println!("skipped: nobody can have more files than these tests");
    };
    let options = format!("--attach preload --nofile {files}");
    let has_it = line(&std::fs::read_to_string("/proc/self/status").expect("/proc"), "CapEff");
    if u64::from_str_radix(&has_it, 16).expect("a number") & 1 << 24 == 0 {
        return is_refused(of_servers().options(&options), "clusterd lacks CAP_SYS_RESOURCE");
    }
    let cluster = of_servers().workers(2).options(&options).start();
    let has_more = |cluster: &Cluster| {
        has_given_up(&cluster.primary(), SYS_RESOURCE);
        for worker in cluster.workers() {
            let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).expect("it lives");
            let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
            assert_eq!(line.split_whitespace().nth(3), Some(files.to_string().as_str()), "{line}");
            has_no_capabilities(&worker, "65534");
        }
        every_worker_answers(cluster, 2);
    };
    has_more(&cluster);
    cluster.say("upgrade").done();
    cluster.reload().expect("workers are replaced");
    has_more(&cluster);
}

#[test]
fn nobody_but_root_chooses_who_gets_what_was_kept() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    let cluster = given_up(Cluster::demo()).options(WORKERS).start();
    let program = cluster.primary().program().expect("it runs");
    std::fs::create_dir(cluster.folder().join("other")).expect("a folder");
    let copy = cluster.folder().join("other/clusterd");
    std::fs::copy(&program, &copy).expect("a copy");
    let by_user = |words: &str| Said::of(&cluster.home(), &NOBODY, words);
    let said = by_user(&format!("upgrade --binary {}", copy.display()));
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("may not choose the program"), "{said:?}");
    has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
    by_user("upgrade").done();
    has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
    cluster.say(&format!("upgrade --binary {}", copy.display())).done();
    has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
}

#[test]
fn a_program_with_capabilities_of_its_own_cannot_take_over() {
    needs!("setcap");
    if !needs::root() {
        return;
    }
    let cluster = given_up(Cluster::demo()).options(WORKERS).start();
    let copy = cluster.folder().join("other");
    std::fs::copy(cluster.primary().program().expect("it runs"), &copy).expect("a copy");
    let set = Command::new("setcap").arg("cap_net_bind_service=ep").arg(&copy).status().expect("setcap runs");
    if !set.success() {
        println!("skipped: files have no capabilities here");
        return;
    }
    let said = cluster.say(&format!("upgrade --binary {}", copy.display()));
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("it has capabilities"), "{said:?}");
    has_given_up(&cluster.primary(), KILL_SETGID_SETUID);
    cluster.say("upgrade").done();
}

#[test]
fn what_workers_of_another_user_have_started_does_not_outlive_clusterd() {
    if !needs::root() {
        return;
    }
    let tree = Cluster::of("sh -c").arg("sleep 1000 & sleep 1000; wait");
    let cluster = given_up(tree).options(WORKERS).launch();
    let primary = cluster.primary();
    let guardian = until("the guardian may end them", || {
        let mut children = primary.children().into_iter();
        children.find(|child| child.is_alive() && status(child, "CapEff") == KILL)
    });
    assert_eq!(status(&guardian, "Uid"), "65534 65534 65534 65534");
    let worker = cluster.worker(1);
    let below = until("the worker has children", || {
        let below = worker.descendants();
        (below.len() == 2).then_some(below)
    });
    primary.signal(Signal::KILL);
    until("all are gone", || (!below.iter().any(Process::is_alive)).then_some(()));
}

#[test]
fn roots_commands_find_it_where_no_folder_is_named() {
    if !needs::root() {
        return;
    }
    let setup = Cluster::demo().options(PRIMARY).env("CLUSTERD_HOME", "");
    let home = setup.folder.path().join("root");
    std::fs::create_dir(&home).expect("a folder");
    let mut cluster = setup.env("HOME", &home).start();
    let pid = cluster.primary().pid().to_string();
    let say = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
        command.args(words).env("CLUSTERD_HOME", "").env("HOME", &home).env_remove("PORT");
        let said = Said::from(command.output().expect("clusterd can be started"));
        said.done().to_owned()
    };
    let name = || {
        let apps: serde_json::Value =
            serde_json::from_str(&say(&["list", "--output", "json"])).expect("JSON");
        apps.to_string()
    };
    assert!(name().contains(&pid), "{}", name());
    let sockets = std::fs::read("/proc/net/unix").expect("/proc");
    let socket = String::from_utf8_lossy(&sockets);
    let socket = socket.lines().find(|line| line.contains("clusterd-control-0-") && line.ends_with(&pid));
    assert!(socket.is_some(), "it is root's, and has no file");
    assert_eq!(std::fs::read_dir(&home).expect("a folder").count(), 0);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[track_caller]
fn is_refused(setup: Setup, expected: &str) {
    let ended = setup.run();
    assert_ne!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains(expected), "{expected}: {}", ended.stderr);
    assert!(!ended.stderr.contains("listening"), "{}", ended.stderr);
}

#[test]
fn what_that_user_could_not_do_is_refused_before_anything_is_opened() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    let demo = || given_up(Cluster::demo());
    let other = Cluster::demo().options("--primary-user 65533:65533").owned_by_nobody();
    is_refused(other, "cannot become user 65533 (--primary-user): clusterd lacks CAP_SETGID, CAP_SETUID");
    is_refused(Cluster::demo().options("--primary-user no-such-user"), "there is no user no-such-user");
    is_refused(Cluster::demo().options(PRIMARY).file("home/x", ""), "(--primary-user) cannot write in");
    is_refused(
        demo().options("--out-file /var/log/nowhere/out.log"),
        "cannot write /var/log/nowhere/out.log",
    );
    let closed = demo().file("closed.toml", "queue = 7\n").file("closed.sh", "#!/bin/sh\n");
    let path = closed.folder.path().to_owned();
    close(&path.join("closed.toml"));
    is_refused(closed.options("--config closed.toml"), "cannot read ");
    let closed = given_up(Cluster::of("{folder}/closed.sh").file("closed.sh", "#!/bin/sh\n"));
    close(&closed.folder.path().join("closed.sh"));
    is_refused(closed, "clusterd and its workers run as user nobody (65534) (--primary-user)");
}

/// For its owner alone.
fn close(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
}

#[test]
fn who_is_that_user_already_has_nothing_to_give_up() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    Cluster::demo().options(PRIMARY).owned_by_nobody().start().get("/");
}

#[test]
fn an_app_with_a_name_has_its_folder_among_that_users() {
    if !needs::root() {
        return;
    }
    let mut cluster = given_up(Cluster::demo()).options("--name web").workers(2).start();
    let home = cluster.home();
    for file in ["apps/web", "apps/web/lock", "ids.json", "pids/web-0.pid"] {
        let found = until("the file is there", || std::fs::symlink_metadata(home.join(file)).ok());
        assert_eq!(found.uid(), 65534, "{file}");
    }
    let apps = cluster.say("list --output json").json().to_string();
    assert!(apps.contains("web"), "{apps}");
    cluster.say("scale web 3").done();
    cluster.wait_for(3, "online");
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert!(!home.join("apps/web").exists(), "{}", cluster.stderr.text());
}

#[test]
fn an_app_that_root_would_start_from_that_users_files_is_refused() {
    if !needs::root() {
        return;
    }
    let setup = given_up(Cluster::demo());
    let said = Said::of(
        &setup.folder.home(),
        &[],
        &format!("start --name web --port 0:8080 {PRIMARY} -- sleep 1000"),
    );
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("for an app that clusterd keeps"), "{said:?}");
}

#[test]
fn that_users_processes_cannot_look_into_a_clusterd_that_has_kept_capabilities() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    // The other way round: it is found and looked into as any process of that user.
    for (options, can) in [("--attach preload", true), (WORKERS, false)] {
        let cluster = given_up(Cluster::demo()).options(options).start();
        let environment = format!("/proc/{}/environ", cluster.primary().pid());
        let mut look = Command::new(NOBODY[0]);
        let looked = look.args(&NOBODY[1..]).args(["cat", &environment]).output().expect("setpriv runs");
        assert_eq!(looked.status.success(), can, "{options}");
    }
}
