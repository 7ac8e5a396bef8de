//! Servers that a worker sends to its child processes, and closes in its own: natively the child serves on.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::folder::fixtures;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::process::Process;
use crate::harness::{Cluster, Signal, http, until};

fn get(port: u16) -> Option<String> {
    http::request(SocketAddr::from(([127, 0, 0, 1], port)), "GET", "/").ok().map(|answer| answer.text())
}

#[test]
fn without_clusterd_the_child_serves_on() {
    needs!("node");
    let port = free_port();
    let mut parent = Command::new("node");
    parent.arg(fixtures().join("node/handing_over.js")).env("PORT", port.to_string());
    let mut parent = parent.spawn().expect("node can be started");
    assert_eq!(until("the child answers", || get(port)), format!("child of {}", parent.id()));
    let processes = Process::find(parent.id() as i32).expect("it runs").descendants();
    parent.kill().expect("it runs");
    parent.wait().expect("it ends");
    processes.iter().for_each(|process| process.signal(Signal::KILL));
}

#[test]
fn a_child_serves_on_when_its_parent_has_closed_the_server() {
    needs!("node");
    let other = free_port();
    for attach in ["auto", "preload"] {
        let cluster =
            Cluster::of("node {fixtures}/node/handing_over.js").options(&format!("--attach {attach}"));
        // What workers open on demand is Node's primary's to open.
        let ports = if attach == "auto" { vec![other] } else { vec![] };
        let cluster = ports.iter().fold(cluster, |cluster, port| cluster.env("OTHER_PORT", port.to_string()));
        let cluster = cluster.start();
        let expected = format!("child of {}", cluster.worker(1).pid());
        // The worker is ready once it listens on the served port.
        ports.iter().for_each(|&port| drop(until("the other port answers", || get(port))));
        for _ in 0..20 {
            assert_eq!(cluster.get("/"), expected);
            ports.iter().for_each(|&port| assert_eq!(get(port).as_ref(), Some(&expected)));
        }
        assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
    }
}
