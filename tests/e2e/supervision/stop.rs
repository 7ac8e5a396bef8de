//! Workers that are stopped (WINCH) and started again (HUP) while clusterd keeps the ports, and refuses clients.

use super::{App, tests};
use crate::harness::{Cluster, Signal, until};

tests!([python, node] clients_that_connect_while_all_are_stopped_are_refused);

fn clients_that_connect_while_all_are_stopped_are_refused(app: App) {
    // Of its own session: with a terminal, WINCH tells of its size.
    let cluster = app.setup().workers(2).under(&["setsid"]).options("--drain-timeout 60s").start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let old = cluster.pids();
    cluster.primary().signal(Signal::WINCH);
    cluster.wait_for(1, "draining");
    until("clients are refused", || cluster.connect().is_err().then_some(()));
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the open request is answered").status, 200);
    stopped(&cluster);
    assert!(cluster.connect().is_err());

    cluster.primary().signal(Signal::HUP);
    cluster.wait_online();
    let answer = cluster.get("/");
    let pid = answer.rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    assert!(!old.contains(&pid), "{answer}");
}

fn stopped(cluster: &Cluster) {
    until("every worker has ended", || cluster.pids().is_empty().then_some(()));
    until("that is said", || cluster.stderr.said(&["SIGWINCH: stopped"]).pop());
    assert_eq!(cluster.probe("/readyz").status, 503);
    assert_eq!(cluster.probe("/livez").status, 200);
}
