//! Servers on runtimes that accept through io_uring: seen to be so once they run, they accept by themselves.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::harness::load::Load;
use crate::harness::needs::needs;
use crate::harness::{Cluster, build, until};

fn is_served(name: &str) {
    needs!("gcc");
    if crate::unfit::ring().is_none() {
        return;
    }
    let Some(program) = build::ring(name) else { return };
    let mut cluster = Cluster::of(&program).workers(3).options("--handoff-timeout 300ms").launch();
    let mut seen = BTreeSet::new();
    until("every worker has answered", || {
        seen.extend(cluster.try_get("/").ok().map(|response| response.text()));
        (seen.len() == 3).then_some(())
    });
    let said = cluster.stderr.text();
    assert!(said.contains("workers accept by themselves from their next start on"), "{said}");
    cluster.wait_online();
    let before = cluster.pids();
    let load = Load::of_requests(&cluster);
    cluster.reload().expect("the new workers start as the old ones did");
    load.goes_on();
    load.lost_nothing();
    assert!(before.is_disjoint(&cluster.pids()));
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn a_server_on_tokio_uring_is_served_without_a_setting() {
    is_served("tokio_uring");
}

#[test]
fn a_server_on_monoio_is_served_without_a_setting() {
    is_served("monoio");
}
