//! A listener of a worker behaves as the kernel's: the same server runs with clusterd and without, and says the same.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::folder::fixtures;
use crate::harness::needs::{ipv6, needs};
use crate::harness::{Cluster, until};

/// What a server says, by name.
type Said = BTreeMap<String, String>;

/// A server without clusterd, until the end of the test.
struct Natively {
    server: Child,
    port: u16,
}

impl Natively {
    /// Runs the Python server in `fixtures` with a port that is free, and these words.
    fn python(server: &str, words: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new("python3");
        command.arg(fixtures().join(server)).arg(port.to_string()).args(words).stdin(Stdio::null());
        Self { server: command.spawn().expect("python3 can be started"), port }
    }
}

impl Drop for Natively {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// What the server at this address answers, once it listens.
fn answer(address: SocketAddr) -> String {
    let mut client = until("the server listens", || TcpStream::connect(address).ok());
    client.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// The kinds of listener, and when their server sets options.
const CASES: [[&str; 2]; 5] = [
    ["v4", "never"],
    ["v4", "before-bind"],
    ["v4", "before-listen"],
    ["v4", "after-listen"],
    ["v6", "before-listen"],
];

fn loopback(family: &str, port: u16) -> SocketAddr {
    match family {
        "v4" => (Ipv4Addr::LOCALHOST, port).into(),
        _ => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

/// What `options.py` says at this address: `listener: SO_KEEPALIVE` and so on.
fn options(address: SocketAddr) -> Said {
    let answer: BTreeMap<String, Said> = serde_json::from_str(&answer(address)).expect("JSON");
    let each = |(of, said): (String, Said)| {
        said.into_iter().map(move |(name, value)| (format!("{of}: {name}"), value))
    };
    answer.into_iter().flat_map(each).collect()
}

/// In which options a listener or its connections, as `of` says, differ from those without clusterd.
fn differences(of: fn(&str) -> bool) -> Vec<String> {
    let servers: Vec<_> = CASES.iter().map(|words| Natively::python("options.py", words)).collect();
    let ports = 8081..;
    let script: String = ports
        .clone()
        .zip(CASES)
        .map(|(port, [family, time])| format!("python3 {{fixtures}}/options.py {port} {family} {time} & "))
        .collect();
    let mut cluster = Cluster::of("sh -c").arg(&format!("{script} wait"));
    for (port, _) in ports.zip(CASES) {
        cluster = cluster.port(&format!("0:{port}"));
    }
    let cluster = cluster.start();
    let mut differences = Vec::new();
    for (index, (words, server)) in CASES.iter().zip(&servers).enumerate() {
        let natively = options(loopback(words[0], server.port));
        let here = options(loopback(words[0], cluster.address_of(index).port()));
        assert_eq!(natively.keys().collect::<Vec<_>>(), here.keys().collect::<Vec<_>>());
        let differ = natively.iter().filter(|(name, value)| of(name) && here[*name] != **value);
        differences.extend(
            differ.map(|(name, value)| format!("{words:?} {name}: natively {value}, here {}", here[name])),
        );
    }
    differences
}

/// What connections do not inherit here, because it says who may come to a port that all workers share, clusterd needs
/// it for itself, or it means nothing to a connection.
const NOT_INHERITED: [&str; 8] = [
    "SO_REUSEADDR",
    "SO_BROADCAST",
    "IP_BIND_ADDRESS_NO_PORT",
    "IP_FREEBIND",
    "IP_MINTTL",
    "IPV6_AUTOFLOWLABEL",
    "IPV6_MINHOPCOUNT",
    "IPV6_V6ONLY",
];

#[test]
fn options_of_listener_and_connection_are_those_of_the_kernel() {
    needs!("python3");
    if ipv6() {
        let differences = differences(|name| {
            name.strip_prefix("connection: ").is_none_or(|option| !NOT_INHERITED.contains(&option))
        });
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn a_server_that_asks_whether_its_port_is_free_hears_what_it_hears_natively() {
    needs!("python3");
    let server = Natively::python("asks_first.py", &[]);
    let natively = answer(loopback("v4", server.port));
    // The server connects to the port that it listens on, which has to be the public one.
    let port = free_port();
    let command = "python3 {fixtures}/asks_first.py {port}";
    let cluster = Cluster::of(command).port(&port.to_string()).worker_port(port).workers(2).start();
    // As often as not to the worker that has not answered yet.
    for _ in 0..8 {
        assert_eq!(answer(cluster.address()), natively);
    }
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
}

#[test]
fn a_listener_can_be_wrapped_for_tls() {
    needs!("python3");
    let native = Natively::python("tls_listener.py", &[]);
    let natively = answer(SocketAddr::from((Ipv4Addr::LOCALHOST, native.port)));
    let cluster = Cluster::of("python3 {fixtures}/tls_listener.py {port}").workers(2).start();
    assert_eq!(natively, "ENOTCONN");
    for _ in 0..4 {
        assert_eq!(answer(cluster.address()), natively);
    }
}
