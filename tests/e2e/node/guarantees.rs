//! What clusterd promises for every worker, and Node's own primary does not keep for its workers.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};

use super::{Attach, app, both_ways};
use crate::handoff::{stop, what_a_killed_worker_had_not_taken_is_served};
use crate::harness::needs::needs;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};
use crate::servers::answer_in_turn;

both_ways!(
    workers_take_turns,
    a_killed_workers_untaken_connection_goes_to_another,
    a_stopped_workers_connection_is_served_by_another_and_it_gets_no_more_until_it_moves,
    with_every_worker_stopped_connections_wait_and_none_is_lost,
    workers_with_all_the_connections_they_want_do_not_make_the_primary_spin,
    a_worker_without_descriptors_loses_nothing_and_comes_back,
    the_last_worker_that_disconnects_closes_nothing,
    the_last_worker_that_crashes_closes_nothing,
    a_socket_that_a_dead_server_has_left_is_replaced,
);

fn workers_take_turns(attach: Attach) {
    answer_in_turn(&app(attach).taking_turns().start());
}

fn a_killed_workers_untaken_connection_goes_to_another(attach: Attach) {
    what_a_killed_worker_had_not_taken_is_served(app(attach));
}

fn a_stopped_workers_connection_is_served_by_another_and_it_gets_no_more_until_it_moves(attach: Attach) {
    // Nobody else is that late, on a machine that is busy.
    let options = "--handoff-timeout 1s --redispatch-after 1s";
    let cluster = app(attach).workers(3).options(options).start();
    let stopped = cluster.worker(2);
    stop(&stopped);
    let begin = Instant::now();
    for _ in 0..12 {
        assert!(!cluster.get("/").starts_with("worker 2 "));
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "one time-out was enough: {:?}", begin.elapsed());
    let redispatched = cluster.metrics().count("clusterd_connections_redispatched_total", &[]);
    assert_eq!(redispatched, 1, "one connection was enough to find out");
    stopped.signal(Signal::CONT);
    until("the worker serves again", || cluster.get("/").starts_with("worker 2 ").then_some(()));
}

fn with_every_worker_stopped_connections_wait_and_none_is_lost(attach: Attach) {
    let cluster = app(attach).workers(2).options("--handoff-timeout 200ms").start();
    let workers = [cluster.worker(1), cluster.worker(2)];
    workers.iter().for_each(stop);
    let pending: Vec<_> = (0..10).map(|_| cluster.send("/")).collect();
    until("a connection was taken back", || {
        let redispatched = cluster.metrics().count("clusterd_connections_redispatched_total", &[]);
        (redispatched > 0).then_some(())
    });
    workers[0].signal(Signal::CONT);
    for request in pending {
        let answer = request.response().expect("the worker that moves again serves all").text();
        assert!(answer.starts_with("worker 1 "), "{answer}");
    }
}

/// A Node worker with `maxConnections` refuses what comes as `newconn`, and it waits; on a handle of its own it
/// accepts and closes the connection, as under Node's SCHED_NONE. Neither may keep the primary busy.
fn workers_with_all_the_connections_they_want_do_not_make_the_primary_spin(attach: Attach) {
    let cluster = app(attach).workers(2).env("MAX_CONNECTIONS", "1").start();
    let held = [cluster.send("/hold/gate"), cluster.send("/hold/gate")];
    cluster.handed(2);
    let waiting: Vec<_> = (0..5).map(|_| cluster.send("/")).collect();

    let primary = cluster.primary();
    let (begin, used) = (Instant::now(), primary.cpu_ticks());
    until("two seconds have gone by", || (begin.elapsed() > Duration::from_secs(2)).then_some(()));
    let milliseconds = (primary.cpu_ticks() - used) * 1000 / procfs::ticks_per_second();
    assert!(milliseconds < 200, "the primary used {milliseconds} ms of CPU in two seconds");

    cluster.open_gate("gate");
    for request in held {
        assert_eq!(request.response().expect("what a worker has accepted is answered").status, 200);
    }
    for request in waiting {
        let answer = request.response();
        assert!(
            attach == Attach::Auto || answer.is_ok(),
            "what was refused is served in the end: {answer:?}"
        );
    }
    until("both workers serve on", || cluster.get("/").starts_with("worker 1 ").then_some(()));
    until("both workers serve on", || cluster.get("/").starts_with("worker 2 ").then_some(()));
}

