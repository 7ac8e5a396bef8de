//! Servers that turn themselves into daemons, and other processes that have left their worker: they end with it.

use std::path::{Path, PathBuf};

use crate::harness::needs::needs;
use crate::harness::nginx_config;
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};
use crate::shutdown::nothing_is_left;

/// Every living process that works in this folder, or names it on its command line: a daemon may have overwritten
/// environment and command line, and may have gone elsewhere, but not all of it.
fn there(folder: &Path) -> Vec<Process> {
    let all = procfs::process::all_processes().expect("/proc is mounted").filter_map(Result::ok);
    let is_there = |process: &procfs::process::Process| {
        let works_there = process.cwd().is_ok_and(|cwd| cwd.starts_with(folder));
        let folder = folder.to_string_lossy();
        works_there || process.cmdline().is_ok_and(|words| words.iter().any(|word| word.contains(&*folder)))
    };
    all.filter(is_there).filter_map(|process| Process::find(process.pid)).collect()
}

/// nginx goes into the background unless it is told not to.
const NGINX: &str = nginx_config!("worker_processes 2; error_log stderr; events {}", "listen 8080;");

const APP: &str = "
def app(environment, start_response):
    start_response('200 OK', [('Content-Length', '8')])
    return [b'gunicorn']
";

fn nginx() -> Setup {
    let script = "mkdir -p $CLUSTERD_WORKER_ID; exec nginx -e stderr -p {folder}/$CLUSTERD_WORKER_ID -c {folder}/nginx.conf";
    Cluster::of("sh -c").arg(script).file("nginx.conf", NGINX)
}

fn gunicorn() -> Setup {
    let command = "gunicorn --daemon --no-control-socket -b 127.0.0.1:{port} -w 2 --chdir {folder} app:app";
    Cluster::of(command).file("app.py", APP)
}

/// A daemon of every kind that there is. Its worker ends as soon as it has started it.
fn daemons() -> Vec<(&'static str, Setup)> {
    vec![("nginx", nginx()), ("gunicorn", gunicorn())]
}

#[track_caller]
fn is_empty(folder: &Path) {
    until("nothing works in the folder any more", || there(folder).is_empty().then_some(()));
}

/// Daemons were started several times; what came of it when this has happened.
fn leaves_nothing(setup: Setup, happens: impl FnOnce(&mut Cluster)) {
    let mut cluster = setup.workers(3).options("--kill-timeout 2s").launch();
    let folder: PathBuf = cluster.folder().to_owned();
    let hint = "a server has to stay in the foreground";
    until("workers were started again, and it is said why", || {
        let started = cluster.stderr.messages("worker started").len();
        (started >= 6 && cluster.stderr.text().contains(hint)).then_some(())
    });
    happens(&mut cluster);
    cluster.wait_exit();
    is_empty(&folder);
    let said = cluster.stderr.text();
    assert!(!said.contains("ready; try"), "it was never ready: {said}");
}

#[test]
fn daemons_end_with_a_clusterd_that_is_stopped() {
    needs!("nginx", "gunicorn");
    for (name, setup) in daemons() {
        println!("{name}");
        leaves_nothing(setup, |cluster| cluster.primary().signal(Signal::TERM));
    }
}

#[test]
fn daemons_end_with_a_clusterd_that_is_killed() {
    needs!("nginx", "gunicorn");
    for (name, setup) in daemons() {
        println!("{name}");
        leaves_nothing(setup, |cluster| cluster.primary().signal(Signal::KILL));
    }
}

#[test]
fn daemons_end_before_clusterd_gives_up() {
    needs!("nginx", "gunicorn");
    for (name, setup) in daemons() {
        println!("{name}");
        let setup = setup.options("--max-restarts 2");
        let mut cluster = setup.workers(2).launch();
        let folder: PathBuf = cluster.folder().to_owned();
        let code = cluster.wait_exit().code();
        // What works there must be gone by now: nothing is waited for.
        let left = there(&folder).len();
        assert_eq!((code, left), (Some(1), 0), "{}", cluster.stderr.text());
    }
}

