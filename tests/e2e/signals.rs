//! Signals to clusterd that do not stop it.

use std::fs;

use crate::harness::needs::needs;
use crate::harness::process::Process;
use crate::harness::{Cluster, Signal, until};

/// Waits until clusterd has said this.
#[track_caller]
fn said(cluster: &Cluster, message: &str) {
    until(&format!("it says {message:?}"), || cluster.stderr.text().contains(message).then_some(()));
}

#[track_caller]
fn wait_gone(process: &Process) {
    until("the old worker is gone", || (!process.is_alive()).then_some(()));
}

fn reloads(cluster: &Cluster, result: &str) -> u64 {
    cluster.metrics().count("clusterd_reloads_total", &[("result", result)])
}

#[test]
fn hup_replaces_every_worker() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let old = [cluster.worker(1), cluster.worker(2)];
    cluster.primary().signal(Signal::HUP);
    old.iter().for_each(wait_gone);
    cluster.wait_online();
    said(&cluster, "reload started by SIGHUP");
    until("it is counted", || (reloads(&cluster, "done") == 1).then_some(()));
    assert_eq!(reloads(&cluster, "failed"), 0);
}

#[test]
fn a_second_hup_does_not_disturb_a_reload() {
    needs!("python3");
    let cluster = Cluster::of_servers().env("SERVER_GATE", "gate").file("gate", "").start();
    let old = cluster.worker(1);
    fs::remove_file(cluster.folder().join("gate")).unwrap();
    cluster.primary().signal(Signal::HUP);
    said(&cluster, "reload started by SIGHUP");
    cluster.primary().signal(Signal::HUP);
    said(&cluster, "SIGHUP: a reload by SIGHUP is under way");
    cluster.open_gate("gate");
    wait_gone(&old);
    cluster.get("/");
}

#[test]
fn hup_with_a_version_that_fails_is_said_and_changes_nothing() {
    needs!("python3");
    let script = "[ -e broken ] && exit 3; exec python3 {fixtures}/server.py";
    let cluster = Cluster::of("sh -c").arg(script).start();
    let old = cluster.worker(1);
    cluster.open_gate("broken");
    cluster.primary().signal(Signal::HUP);
    said(&cluster, "reload failed");
    assert_eq!(reloads(&cluster, "failed"), 1);
    assert!(old.is_alive());
    cluster.get("/");
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    let online = |wanted: u64| {
        until(&format!("{wanted} workers are online"), || {
            (cluster.metrics().count("clusterd_workers", &[("state", "online")]) == wanted).then_some(())
        });
    };
    cluster.primary().signal(Signal::TTIN);
    online(2);
    said(&cluster, "SIGTTIN: scaled to 2 workers (was 1)");
    cluster.primary().signal(Signal::TTOU);
    online(1);
    said(&cluster, "SIGTTOU: scaled to 1 worker (was 2)");
    cluster.primary().signal(Signal::TTOU);
    said(&cluster, "SIGTTOU: 0 workers requested; must be between 1 and 1024");
    cluster.get("/");
}

#[test]
fn signals_that_were_blocked_or_ignored_at_the_start_arrive_here_and_in_workers() {
    needs!("python3");
    let under = ["env", "--block-signal", "--ignore-signal"];
    let cluster = Cluster::of_servers().under(&under).start();
    let first = cluster.worker(1);
    assert_eq!(first.blocked_signals(), Some(0));
    // Python itself ignores SIGPIPE and SIGXFSZ, and glibc's posix_spawn the two that it uses itself.
    let own = [libc::SIGPIPE, libc::SIGXFSZ, 32, 33].iter().fold(0, |own, signal| own | 1 << (signal - 1));
    assert_eq!(first.ignored_signals().map(|ignored| ignored & !own), Some(0));
    first.signal(Signal::KILL);
    until("another worker has its place", || (cluster.worker(1).pid() != first.pid()).then_some(()));
    cluster.wait_online();
    cluster.primary().signal(Signal::TTIN);
    said(&cluster, "SIGTTIN: scaled to 2 workers (was 1)");
}

/// What `nohup` does is said to clusterd: workers are asked to reload, or to end, with HUP as well.
#[test]
fn workers_of_a_clusterd_under_nohup_do_not_ignore_hup() {
    needs!("python3", "nohup");
    let cluster = Cluster::of_servers().under(&["nohup"]).options("--stop-signal HUP").start();
    let worker = cluster.worker(1);
    assert_eq!(worker.ignored_signals().map(|ignored| ignored & 1), Some(0));
    cluster.primary().signal(Signal::HUP);
    wait_gone(&worker);
    cluster.get("/");
}

