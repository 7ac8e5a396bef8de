//! Reloads that succeed.

use super::{App, tests};
use crate::harness::{Load, Signal, until};
use crate::shutdown::term_under_load_loses_nothing;

tests!([python, node, newconn]
    twenty_reloads_under_load_lose_nothing,
    the_end_of_the_cluster_during_a_reload_loses_nothing,
);

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

fn the_end_of_the_cluster_during_a_reload_loses_nothing(app: App) {
    term_under_load_loses_nothing(app.setup(), |cluster| {
        cluster.primary().signal(Signal::HUP);
        let started = || cluster.stderr.messages("worker started").len();
        until("a new worker comes up beside the two", || (started() > 2).then_some(()));
    });
}
