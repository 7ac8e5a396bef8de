//! What happens when a worker's process ends by itself.

use std::fs;

use crate::harness::needs::needs;
use crate::harness::{Cluster, Signal, until};

fn restarts(cluster: &Cluster, worker: &str) -> u64 {
    cluster.metrics().count("clusterd_worker_restarts_total", &[("worker", worker)])
}

#[test]
fn a_worker_that_ran_well_is_replaced_when_it_crashes() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let first = cluster.worker(1);
    until("the worker has run for a while", || (first.age()? > 1.5).then_some(()));
    first.signal(Signal::KILL);
    until("it is gone", || (!first.is_alive()).then_some(()));
    assert_ne!(cluster.worker(1).pid(), first.pid());
    cluster.wait_online();
    assert_eq!(restarts(&cluster, "1"), 1);
    assert_eq!(restarts(&cluster, "2"), 0);
}

#[test]
fn a_worker_that_exits_with_success_is_replaced_too() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    let first = cluster.worker(1);
    let _ = cluster.try_get("/exit/0");
    until("it is gone", || (!first.is_alive()).then_some(()));
    cluster.get("/");
    until("the restart is counted", || (restarts(&cluster, "1") == 1).then_some(()));
}

#[test]
fn the_rest_of_a_dead_workers_process_group_goes_with_it() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    let child: i32 = cluster.get("/child").parse().expect("a pid");
    let _ = cluster.try_get("/exit/1");
    until("its child is gone", || crate::harness::process::Process::find(child).is_none().then_some(()));
}

#[test]
fn a_crash_loop_slows_down() {
    let script = "cat /proc/uptime >>starts; exit 7";
    let cluster = Cluster::of("sh -c").arg(script).launch();
    let starts: Vec<f64> = until("it was started six times", || {
        let starts = fs::read_to_string(cluster.folder().join("starts")).ok()?;
        let starts: Option<Vec<_>> =
            starts.lines().map(|line| line.split(' ').next()?.parse().ok()).collect();
        starts.filter(|starts| starts.len() >= 6)
    });
    let last = starts[5] - starts[4];
    assert!(last > 0.5, "the fifth restart came {last} s after the fourth: {starts:?}");
    assert!(restarts(&cluster, "1") >= 5);
    assert_eq!(cluster.probe("/livez").status, 200);
}
