//! More connections than idle workers: they wait, in a bounded queue and behind it in the kernel's backlog.

use crate::harness::http::Pending;
use crate::harness::needs::needs;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, until};

/// Workers that serve one connection at a time, so that one held request keeps a worker busy.
fn serial(workers: u32) -> Setup {
    Cluster::of_servers().env("SERVER_SERIAL", "1").workers(workers)
}

fn all_are_answered(pending: Vec<Pending>) {
    for (index, request) in pending.into_iter().enumerate() {
        let response = request.response().unwrap_or_else(|error| panic!("request {index}: {error}"));
        assert_eq!(response.status, 200);
    }
}

#[test]
fn a_full_queue_refuses_nobody_and_the_backlog_holds_the_rest() {
    needs!("python3");
    let cluster = serial(2).options("--queue 4 --handoff-timeout 60s").start();
    let pending: Vec<_> = (0..40).map(|_| cluster.send("/hold/gate")).collect();

    let accepted = 2 + 2 + 4;
    until("both workers are busy and the queue is full", || {
        let metrics = cluster.metrics();
        let waiting = metrics.count("clusterd_queue_connections", &[]);
        assert!(waiting <= 4, "{waiting} connections are in a queue of 4");
        assert!(metrics.count("clusterd_connections_accepted_total", &[]) <= accepted, "accepting stops");
        (waiting == 4).then_some(())
    });

    cluster.open_gate("gate");
    all_are_answered(pending);
    assert_eq!(cluster.handed(40).values().sum::<u64>(), 40);
}

/// A cluster whose only worker has served and is gone, and whose next one waits for the gate.
fn without_a_worker(setup: impl FnOnce(Setup) -> Setup) -> Cluster {
    let script = "if [ -e started ]; then while [ ! -e gate ]; do sleep 0.05; done; fi; \
                  touch started; exec python3 {fixtures}/server.py";
    let cluster = setup(Cluster::of("sh -c").arg(script)).start();
    let _ = cluster.try_get("/exit/1");
    cluster.wait_for(0, "online");
    cluster
}

#[test]
fn connections_that_come_while_every_worker_is_dead_wait_for_the_next() {
    needs!("python3");
    let cluster = without_a_worker(|setup| setup);
    let pending: Vec<_> = (0..20).map(|_| cluster.send("/")).collect();
    cluster.open_gate("gate");
    all_are_answered(pending);
}

#[test]
fn a_connection_that_waits_too_long_is_closed_and_counted() {
    needs!("python3");
    let cluster = serial(1).options("--handoff-timeout 200ms --queue-timeout 2s").start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let waiting: Vec<_> = (0..5).map(|_| cluster.send("/")).collect();
    for request in waiting {
        assert!(request.response().is_err(), "no worker was free, and yet there is an answer");
    }
    until("five connections are counted as rejected", || {
        let rejected =
            cluster.metrics().count("clusterd_connections_rejected_total", &[("reason", "queue_timeout")]);
        (rejected == 5).then_some(())
    });
    cluster.open_gate("gate");
    assert!(held.response().is_ok(), "the connection that a worker had taken is served");
    cluster.get("/");
}

#[test]
fn a_primary_without_free_descriptors_refuses_nobody_and_loses_nothing() {
    needs!("python3");
    let few = "ulimit -n 64; exec \"$@\"";
    let cluster = without_a_worker(|setup| setup.under(&["sh", "-c", few, "sh"]));
    let pending: Vec<_> = (0..200).map(|_| cluster.send("/")).collect();
    assert_eq!(cluster.probe("/livez").status, 200, "there are descriptors for the probes");
    cluster.open_gate("gate");
    all_are_answered(pending);
}

#[test]
fn clients_that_give_up_cost_nobody_else_anything() {
    needs!("python3");
    let cluster = serial(2).options("--handoff-timeout 60s").start();
    let held = [cluster.send("/hold/gate"), cluster.send("/hold/gate")];
    for _ in 0..50 {
        drop(cluster.connect().expect("the kernel accepts"));
    }
    let patient: Vec<_> = (0..10).map(|_| cluster.send("/")).collect();
    cluster.open_gate("gate");
    all_are_answered(held.into());
    all_are_answered(patient);
}
