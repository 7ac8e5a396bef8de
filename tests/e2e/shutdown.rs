//! The end of a cluster: nothing that was accepted is lost, and nothing is left behind.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clusterd::internal::protocol::wire;

use crate::harness::needs::{self, needs};
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, Signal, http, until};

/// The folder of clusterd that a worker knows of.
pub(crate) fn runtime_folder(cluster: &Cluster) -> PathBuf {
    let socket = cluster.worker(1).environment(wire::ENV_SOCKET).expect("a worker knows the attach socket");
    let folder = PathBuf::from(socket).parent().expect("the socket is in a folder").to_owned();
    assert!(folder.is_dir(), "{}", folder.display());
    folder
}

/// Waits until no process of a cluster that has ended is left.
pub(crate) fn nothing_is_left(cluster: &Cluster, known: &[Process]) {
    until("no process of the cluster is left", || {
        let alive = known.iter().chain(&cluster.processes()).filter(|process| process.is_alive()).count();
        (alive == 0).then_some(())
    });
}

/// One client that connects again and again until the cluster refuses, and counts what was answered.
fn client(cluster: &Cluster, answered: &AtomicU64) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let stream = match cluster.connect() {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
            stream => stream?,
        };
        let response = http::send_on(stream, "GET", "/")?.response()?;
        assert_eq!(response.status, 200);
        answered.fetch_add(1, Ordering::Relaxed);
    }
    panic!("the cluster still accepts");
}

/// TERM under load, when something has happened: each client ends with a refused connection, none with one that was
/// accepted and not answered.
pub(crate) fn term_under_load_loses_nothing(setup: Setup, happen: impl FnOnce(&Cluster)) {
    let mut cluster = setup.workers(2).start();
    let answered = AtomicU64::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| client(&cluster, &answered))).collect();
        until("the load is on", || (answered.load(Ordering::Relaxed) > 200).then_some(()));
        happen(&cluster);
        cluster.primary().signal(Signal::TERM);
        for client in clients {
            client.join().unwrap().expect("a connection that was accepted is answered");
        }
    });
    cluster.wait_success();
}

#[test]
fn term_under_load_loses_nothing_of_demo_workers() {
    for _ in 0..3 {
        term_under_load_loses_nothing(Cluster::demo(), |_| {});
    }
}

#[test]
fn term_under_load_loses_nothing_of_servers_that_term_kills() {
    needs!("python3");
    for _ in 0..3 {
        term_under_load_loses_nothing(Cluster::of_servers(), |_| {});
    }
}

#[test]
fn a_term_to_the_group_that_the_parent_passes_on_counts_once() {
    let mut cluster =
        Cluster::demo().options("--stop-delay 10m --drain-timeout 20m --log-level debug").start();
    let says = |text: &str| {
        until(&format!("it says {text:?}"), || cluster.stderr.text().contains(text).then_some(()));
    };
    // Or else there would be no delay.
    until("it is ready", || (cluster.probe("/readyz").status == 200).then_some(()));
    let of_another = Command::new("kill").arg(cluster.primary().pid().to_string()).status();
    assert!(of_another.expect("kill can be started").success());
    says("SIGTERM: stopping in");
    // The test is the parent.
    cluster.primary().signal(Signal::TERM);
    says("SIGTERM: the parent has passed on what has come here, too; it counts once");
    assert!(!cluster.stderr.text().contains("stopping at once"));
    cluster.primary().signal(Signal::TERM);
    says("stopping at once");
    cluster.wait_success();
}

/// Asks for the end while a request is open, and lets that finish; returns the processes that there were.
#[track_caller]
pub(crate) fn an_open_request_is_answered_after_term(cluster: &Cluster) -> Vec<Process> {
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    until("it accepts no more", || cluster.connect().is_err().then_some(()));
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the open request is answered").status, 200);
    processes
}

