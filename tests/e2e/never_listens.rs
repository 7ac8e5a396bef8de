//! A worker that never listens on its port gets a warning that says what was seen and what to do.

use crate::harness::build;
use crate::harness::needs::needs;
use crate::harness::{Cluster, until};

/// The warning about a worker that does not listen, once it came.
fn warning(cluster: &Cluster) -> String {
    until("there is a warning about the worker", || {
        let lines = cluster.stderr.lines();
        lines.into_iter().find(|line| line.contains(r#""level":"WARN""#) && line.contains("listen"))
    })
}

#[track_caller]
fn says(warning: &str, expected: &[&str]) {
    let lower = warning.to_lowercase();
    for expected in expected {
        assert!(lower.contains(expected), "{expected:?} is missing from: {warning}");
    }
}

/// A port that nobody has. It is really bound, since the shim does not see these programs or their port.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

#[test]
fn it_listens_on_another_port() {
    needs!("python3");
    let port = free_port().to_string();
    let cluster = Cluster::of("python3 {fixtures}/server.py").env("SERVER_PORTS", &port).launch();
    says(&warning(&cluster), &[&port, "8080", "--port"]);
}

#[test]
fn it_exits_before_it_listens() {
    let cluster = Cluster::of("sh -c").arg("exit 3").launch();
    says(&warning(&cluster), &["3", "8080"]);
}

#[test]
fn it_does_nothing_at_all() {
    let cluster = Cluster::of("sleep 1000").launch();
    says(&warning(&cluster), &["8080"]);
}

#[test]
fn it_is_a_static_binary() {
    needs!("gcc");
    let program = build::c("static-server", &["gcc", "-static"]);
    let cluster = Cluster::of(&program).worker_port(free_port()).launch();
    says(&warning(&cluster), &["static"]);
}

#[test]
fn it_is_written_in_go() {
    needs!("go");
    let program = build::go("go-server");
    let cluster = Cluster::of(&program).worker_port(free_port()).launch();
    says(&warning(&cluster), &["go"]);
}
