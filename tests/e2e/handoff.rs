//! Workers that stop or die with a connection in their channel, and bodies too large for one write.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::needs::needs;
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};

/// Stops a worker for good, until it gets SIGCONT.
pub(crate) fn stop(worker: &Process) {
    worker.signal(Signal::STOP);
    until("the worker is stopped", || worker.is_stopped().then_some(()));
}

/// How many listeners of a worker are stuck.
fn stalled(cluster: &Cluster, worker: &str) -> u64 {
    cluster.metrics().count("clusterd_worker_stalled_listeners", &[("worker", worker)])
}

#[test]
fn a_stopped_workers_connection_is_served_by_another_and_it_gets_no_more_until_it_moves() {
    needs!("python3");
    // Nobody else is that late, on a machine that is busy.
    let cluster = Cluster::of_servers().workers(3).options("--redispatch-after 1s").start();
    cluster.get("/");
    let stopped = cluster.worker(2);
    stop(&stopped);

    for _ in 0..12 {
        assert!(!cluster.get("/").starts_with("worker 2 "));
    }
    let metrics = cluster.metrics();
    assert_eq!(
        metrics.count("clusterd_connections_redispatched_total", &[]),
        1,
        "one was enough to find out"
    );
    until("it is found to be stuck", || (stalled(&cluster, "2") == 1).then_some(()));

    stopped.signal(Signal::CONT);
    until("the worker serves again", || cluster.get("/").starts_with("worker 2 ").then_some(()));
    assert_eq!(stalled(&cluster, "2"), 0);
}

#[test]
fn while_workers_stop_and_go_on_each_connection_is_served_exactly_once() {
    needs!("python3");
    const CLIENTS: usize = 8;
    const STOPS: usize = 16;
    let cluster = Cluster::of_servers().workers(4).options("--handoff-timeout 20ms").start();
    let over = AtomicBool::new(false);
    let asked: usize = thread::scope(|scope| {
        let ask = |client: usize| {
            let names = (0..).map(move |request| format!("{client}-{request}"));
            let asked = names.take_while(|_| !over.load(Ordering::Relaxed));
            asked.inspect(|name| drop(cluster.get(&format!("/print/{name}")))).count()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask(client))).collect();
        for slot in (1..=4).cycle().take(STOPS) {
            let worker = cluster.worker(slot);
            stop(&worker);
            until("the worker is found to be stuck", || {
                (stalled(&cluster, &slot.to_string()) == 1).then_some(())
            });
            worker.signal(Signal::CONT);
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    until("each request is printed", || (cluster.stdout.lines().len() >= asked).then_some(()));
    let mut served = cluster.stdout.lines();
    assert_eq!(served.len(), asked, "none was served twice");
    served.sort();
    served.dedup();
    assert_eq!(served.len(), asked, "each was served");
    assert_eq!(cluster.handed(asked as u64).values().sum::<u64>(), asked as u64);
    assert!(cluster.metrics().count("clusterd_connections_redispatched_total", &[]) >= STOPS as u64);
}

#[test]
fn with_every_worker_stopped_connections_wait_and_none_is_lost() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--handoff-timeout 200ms").start();
    let workers = [cluster.worker(1), cluster.worker(2)];
    workers.iter().for_each(stop);
    let pending: Vec<_> = (0..10).map(|_| cluster.send("/")).collect();
    until("both are found to be stuck", || {
        let stalled = cluster.metrics().count("clusterd_worker_stalled_listeners", &[]);
        (stalled == 2).then_some(())
    });
    workers[0].signal(Signal::CONT);
    for request in pending {
        let answer = request.response().expect("the worker that moves again serves all").text();
        assert!(answer.starts_with("worker 1 "), "{answer}");
    }
}

#[test]
fn a_connection_that_a_killed_worker_had_not_taken_goes_to_another() {
    needs!("python3");
    what_a_killed_worker_had_not_taken_is_served(Cluster::of_servers());
}

#[track_caller]
pub(crate) fn what_a_killed_worker_had_not_taken_is_served(setup: Setup) {
    let cluster = setup.workers(2).options("--handoff-timeout 60s --redispatch-after 60s").start();
    let doomed = cluster.worker(1);
    stop(&doomed);
    let pending = [cluster.send("/"), cluster.send("/")];
    until("one connection is served, and the other is in the channel of the stopped worker", || {
        let metrics = cluster.metrics();
        let accepted = metrics.count("clusterd_connections_accepted_total", &[]);
        (accepted == 2 && metrics.handed().values().sum::<u64>() == 1).then_some(())
    });
    doomed.signal(Signal::KILL);
    for request in pending {
        assert_eq!(request.response().expect("both are served").status, 200);
    }
}

#[test]
fn a_storm_of_kills_loses_at_most_the_connection_that_each_killed_worker_had_taken() {
    needs!("python3");
    const WORKERS: u32 = 4;
    const KILLS: u64 = 16;
    let cluster = Cluster::of_servers().env("SERVER_SERIAL", "1").workers(WORKERS).start();
    let (over, served, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let count = if cluster.try_get("/").is_ok() { &served } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for kill in 0..KILLS {
            let before = served.load(Ordering::Relaxed);
            cluster.worker(kill as u32 % WORKERS + 1).signal(Signal::KILL);
            until("the others serve on", || (served.load(Ordering::Relaxed) > before + 20).then_some(()));
        }
        over.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner();
    assert!(failed <= KILLS, "{KILLS} kills lost {failed} of {} connections", served.into_inner());
    cluster.wait_online();
}

#[test]
fn a_slow_reader_gets_all_of_20_mb_while_others_are_served() {
    needs!("python3");
    const SIZE: usize = 20_000_000;
    let cluster = Cluster::of_servers().workers(2).start();
    let mut slow = cluster.connect().expect("the cluster accepts");
    slow.write_all(format!("GET /big/{SIZE} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();

    let mut received = Vec::new();
    let mut part = vec![0; 1 << 20];
    loop {
        let read = slow.read(&mut part).expect("the body goes on");
        if read == 0 {
            break;
        }
        received.extend_from_slice(&part[..read]);
        thread::sleep(Duration::from_millis(2)); // What makes the reader a slow one.
        if received.len() % 7 == 0 {
            cluster.get("/");
        }
    }
    let head = received.windows(4).position(|end| end == b"\r\n\r\n").expect("an end of the head") + 4;
    assert_eq!(received.len() - head, SIZE);
    assert!(received[head..].iter().all(|&byte| byte == b'x'));
}

#[test]
fn an_upload_of_20_mb_arrives_whole() {
    needs!("python3");
    const SIZE: usize = 20_000_000;
    let cluster = Cluster::of_servers().start();
    let mut stream = cluster.connect().expect("the cluster accepts");
    stream.write_all(format!("POST /upload HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(&vec![b'y'; SIZE]).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    assert!(answer.ends_with(&format!("\r\n\r\n{SIZE}")), "{answer}");
}
