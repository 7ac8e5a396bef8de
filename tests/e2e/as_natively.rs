//! A listener of a worker behaves as the kernel's: the same server runs with clusterd and without, and says the same.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::needs::{ipv6, needs, root};
use crate::harness::ports::{free_port, free_ports};
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Native, build, until};
use crate::seccomp::in_container;

/// What a server says, by name.
type Said = BTreeMap<String, String>;

/// A Python server of `fixtures` without clusterd, with a port that is free and these words.
fn natively(server: &str, words: &[&str]) -> Native {
    let command = format!("python3 {{fixtures}}/{server} {{port}} {}", words.join(" "));
    Native::start(Cluster::of(&command).worker_port(free_port()))
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

fn loopback(family: &str) -> IpAddr {
    match family {
        "v4" => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
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
fn differences(settings: &str, of: fn(&str) -> bool) -> Vec<String> {
    let servers: Vec<_> = CASES.iter().map(|words| natively("options.py", words)).collect();
    // The same for workers and for clients.
    let ports = free_ports(5)..;
    let script: String = ports
        .clone()
        .zip(CASES)
        .map(|(port, [family, time])| format!("python3 {{fixtures}}/options.py {port} {family} {time} & "))
        .collect();
    let mut cluster = Cluster::of("sh -c").arg(&format!("{script} wait"));
    for (port, _) in ports.zip(CASES) {
        cluster = cluster.port(&port.to_string());
    }
    let cluster = cluster.options(settings).start();
    let mut differences = Vec::new();
    for (index, (words, server)) in CASES.iter().zip(&servers).enumerate() {
        let natively = options(server.at(loopback(words[0])));
        let here = options((loopback(words[0]), cluster.address_of(index).port()).into());
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
const NOT_INHERITED: [&str; 10] = [
    "SO_REUSEADDR",
    "SO_BROADCAST",
    "SO_INCOMING_CPU",
    "IP_TRANSPARENT",
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
        let differences = differences("--accept primary", |name| {
            name.strip_prefix("connection: ").is_none_or(|option| !NOT_INHERITED.contains(&option))
        });
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

/// What a listener that clusterd has made does not take over of what was set before bind(2), because it means nothing to a
/// listener, or is clusterd's to set.
const NOT_TAKEN_OVER: [&str; 5] =
    ["SO_REUSEADDR", "SO_PASSCRED", "SO_BROADCAST", "IP_BIND_ADDRESS_NO_PORT", "IPV6_AUTOFLOWLABEL"];

/// The kernel notes there on which processor the last packet came.
const CPU_OF_CONNECTION: &str = "connection: SO_INCOMING_CPU";

#[test]
fn options_of_a_listener_that_accepts_by_itself_are_those_of_the_kernel() {
    needs!("python3");
    if !ipv6() {
        return;
    }
    for settings in ["--accept workers", "--attach seccomp"] {
        let differences = differences(settings, |name| {
            name != CPU_OF_CONNECTION
                && !NOT_TAKEN_OVER.iter().any(|option| name.ends_with(&format!(": {option}")))
        });
        assert!(differences.is_empty(), "{settings}: {}", differences.join("\n"));
    }
}

#[test]
fn a_server_that_asks_whether_its_port_is_free_hears_what_it_hears_natively() {
    needs!("python3");
    let native = natively("asks_first.py", &[]);
    let natively = answer(native.at(loopback("v4")));
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
fn unusual_calls_of_bind_and_listen_return_what_they_return_natively_where_they_are_intercepted() {
    needs!("gcc");
    let differences = differences_of_odd_binds(|setup| setup);
    assert!(differences.is_empty(), "(without clusterd, under it) {differences:#?}");
}

#[test]
fn and_under_the_profile_of_docker_but_for_what_cannot_be_seen_of_a_socket() {
    needs!("gcc", "setpriv");
    if !root() {
        return;
    }
    let differences = differences_of_odd_binds(|setup| in_container(setup, "docker"));
    let which: Vec<_> = differences.iter().filter_map(|(native, _)| native.split(": ").next()).collect();
    let unseen = [
        "Content-Length",
        "a mapped address, IPv6 only",
        // To the kernel it is bound then.
        "bind after that",
        // Without SO_REUSEPORT.
        "bind of a second",
        "once the first is closed",
    ];
    assert_eq!(which, unseen, "(without clusterd, under it) {differences:#?}");
}

/// Each line that differs: without clusterd, and under it.
fn differences_of_odd_binds(under: impl FnOnce(Setup) -> Setup) -> Vec<(String, String)> {
    let program = build::program("odd-binds", "odd_binds.c", &["gcc", "-static", "-pthread"]);
    let command = format!("{program} {{port}}");
    let native = Native::start(Cluster::of(&command).worker_port(free_port()));
    let port = free_port();
    let cluster = under(Cluster::of(&command).port(&port.to_string()).worker_port(port)).start();
    // A client that comes while it tries may meet a listener that is closed.
    let said =
        |address| until("it has tried all", || try_answer(address).ok().filter(|said| !said.is_empty()));
    let (natively, here) = (said(native.at(loopback("v4"))), said(cluster.address()));
    assert!(natively.contains("1,024 binds: 0"), "{natively}");
    assert_eq!(natively.lines().count(), here.lines().count());
    let lines = natively.lines().zip(here.lines()).filter(|(native, here)| native != here);
    lines.map(|(native, here)| (native.to_owned(), here.to_owned())).collect()
}

fn try_answer(address: SocketAddr) -> io::Result<String> {
    let mut client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    client.write_all(b"hello")?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_listener_can_be_wrapped_for_tls() {
    needs!("python3");
    let native = natively("tls_listener.py", &[]);
    let natively = answer(native.at(loopback("v4")));
    let cluster = Cluster::of("python3 {fixtures}/tls_listener.py {port}").workers(2).start();
    assert_eq!(natively, "ENOTCONN");
    for _ in 0..4 {
        assert_eq!(answer(cluster.address()), natively);
    }
}
