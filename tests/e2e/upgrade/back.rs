//! A next image that reads what there is, and fails to begin with it: the one before goes on, and tells why.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::next::{CLUSTERD, Same, script};
use super::upgrade;
use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::{Cluster, Load, Signal, build, until};

/// A clusterd in which a call fails once it has taken over: that of the function and the number in the file `fails_at`.
fn failing(folder: &Path) -> PathBuf {
    let program = folder.join("failing");
    if !program.exists() {
        std::fs::copy(build::program("upgrade-failing", "upgrade/failing.c", &["gcc"]), &program)
            .expect("a copy");
        symlink(CLUSTERD, folder.join("clusterd")).expect("a link");
        symlink(build::library("upgrade-fails", "upgrade/fails_at.c"), folder.join("fails_at.so"))
            .expect("a link");
    }
    program
}

/// Has each call of this function fail in turn until there are no more before the next image has taken over. How many there were.
#[track_caller]
pub(crate) fn each_call_fails(cluster: &Cluster, function: &str) -> u32 {
    let program = failing(cluster.folder());
    // Calls come later, too, and fail then; nobody notices the first of them.
    for number in 1..200 {
        cluster.write("fails_at", &format!("{function}:{number}"));
        let before = Same::of_processes(cluster);
        let said = cluster.say(&format!("upgrade --binary {}", program.display()));
        assert_eq!(Same::of_processes(cluster), before, "{function}:{number}: {said:?}");
        assert!(!cluster.get("/").is_empty());
        if said.code == 0 {
            return number - 1;
        }
        let why = ["os error 24", "os error 11"];
        assert!(why.iter().any(|why| said.stderr.contains(why)), "{function}:{number}: {said:?}");
    }
    panic!("{function} fails without end");
}

/// Every step that fails under load, the last of which does not.
#[track_caller]
fn goes_back(functions: &[&str]) {
    let mut cluster = Cluster::of_servers().workers(2).start();
    let (requests, kept) = (Load::of_requests(&cluster), Load::of_kept_connections(&cluster));
    requests.goes_on();
    kept.goes_on();
    upgrade(&cluster);
    for function in functions {
        let calls = each_call_fails(&cluster, function);
        assert!(calls > 0, "{function} is called");
    }
    requests.goes_on();
    kept.goes_on();
    upgrade(&cluster);
    kept.lost_nothing();
    requests.loses_nothing_by_a_reload(&cluster);
    let told = cluster.stderr.said(&["not upgraded"]).len();
    assert!(told > functions.len(), "{told}");
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn a_descriptor_too_few_at_any_step_loses_nothing() {
    needs!("python3", "gcc", "bash");
    goes_back(&["fcntl"]);
}

#[test]
fn a_descriptor_that_cannot_be_watched_loses_nothing() {
    needs!("python3", "gcc", "bash");
    goes_back(&["epoll_create1", "eventfd", "epoll_ctl", "signalfd"]);
}

#[test]
fn a_thread_too_few_loses_nothing() {
    needs!("python3", "gcc", "bash");
    goes_back(&["pthread_create"]);
}

/// With a log of its own, a pid file, and Node workers that share a Unix socket.
#[test]
fn no_file_is_removed_on_the_way_back() {
    needs!("node", "gcc", "bash");
    let server = "require('net').createServer(socket => socket.on('error', () => {}).end('x')).listen(process.env.UNIX_PATH);\n\
                  require('http').createServer((_, answer) => answer.end('here')).listen(process.env.PORT);\n";
    let setup = Cluster::of("node {folder}/server.js").file("server.js", server).workers(2);
    let path = setup.folder.path().join("shared.sock");
    let [pid_file, log] = ["pid", "out.log"].map(|name| setup.folder.path().join(name));
    let cluster = setup
        .env("UNIX_PATH", &path)
        .options(&format!("--pid-file {} --out-file {}", pid_file.display(), log.display()))
        .start();
    cluster.wait_online();
    let connects = || std::os::unix::net::UnixStream::connect(&path).is_ok();
    until("the socket is there", || connects().then_some(()));
    let folder = cluster.runtime_folder();
    let files = || {
        let entries = std::fs::read_dir(&folder).expect("the runtime folder stays").flatten();
        entries.map(|entry| entry.file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = files();
    let of_pids = || {
        let entries = std::fs::read_dir(cluster.folder()).expect("its folder").flatten();
        let files = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("pid"));
        let read =
            |file: std::fs::DirEntry| Some((file.file_name(), std::fs::read_to_string(file.path()).ok()?));
        files.filter_map(read).collect::<std::collections::BTreeMap<_, _>>()
    };
    let pids = until("the pid files are there", || Some(of_pids()).filter(|pids| pids.len() == 2));
    each_call_fails(&cluster, "fcntl");
    assert_eq!(files(), before);
    assert!(connects());
    until(&format!("the pid files are {pids:?}"), || (of_pids() == pids).then_some(()));
    assert_eq!(cluster.reload(), Ok(()));
    until("the new workers share it, too", || connects().then_some(()));
}

/// Neither can go on: the library stays.
fn that_cannot_go_back_either(folder: &Path) -> PathBuf {
    let library = build::library("upgrade-fails-always", "upgrade/fails_at.c");
    let text = format!(
        "#!/bin/bash\n[ \"$1\" = restore-check ] || \
         export LD_PRELOAD={library} FAILS_ALWAYS=1 FAILS_AT=epoll_create1:1\nexec -a clusterd {{clusterd}} \"$@\"\n"
    );
    script(folder, "lost", &text)
}

#[test]
fn without_a_way_back_all_workers_end_and_it_is_said_why() {
    needs!("python3", "gcc", "bash");
    let mut cluster = Cluster::of_servers().workers(2).start();
    let program = that_cannot_go_back_either(cluster.folder());
    let workers = cluster.workers();
    let said = cluster.say(&format!("upgrade --binary {}", program.display()));
    // It was not yet waited for.
    assert!(said.code == 1 && said.stderr.contains("has ended, which was to be replaced"), "{said:?}");
    cluster.wait_exit_code(1);
    assert!(
        cluster.stderr.text().contains("cannot go back to the clusterd before"),
        "{}",
        cluster.stderr.text()
    );
    until("no worker is left", || workers.iter().all(|worker| !worker.is_alive()).then_some(()));
}

#[test]
fn without_a_way_back_an_app_in_the_background_is_started_afresh() {
    needs!("python3", "gcc", "bash");
    let home = Home::new();
    let port = crate::harness::ports::free_port();
    home.say(&format!("start {{fixtures}}/server.py --name web --port {port} -w 2")).done();
    let serves = || home.get(port);
    until("it serves", serves);
    let before = home.primary("web");
    let program = that_cannot_go_back_either(home.folder());
    let said = home.say(&format!("upgrade web --binary {}", program.display()));
    assert_ne!(said.code, 0, "{said:?}");
    until("the one before has ended", || (!before.is_alive()).then_some(()));
    let since = Instant::now();
    until("another one serves", serves);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_ne!(home.primary("web").pid(), before.pid());
    let said = home.say("upgrade web");
    assert_eq!(said.code, 0, "{said:?}");
}
