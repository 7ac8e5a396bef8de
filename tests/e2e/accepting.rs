//! With `--accept workers` a server gets a listening socket in the place of its own, and accepts by itself. That this is so
//! of real servers is in `servers`, and that such a listener behaves as the kernel's in `as_natively`.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use socket2::{Domain, Socket, Type};

use crate::handoff::stop;
use crate::harness::needs::{self, needs};
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, build, until};
use crate::shutdown::nothing_is_left;

/// What the servers here have in common.
const HEAD: &str = r#"
import os, socket, sys, time

PORT = int(os.environ["PORT"])
NAME = "worker " + os.environ["CLUSTERD_WORKER_ID"]

def bound(host="0.0.0.0", reuse_port=False):
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, PORT))
    return listener

def serve(listener, says=NAME):
    while True:
        client, _ = listener.accept()
        with client:
            client.recv(4096)
            client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(says)}\r\n\r\n{says}".encode())
"#;

/// With a port of the same number for clients and workers.
fn accepting(setup: Setup) -> Setup {
    let port = free_port();
    setup.port(&port.to_string()).worker_port(port).options("--accept workers")
}

fn script(content: &str) -> Setup {
    let server = Cluster::of("python3 -u {folder}/server.py").file("head.py", HEAD);
    accepting(server.file("server.py", &format!("from head import *\n{content}")))
}

fn online(cluster: &Cluster) -> u64 {
    cluster.metrics().count("clusterd_workers", &[("state", "online")])
}

#[test]
fn a_server_that_closes_its_listener_and_binds_again_is_served() {
    needs!("python3");
    let again = "
for _ in range(20):
    listener = bound()
    listener.listen()
    listener.close()
listener = bound()
listener.listen()
serve(listener)
";
    let cluster = script(again).workers(2).start();
    for name in ["worker 1", "worker 2"] {
        until("each answers", || (cluster.try_get("/").ok()?.text() == name).then_some(()));
    }
}

#[test]
fn clients_may_use_another_port_than_the_server_has_asked_for() {
    needs!("python3");
    let server = Cluster::of("python3 -m http.server 8080").workers(2);
    let cluster = server.options("--attach preload --accept workers").start();
    cluster.get("/");
    assert_eq!(online(&cluster), 2);
}

#[test]
fn a_listener_is_the_workers_own_and_nothing_else_of_clusterd_stays() {
    needs!("python3");
    let asks = "
listener = bound()
first = os.fstat(listener.fileno()).st_ino
listener.listen(5)
listener.listen(7)
assert listener.getsockname() == ('0.0.0.0', PORT), listener.getsockname()
assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET
try:
    listener.getpeername()
except OSError as error:
    assert error.strerror == 'Transport endpoint is not connected', error
# A program that chooses among sockets would choose among those of all workers.
listener.setsockopt(socket.SOL_SOCKET, 51, bytes(16))
backlog = [line.split() for line in os.popen('ss -Hltn sport = %d' % PORT)]
serve(listener, ' '.join(sorted(set(row[2] for row in backlog))))
";
    let cluster = script(asks).workers(2).options("--backlog 300 --attach preload").start();
    if needs::program("ss") {
        assert_eq!(cluster.get("/"), "300", "the backlog is clusterd's");
    }
    let descriptors = cluster.worker(1).descriptors();
    let is_clusterds = |kind: &&String| kind.contains("unix") || kind.contains("clusterd");
    assert_eq!(descriptors.keys().find(is_clusterds), None, "{descriptors:?}");
}

#[test]
fn a_server_that_has_bound_counts_once_it_listens() {
    needs!("python3");
    let late = "
listener = bound()
open('bound', 'w').close()
while not os.path.exists('gate'):
    time.sleep(0.01)
listener.listen()
serve(listener)
";
    let cluster = script(late).workers(1).launch();
    let bound = cluster.folder().join("bound");
    until("it has bound", || bound.exists().then_some(()));
    assert_eq!((online(&cluster), cluster.probe("/readyz").status), (0, 503));
    cluster.open_gate("gate");
    cluster.wait_online();
    assert_eq!(cluster.get("/"), "worker 1");
}

#[test]
fn a_second_bind_fails_as_natively_unless_both_share_the_port() {
    needs!("python3");
    let twice = "
said = []
listener = bound()
listener.listen()
try:
    bound()
except OSError as error:
    said.append(error.strerror)
listener.close()
both = [bound(reuse_port=True), bound(reuse_port=True)]
for one in both:
    one.listen()
for one in both[1:]:
    if os.fork() == 0:
        serve(one, NAME + ': ' + ', '.join(said))
serve(both[0], NAME + ': ' + ', '.join(said))
";
    let cluster = script(twice).workers(2).start();
    for name in ["worker 1", "worker 2"] {
        let says = format!("{name}: Address already in use");
        until("each answers", || (cluster.try_get("/").ok()?.text() == says).then_some(()));
    }
}

