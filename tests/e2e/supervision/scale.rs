//! More workers and fewer, one at a time (TTIN, TTOU).

use super::{App, tests};
use crate::harness::{Cluster, Load, Signal, until};

tests!([python, node, newconn] scaling_up_and_down_under_load_loses_nothing);
tests!([python, node] a_worker_that_is_too_many_finishes_what_it_has);

/// Asks for one worker more or fewer, and waits until there are so many and no other.
fn scale(cluster: &Cluster, signal: Signal, workers: usize) {
    cluster.primary().signal(signal);
    until(&format!("{workers} workers are online, and no other is there"), || {
        let online = cluster.metrics().count("clusterd_workers", &[("state", "online")]);
        (online == workers as u64 && cluster.pids().len() == workers).then_some(())
    });
}

fn scaling_up_and_down_under_load_loses_nothing(app: App) {
    let cluster = app.setup().workers(2).start();
    let (load, first) = (Load::of_requests(&cluster), cluster.worker(1).pid());
    for _ in 0..2 {
        for workers in [3, 4] {
            scale(&cluster, Signal::TTIN, workers);
            load.goes_on();
        }
        for workers in [3, 2, 1] {
            scale(&cluster, Signal::TTOU, workers);
            load.goes_on();
        }
        scale(&cluster, Signal::TTIN, 2);
    }
    scale(&cluster, Signal::TTOU, 1);
    cluster.primary().signal(Signal::TTOU);
    let refusal = until("there must be one worker", || cluster.stderr.said(&["SIGTTOU: 0 workers"]).pop());
    assert!(refusal.contains("must be between 1 and 1024"), "{refusal}");
    load.lost_nothing();
    assert_eq!(cluster.worker(1).pid(), first, "it was never one too many");
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
}

fn a_worker_that_is_too_many_finishes_what_it_has(app: App) {
    let cluster = app.setup().workers(2).options("--drain-timeout 60s").start();
    let held = [cluster.send("/hold/gate"), cluster.send("/hold/gate")];
    cluster.handed(2);
    cluster.primary().signal(Signal::TTOU);
    cluster.wait_for(1, "draining");
    for _ in 0..5 {
        assert!(cluster.get("/").starts_with("worker 1 "));
    }
    cluster.open_gate("gate");
    let answers = held.map(|request| request.response().expect("both held requests are answered").text());
    assert!(answers.iter().any(|answer| answer.starts_with("worker 2 ")), "{answers:?}");
    until("the second is gone", || (cluster.pids().len() == 1).then_some(()));
}
