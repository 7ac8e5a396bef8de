//! Workers that are killed while they are replaced, old ones and new ones: no connection that a worker had not taken
//! is lost.

use std::collections::BTreeSet;

use super::{App, tests};
use crate::harness::process::Process;
use crate::harness::{Cluster, Load, Signal, until};

tests!([python, node, newconn] kills_during_reloads_lose_no_untaken_connection);

const WORKERS: u32 = 3;
const KILLS: usize = 12;

fn kills_during_reloads_lose_no_untaken_connection(app: App) {
    let cluster = app.setup().workers(WORKERS).start();
    let load = Load::of_requests(&cluster);
    let mut taken = BTreeSet::new();
    for kill in 0..KILLS {
        // One that comes while another is under way is refused.
        cluster.primary().signal(Signal::HUP);
        load.goes_on();
        let mut workers = cluster.workers();
        // The old one, the new one, or a neighbour, however far they are.
        let victim = workers.swap_remove(kill % workers.len());
        taken.extend(end(&victim, &load));
    }
    let lost = load.lost();
    let untaken: Vec<_> = lost.difference(&taken).collect();
    assert!(untaken.is_empty(), "{untaken:?} of {lost:?} were never taken by a killed worker");
    recovers(&cluster);
}

/// Kills a worker, and returns the clients' ports of the connections that it had taken.
fn end(worker: &Process, load: &Load) -> BTreeSet<u16> {
    worker.signal(Signal::STOP);
    until("it is stopped, or has ended", || (worker.is_stopped() || !worker.is_alive()).then_some(()));
    load.goes_on();
    let taken = worker.clients();
    worker.signal(Signal::KILL);
    until("it is gone", || (!worker.is_alive()).then_some(()));
    taken
}

fn recovers(cluster: &Cluster) {
    until("no reload is under way", || {
        let said = |beginning| cluster.stderr.said(&[beginning]).len();
        (said("reload started by") == said("reload done") + said("reload failed")).then_some(())
    });
    cluster.wait_for(u64::from(WORKERS), "online");
    cluster.reload().expect("nobody is killed any more");
    assert_eq!(cluster.pids().len(), WORKERS as usize);
}
