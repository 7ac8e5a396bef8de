//! With `--accept workers` Node workers accept by themselves, and clusterd keeps the port open for them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Attach, app, both_ways};
use crate::accepting::{a_stopped_worker_leaves_what_came_to_its_successor, lost};
use crate::handoff::stop;
use crate::harness::needs::{self, needs};
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, http, until};
use crate::shutdown::{nothing_is_left, term_under_load_loses_nothing};

both_ways!(
    workers_share_the_port,
    a_port_opened_on_demand_is_shared,
    a_stopped_worker_leaves_the_connections_to_the_others,
    a_stuck_worker_is_replaced,
    a_killed_worker_loses_nothing_that_it_has_not_accepted,
    a_worker_fewer_and_one_more_lose_nothing,
    source_ip_sends_a_client_to_one_worker,
    with_no_worker_up_connections_wait,
    with_wait_ready_a_worker_counts_once_it_says_so,
    term_under_load_loses_nothing_that_workers_share,
    a_stop_leaves_the_backlog_to_the_workers,
    a_reload_refuses_nobody,
);

/// On a port of its own: what workers share has the same number for them as for clients.
fn sharing(setup: Setup) -> Setup {
    setup.port(&free_port().to_string()).options("--accept workers")
}

fn online(cluster: &Cluster) -> u64 {
    cluster.metrics().count("clusterd_workers", &[("state", "online")])
}

fn workers_share_the_port(attach: Attach) {
    let cluster = sharing(app(attach)).workers(2).start();
    until("it is ready", || (cluster.probe("/readyz").status == 200).then_some(()));
    until("both answer", || cluster.get("/").starts_with("worker 1 ").then_some(()));
    until("both answer", || cluster.get("/").starts_with("worker 2 ").then_some(()));
    if needs::ipv6() {
        let over_ipv6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], cluster.address().port()));
        assert_eq!(http::request(over_ipv6, "GET", "/").expect("an answer").status, 200);
    }
    let metrics = cluster.metrics();
    assert_eq!(metrics.count("clusterd_connections_accepted_total", &[]), 0);
    assert_eq!(metrics.count("clusterd_connections_handed_total", &[]), 0);
}

fn a_port_opened_on_demand_is_shared(attach: Attach) {
    let opened = free_port();
    let script = format!("PORT={opened} exec node {{fixtures}}/node/app.js");
    let setup = Cluster::of("sh -c").arg(&script).workers(2).options(attach.option());
    let mut cluster = sharing(setup).options("--drain-timeout 60s").launch();
    let address = SocketAddr::from(([127, 0, 0, 1], opened));
    until("it is opened", || http::request(address, "GET", "/").ok());
    let held = http::send(address, "GET", "/hold/gate").expect("a worker accepts");
    cluster.primary().signal(Signal::TERM);
    until("it accepts no more", || http::connect(address).is_err().then_some(()));
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the open request is answered").status, 200);
    cluster.wait_success();
}

fn a_stopped_worker_leaves_the_connections_to_the_others(attach: Attach) {
    let cluster = sharing(app(attach)).workers(2).options("--handoff-timeout 300ms").start();
    a_stopped_worker_leaves_what_came_to_its_successor(&cluster);
}

fn a_stuck_worker_is_replaced(attach: Attach) {
    let options = "--handoff-timeout 300ms --stuck-timeout 500ms --drain-timeout 2s --kill-timeout 1s";
    let cluster = sharing(app(attach)).workers(2).options(options).start();
    let stuck = cluster.worker(1);
    stop(&stuck);
    let mut sent = Vec::new();
    until("it is replaced", || {
        sent.push(cluster.send("/"));
        (online(&cluster) == 2 && cluster.worker(1).pid() != stuck.pid()).then_some(())
    });
    until("its successor answers", || cluster.get("/").starts_with("worker 1 ").then_some(()));
}

/// What a worker has not accepted is not lost with it.
fn a_killed_worker_loses_nothing_that_it_has_not_accepted(attach: Attach) {
    let cluster = sharing(app(attach)).workers(3).start();
    for round in 1..=3 {
        let killed = cluster.worker(round);
        stop(&killed);
        let pending: Vec<_> = (0..30).map(|_| cluster.send("/")).collect();
        killed.signal(Signal::KILL);
        for request in pending {
            assert_eq!(request.response().expect("an answer").status, 200);
        }
    }
    assert_eq!(lost(&cluster), 0);
}

