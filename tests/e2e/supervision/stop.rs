//! Workers that are stopped (WINCH) and started again (HUP) while the ports stay open.

use super::{App, tests};
use crate::harness::{Cluster, Load, Signal, until};

tests!([python, node] clients_that_connect_while_all_are_stopped_wait_and_are_served);

fn clients_that_connect_while_all_are_stopped_wait_and_are_served(app: App) {
    // Of its own session: with a terminal, WINCH tells of its size.
    let cluster = app.setup().workers(2).under(&["setsid"]).options("--drain-timeout 60s").start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let (old, load) = (cluster.pids(), Load::of_requests(&cluster));
    cluster.primary().signal(Signal::WINCH);
    cluster.wait_for(1, "draining");
    let waiting: Vec<_> = (0..10).map(|_| cluster.send("/")).collect();
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the open request is answered").status, 200);
    stopped(&cluster);

    cluster.primary().signal(Signal::HUP);
    for request in waiting {
        let answer = request.response().expect("who has waited is served").text();
        let pid = answer.rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        assert!(!old.contains(&pid), "{answer}");
    }
    cluster.wait_online();
    load.goes_on();
    load.lost_nothing();
}

fn stopped(cluster: &Cluster) {
    until("every worker has ended", || cluster.pids().is_empty().then_some(()));
    until("that is said", || cluster.stderr.said(&["SIGWINCH: stopped"]).pop());
    assert_eq!(cluster.probe("/readyz").status, 503);
    assert_eq!(cluster.probe("/livez").status, 200);
}