#[test]
fn who_waits_at_a_listener_that_a_worker_closes_beside_others_is_let_go_at_once() {
    needs!("python3");
    let closes = "
import threading
both = [bound(reuse_port=True), bound(reuse_port=True)]
for one in both:
    one.listen()
def close():
    while not os.path.exists('gate'):
        time.sleep(0.01)
    both[1].close()
threading.Thread(target=close, daemon=True).start()
serve(both[0])
";
    let cluster = script(closes).workers(1).options("--handoff-timeout 300ms").start();
    let mut sent = Vec::new();
    let stalled = ("clusterd_worker_stalled_listeners", [("worker", "1")]);
    until("one of its listeners is found to be stalled", || {
        sent.push(cluster.send("/"));
        (cluster.metrics().count(stalled.0, &stalled.1) == 1).then_some(())
    });
    let begin = Instant::now();
    cluster.open_gate("gate");
    let failed = sent.into_iter().filter_map(|request| request.response().err()).count();
    // A worker's end has its heir waited for, for 10 s.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    let lost = ("clusterd_connections_rejected_total", [("reason", "backlog")]);
    assert!(failed > 0);
    // The client may hear of it first.
    until("all of them are counted", || {
        (cluster.metrics().count(lost.0, &lost.1) == failed as u64).then_some(())
    });
    assert_eq!(cluster.metrics().count(stalled.0, &stalled.1), 0);
    assert_eq!(cluster.get("/"), "worker 1");
}

/// A listener of this process, which runs as the same user as clusterd, on the port of the cluster.
fn stranger(cluster: &Cluster, host: &str) -> io::Result<Socket> {
    let address: IpAddr = host.parse().expect("an address");
    let address = SocketAddr::new(address, cluster.address().port());
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket)
}

#[test]
fn nobody_else_joins_a_port_of_one_family() {
    needs!("python3");
    let cluster = script("listener = bound()\nlistener.listen()\nserve(listener)").workers(3).start();
    for host in ["0.0.0.0", "127.0.0.1"] {
        let refused = stranger(&cluster, host).expect_err("the port is clusterd's");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{host}");
    }
    assert_eq!(cluster.reload(), Ok(()));
    stranger(&cluster, "0.0.0.0").expect_err("and stays so");
}

#[test]
fn who_joins_a_port_of_both_families_is_seen_and_steered_past() {
    needs!("python3");
    if !needs::ipv6() {
        return;
    }
    let both = "
listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(('::', PORT))
listener.listen()
serve(listener)
";
    let cluster = script(both).workers(3).start();
    let joined = stranger(&cluster, "::").expect("the kernel lets it");
    until("clusterd has seen it", || {
        assert!(cluster.get("/").starts_with("worker "));
        cluster.stderr.text().contains("another process listens on the port beside the workers").then_some(())
    });
    for _ in 0..30 {
        assert!(cluster.get("/").starts_with("worker "));
    }
    drop(joined);
    for _ in 0..30 {
        assert!(cluster.get("/").starts_with("worker "));
    }
}

/// A worker binds while clusterd has no free descriptor.
fn waits_for_a_descriptor(options: &str, says: &str) {
    needs!("python3");
    let late = "
open('started', 'w').close()
while not os.path.exists('gate'):
    time.sleep(0.01)
listener = bound()
listener.listen()
serve(listener)
";
    let cluster = script(late).workers(1).options(options).launch();
    let started = cluster.folder().join("started");
    until("the server is about to bind", || started.exists().then_some(()));
    let limit = |current| {
        let limit = Rlimit { current: Some(current), maximum: Some(1024) };
        prlimit(Pid::from_raw(cluster.primary().pid()), Resource::Nofile, limit)
            .expect("it is lower than before");
    };
    limit(3);
    cluster.open_gate("gate");
    until("clusterd says so", || cluster.stderr.text().contains(says).then_some(()));
    limit(1024);
    cluster.wait_online();
    assert_eq!(cluster.get("/"), "worker 1");
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
}

#[test]
fn without_a_free_descriptor_a_bind_by_the_shim_waits_for_one() {
    waits_for_a_descriptor("", "cannot accept at the attach socket; trying again");
}

#[test]
fn without_a_free_descriptor_a_bind_that_is_intercepted_waits_for_one() {
    waits_for_a_descriptor("--attach seccomp", "cannot answer the worker's bind or listen yet; trying again");
}