fn a_worker_fewer_and_one_more_lose_nothing(attach: Attach) {
    let cluster = sharing(app(attach)).workers(3).start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = || {
            while !over.load(Ordering::Relaxed) {
                let answer = cluster.try_get("/").inspect_err(|_| over.store(true, Ordering::Relaxed));
                assert_eq!(answer.expect("an answer").status, 200);
            }
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(client)).collect();
        for (signal, count) in [(Signal::TTOU, 2), (Signal::TTOU, 1), (Signal::TTIN, 2)] {
            cluster.primary().signal(signal);
            until("there are that many, or a client was not answered", || {
                (online(&cluster) == count || over.load(Ordering::Relaxed)).then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("every request is answered"));
    });
    assert_eq!(lost(&cluster), 0);
}

fn source_ip_sends_a_client_to_one_worker(attach: Attach) {
    let cluster = sharing(app(attach)).workers(3).options("--policy source-ip").start();
    let answers: Vec<_> = (0..30).map(|_| cluster.get("/")).collect();
    let of = |worker: u32| {
        answers.iter().filter(|answer| answer.starts_with(&format!("worker {worker} "))).count()
    };
    // One that is late on a busy machine is left out for a while.
    assert!((1..=3).any(|worker| of(worker) > 20), "{answers:?}");
}

fn with_no_worker_up_connections_wait(attach: Attach) {
    let script = "if [ -e started ]; then while [ ! -e gate ]; do sleep 0.05; done; fi; \
                  touch started; exec node {fixtures}/node/app.js";
    let cluster = sharing(Cluster::of("sh -c").arg(script).options(attach.option())).start();
    let _ = cluster.try_get("/exit/1");
    until("the worker is gone", || (online(&cluster) == 0).then_some(()));
    until("it is not ready", || (cluster.probe("/readyz").status == 503).then_some(()));
    let pending: Vec<_> = (0..10).map(|_| cluster.send("/")).collect();
    cluster.open_gate("gate");
    for request in pending {
        assert_eq!(request.response().expect("the next worker serves all").status, 200);
    }
}

fn with_wait_ready_a_worker_counts_once_it_says_so(attach: Attach) {
    let ready = Cluster::of("node {fixtures}/node/ready.js").options(attach.option());
    let cluster = sharing(ready).options("--wait-ready").launch();
    let listening = cluster.folder().join("listening");
    until("the worker listens", || listening.exists().then_some(()));
    assert_eq!(cluster.get("/"), "worker 1", "nothing keeps connections from it");
    assert_eq!((online(&cluster), cluster.probe("/readyz").status), (0, 503));
    cluster.open_gate("gate");
    cluster.wait_online();
    until("it is ready", || (cluster.probe("/readyz").status == 200).then_some(()));
}

fn term_under_load_loses_nothing_that_workers_share(attach: Attach) {
    term_under_load_loses_nothing(sharing(app(attach)), |_| {});
}

fn a_stop_leaves_the_backlog_to_the_workers(attach: Attach) {
    let mut cluster = sharing(app(attach)).workers(2).options("--drain-timeout 60s").start();
    let workers = [cluster.worker(1), cluster.worker(2)];
    workers.iter().for_each(stop);
    let pending: Vec<_> = (0..10).map(|_| cluster.send("/")).collect();
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    until("the stop has begun", || (cluster.probe("/readyz").status == 503).then_some(()));
    workers.iter().for_each(|worker| worker.signal(Signal::CONT));
    for request in pending {
        assert_eq!(request.response().expect("each takes what came to it").status, 200);
    }
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

fn a_reload_refuses_nobody(attach: Attach) {
    let cluster = sharing(app(attach)).workers(2).start();
    let before = [cluster.worker(1).pid(), cluster.worker(2).pid()];
    let over = AtomicBool::new(false);
    let client = || {
        while !over.load(Ordering::Relaxed) {
            let response = cluster.try_get("/").inspect_err(|_| over.store(true, Ordering::Relaxed));
            assert_eq!(response.expect("an answer").status, 200);
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        cluster.primary().signal(Signal::HUP);
        until("both workers were replaced, or a client was not answered", || {
            let replaced = cluster.worker(1).pid() != before[0] && cluster.worker(2).pid() != before[1];
            ((replaced && online(&cluster) == 2) || over.load(Ordering::Relaxed)).then_some(())
        });
        over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("every request is answered"));
    });
}

#[test]
fn deno_is_refused_with_the_reason() {
    needs!("deno");
    let app = "require('node:http').createServer((q, r) => r.end()).listen(process.env.PORT) \
               .on('error', (error) => { console.log('refused: ' + error.code); process.exit(1); });";
    let cluster = Cluster::of("deno run -A {folder}/app.cjs").file("app.cjs", app);
    let cluster = sharing(cluster).launch();
    let why = "(`--accept workers`), which Deno as a cluster worker cannot; use `--attach preload`";
    until("clusterd says why", || cluster.stderr.text().contains(why).then_some(()));
    until("the server is told", || cluster.stdout.text().contains("refused: ENOTSUP").then_some(()));
}
