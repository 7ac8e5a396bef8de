//! Readiness: a worker is given clients once it listens on every port, has said that it is ready if `--wait-ready` wants
//! that, and has answered its probe if `--ready-http` wants that; and not before, whoever says what in which order.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::harness::folder::Folder;
use crate::harness::needs::needs;
use crate::harness::output::Output;
use crate::harness::setup::{Setup, WORKER_PORT};
use crate::harness::{Cluster, Signal, until};

/// How many probes a worker fails before it is believed that no client comes to it.
const PROBES: usize = 4;

/// Workers that say at once that they are ready, and are not.
fn early(setup: Setup) -> Setup {
    setup.options("--wait-ready --ready-http /healthz")
}

fn python() -> Setup {
    early(Cluster::of("python3 {fixtures}/early_ready.py"))
}

fn node(attach: &str) -> Setup {
    early(Cluster::of("node {fixtures}/node/early_ready.js").options(attach))
}

/// Waits until workers have failed so many more probes.
#[track_caller]
fn probes_fail(cluster: &Cluster) {
    let count = || {
        let file = fs::read_to_string(cluster.folder().join("probes"));
        file.map_or(0, |probes| probes.lines().count())
    };
    let before = count();
    until("probes have failed", || (count() >= before + PROBES).then_some(()));
}

#[track_caller]
fn gets_no_client_before_the_probe_succeeds(setup: Setup) {
    let cluster = setup.launch();
    cluster.wait_listening();
    let clients: Vec<_> = (0..4).map(|_| cluster.send("/")).collect();
    probes_fail(&cluster);
    assert_eq!(cluster.metrics().count("clusterd_connections_handed_total", &[]), 0);
    assert_eq!(cluster.metrics().count("clusterd_workers", &[("state", "online")]), 0);
    assert_eq!(cluster.probe("/readyz").status, 503);
    cluster.open_gate("healthy");
    cluster.wait_online();
    for client in clients {
        let answer = client.response().expect("it has waited");
        assert_eq!((answer.status, answer.text()), (200, "worker 1".to_owned()));
    }
}

#[test]
fn a_node_worker_that_says_ready_gets_no_client_before_its_probe_succeeds() {
    needs!("node");
    gets_no_client_before_the_probe_succeeds(node("--attach auto"));
}

#[test]
fn a_node_worker_without_the_shim_that_says_ready_gets_no_client_before_its_probe_succeeds() {
    needs!("node");
    gets_no_client_before_the_probe_succeeds(node("--attach node"));
}

#[test]
fn a_worker_that_says_it_to_the_notification_socket_gets_no_client_before_its_probe_succeeds() {
    needs!("python3");
    gets_no_client_before_the_probe_succeeds(python());
}

/// All that there is of the app stays healthy, so that each answer of another kind is the new worker's.
#[track_caller]
fn keeps_clients_from_new_workers(setup: Setup) {
    let cluster = setup.file("healthy", "").options("--ready-timeout 5s").start();
    let old = cluster.worker(1);
    cluster.write("old", &old.pid().to_string());
    fs::remove_file(cluster.folder().join("healthy")).expect("it was written");
    cluster.primary().signal(Signal::HUP);
    probes_fail(&cluster);
    for _ in 0..20 {
        assert_eq!(cluster.get("/"), "worker 1");
    }
    until("the reload has failed", || cluster.stderr.said(&["reload failed"]).pop());
    assert_eq!(cluster.pids().into_iter().collect::<Vec<_>>(), [old.pid()]);
    assert_eq!(cluster.get("/"), "worker 1");
}

#[test]
fn a_reload_whose_new_worker_is_not_healthy_serves_with_the_old_one_alone() {
    needs!("node");
    keeps_clients_from_new_workers(node("--attach auto"));
}

#[test]
fn a_word_given_before_the_last_port_is_listened_on_opens_none() {
    needs!("node");
    for attach in ["--attach auto", "--attach node"] {
        let (first, second) = (WORKER_PORT, WORKER_PORT + 1);
        let cluster = Cluster::of("node {fixtures}/node/late_port.js")
            .arg(&first.to_string())
            .arg(&second.to_string())
            .port(&format!("0:{first}"))
            .port(&format!("0:{second}"))
            .options(attach)
            .options("--wait-ready");
        let cluster = cluster.launch_with(2);
        let listening = cluster.folder().join("listening");
        until("it listens on its first port", || listening.exists().then_some(()));
        cluster.wait_listening();
        let client = cluster.send("/");
        assert_eq!(cluster.metrics().count("clusterd_connections_handed_total", &[]), 0);
        cluster.open_gate("second");
        cluster.wait_online();
        assert_eq!(client.response().expect("it has waited").text(), format!("port {first}"));
    }
}

/// HAProxy asks by OPTIONS where its configuration names no method.
#[test]
fn haproxy_sees_by_either_method_whether_it_is_ready() {
    needs!("python3", "haproxy");
    let cluster = python().launch();
    cluster.wait_listening();
    let folder = Folder::new();
    let backend = |name: &str, check: &str| {
        let (address, admin) = (cluster.address(), cluster.admin().port());
        format!(
            "backend {name}\n option httpchk {check}\n \
             server app {address} check port {admin} inter 100ms fastinter 100ms downinter 100ms fall 1 rise 1\n"
        )
    };
    let socket = folder.path().join("clients.sock");
    let config = format!(
        "global\n log stdout format raw local0\ndefaults\n mode http\n log global\n \
         timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         frontend clients\n bind unix@{}\n default_backend options\n{}{}",
        socket.display(),
        backend("options", "/readyz"),
        backend("get", "GET /readyz"),
    );
    let file = folder.write("haproxy.cfg", &config);
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut haproxy = Ended(command.spawn().expect("haproxy can be started"));
    let said = Output::read(haproxy.0.stdout.take().expect("stdout is a pipe"));
    let both = |state: &str| {
        let says = |name: &str| said.line_with(&[&format!("{name}/app is {state}")]).is_some();
        until(&format!("HAProxy says {state}"), || (says("options") && says("get")).then_some(()));
    };
    both("DOWN");
    cluster.open_gate("healthy");
    both("UP");
}

/// A process that does not outlive the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