#[test]
fn term_lets_an_open_request_finish() {
    needs!("python3");
    let mut cluster = Cluster::of_servers().workers(2).options("--drain-timeout 60s").start();
    let processes = an_open_request_is_answered_after_term(&cluster);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

/// A load balancer hears of it some time after the signal.
#[test]
fn whoever_comes_in_the_stop_delay_is_served() {
    needs!("python3");
    let mut cluster = Cluster::of_servers().workers(2).options("--stop-delay 9m --drain-timeout 10m").start();
    let processes = cluster.processes();
    // Nobody sends clients to one that is not ready, and it does not wait for any.
    until("it is ready", || (cluster.probe("/readyz").status == 200).then_some(()));
    cluster.primary().signal(Signal::TERM);
    until("it says that it ends", || (cluster.probe("/readyz").status == 503).then_some(()));
    assert!(cluster.probe("/readyz").text().contains("clusterd is stopping"));
    for _ in 0..20 {
        assert!(cluster.get("/").starts_with("worker "));
    }
    // A worker that dies meanwhile is replaced.
    let first = cluster.worker(1);
    first.signal(Signal::KILL);
    until("there is another one", || (cluster.worker(1).pid() != first.pid()).then_some(()));
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn the_stop_delay_ends_by_itself_and_the_open_request_is_answered() {
    needs!("python3");
    let mut cluster =
        Cluster::of_servers().workers(2).options("--stop-delay 300ms --drain-timeout 60s").start();
    let processes = an_open_request_is_answered_after_term(&cluster);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn a_connection_that_never_ends_does_not_outlast_the_timeouts() {
    needs!("python3");
    let mut cluster =
        Cluster::of_servers().workers(2).options("--drain-timeout 1s --kill-timeout 1s").start();
    let held = cluster.send("/hold/never");
    cluster.handed(1);
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
    assert!(held.response().is_err(), "the held request was cut off");
}

#[test]
fn before_any_worker_listens_term_ends_it_at_once() {
    let mut cluster = Cluster::of("sleep 1000").workers(2).options("--drain-timeout 10m").launch();
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn a_worker_that_dies_during_the_shutdown_does_not_hold_it_up() {
    needs!("python3");
    let mut cluster = Cluster::of_servers().workers(2).options("--drain-timeout 60s").start();
    let answer = cluster.get("/");
    let next = if answer.starts_with("worker 1") { 2 } else { 1 };
    let held = cluster.send("/hold/gate");
    cluster.handed(2);
    let idle = cluster.worker(3 - next);
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    until("the shutdown has begun", || (cluster.probe("/readyz").status == 503).then_some(()));
    idle.signal(Signal::KILL);
    until("the idle worker is gone", || (!idle.is_alive()).then_some(()));
    cluster.open_gate("gate");
    assert!(held.response().is_ok(), "the held request is answered");
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn a_server_that_goes_into_the_background_leaves_nothing_there() {
    needs!("perl");
    let daemon = "use POSIX; if (fork) { sleep 1; exit } POSIX::setsid(); exec 'perl', $ARGV[0]";
    let mut cluster = Cluster::of("perl -e")
        .arg(daemon)
        .arg("{fixtures}/server.pl")
        .options("--drain-timeout 500ms --kill-timeout 500ms")
        .launch();
    until("it was started twice", || (cluster.stderr.messages("worker started").len() >= 2).then_some(()));
    cluster.primary().signal(Signal::TERM);
    cluster.wait_exit();
    nothing_is_left(&cluster, &[]);
}

#[test]
fn an_idle_cluster_ends_at_once_and_leaves_nothing() {
    needs!("python3");
    let mut cluster = Cluster::of_servers().workers(3).options("--drain-timeout 60s").start();
    let (processes, folder) = (cluster.processes(), runtime_folder(&cluster));
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[test]
fn a_second_term_does_not_wait_for_the_timeouts() {
    a_second_signal_is_fast(Signal::TERM);
}

#[test]
fn an_int_after_a_term_does_not_wait_for_the_timeouts() {
    a_second_signal_is_fast(Signal::INT);
}

fn a_second_signal_is_fast(second: Signal) {
    needs!("python3");
    let mut cluster =
        Cluster::of_servers().env("SERVER_IGNORE_TERM", "1").options("--drain-timeout 10m").start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let (processes, folder) = (cluster.processes(), runtime_folder(&cluster));
    cluster.primary().signal(Signal::TERM);
    // Two that come together are one to whoever waits for signals.
    until("the shutdown has begun", || cluster.stderr.text().contains("SIGTERM: stopping").then_some(()));
    until("it is not ready", || (cluster.probe("/readyz").status == 503).then_some(()));
    cluster.primary().signal(second);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
    assert!(!folder.exists(), "{} is left", folder.display());
    assert!(held.response().is_err(), "the held request was cut off");
}

#[test]
fn a_worker_that_ignores_term_is_killed_after_the_kill_timeout() {
    needs!("python3");
    let mut cluster = Cluster::of_servers()
        .env("SERVER_IGNORE_TERM", "1")
        .workers(2)
        .options("--drain-timeout 500ms --kill-timeout 500ms")
        .start();
    let processes = cluster.processes();
    let begin = Instant::now();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_exit();
    assert!(begin.elapsed() >= Duration::from_millis(500), "it had the kill timeout");
    assert_eq!(cluster.stderr.said(&["worker did not end in the time"]).len(), 2);
    nothing_is_left(&cluster, &processes);
}

#[test]
fn a_stopped_worker_does_not_outlive_the_timeouts() {
    needs!("python3");
    let mut cluster =
        Cluster::of_servers().workers(2).options("--drain-timeout 500ms --kill-timeout 500ms").start();
    let processes = cluster.processes();
    cluster.worker(1).signal(Signal::STOP);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn with_no_worker_up_waiting_connections_do_not_hold_up_the_end() {
    needs!("python3");
    let script = "[ ! -e started ] || exec sleep 1000; touch started; exec python3 {fixtures}/server.py";
    let options = "--drain-timeout 500ms --kill-timeout 500ms";
    let mut cluster = Cluster::of("sh -c").arg(script).options(options).start();
    let _ = cluster.try_get("/exit/1");
    cluster.wait_for(0, "online");
    let _waiting: Vec<_> = (0..5).map(|_| cluster.send("/")).collect();
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn a_whole_process_group_ends_with_its_worker() {
    needs!("python3");
    let script = "sleep 1000 & sh -c 'trap \"\" TERM; sleep 1001; true' & exec python3 {fixtures}/server.py";
    let mut cluster =
        Cluster::of("sh -c").arg(script).workers(2).options("--drain-timeout 1s --kill-timeout 1s").start();
    let processes = cluster.processes();
    assert!(processes.len() >= 2 * 4, "each worker has three children");
    cluster.primary().signal(Signal::TERM);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn a_kill_of_the_primary_leaves_no_orphan() {
    needs!("python3");
    let script = "sleep 1000 & exec python3 {fixtures}/server.py";
    let mut cluster =
        Cluster::of("sh -c").arg(script).workers(3).options("--drain-timeout 1s --kill-timeout 1s").start();
    let held = cluster.send("/hold/never");
    cluster.handed(1);
    let (processes, folder) = (cluster.processes(), runtime_folder(&cluster));
    cluster.primary().signal(Signal::KILL);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
    assert!(!folder.exists(), "{} is left", folder.display());
    assert!(held.response().is_err());
}

#[test]
fn a_kill_of_the_primary_leaves_no_demo_worker() {
    let mut cluster = Cluster::demo().workers(3).options("--drain-timeout 1s --kill-timeout 1s").start();
    let processes = cluster.processes();
    cluster.primary().signal(Signal::KILL);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
}

/// clusterd as the first process of a container.
fn as_pid_1(setup: Setup) -> Setup {
    setup.under(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
}

#[test]
fn as_pid_1_it_serves_reaps_strangers_and_ends_on_term() {
    needs!("python3", "unshare");
    if !needs::root() {
        return;
    }
    let mut cluster = as_pid_1(Cluster::of_servers().workers(2)).start();
    let workers = [cluster.worker(1), cluster.worker(2)];
    for _ in 0..20 {
        cluster.get("/orphan");
    }
    let primary = cluster.primary();
    until("every adopted child is waited for", || {
        (primary.children().len() == 2 && primary.zombies() == 0).then_some(())
    });
    assert!(workers.iter().all(Process::is_alive), "no stranger was taken for a worker");
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);

    let processes = cluster.processes();
    primary.signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

#[test]
fn as_pid_1_it_replaces_a_worker() {
    needs!("unshare");
    if !needs::root() {
        return;
    }
    let cluster = as_pid_1(Cluster::demo().workers(2)).start();
    let first = cluster.worker(1);
    first.signal(Signal::KILL);
    until("it is gone", || (!first.is_alive()).then_some(()));
    assert_ne!(cluster.worker(1).pid(), first.pid());
    cluster.wait_online();
}

#[test]
fn adopted_orphans_are_reaped_and_never_taken_for_a_worker() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    for _ in 0..20 {
        cluster.get("/orphan");
    }
    let primary = cluster.primary();
    until("every adopted child is waited for", || (primary.zombies() == 0).then_some(()));
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
}
