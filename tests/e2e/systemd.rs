//! clusterd under a service manager: what it tells it, and the sockets that it gets from it.

use std::net::Ipv6Addr;
use std::os::unix::net::UnixDatagram;

use crate::harness::needs::{ipv6, needs};
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, http, until};

/// The service manager's end of NOTIFY_SOCKET.
struct Manager(UnixDatagram);

impl Manager {
    /// One that listens in the folder of this cluster, and the cluster that speaks to it.
    fn of(setup: Setup) -> (Self, Setup) {
        let path = setup.folder.path().join("manager");
        let socket = UnixDatagram::bind(&path).expect("a socket in a temporary folder");
        socket.set_nonblocking(true).expect("a mode");
        (Self(socket), setup.env("NOTIFY_SOCKET", path))
    }

    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let len = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    /// Waits for a message with this line; what came before it.
    #[track_caller]
    fn until(&self, line: &str) -> Vec<String> {
        let mut told = Vec::new();
        until(&format!("the service manager is told {line:?}"), || {
            while let Some(message) = self.next() {
                let is_it = message.lines().any(|said| said == line);
                told.push(message);
                if is_it {
                    return Some(());
                }
            }
            None
        });
        told
    }
}

#[test]
fn it_is_told_of_readiness_a_reload_and_the_stop() {
    needs!("python3");
    let server = Cluster::of_servers().env("SERVER_GATE", "gate").workers(2);
    let (manager, setup) = Manager::of(server);
    let mut cluster = setup.launch();
    manager.until("STATUS=0 of 2 workers online");
    cluster.open_gate("gate");
    let told = manager.until("READY=1");
    assert!(told.last().unwrap().contains(&format!("MAINPID={}\n", cluster.primary().pid())));
    // Readiness is told once it has lasted, and so perhaps with both.
    let online = "STATUS=2 of 2 workers online";
    if !told.iter().any(|message| message.contains(online)) {
        manager.until(online);
    }

    cluster.primary().signal(Signal::HUP);
    let told = manager.until("READY=1");
    let reloading = told.iter().find(|message| message.starts_with("RELOADING=1\n")).expect("it was said");
    let clock = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("a time");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    let age = now - clock.parse::<i64>().expect("a number") / 1_000_000;
    assert!((0..60).contains(&age), "{age} s ago");

    cluster.primary().signal(Signal::TERM);
    manager.until("STOPPING=1");
    cluster.wait_success();
    let rest: Vec<_> = std::iter::from_fn(|| manager.next()).collect();
    assert!(!rest.iter().any(|message| message.contains("READY=1")), "{rest:?}");
}

#[test]
fn a_reload_that_is_refused_does_not_keep_it_waiting() {
    needs!("python3");
    let server = Cluster::of_servers().env("SERVER_GATE", "gate").file("gate", "");
    let (manager, setup) = Manager::of(server);
    let cluster = setup.start();
    manager.until("READY=1");
    std::fs::remove_file(cluster.folder().join("gate")).unwrap();
    cluster.primary().signal(Signal::HUP);
    manager.until("STATUS=1 of 1 worker online, reload by SIGHUP under way");
    cluster.primary().signal(Signal::HUP);
    manager.until("READY=1");
    cluster.open_gate("gate");
    manager.until("READY=1");
}

#[test]
fn it_hears_again_and_again_that_clusterd_lives() {
    let (manager, setup) = Manager::of(Cluster::demo().env("WATCHDOG_USEC", "200000"));
    let _cluster = setup.start();
    for _ in 0..5 {
        manager.until("WATCHDOG=1");
    }
}

