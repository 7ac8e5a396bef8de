//! Workers that leave: of themselves, and at the end of the cluster.

use std::fs;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::{Attach, app, both_ways};
use crate::harness::{Cluster, Signal, until};
use crate::shutdown::{
    an_open_request_is_answered_after_term, nothing_is_left, term_under_load_loses_nothing,
};

both_ways!(
    term_lets_an_open_request_finish_and_disconnects_the_worker,
    an_idle_connection_is_kept_until_the_end_of_the_drain,
    term_under_load_loses_nothing_of_node_workers,
    a_kill_of_the_primary_leaves_no_node_worker,
    a_worker_that_disconnects_is_replaced_and_nobody_notices,
    a_worker_that_leaves_before_it_listens_exits_by_itself,
);

fn term_lets_an_open_request_finish_and_disconnects_the_worker(attach: Attach) {
    let mut cluster = app(attach).env("EVENTS", "1").options("--drain-timeout 60s").start();
    let processes = an_open_request_is_answered_after_term(&cluster);
    let events = cluster.folder().join("events");
    let heard = until("the worker has ended by itself", || {
        fs::read_to_string(&events).ok().filter(|events| events.contains("exit"))
    });
    assert_eq!(heard, "disconnect\nexit 0\n");
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

/// It is closed when the drain is over, and not before: a request may be on its way.
fn an_idle_connection_is_kept_until_the_end_of_the_drain(attach: Attach) {
    let mut cluster = app(attach).workers(2).env("KEEP_ALIVE", "1").options("--drain-timeout 2s").start();
    let mut idle = cluster.connect().expect("the cluster accepts");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the request is sent");
    let mut answer = [0; 1024];
    assert!(idle.read(&mut answer).expect("the answer comes") > 0);

    let begin = Instant::now();
    cluster.primary().signal(Signal::TERM);
    until("it drains", || (cluster.stderr.messages("worker draining").len() == 2).then_some(()));
    assert_eq!(idle.read(&mut answer).expect("it is closed and not reset"), 0);
    assert!(begin.elapsed() >= Duration::from_secs(2), "it took {:?}", begin.elapsed());
    cluster.wait_success();
}

fn term_under_load_loses_nothing_of_node_workers(attach: Attach) {
    term_under_load_loses_nothing(app(attach), |_| {});
}

fn a_kill_of_the_primary_leaves_no_node_worker(attach: Attach) {
    let mut cluster = app(attach).workers(2).start();
    let held = cluster.send("/hold/never");
    cluster.handed(1);
    let processes = cluster.processes();
    cluster.primary().signal(Signal::KILL);
    cluster.wait_exit();
    nothing_is_left(&cluster, &processes);
    assert!(held.response().is_err());
}

/// It asks to listen without having read that it is to leave, and reads that and what it is answered in one.
fn a_worker_that_leaves_before_it_listens_exits_by_itself(attach: Attach) {
    let late = "
        const sleep = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
        sleep(1500);
        require('node:http').createServer((_, response) => response.end('here')).listen(process.env.PORT);
        sleep(500);
    ";
    let cluster = Cluster::of("node late.js")
        .options(attach.option())
        .file("late.js", late)
        .options("--drain-timeout 60s --kill-timeout 60s --log-level debug")
        .start();
    cluster.primary().signal(Signal::TTIN);
    until("the second worker's Node is there", || {
        (cluster.stderr.text().matches("Node is online").count() == 2).then_some(())
    });
    cluster.primary().signal(Signal::TTOU);
    let end = until("it has ended", || {
        let text = cluster.stderr.text();
        text.lines()
            .find(|line| line.contains("worker exited") || line.contains("was killed"))
            .map(str::to_owned)
    });
    assert!(end.contains("exited with code 0"), "{end}");
    assert_eq!(cluster.get("/"), "here");
}

fn a_worker_that_disconnects_is_replaced_and_nobody_notices(attach: Attach) {
    let cluster = app(attach).workers(2).start();
    let leaving = cluster.get("/disconnect");
    for _ in 0..20 {
        assert_ne!(cluster.get("/"), leaving, "it takes no more connections");
    }
    until("it is replaced", || {
        let metrics = cluster.metrics();
        let restarts = metrics.count("clusterd_worker_restarts_total", &[]);
        (restarts == 1 && metrics.count("clusterd_workers", &[("state", "online")]) == 2).then_some(())
    });
}
