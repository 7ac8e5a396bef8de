//! Workers that leave with a request open: it is answered, unless it takes longer than the drain timeout.

use std::time::{Duration, Instant};

use super::{App, tests};
use crate::harness::http::Pending;
use crate::harness::{Cluster, Signal, until};

tests!([python, node, newconn]
    an_open_request_outlives_a_reload,
    an_open_request_outlives_a_reload_and_the_end_of_the_cluster,
);
tests!([python, node]
    a_reload_cuts_a_request_after_the_drain_timeout_and_not_before,
    the_end_of_the_cluster_cuts_a_request_after_the_drain_timeout_and_not_before,
);

/// A request that the old worker holds, when its successor serves already.
fn held_by_the_old_one(cluster: &Cluster) -> (Pending, String) {
    let old = format!("worker 1 pid {}", cluster.worker(1).pid());
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    cluster.primary().signal(Signal::HUP);
    cluster.wait_for(1, "draining");
    let new = cluster.get("/");
    assert!(new.starts_with("worker 1 pid ") && new != old, "{new} has replaced {old}");
    (held, old)
}

fn an_open_request_outlives_a_reload(app: App) {
    let cluster = app.setup().options("--drain-timeout 60s").start();
    let (held, old) = held_by_the_old_one(&cluster);
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the held request is answered").text(), old);
    until("the reload is done", || cluster.stderr.said(&["reload done"]).pop());
    assert_eq!(cluster.pids().len(), 1, "the old worker is gone");
}

fn an_open_request_outlives_a_reload_and_the_end_of_the_cluster(app: App) {
    let mut cluster = app.setup().options("--drain-timeout 60s").start();
    let (by_the_old, old) = held_by_the_old_one(&cluster);
    let by_the_new = cluster.send("/hold/gate");
    cluster.handed(3);
    cluster.primary().signal(Signal::TERM);
    until("it accepts no more", || cluster.connect().is_err().then_some(()));
    cluster.open_gate("gate");
    assert_eq!(by_the_old.response().expect("the first request is answered").text(), old);
    assert_eq!(by_the_new.response().expect("the second request is answered").status, 200);
    cluster.wait_success();
}

/// The drain timeout of a cluster, and what shows that it is not its default.
const DRAIN: Duration = Duration::from_secs(1);
const DEFAULT: Duration = Duration::from_secs(6);

fn is_about_the_drain_timeout(taken: Duration) {
    assert!(taken >= DRAIN && taken < DEFAULT, "the request was cut after {taken:?}, not after {DRAIN:?}");
}

fn a_reload_cuts_a_request_after_the_drain_timeout_and_not_before(app: App) {
    let cluster = app.setup().options("--drain-timeout 1s").start();
    let held = cluster.send("/hold/never");
    cluster.handed(1);
    cluster.reload().expect("an old worker that does not end by itself is ended");
    assert!(held.response().is_err(), "the held request was cut off");
    // Not from the signal: the new worker has to come up first.
    let at = |message| {
        let said = cluster.stderr.messages(message).pop().expect("it was said");
        humantime::parse_rfc3339(said["timestamp"].as_str().expect("a time")).expect("a time")
    };
    let ended = cluster.stderr.said(&["worker was killed by SIGTERM"]).pop().expect("it was said");
    let taken = at(&ended).duration_since(at("worker draining")).expect("one after the other");
    is_about_the_drain_timeout(taken);
}

fn the_end_of_the_cluster_cuts_a_request_after_the_drain_timeout_and_not_before(app: App) {
    let mut cluster = app.setup().options("--drain-timeout 1s").start();
    let held = cluster.send("/hold/never");
    cluster.handed(1);
    let begin = Instant::now();
    cluster.primary().signal(Signal::TERM);
    assert!(held.response().is_err(), "the held request was cut off");
    is_about_the_drain_timeout(begin.elapsed());
    cluster.wait_success();
}
