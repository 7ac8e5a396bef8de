//! Starting: ports and addresses, what workers are given, the first lines, and the errors that end a start.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use crate::harness::needs::{self, ipv6, needs};
use crate::harness::ports::free_port;
use crate::harness::{Cluster, Signal, http, until};

/// The same port, reached over IPv6.
fn over_ipv6(address: SocketAddr) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, address.port()).into()
}

#[track_caller]
fn get(address: SocketAddr, path: &str) -> String {
    http::request(address, "GET", path)
        .unwrap_or_else(|error| panic!("GET {path} at {address}: {error}"))
        .text()
}

#[test]
fn a_port_is_served_over_both_families() {
    if !ipv6() {
        return;
    }
    let cluster = Cluster::demo().start();
    assert!(get(cluster.address(), "/").starts_with("hello"));
    assert!(get(over_ipv6(cluster.address()), "/").starts_with("hello"));
}

#[test]
fn bind_serves_just_that_address() {
    let cluster = Cluster::demo().bind("127.0.0.1:0:8080").start();
    cluster.get("/");
    assert!(http::connect(over_ipv6(cluster.address())).is_err(), "IPv6 was not asked for");
}

#[test]
fn bind_takes_an_ipv6_address() {
    if !ipv6() {
        return;
    }
    let cluster = Cluster::demo().bind("[::1]:0:8080").start();
    assert!(cluster.address().is_ipv6());
    cluster.get("/");
}

#[test]
fn an_ipv6_client_is_refused_where_the_server_listens_on_ipv4() {
    needs!("python3");
    if !ipv6() {
        return;
    }
    let cluster = Cluster::of_servers().start();
    assert!(get(cluster.address(), "/").starts_with("worker 1"));
    let refused = http::connect(over_ipv6(cluster.address())).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_server_that_listens_on_ipv6_gets_clients_of_both_families() {
    needs!("node");
    if !ipv6() {
        return;
    }
    let cluster = Cluster::of("node {fixtures}/server.js").start();
    assert!(get(cluster.address(), "/").starts_with("worker 1"));
    assert!(get(over_ipv6(cluster.address()), "/").starts_with("worker 1"));
}

#[test]
fn the_public_port_and_the_port_that_the_server_asks_for_may_differ() {
    needs!("python3");
    let free = free_port();
    let cluster = Cluster::of_servers().port(&format!("{free}:80")).start();
    assert_eq!(cluster.address().port(), free);
    assert_eq!(cluster.get("/env/PORT"), "80");
}

#[test]
fn a_worker_may_listen_on_two_ports() {
    needs!("python3");
    let cluster = Cluster::of_servers()
        .env("SERVER_PORTS", "8080 8081")
        .port("0:8080")
        .port("0:8081")
        .workers(2)
        .start();
    for index in [0, 1] {
        for _ in 0..4 {
            assert!(get(cluster.address_of(index), "/").starts_with("worker "));
        }
    }
    let handed = cluster.handed(8);
    assert_eq!(handed.values().copied().collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn two_public_addresses_may_lead_to_one_worker_port() {
    let cluster = Cluster::demo().bind("127.0.0.1:0:8080").bind("127.0.0.2:0:8080").start();
    for index in [0, 1] {
        assert!(get(cluster.address_of(index), "/").starts_with("hello"));
    }
}

#[test]
fn a_worker_is_told_its_port_its_number_and_how_many_there_are() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).start();
    for _ in 0..2 {
        let worker: u32 = cluster.get("/env/CLUSTERD_WORKER_ID").parse().expect("a number");
        assert_eq!(cluster.worker(worker).environment("NODE_APP_INSTANCE"), Some((worker - 1).to_string()));
    }
    assert_eq!(cluster.get("/env/PORT"), "8080");
    assert_eq!(cluster.get("/env/CLUSTERD_WORKERS"), "2");
}

#[test]
fn an_existing_preload_is_kept() {
    needs!("python3");
    let cluster = Cluster::of_servers().env("LD_PRELOAD", "libm.so.6").start();
    let preload = cluster.get("/env/LD_PRELOAD");
    assert!(preload.starts_with("libm.so.6"), "{preload}");
}

#[test]
fn a_port_in_use_ends_the_start_with_a_clear_error() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let ended = Cluster::demo().bind(&format!("{address}:8080")).run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&address.to_string()), "{}", ended.stderr);
    assert!(ended.stderr.contains("in use"), "{}", ended.stderr);
}

