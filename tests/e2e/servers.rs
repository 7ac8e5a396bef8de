//! Real servers, not a line of them changed, each behind three workers that are served in turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use crate::harness::Cluster;
use crate::harness::build;
use crate::harness::http;
use crate::harness::needs::{ipv6, needs};

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
fn took_turns(connections: &BTreeMap<String, u64>, total: u64) {
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
fn python_http_server_takes_turns() {
    needs!("python3");
    are_served_in_turn(&Cluster::of("python3 -m http.server {port}").taking_turns().start());
}

#[test]
fn asyncio_takes_turns() {
    needs!("python3");
    answer_in_turn(&Cluster::of("python3 {fixtures}/asyncio_server.py").taking_turns().start());
}

#[test]
fn gunicorn_with_two_processes_takes_turns() {
    needs!("gunicorn");
    let command = "gunicorn -b 0.0.0.0:{port} -w 2 --chdir {fixtures} web_app:wsgi";
    answer_in_turn(&Cluster::of(command).taking_turns().start());
}

#[test]
fn uvicorn_takes_turns() {
    needs!("uvicorn");
    let command = "uvicorn --port {port} --app-dir {fixtures} web_app:asgi";
    answer_in_turn(&Cluster::of(command).taking_turns().start());
}

#[test]
fn uvicorn_with_two_processes_takes_turns() {
    needs!("uvicorn");
    let command = "uvicorn --workers 2 --port {port} --app-dir {fixtures} web_app:asgi";
    answer_in_turn(&Cluster::of(command).taking_turns().start());
}

#[test]
fn node_takes_turns() {
    needs!("node");
    let cluster = Cluster::of("node {fixtures}/server.js").options("--attach preload").taking_turns().start();
    answer_in_turn(&cluster);
}

#[test]
fn a_server_below_a_shell_takes_turns() {
    needs!("python3");
    let cluster =
        Cluster::of("sh -c").arg("echo started; python3 {fixtures}/server.py; true").taking_turns().start();
    answer_in_turn(&cluster);
}

#[test]
fn npm_start_takes_turns() {
    needs!("npm", "node");
    let package = r#"{ "name": "app", "version": "1.0.0", "scripts": { "start": "node server.js" } }"#;
    let cluster = Cluster::of("npm start")
        .file("package.json", package)
        .file("server.js", include_str!("fixtures/server.js"))
        .env("npm_config_update_notifier", "false")
        .options("--attach preload")
        .taking_turns();
    answer_in_turn(&cluster.start());
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
fn java_takes_turns() {
    needs!("java");
    let command = "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC {fixtures}/Server.java";
    answer_in_turn(&Cluster::of(command).taking_turns().start());
}

#[test]
fn nginx_with_four_processes_takes_turns() {
    needs!("nginx");
    let mut cluster = Cluster::of("sh -c")
        .arg("exec nginx -e stderr -p {folder}/$CLUSTERD_WORKER_ID -c {fixtures}/nginx.conf")
        .taking_turns();
    for worker in 1..=3 {
        cluster = cluster.file(&format!("{worker}/.keep"), "");
    }
    are_served_in_turn(&cluster.start());
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
fn php_takes_turns() {
    needs!("php");
    answer_in_turn(&Cluster::of("php -S 0.0.0.0:{port} {fixtures}/server.php").taking_turns().start());
}

#[test]
fn php_with_three_processes_takes_turns() {
    needs!("php");
    let cluster = Cluster::of("php -S 0.0.0.0:{port} {fixtures}/server.php");
    answer_in_turn(&cluster.env("PHP_CLI_SERVER_WORKERS", "3").taking_turns().start());
}

#[test]
fn ruby_tcp_server_takes_turns() {
    needs!("ruby");
    answer_in_turn(&Cluster::of("ruby {fixtures}/tcp_server.rb").taking_turns().start());
}

#[test]
fn webrick_takes_turns() {
    needs!("ruby");
    answer_in_turn(&Cluster::of("ruby {fixtures}/webrick.rb").taking_turns().start());
}

#[test]
fn puma_with_two_processes_takes_turns() {
    needs!("puma");
    answer_in_turn(&Cluster::of("puma -C {fixtures}/puma.rb").taking_turns().start());
}

#[test]
fn perl_takes_turns() {
    needs!("perl");
    answer_in_turn(&Cluster::of("perl {fixtures}/server.pl").taking_turns().start());
}

#[test]
fn a_program_in_c_takes_turns() {
    needs!("gcc");
    are_served_in_turn(&Cluster::of(&build::c("c-server", &["gcc"])).taking_turns().start());
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

#[test]
fn php_sees_the_address_of_its_client() {
    needs!("php");
    let cluster = Cluster::of("php -S 0.0.0.0:{port} {fixtures}/server.php").start();
    let (seen, own) = seen_and_true("/peer", cluster.address());
    assert_eq!(seen, own);
}

#[test]
fn a_dual_stack_server_sees_the_address_of_a_client_of_either_family() {
    needs!("node");
    if !ipv6() {
        return;
    }
    let cluster = Cluster::of("node {fixtures}/server.js").options("--attach preload").start();
    let (seen, own) = seen_and_true("/peer", cluster.address());
    assert_eq!(seen.trim_start_matches("::ffff:"), own);
    let (seen, own) = seen_and_true("/peer", ([0, 0, 0, 0, 0, 0, 0, 1], cluster.address().port()).into());
    assert_eq!(seen, own);
}
