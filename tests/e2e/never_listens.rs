//! A worker that never listens on its port gets a warning that says what was seen and what to do.

use crate::harness::build;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::{Cluster, Signal, until};

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

/// With the shim alone.
#[test]
fn it_is_a_static_binary() {
    needs!("gcc");
    let program = build::c("static-server", &["gcc", "-static"]);
    let cluster = Cluster::of(&program).worker_port(free_port()).options("--attach preload").launch();
    says(&warning(&cluster), &["static", "--attach seccomp"]);
}

#[test]
fn it_is_written_in_go() {
    needs!("go");
    let program = build::go("go-server", "server.go");
    let cluster = Cluster::of(&program).worker_port(free_port()).options("--attach preload").launch();
    says(&warning(&cluster), &["go", "--attach seccomp"]);
}

/// Serves until its standard input ends.
const UNTIL_END_OF_INPUT: &str = "
import http.server, os, sys, threading
server = http.server.HTTPServer(('', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
";

#[test]
fn it_ends_with_its_standard_input() {
    needs!("python3");
    let program = "import sys; sys.stdin.read()";
    let cluster = Cluster::of("python3 -c").arg(program).launch();
    let warning = warning(&cluster);
    says(&warning, &["code 0", "standard input", "--stdin open"]);
    assert!(!warning.contains("daemon off"), "{warning}");
}

#[test]
fn it_ends_with_its_standard_input_as_soon_as_it_listens() {
    needs!("python3");
    // On a loaded machine it may take long to start.
    let options = "--min-uptime 30s --max-restarts 0";
    let ended = Cluster::of("python3 -c").arg(UNTIL_END_OF_INPUT).options(options).run();
    let last = ended.stderr.lines().last().expect("it says why");
    says(last, &["exited with code 0", "standard input", "--stdin open"]);
}

#[test]
fn a_server_that_stops_at_the_end_of_its_input_serves_while_that_is_open() {
    needs!("python3");
    let mut cluster =
        Cluster::of("python3 -c").arg(UNTIL_END_OF_INPUT).options("--stdin open").workers(2).start();
    for _ in 0..4 {
        cluster.get("/");
    }
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn it_has_become_a_daemon() {
    needs!("sh", "setsid");
    let cluster = Cluster::of("sh -c").arg("setsid sleep 1000 & sleep 0.1").launch();
    says(&warning(&cluster), &["code 0", "daemon mode off"]);
}

#[test]
fn it_listens_and_does_not_say_that_it_is_ready() {
    needs!("python3");
    let cluster = Cluster::of_servers().options("--wait-ready --ready-timeout 8s").launch();
    let warning = warning(&cluster);
    says(&warning, &["listens on port 8080 and is not ready after 4s", "--wait-ready", "ready=1"]);
}

#[test]
fn what_it_is_stands_in_the_last_line_too() {
    needs!("go");
    let program = build::go("go-server", "server.go");
    // Nobody else can listen on it.
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket has an address").port();
    let ended = Cluster::of(&program).worker_port(port).options("--max-restarts 1 --attach preload").run();
    let last = ended.stderr.lines().last().expect("it says why");
    says(last, &["every worker has ended for good", "is a go program"]);
}