#[test]
fn a_watchdog_that_is_for_another_process_hears_nothing() {
    let (manager, setup) = Manager::of(Cluster::demo().env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1"));
    let mut cluster = setup.start();
    manager.until("READY=1");
    cluster.primary().signal(Signal::TERM);
    let told = manager.until("STOPPING=1");
    assert!(!told.iter().any(|message| message.contains("WATCHDOG")), "{told:?}");
    cluster.wait_success();
}

/// clusterd is started with these sockets, as `fixtures/activate.py` names them.
fn activated(setup: Setup, sockets: &[&str]) -> Setup {
    let mut words = vec!["python3", "{fixtures}/activate.py"];
    words.extend(sockets);
    words.push("--");
    setup.under(&words)
}

#[test]
fn an_inherited_socket_is_the_port_where_none_is_named() {
    needs!("python3");
    let mut cluster = activated(Cluster::of_servers(), &["127.0.0.1:0"]).no_port().start();
    let port = cluster.address().port();
    assert_ne!(port, 3000);
    assert_eq!(cluster.get("/env/PORT"), port.to_string());
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        assert_eq!(cluster.get(&format!("/env/{name}")), "", "{name}");
    }
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn inherited_sockets_stand_for_the_ports_that_are_named() {
    needs!("python3");
    if !ipv6() {
        return;
    }
    let port = free_port();
    let sockets = [format!("127.0.0.1:{port}"), format!("v6:{port}")];
    let setup = Cluster::of_servers().port(&format!("{port}:8080")).port("0:8081");
    let setup = setup.env("SERVER_PORTS", "8080 8081").env("SERVER_HOST", "::");
    let cluster = activated(setup, &sockets.each_ref().map(String::as_str)).launch_with(3);
    cluster.wait_online();
    let addresses = [0, 1].map(|index| cluster.address_of(index));
    assert!(addresses.iter().all(|address| address.port() == port), "{addresses:?}");
    let over = |address| http::request(address, "GET", "/").expect("it is served").text();
    for address in [addresses[0], (Ipv6Addr::LOCALHOST, port).into(), cluster.address_of(2)] {
        assert!(over(address).starts_with("worker 1"), "{address}");
    }
}

#[test]
fn a_client_over_ipv4_at_a_socket_of_both_families_is_one() {
    needs!("python3");
    if !ipv6() {
        return;
    }
    let cluster = activated(Cluster::of_servers(), &["[::]:0"]).no_port().start();
    assert!(cluster.get("/peer").starts_with("127.0.0.1 "), "{}", cluster.get("/peer"));
    let port = cluster.address().port();
    let over_ipv6 = |port| http::request((Ipv6Addr::LOCALHOST, port).into(), "GET", "/");
    assert!(over_ipv6(port).is_err(), "no worker listens for it");
    let of_both = Cluster::of_servers().env("SERVER_HOST", "::");
    let cluster = activated(of_both, &["[::]:0"]).no_port().start();
    assert!(over_ipv6(cluster.address().port()).expect("it is served").text().starts_with("worker 1"));
}

#[test]
fn what_cannot_be_a_port_is_named() {
    needs!("python3");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let cases = [
        (address.clone(), "3000", format!("inherited socket {address} ")),
        (format!("udp:{port}"), "3000", format!("a UDP socket at {address};")),
        ("unix:socket".to_owned(), "3000", "a Unix socket;".to_owned()),
        (format!("idle:{port}"), "3000", format!("a TCP socket at {address} that does not listen;")),
    ];
    for (socket, asked, expected) in cases {
        let ended = activated(Cluster::demo().port(asked), &[&socket]).text_messages().run();
        assert_eq!(ended.status.code(), Some(78), "{socket}: {}", ended.stderr);
        assert!(ended.stderr.contains(&expected), "{socket}: {}", ended.stderr);
    }
}

#[test]
fn a_narrower_address_than_the_inherited_one_is_not_widened() {
    needs!("python3");
    let port = free_port();
    let setup = Cluster::demo().bind(&format!("127.0.0.1:{port}"));
    let ended = activated(setup, &[&format!("0.0.0.0:{port}")]).text_messages().run();
    assert_eq!(ended.status.code(), Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("--port {port}")), "{}", ended.stderr);
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    needs!("python3");
    let cluster = activated(Cluster::demo(), &["--pid", "1", "127.0.0.1:0"]).start();
    assert!(cluster.get("/").starts_with("hello"));
}

#[test]
fn who_connects_between_two_runs_is_served_by_the_second() {
    needs!("python3");
    let setup = Cluster::of_servers().workers(2);
    let cluster = activated(setup, &["--again", "127.0.0.1:0"]).no_port().start();
    let first = cluster.primary();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    first.signal(Signal::TERM);
    until("the stop has begun", || (cluster.probe("/readyz").status == 503).then_some(()));
    until("nothing is accepted any more", || {
        cluster.stderr.text().contains("stopping; serving accepted connections").then_some(())
    });
    cluster.open_gate("gate");
    assert!(held.response().is_ok(), "what was accepted is served");
    let waiting: Vec<_> = (0..20).map(|_| cluster.send("/")).collect();
    until("the first run is over", || (!first.is_alive()).then_some(()));
    for response in waiting {
        assert_eq!(response.response().expect("it waited").status, 200);
    }
}
