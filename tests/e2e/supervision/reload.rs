//! Reloads that succeed.

use super::{App, tests};
use crate::harness::{Load, Signal, until};

tests!(python, node, newconn: twenty_reloads_under_load_lose_nothing);
tests!(python, node: a_second_reload_is_refused_while_one_is_under_way);

const RELOADS: u64 = 20;
const WORKERS: usize = 2;

fn twenty_reloads_under_load_lose_nothing(app: App) {
    let cluster = app.setup().workers(WORKERS as u32).start();
    let load = Load::of_requests(&cluster);
    let mut before = cluster.pids();
    for reload in 1..=RELOADS {
        cluster.reload().unwrap_or_else(|reason| panic!("reload {reload}: {reason}"));
        let now = cluster.pids();
        assert_eq!(now.len(), WORKERS, "{now:?} after reload {reload}");
        assert!(now.is_disjoint(&before), "reload {reload} has made {now:?} of {before:?}");
        before = now;
    }
    load.lost_nothing();
    let metrics = cluster.metrics();
    assert_eq!(metrics.count("clusterd_reloads_total", &[("result", "done")]), RELOADS);
    assert_eq!(metrics.count("clusterd_workers", &[("state", "online")]), WORKERS as u64);
    assert_eq!(metrics.count("clusterd_workers", &[]), WORKERS as u64, "nobody is there beside them");
    assert_eq!(metrics.count("clusterd_worker_restarts_total", &[]), 0, "a reload is no restart");
}

fn a_second_reload_is_refused_while_one_is_under_way(app: App) {
    let cluster = app.setup().options("--drain-timeout 60s").start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let old = cluster.pids();
    cluster.primary().signal(Signal::HUP);
    cluster.wait_for(1, "draining");
    cluster.primary().signal(Signal::HUP);
    let refusal = until("the second is refused", || cluster.stderr.said(&["SIGHUP: "]).pop());
    assert!(refusal.contains("a reload by SIGHUP is under way"), "{refusal}");
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the held request is answered").status, 200);
    until("the first is done", || cluster.stderr.said(&["reload done"]).pop());
    assert!(cluster.pids().is_disjoint(&old));
}