/// A server with a companion in a session of its own, which ignores TERM.
fn with_a_companion() -> Setup {
    let companion = "trap \"\" TERM; echo companion >&2; while :; do sleep 1; done";
    let script = format!("setsid sh -c '{companion}' & exec python3 {{fixtures}}/server.py");
    Cluster::of("sh -c").arg(&script).options("--kill-timeout 500ms")
}

#[track_caller]
fn companions(cluster: &Cluster) -> Vec<Process> {
    let detached = || {
        let all = cluster.primary().descendants().into_iter().chain(cluster.processes());
        all.filter(|process| process.leads_its_session()).collect::<Vec<_>>()
    };
    until("the companion runs", || Some(detached()).filter(|all| !all.is_empty()))
}

#[test]
fn what_has_detached_itself_is_killed_after_the_kill_timeout() {
    needs!("python3", "setsid");
    let mut cluster = with_a_companion().start();
    let companions = companions(&cluster);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert!(!companions.iter().any(Process::is_alive), "clusterd ends after it");
}

#[test]
fn what_has_detached_itself_ends_with_a_clusterd_that_is_killed() {
    needs!("python3", "setsid");
    let mut cluster = with_a_companion().options("--drain-timeout 500ms").start();
    let companions = companions(&cluster);
    cluster.primary().signal(Signal::KILL);
    cluster.wait_exit();
    nothing_is_left(&cluster, &companions);
}

#[test]
fn what_has_detached_itself_ends_with_its_worker_and_not_before() {
    needs!("python3", "setsid");
    let cluster = with_a_companion().workers(2).start();
    let companion_of = |slot: u32| {
        until("the companion runs", || {
            let mut all = companions(&cluster).into_iter();
            all.find(|process| {
                process.environment("CLUSTERD_WORKER_ID").is_some_and(|id| id == slot.to_string())
            })
        })
    };
    let (first, second) = (companion_of(1), companion_of(2));
    cluster.worker(1).signal(Signal::KILL);
    until("the companion of the worker is gone", || (!first.is_alive()).then_some(()));
    assert!(second.is_alive(), "that of another worker is not");
    cluster.wait_online();
}

#[test]
fn without_treekill_what_has_detached_itself_stays() {
    needs!("python3", "setsid");
    let mut cluster = with_a_companion().options("--no-treekill").start();
    let companions = companions(&cluster);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert!(companions.iter().all(Process::is_alive));
    companions.iter().for_each(|companion| companion.signal(Signal::KILL));
    nothing_is_left(&cluster, &companions);
}

/// The first worker is there before the guardian, who is told of it later.
#[test]
fn without_treekill_groups_end_with_a_clusterd_that_is_killed() {
    needs!("python3");
    let command = Cluster::of("sh -c").arg("sleep 1000 & exec python3 {fixtures}/server.py");
    let mut cluster = command.workers(2).options("--no-treekill --drain-timeout 500ms").start();
    let processes = cluster.processes();
    let sleepers = processes.iter().filter(|process| process.name() == "sleep").count();
    assert_eq!(sleepers, 2);
    cluster.primary().signal(Signal::KILL);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
}

/// What whoever has started clusterd had started before is none of clusterd's, though it adopts it.
#[test]
fn what_was_there_before_is_left_alone() {
    needs!("python3", "setsid");
    let script = "setsid sleep 1000 & exec \"$@\"";
    let mut cluster = Cluster::of_servers().under(&["sh", "-c", script, "sh"]).start();
    let before = companions(&cluster);
    cluster.worker(1).signal(Signal::KILL);
    cluster.wait_online();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    assert!(before.iter().all(Process::is_alive));
    before.iter().for_each(|process| process.signal(Signal::KILL));
}
