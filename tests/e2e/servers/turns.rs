//! Workers take turns, whatever stands between clusterd and the server: what the table does not have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use crate::harness::Cluster;
use crate::harness::build;
use crate::harness::http;
use crate::harness::needs::needs;

/// The connections of the sequential client.
const ROUNDS: u64 = 30;

/// Every request is answered, by whichever process of a worker, and the workers take turns.
#[track_caller]
fn are_served_in_turn(cluster: &Cluster) {
    for _ in 0..ROUNDS {
        cluster.get("/");
    }
    took_turns(&cluster.handed(ROUNDS), ROUNDS);
}

/// As [`are_served_in_turn`], and the answers, which say `worker N`, agree with the metrics.
#[track_caller]
pub(crate) fn answer_in_turn(cluster: &Cluster) {
    let mut answers = BTreeMap::<String, u64>::new();
    for _ in 0..ROUNDS {
        let answer = cluster.get("/");
        let worker =
            answer.strip_prefix("worker ").unwrap_or_else(|| panic!("an answer of a worker: {answer}"));
        *answers.entry(worker.split(' ').next().expect("a number").to_owned()).or_default() += 1;
    }
    assert_eq!(cluster.handed(ROUNDS), answers, "metrics and answers agree");
    took_turns(&answers, ROUNDS);
}

#[track_caller]
pub(super) fn took_turns(connections: &BTreeMap<String, u64>, total: u64) {
    let (fewest, most) = (connections.values().min(), connections.values().max());
    assert_eq!(connections.len(), 3, "three workers served: {connections:?}");
    assert_eq!(
        connections.values().sum::<u64>(),
        total,
        "each connection was handed over once: {connections:?}"
    );
    assert!(most.unwrap() - fewest.unwrap() <= 1, "within one of each other: {connections:?}");
}

#[test]
fn the_demo_takes_turns() {
    let cluster = Cluster::demo().taking_turns().start();
    for _ in 0..ROUNDS {
        assert!(cluster.get("/").starts_with("hello from worker "));
    }
    took_turns(&cluster.handed(ROUNDS), ROUNDS);
}

#[test]
fn a_server_below_a_shell_takes_turns() {
    needs!("python3");
    let cluster =
        Cluster::of("sh -c").arg("echo started; python3 {fixtures}/server.py; true").taking_turns().start();
    answer_in_turn(&cluster);
}

#[test]
fn node_below_a_program_that_closes_descriptors_takes_turns() {
    needs!("node", "python3");
    let script = "import subprocess, sys; sys.exit(subprocess.run(['node', sys.argv[1]]).returncode)";
    let cluster = Cluster::of("python3 -c").arg(script).arg("{fixtures}/server.js").taking_turns();
    answer_in_turn(&cluster.start());
}

#[test]
fn node_after_another_program_of_node_takes_turns() {
    needs!("node");
    let script = "node {folder}/prepare.js && node {fixtures}/server.js";
    let cluster =
        Cluster::of("sh -c").arg(script).file("prepare.js", "console.log('prepared');").taking_turns();
    answer_in_turn(&cluster.start());
}

#[test]
fn redis_takes_turns_with_its_own_client() {
    needs!("redis-server", "redis-cli");
    let cluster = Cluster::of("redis-server --port {port}").arg("--save").arg("").taking_turns().start();
    for _ in 0..ROUNDS {
        let port = cluster.address().port().to_string();
        let mut client = Command::new("redis-cli");
        client.args(["-h", "127.0.0.1", "-p", &port, "-r", "3", "INCR", "counter"]);
        let output = client.output().expect("redis-cli can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        let counts = text.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("a number: {text}")));
        let counts: Vec<u64> = counts.collect();
        assert_eq!(counts.len(), 3, "{text}");
        assert_eq!(counts[2], counts[0] + 2, "one connection speaks to one server: {text}");
    }
    took_turns(&cluster.handed(ROUNDS), ROUNDS);
}

#[test]
fn a_program_that_uses_musl_takes_turns() {
    needs!("musl-gcc");
    are_served_in_turn(&Cluster::of(&build::c("musl-server", &["musl-gcc"])).taking_turns().start());
}

/// Asks for `path`, which tells the client's address, over `address`; says what the server saw and what it is.
fn seen_and_true(path: &str, address: SocketAddr) -> (String, String) {
    let stream = http::connect(address).expect("the cluster accepts");
    let own = stream.local_addr().expect("a connected socket has an address");
    let pending = http::send_on(stream, "GET", path).expect("the request is sent");
    let seen = pending.response().expect("the cluster answers").text();
    (seen, format!("{} {}", own.ip(), own.port()))
}

#[test]
fn a_server_sees_the_address_of_its_client() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    for path in ["/peer", "/getpeername"] {
        let (seen, own) = seen_and_true(path, cluster.address());
        assert_eq!(seen, own, "by {path}");
    }
}
