//! Workers that do not take their connection at once, while others have nothing to do.
//!
//! The hand-off timeout is far longer than any test waits, so whoever is answered was not helped by it.

use std::time::{Duration, Instant};

use crate::handoff::stop;
use crate::harness::needs::needs;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};

/// A late worker's connection is served within a fraction of this, also on a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn patient(setup: Setup, workers: u32) -> Cluster {
    setup.workers(workers).options("--handoff-timeout 60s").start()
}

fn late(cluster: &Cluster, worker: &str) -> u64 {
    cluster.metrics().count("clusterd_worker_late_connections_total", &[("worker", worker)])
}

/// One of four workers is stopped, and the others are idle.
#[track_caller]
fn nobody_waits_for_a_stopped_worker(setup: Setup) {
    let cluster = patient(setup, 4);
    let stopped = cluster.worker(3);
    stop(&stopped);
    for _ in 0..20 {
        let begin = Instant::now();
        assert!(!cluster.get("/").starts_with("worker 3"));
        assert!(begin.elapsed() < AT_ONCE, "a client waited for {:?}", begin.elapsed());
    }
    let metrics = cluster.metrics();
    assert_eq!(late(&cluster, "3"), 1, "it is not fed another one");
    assert_eq!(metrics.count("clusterd_worker_stalled_listeners", &[]), 0, "it is only late");
    stopped.signal(Signal::CONT);
    until("it serves again", || cluster.get("/").starts_with("worker 3").then_some(()));
}

#[test]
fn nobody_waits_for_a_stopped_worker_in_python() {
    needs!("python3");
    nobody_waits_for_a_stopped_worker(Cluster::of_servers());
}

#[test]
fn nobody_waits_for_a_stopped_worker_in_node() {
    needs!("node");
    nobody_waits_for_a_stopped_worker(Cluster::of("node {fixtures}/server.js"));
}

#[test]
fn the_first_worker_that_becomes_idle_gets_a_late_ones_connection() {
    needs!("python3");
    let cluster = patient(Cluster::of_servers().env("SERVER_SERIAL", "1"), 2);
    // Both are at work, each has one more to take, and one is stopped.
    let held = [cluster.send("/hold/gate"), cluster.send("/hold/gate")];
    cluster.handed(2);
    let stopped = cluster.worker(2);
    stop(&stopped);
    let waiting = [cluster.send("/"), cluster.send("/")];
    until("all are accepted", || {
        let accepted = cluster.metrics().count("clusterd_connections_accepted_total", &[]);
        (accepted == 4).then_some(())
    });
    cluster.open_gate("gate");
    for request in waiting {
        let answer = request.response().expect("none is lost").text();
        assert!(answer.starts_with("worker 1 "), "{answer}");
    }
    assert_eq!(late(&cluster, "2"), 1);
    stopped.signal(Signal::CONT);
    for request in held {
        assert_eq!(request.response().expect("both were taken").status, 200);
    }
}

#[test]
fn a_worker_that_computes_now_and_then_is_no_alarm() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).env("SERVER_SERIAL", "1");
    let cluster = cluster.options("--handoff-timeout 60s --stuck-timeout 60s").start();
    let pids = cluster.pids();
    for turn in 0..3 {
        let gate = format!("gate{turn}");
        let computes = cluster.send(&format!("/hold/{gate}"));
        let before = cluster.metrics().count("clusterd_worker_late_connections_total", &[]);
        until("it was late for one", || {
            let begin = Instant::now();
            cluster.get("/");
            assert!(begin.elapsed() < AT_ONCE, "a client waited for {:?}", begin.elapsed());
            let now = cluster.metrics().count("clusterd_worker_late_connections_total", &[]);
            (now > before).then_some(())
        });
        cluster.open_gate(&gate);
        assert_eq!(computes.response().expect("it is answered").status, 200);
        for worker in ["worker 1 ", "worker 2 "] {
            until("both serve on", || cluster.get("/").starts_with(worker).then_some(()));
        }
    }
    assert_eq!(cluster.metrics().count("clusterd_worker_stalled_listeners", &[]), 0);
    assert_eq!(cluster.pids(), pids);
    assert!(!cluster.stderr.text().contains("took no connection in time"));
}
