//! IPv4 and IPv6: who comes to which listener of a worker, and what that is told, is what it would be without clusterd.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

use crate::harness::folder::fixtures;
use crate::harness::http;
use crate::harness::needs::{ipv6, needs};
use crate::harness::{Cluster, Load, until};

const CLIENTS: [&str; 2] = ["127.0.0.1", "::1"];

/// The server of `fixtures/families.py` without clusterd.
struct Native {
    child: Child,
    port: u16,
}

impl Native {
    fn start(listeners: &str) -> Self {
        let mut command = Command::new("python3");
        command.arg(fixtures().join("families.py")).args(listeners.split(' ')).env_remove("PORT");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it can be started");
        let mut port = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut port).expect("its port");
        Self { child, port: port.trim().parse().expect("a number") }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server answers to this client; `None` if it is refused, or disconnected because nobody listens for it.
fn answer(ip: &str, port: u16) -> Option<String> {
    let address = SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port);
    match http::request(address, "GET", "/") {
        Ok(response) => Some(response.text()),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
            None
        }
        Err(error) => panic!("{ip}: {error}"),
    }
}

fn cluster_of(listeners: &str) -> Cluster {
    Cluster::of(&format!("python3 {{fixtures}}/families.py {listeners}")).start()
}

#[test]
fn every_listener_is_told_what_it_would_be_told_without_clusterd() {
    needs!("python3");
    if !ipv6() {
        return;
    }
    for listeners in [
        "0.0.0.0",
        "127.0.0.1",
        "::",
        "::,only",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0 ::,only",
        "127.0.0.1 ::1",
    ] {
        let (native, cluster) = (Native::start(listeners), cluster_of(listeners));
        for ip in CLIENTS {
            let expected = answer(ip, native.port);
            for _ in 0..3 {
                assert_eq!(answer(ip, cluster.address().port()), expected, "{ip} at {listeners}");
            }
        }
    }
}

#[test]
fn a_listener_on_the_loopback_address_serves_every_public_one() {
    needs!("python3");
    let cluster = cluster_of("127.0.0.1");
    let seen = answer("127.0.0.3", cluster.address().port()).expect("it is served");
    assert_eq!(seen, "127.0.0.1 AF_INET [['127.0.0.1'], ['127.0.0.1'], ['127.0.0.3']] True");
}

#[test]
fn nobody_is_served_before_a_worker_listens_and_all_wait_while_it_is_gone() {
    needs!("python3");
    let script = "while [ ! -e gate ]; do sleep 0.05; done; rm gate; exec python3 {fixtures}/server.py";
    let cluster = Cluster::of("sh -c").arg(script).launch();
    let port = cluster.address().port();
    assert_eq!(answer("127.0.0.1", port), None);
    cluster.open_gate("gate");
    cluster.wait_online();
    let _ = cluster.try_get("/exit/1");
    cluster.wait_for(0, "online");
    let waiting = cluster.send("/");
    cluster.open_gate("gate");
    assert_eq!(waiting.response().expect("it has waited").status, 200);
    if ipv6() {
        assert_eq!(answer("::1", port), None, "no worker listens on IPv6");
    }
}

#[test]
fn an_app_that_is_stopped_refuses_clients() {
    needs!("python3");
    let cluster = Cluster::of_servers().start();
    let port = cluster.address().port();
    let said = cluster.say("stop");
    assert!(said.stdout.contains("refuse clients"), "{}", said.stdout);
    until("clients are refused", || answer("127.0.0.1", port).is_none().then_some(()));
    cluster.say("start");
    assert!(answer("127.0.0.1", port).is_some());
}

#[test]
fn an_app_that_is_stopped_lets_clients_wait_if_it_is_asked_to() {
    needs!("python3");
    for accept in ["primary", "workers"] {
        let cluster = Cluster::of_servers().options(&format!("--attach preload --accept {accept}")).start();
        let said = cluster.say("stop --hold");
        assert!(said.stdout.contains("clients wait"), "{}", said.stdout);
        until("no worker is left", || cluster.workers().is_empty().then_some(()));
        let waiting: Vec<_> = (0..4).map(|_| cluster.send("/")).collect();
        cluster.say("start");
        for client in waiting {
            assert_eq!(client.response().expect("it has waited").status, 200, "{accept}");
        }
    }
}

#[test]
fn a_version_that_listens_otherwise_replaces_another_without_a_client_lost() {
    needs!("python3");
    if !ipv6() {
        return;
    }
    let version =
        |listeners: &str| format!("exec python3 {}/families.py {listeners}\n", fixtures().to_string_lossy());
    let cluster = Cluster::of("sh version").workers(2).file("version", &version("0.0.0.0")).start();
    let (load, port) = (Load::of_requests(&cluster), cluster.address().port());
    for listeners in ["::", "0.0.0.0", "0.0.0.0 ::,only"] {
        cluster.write("version", &version(listeners));
        cluster.reload().expect("it works");
        let native = Native::start(listeners);
        for ip in CLIENTS {
            let expected = answer(ip, native.port);
            until(&format!("{ip} comes to {listeners} as natively"), || {
                (answer(ip, port) == expected).then_some(())
            });
        }
        load.goes_on();
    }
    load.lost_nothing();
}