#[test]
fn a_metrics_port_in_use_ends_the_start_with_a_clear_error() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let ended = Cluster::demo().metrics(&address).run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("--metrics") && ended.stderr.contains(&address), "{}", ended.stderr);
}

#[test]
fn what_counts_connections_says_that_it_cannot_where_the_kernel_gives_them_no_names() {
    needs!("python3");
    let error = libc::ENOPROTOOPT.to_string();
    for options in ["--concurrency 1", "--policy least-connections"] {
        let forbids = ["python3", "{fixtures}/forbids.py", "cookies", &error];
        let ended = Cluster::demo().options(options).under(&forbids).run();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("cannot count the connections of workers"), "{}", ended.stderr);
    }
}

#[test]
fn a_privileged_port_ends_the_start_of_an_ordinary_user_with_a_clear_error() {
    needs!("setpriv");
    if !needs::root() {
        return;
    }
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim().parse::<u16>().unwrap() <= 81 {
        println!("skipped: no port is privileged here");
        return;
    }
    let ended = Cluster::demo().port("81:8080").owned_by_nobody().run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("81") && ended.stderr.contains("Permission denied"), "{}", ended.stderr);
}

#[test]
fn an_ordinary_user_may_run_a_cluster() {
    needs!("setpriv", "perl");
    if !needs::root() {
        return;
    }
    let cluster = Cluster::of("perl {folder}/server.pl")
        .file("server.pl", include_str!("fixtures/server.pl"))
        .owned_by_nobody()
        .workers(2)
        .start();
    assert!(cluster.get("/").starts_with("worker "));
}

#[test]
fn a_command_that_is_not_found_ends_the_start_with_127() {
    let ended = Cluster::of("no-such-server-anywhere").run();
    assert_eq!(ended.status.code(), Some(127), "{}", ended.stderr);
    assert!(ended.stderr.contains("no-such-server-anywhere"), "{}", ended.stderr);
}

#[test]
fn a_command_that_is_not_executable_ends_the_start_with_126() {
    let ended = Cluster::of("{folder}/server").file("server", "#!/bin/sh\n").run();
    assert_eq!(ended.status.code(), Some(126), "{}", ended.stderr);
    assert!(ended.stderr.contains("/server"), "{}", ended.stderr);
}

#[test]
fn a_script_whose_interpreter_is_missing_says_so() {
    let setup = Cluster::of("sh -c").file("server", "#!/no/such/interpreter\n");
    let script = setup.folder.path().join("server");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ended = Cluster::of(&script.to_string_lossy()).run();
    assert!(matches!(ended.status.code(), Some(126 | 127)), "{}: {}", ended.status, ended.stderr);
    assert!(ended.stderr.contains("interpreter"), "{}", ended.stderr);
}

#[test]
fn a_failed_start_leaves_nothing_behind() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let mut cluster = Cluster::spawn(Cluster::demo().bind(&format!("{address}:8080")));
    assert!(!cluster.wait_exit().success());
    until("no process is left", || cluster.processes().is_empty().then_some(()));
}

#[test]
fn the_first_lines_say_what_runs_where_and_what_to_try() {
    let mut cluster = Cluster::spawn(Cluster::demo().workers(2).text_messages());
    let line = until("there is a line to try", || {
        cluster.stderr.lines().into_iter().find(|line| line.contains("curl"))
    });
    let port = line.rsplit(':').next().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let port: u16 = port.parse().unwrap_or_else(|_| panic!("a curl line with the port: {line}"));
    let answer = get(([127, 0, 0, 1], port).into(), "/");
    assert!(answer.starts_with("hello from worker "), "{answer}");
    assert!(cluster.stderr.text().contains("2 workers"), "{}", cluster.stderr.text());
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn the_demo_says_which_worker_and_process_answered() {
    let cluster = Cluster::demo().workers(2).start();
    let answer = cluster.get("/any/path");
    let slot: u32 = answer.split(' ').nth(3).and_then(|slot| slot.parse().ok()).expect("a number");
    assert_eq!(answer, format!("hello from worker {slot} (pid {})\n", cluster.worker(slot).pid()));
}