#[test]
fn winch_stops_the_workers_and_hup_starts_them_again() {
    needs!("python3", "setsid");
    // Without a terminal, which would send it whenever its size changes.
    let cluster = Cluster::of_servers().workers(2).under(&["setsid", "--wait"]).start();
    let old = [cluster.worker(1), cluster.worker(2)];
    cluster.primary().signal(Signal::WINCH);
    old.iter().for_each(wait_gone);
    said(&cluster, "SIGWINCH: stopped");
    until("clients are refused", || cluster.connect().is_err().then_some(()));
    assert_eq!(cluster.probe("/readyz").status, 503);
    cluster.primary().signal(Signal::HUP);
    cluster.wait_online();
    cluster.get("/");
    said(&cluster, "SIGHUP: 2 workers online");
}

#[test]
fn winch_from_a_terminal_means_nothing() {
    needs!("python3", "script");
    let cluster = Cluster::of_servers().options("--log-level debug").on_a_terminal();
    let output = cluster.stdout.clone();
    let says = |message: &str| {
        until(&format!("it says {message:?}"), || output.text().contains(message).then_some(()));
    };
    says("ready; try");
    cluster.primary().signal(Signal::WINCH);
    says("the terminal has another size");
    assert!(cluster.worker(1).is_alive());
}

/// Without a worker that serves, nothing says so on a terminal.
#[track_caller]
fn wait_ready_on_terminal(cluster: &Cluster) {
    let output = cluster.stdout.clone();
    until("it is ready", || output.text().contains("ready; try").then_some(()));
}

#[test]
fn a_terminal_that_is_closed_ends_what_was_started_in_it() {
    needs!("python3", "script");
    let mut cluster = Cluster::of_servers().workers(2).on_a_terminal();
    wait_ready_on_terminal(&cluster);
    let all = [cluster.primary(), cluster.worker(1), cluster.worker(2)];
    cluster.close_terminal();
    all.iter().for_each(wait_gone);
}

#[test]
fn hup_in_a_terminal_that_is_open_reloads() {
    needs!("python3", "script");
    let cluster = Cluster::of_servers().options("--min-uptime 1ms").on_a_terminal();
    wait_ready_on_terminal(&cluster);
    let old = cluster.worker(1);
    cluster.primary().signal(Signal::HUP);
    wait_gone(&old);
    assert!(cluster.primary().is_alive());
}

#[test]
fn started_with_nohup_it_outlives_its_terminal() {
    needs!("python3", "script", "nohup", "setsid");
    // As nohup(1) does, but with standard streams that stay the terminal's.
    let script = "trap '' HUP; exec \"$@\"";
    for under in [&["sh", "-c", script, "sh"][..], &["nohup"], &["setsid", "-w"]] {
        let mut cluster = Cluster::of_servers().options("--min-uptime 1ms").under(under).on_a_terminal();
        until("a worker is started", || {
            let mut all = cluster.processes().into_iter();
            all.find(|process| process.environment("CLUSTERD_WORKER_ID").is_some())
        });
        let worker = cluster.worker(1);
        let primary = cluster.primary();
        cluster.close_terminal();
        primary.signal(Signal::HUP);
        wait_gone(&worker);
        until("another one is started", || {
            assert!(primary.is_alive(), "{under:?}");
            primary.children().into_iter().find(|child| child.environment("CLUSTERD_WORKER_ID").is_some())
        });
    }
}

/// There, a write raises SIGTTOU unless it is seen to that it does not.
#[test]
fn in_the_background_of_a_terminal_that_stops_writers_it_writes_and_keeps_its_workers() {
    needs!("python3", "script", "bash");
    let in_background = "set -m; stty tostop; \"$@\" & wait";
    let setup = Cluster::of_servers().workers(3).under(&["bash", "-c", in_background, "bash"]);
    let cluster = setup.on_a_terminal();
    let output = cluster.stdout.clone();
    until("every worker listens", || (output.text().matches("worker listens").count() == 3).then_some(()));
    assert!(!output.text().contains("SIGTTOU"), "{}", output.text());
}

#[test]
fn usr1_and_usr2_say_what_is_done() {
    let cluster = Cluster::demo().start();
    cluster.primary().signal(Signal::USR1);
    said(&cluster, "SIGUSR1: ");
    cluster.primary().signal(Signal::USR2);
    said(&cluster, "by SIGUSR2");
    cluster.get("/");
}

#[test]
fn a_stop_that_has_begun_is_not_disturbed_by_other_signals() {
    needs!("python3");
    let mut cluster = Cluster::of_servers().options("--drain-timeout 60s").start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    cluster.primary().signal(Signal::TERM);
    until("the stop has begun", || (cluster.probe("/readyz").status == 503).then_some(()));
    for signal in [Signal::HUP, Signal::TTIN] {
        cluster.primary().signal(signal);
    }
    said(&cluster, "SIGTTIN: clusterd is stopping");
    cluster.open_gate("gate");
    assert!(held.response().is_ok());
    cluster.wait_success();
}
