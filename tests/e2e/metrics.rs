//! /metrics counts exactly, and the probes tell the truth.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::harness::needs::needs;
use crate::harness::{Cluster, Signal, http, until};

#[test]
fn a_hundred_connections_are_a_hundred_accepted_and_a_hundred_handed_over() {
    needs!("python3");
    let cluster = Cluster::of_servers().taking_turns().start();
    for _ in 0..100 {
        cluster.get("/");
    }
    assert_eq!(cluster.handed(100).values().sum::<u64>(), 100);
    let metrics = cluster.metrics();
    assert_eq!(metrics.count("clusterd_connections_accepted_total", &[]), 100);
    assert_eq!(metrics.count("clusterd_connections_redispatched_total", &[]), 0);
    assert_eq!(metrics.count("clusterd_connections_rejected_total", &[]), 0);
    assert_eq!(metrics.count("clusterd_queue_connections", &[]), 0);
    let measured = metrics.count("clusterd_handoff_duration_seconds_count", &[]);
    assert!((1..=100).contains(&measured), "{measured}: it is a sample");
    assert_eq!(metrics.count("clusterd_queue_wait_seconds_count", &[]), 100);
}

#[test]
fn the_workers_are_counted_and_measured() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    let metrics = cluster.metrics();
    assert_eq!(metrics.count("clusterd_workers", &[("state", "online")]), 2);
    assert_eq!(metrics.count("clusterd_workers", &[]), 2, "a worker is in one state");
    assert_eq!(metrics.count("clusterd_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1);
    for worker in ["1", "2"] {
        let own = [("worker", worker)];
        assert!(metrics.sum("clusterd_worker_resident_memory_bytes", &own) > 1e6);
        assert!(metrics.sum("clusterd_worker_open_fds", &own) >= 3.0);
        assert!(metrics.sum("clusterd_worker_start_time_seconds", &own) > 1.6e9);
        assert!(metrics.has("clusterd_worker_cpu_seconds_total", &own));
    }
    assert!(metrics.sum("process_resident_memory_bytes", &[]) > 0.0);
}

#[test]
fn ready_means_that_a_worker_listens_and_that_no_shutdown_has_begun() {
    needs!("python3");
    let mut cluster =
        Cluster::of_servers().env("SERVER_GATE", "gate").options("--drain-timeout 60s").launch();
    assert_eq!(cluster.probe("/livez").status, 200);
    let before = cluster.probe("/readyz");
    assert_eq!(before.status, 503, "no worker listens yet");
    assert!(before.text().contains("8080"), "it says what it waits for: {}", before.text());

    cluster.open_gate("gate");
    until("it is ready", || (cluster.probe("/readyz").status == 200).then_some(()));

    let held = cluster.send("/hold/end");
    cluster.handed(1);
    cluster.primary().signal(Signal::TERM);
    until("it is not ready any more", || (cluster.probe("/readyz").status == 503).then_some(()));
    assert_eq!(cluster.probe("/livez").status, 200, "a shutdown is no reason to be killed");

    cluster.open_gate("end");
    assert!(held.response().is_ok(), "the held request is answered");
    cluster.wait_success();
}

#[test]
fn ready_means_a_worker_for_every_port() {
    needs!("python3");
    let cluster = Cluster::of_servers().port("0:8080").port("0:8081").launch();
    cluster.wait_listening();
    cluster.get("/");
    assert_eq!(cluster.probe("/readyz").status, 503);
}

#[test]
fn without_a_worker_it_is_not_ready_any_more() {
    needs!("python3");
    let script = "[ -e down ] && sleep 1000; touch down; exec python3 {fixtures}/server.py";
    let cluster = Cluster::of("sh -c").arg(script).start();
    until("it is ready", || (cluster.probe("/readyz").status == 200).then_some(()));
    let _ = cluster.try_get("/exit/1");
    until("it is not ready", || (cluster.probe("/readyz").status == 503).then_some(()));
}

#[test]
fn the_metrics_port_answers_nothing_but_its_three_paths_and_the_page() {
    let cluster = Cluster::demo().start();
    assert_eq!(http::request(cluster.admin(), "GET", "/").unwrap().status, 200);
    assert_eq!(http::request(cluster.admin(), "GET", "/v1/apps").unwrap().status, 404);
    assert_eq!(http::request(cluster.admin(), "POST", "/").unwrap().status, 405);
    assert_eq!(http::request(cluster.admin(), "POST", "/metrics").unwrap().status, 405);
    let head = http::request(cluster.admin(), "HEAD", "/livez").unwrap();
    assert_eq!(head.status, 200);
    let metrics = cluster.probe("/metrics");
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
}

/// As `printf 'GET /livez HTTP/1.0\r\n\r\n' | nc -N` does.
#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answer() {
    let cluster = Cluster::demo().start();
    for (path, end) in [("/livez", "ok\n"), ("/metrics", "\n")] {
        let mut stream = http::connect(cluster.admin()).expect("it listens");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("sent");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with(end), "{path}: {answer}");
    }
}

#[test]
fn silent_clients_of_the_metrics_port_do_not_keep_others_out() {
    let cluster = Cluster::demo().start();
    let silent: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(cluster.admin()).ok()).collect();
    until("a probe is answered beside silent clients", || {
        http::request(cluster.admin(), "GET", "/livez").is_ok_and(|answer| answer.status == 200).then_some(())
    });
    drop(silent);
}
