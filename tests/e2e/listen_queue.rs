//! What /metrics says of the kernel's accept queues, and of what did not fit into them.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::handoff::stop;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::samples::Samples;
use crate::harness::{Cluster, Signal, until};

/// What is shown of the queues: how many connections are in them, how many may be, and how full the fullest is.
fn queues(metrics: &Samples, listener: &str) -> (u64, u64, f64) {
    let own = [("listener", listener)];
    let (connections, limit) = ("clusterd_listen_queue_connections", "clusterd_listen_queue_limit");
    let fullest = metrics.sum("clusterd_listen_queue_fullest_ratio", &own);
    (metrics.count(connections, &own), metrics.count(limit, &own), fullest)
}

#[test]
fn a_full_backlog_is_seen_and_what_is_dropped_counted() {
    needs!("python3");
    let options = "--backlog 3 --queue 1 --window 1 --handoff-timeout 60s";
    let setup = Cluster::of_servers().env("SERVER_SERIAL", "1").bind("127.0.0.1:0:8080");
    let cluster = setup.options(options).start();
    let listener = cluster.address().to_string();
    assert_eq!(queues(&cluster.metrics(), &listener), (0, 3, 0.0));
    assert_eq!(cluster.metrics().count("clusterd_listen_dropped_packets_total", &[]), 0);

    let _held = cluster.send("/hold/gate");
    cluster.handed(1);
    let mut waiting = Vec::new();
    let late = until("a client finds no room", || {
        match TcpStream::connect_timeout(&cluster.address(), Duration::from_millis(500)) {
            Ok(client) => waiting.push(client),
            Err(error) => return Some(error),
        }
        None
    });
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    let metrics = until("the queue is full", || {
        let metrics = cluster.metrics();
        // The kernel takes one more than the limit.
        (queues(&metrics, &listener) == (4, 3, 1.0)).then_some(metrics)
    });
    assert!(metrics.count("clusterd_listen_dropped_packets_total", &[("listener", &listener)]) > 0);
    assert!(metrics.count("clusterd_netns_listen_overflows_total", &[]) > 0);
    assert!(metrics.count("clusterd_netns_listen_drops_total", &[]) > 0);

    drop(waiting);
    cluster.open_gate("gate");
    until("the queue is empty", || (queues(&cluster.metrics(), &listener) == (0, 3, 0.0)).then_some(()));
}

/// A server on IPv4 and one on both families have other sockets of the same address.
#[test]
fn a_port_is_one_listener_whatever_families_workers_listen_on() {
    needs!("python3");
    for host in ["", "::"] {
        let cluster = Cluster::of_servers().env("SERVER_HOST", host).options("--backlog 7").start();
        cluster.get("/");
        let page = cluster.probe("/metrics").text();
        let lines = page.lines().filter(|line| line.starts_with("clusterd_listen_queue_limit{"));
        let [line] = lines.collect::<Vec<_>>()[..] else { panic!("{page}") };
        let (label, limit) = line.rsplit_once(' ').expect("a sample");
        let limit: u64 = limit.parse().expect("a number");
        assert!(
            label.contains(&format!("[::]:{}\"", cluster.address().port())) && limit.is_multiple_of(7),
            "{line}"
        );
    }
}

#[test]
fn where_workers_accept_the_queues_of_all_of_them_count() {
    needs!("python3");
    let port = free_port();
    let setup = Cluster::of_servers().port(&port.to_string()).worker_port(port).workers(2);
    let cluster = setup.options("--accept workers --backlog 9").start();
    cluster.get("/");
    let listener = || {
        let page = cluster.probe("/metrics").text();
        let line = page.lines().find(|line| line.starts_with("clusterd_listen_queue_limit{"))?;
        Some(line.split('"').nth(1).expect("a label").to_owned())
    };
    let listener = until("the workers' sockets are listed", listener);
    until("there is one for each worker", || (queues(&cluster.metrics(), &listener).1 == 18).then_some(()));
    cluster.workers().iter().for_each(stop);
    let waiting: Vec<_> = (0..4).map(|_| cluster.connect().expect("the kernel takes it")).collect();
    until("all wait in the kernel", || {
        let (connections, limit, fullest) = queues(&cluster.metrics(), &listener);
        (connections == 4 && limit == 18 && fullest >= 0.2).then_some(())
    });
    drop(waiting);
    cluster.workers().iter().for_each(|worker| worker.signal(Signal::CONT));
}

/// As where a container's filter of system calls does not let clusterd ask.
#[test]
fn what_the_kernel_does_not_tell_is_absent_and_not_zero() {
    needs!("python3");
    let forbids = ["python3", "{fixtures}/forbids.py", "netlink", "1"];
    let cluster = Cluster::demo().under(&forbids).start();
    cluster.get("/");
    let metrics = cluster.metrics();
    for name in [
        "clusterd_listen_queue_connections",
        "clusterd_listen_queue_limit",
        "clusterd_listen_queue_fullest_ratio",
        "clusterd_listen_dropped_packets_total",
    ] {
        assert!(!metrics.has(name, &[]), "{name}");
    }
    assert!(metrics.has("clusterd_netns_listen_drops_total", &[]));
}