fn a_worker_without_descriptors_loses_nothing_and_comes_back(attach: Attach) {
    let script = "ulimit -n 100; exec node {fixtures}/node/app.js";
    let cluster = Cluster::of("sh -c").arg(script).workers(2).options(attach.option()).start();
    until("worker 1 has no descriptor left", || {
        cluster.get("/exhaust/1/gate").starts_with("worker 1 ").then_some(())
    });
    let answers: Vec<_> = (0..40).map(|_| cluster.get("/")).collect();
    let by_the_other = answers.iter().filter(|answer| answer.starts_with("worker 2 ")).count();
    assert!(by_the_other > 20, "worker 1 has no descriptors, and yet it answers: {answers:?}");
    cluster.open_gate("gate");
    until("worker 1 serves again", || cluster.get("/").starts_with("worker 1 ").then_some(()));
}

/// The connection of a worker that moves again is taken, and the next one handed over, before clusterd has a free
/// descriptor to look at it.
#[test]
fn a_primary_without_descriptors_loses_nothing() {
    needs!("node");
    let setup = app(Attach::Node).options("--handoff-timeout 60s --log-level debug");
    let cluster = setup.start();
    let (primary, worker) = (cluster.primary(), cluster.worker(1));
    stop(&worker);
    let pending = [cluster.send("/"), cluster.send("/")];
    until("one is handed over, and one waits", || {
        (cluster.metrics().count("clusterd_queue_connections", &[]) == 1).then_some(())
    });
    let pid = rustix::process::Pid::from_raw(primary.pid());
    let limit = |limit| rustix::process::prlimit(pid, Resource::Nofile, limit).expect("it is our own child");
    let usual =
        limit(Rlimit { current: Some(3), maximum: rustix::process::getrlimit(Resource::Nofile).maximum });
    worker.signal(Signal::CONT);
    until("clusterd waits for a descriptor", || {
        let waits = cluster.stderr.text().contains("waiting until a file descriptor is free");
        waits.then_some(())
    });
    limit(usual);
    for request in pending {
        assert_eq!(request.response().expect("none is lost").status, 200);
    }
}

/// One worker, which is started for the second time only when there is a `gate`.
fn one_worker(attach: Attach) -> Setup {
    let script = "if [ -e started ]; then while [ ! -e gate ]; do sleep 0.05; done; fi; \
                  touch started; exec node {fixtures}/node/app.js";
    Cluster::of("sh -c").arg(script).options(attach.option())
}

/// Connections that come while no worker is up wait for the next one.
#[track_caller]
fn nothing_closes(cluster: &Cluster) {
    until("the worker is gone", || {
        (cluster.metrics().count("clusterd_workers", &[("state", "online")]) == 0).then_some(())
    });
    let pending: Vec<_> = (0..10).map(|_| cluster.send("/")).collect();
    cluster.open_gate("gate");
    for request in pending {
        assert_eq!(request.response().expect("the next worker serves all").status, 200);
    }
}

fn the_last_worker_that_disconnects_closes_nothing(attach: Attach) {
    let cluster = one_worker(attach).start();
    cluster.get("/disconnect");
    nothing_closes(&cluster);
}

fn the_last_worker_that_crashes_closes_nothing(attach: Attach) {
    let cluster = one_worker(attach).start();
    let _ = cluster.try_get("/exit/1");
    nothing_closes(&cluster);
}

fn a_socket_that_a_dead_server_has_left_is_replaced(attach: Attach) {
    let setup = Cluster::of("node {fixtures}/node/unix.js").options(attach.option());
    let (path, seen) = (setup.folder.path().join("open.sock"), setup.folder.path().join("worker-1.json"));
    drop(UnixListener::bind(&path).expect("a socket in the temporary folder"));
    let _cluster = setup.launch();
    let seen = until("the worker has listened", || std::fs::read_to_string(&seen).ok());
    assert_eq!(seen, r#"{"closed":"closed.sock","open":"open.sock"}"#);
}