#[test]
fn a_server_whose_kind_of_listener_no_client_reaches_is_told_so() {
    needs!("python3");
    if !needs::ipv6() {
        return;
    }
    let port = free_port();
    let server = Cluster::of("python3 -u {folder}/server.py").file("head.py", HEAD);
    let server = server.file("server.py", "from head import *\nbound('::1')\n");
    let bind = format!("127.0.0.1:{port}");
    let cluster = server.no_port().bind(&bind).worker_port(port).options("--accept workers").launch();
    until("clusterd says why", || {
        cluster.stderr.text().contains("no public address is for such a listener").then_some(())
    });
    until("the server is told", || {
        cluster.stderr.text().contains("Cannot assign requested address").then_some(())
    });
}

#[test]
fn the_library_is_refused_with_the_remedy() {
    let cluster = accepting(Cluster::of(&build::example("hello"))).launch();
    let why = "which the library clusterd-worker cannot; use `--accept primary`";
    until("clusterd says why", || cluster.stderr.text().contains(why).then_some(()));
    until("the worker is told", || cluster.stderr.text().contains("Error: Shared").then_some(()));
}

#[test]
fn workers_are_steered_to_in_turn_where_the_kernel_may_count() {
    needs!("python3");
    if !needs::bpf() {
        return;
    }
    let cluster = script("listener = bound()\nlistener.listen()\nserve(listener)").workers(4).start();
    let in_turn = || {
        let names: Vec<_> = (0..12).map(|_| cluster.get("/")).collect();
        let is_periodic = names.windows(5).all(|five| five[0] == five[4]);
        let first: BTreeSet<_> = names.iter().take(4).collect();
        // Once in a million times by chance.
        (is_periodic && first.len() == 4).then_some(())
    };
    // One that leaves a connection waiting on a busy machine loses a turn.
    until("four workers take turns", in_turn);
}

#[test]
fn a_server_that_accepts_by_io_uring_is_served() {
    needs!("gcc");
    let Some(program) = crate::unfit::ring() else { return };
    let mut cluster = accepting(Cluster::of(&program)).workers(2).start();
    for _ in 0..20 {
        assert_eq!(cluster.get("/"), "ring");
    }
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
    assert!(!cluster.stderr.text().contains("io_uring"), "there is nothing to advise");
}

#[test]
fn who_drains_asks_its_clients_to_leave() {
    needs!("python3");
    let kept = "
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('', PORT), Handler).serve_forever()
";
    let cluster = script(kept).workers(1).options("--drain-timeout 10m --min-uptime 1ms").start();
    let mut client = TcpStream::connect(cluster.address()).expect("it listens");
    let mut ask = || {
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it is open");
        let mut answer = [0; 4096];
        let len = client.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..len]).to_lowercase()
    };
    assert!(!ask().contains("connection: close"));
    cluster.primary().signal(Signal::HUP);
    until("it drains", || (!cluster.stderr.messages("worker draining").is_empty()).then_some(()));
    assert!(ask().contains("connection: close"));
}

/// Of servers that answer with `worker N`. Whoever comes later is served by others, and nobody is lost.
#[track_caller]
pub(crate) fn a_stopped_worker_leaves_what_came_to_its_successor(cluster: &Cluster) {
    let is_the_first = || cluster.get("/").split_whitespace().nth(1) == Some("1");
    let stopped = cluster.worker(1);
    stop(&stopped);
    let mut sent = Vec::new();
    until("it is found to be stalled", || {
        sent.push(cluster.send("/"));
        let stalled = ("clusterd_worker_stalled_listeners", [("worker", "1")]);
        (cluster.metrics().count(stalled.0, &stalled.1) == 1).then_some(())
    });
    for _ in 0..20 {
        assert!(!is_the_first(), "a client came to a worker that is stopped");
    }
    stopped.signal(Signal::KILL);
    for request in sent {
        assert_eq!(request.response().expect("its successor serves what it has left").status, 200);
    }
    until("its successor answers", || is_the_first().then_some(()));
    assert_eq!(lost(cluster), 0);
}

/// How many connections were lost with a worker that had not accepted them.
pub(crate) fn lost(cluster: &Cluster) -> u64 {
    cluster.metrics().count("clusterd_connections_rejected_total", &[("reason", "backlog")])
}

#[test]
fn a_stopped_server_keeps_what_came_at_once_and_its_successor_serves_that() {
    needs!("python3");
    let server = "listener = bound()\nlistener.listen()\nserve(listener)";
    let cluster = script(server).workers(3).options("--handoff-timeout 300ms").start();
    a_stopped_worker_leaves_what_came_to_its_successor(&cluster);
    assert_eq!(cluster.say("describe -o json").json()["accept"], "workers");
}
