//! Workers that are to end wait for their own open requests and for nothing else, wherever clusterd is kept from looking.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::http::Kept;
use crate::harness::needs::{self, needs};
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, until};
use crate::shutdown::nothing_is_left;

/// Servers whose file any user may read, with enough time for tests.
fn of_servers() -> Setup {
    let servers =
        Cluster::of("python3 {folder}/server.py").file("server.py", include_str!("fixtures/server.py"));
    servers.options("--drain-timeout 10m")
}

const OTHER: &str = "--user 65534 --group 65534";

/// Of several workers one has an open request. At a stop the others end at once, and this one once it has answered.
#[track_caller]
fn a_worker_waits_for_its_own_request_alone(setup: Setup) -> Cluster {
    let mut cluster = setup.workers(3).start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    until("only one worker is left", || (cluster.workers().len() == 1).then_some(()));
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the open request is answered").status, 200);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
    cluster
}

#[test]
fn a_worker_waits_for_its_own_request_however_it_got_it() {
    needs!("python3");
    a_worker_waits_for_its_own_request_alone(of_servers());
    needs!("node");
    for attach in ["auto", "node", "preload"] {
        let servers = Cluster::of("node {fixtures}/node/app.js").options("--drain-timeout 10m");
        a_worker_waits_for_its_own_request_alone(servers.options(&format!("--attach {attach}")));
    }
}

#[test]
fn workers_of_another_user_wait_for_their_own_requests_without_cap_sys_ptrace() {
    needs!("python3", "setpriv");
    if !needs::root() {
        return;
    }
    let setup = of_servers().options(OTHER).under(&["setpriv", "--bounding-set=-sys_ptrace"]);
    a_worker_waits_for_its_own_request_alone(setup);
}

/// Has each connection answered by a process that has left its session and its parent, once there is the file `gate`.
const DAEMONS: &str = r#"
import os, socket, time
listener = socket.create_server(("", int(os.environ["PORT"])))
while True:
    connection, _ = listener.accept()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            listener.close()
            connection.recv(4096)
            while not os.path.exists(os.path.join(os.path.dirname(__file__), "gate")):
                time.sleep(0.02)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        os._exit(0)
    os.waitpid(child, 0)
    connection.close()
"#;

#[test]
fn a_worker_waits_for_a_request_that_it_has_passed_on_to_a_daemon() {
    needs!("python3");
    let daemons = Cluster::of("python3 {folder}/server.py").file("server.py", DAEMONS);
    a_worker_waits_for_its_own_request_alone(daemons.options("--drain-timeout 10m"));
}

/// Answers what a client has said once that is at its end, and there is the file `gate`.
const ANSWERS_AT_THE_END: &str = r#"
import os, socket, time
listener = socket.create_server(("", int(os.environ["PORT"])))
while True:
    connection, _ = listener.accept()
    while connection.recv(4096):
        pass
    while not os.path.exists(os.path.join(os.path.dirname(__file__), "gate")):
        time.sleep(0.02)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    connection.close()
"#;

#[test]
fn a_client_that_sends_no_more_and_waits_for_its_answer_is_not_cut() {
    needs!("python3");
    let setup = Cluster::of("python3 {folder}/server.py").file("server.py", ANSWERS_AT_THE_END);
    let mut cluster = setup.options("--drain-timeout 10m").start();
    let held = cluster.send("/");
    held.ends().expect("the connection stands");
    cluster.handed(1);
    cluster.primary().signal(Signal::TERM);
    until("it drains", || cluster.stderr.messages("worker draining").pop());
    let since = Instant::now();
    until("it is silent for longer than a client that has left", || {
        assert_eq!(cluster.workers().len(), 1, "its worker waits");
        (since.elapsed() > Duration::from_secs(4)).then_some(())
    });
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("it is answered").status, 200);
    cluster.wait_success();
}

/// A client asks once, keeps its connection for more, and leaves. Its worker keeps that for much longer.
#[track_caller]
fn a_client_that_has_left_is_not_waited_for(setup: Setup) {
    let cluster = setup.options("--drain-timeout 10m --ready-timeout 60s").start();
    assert_eq!(Kept::new(cluster.address()).get("/").expect("it is answered").status, 200);
    cluster.reload().expect("the worker is replaced");
}

/// Keeps each connection that it has had.
const KEEPS: &str = r#"
import os, socket
listener, kept = socket.create_server(("", int(os.environ["PORT"]))), []
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    connection.recv(4096)
    kept.append(connection)
"#;

#[test]
fn a_connection_that_a_worker_keeps_after_its_client_has_left_is_not_waited_for() {
    needs!("python3");
    let keeps = Cluster::of("python3 {folder}/server.py").file("server.py", KEEPS);
    a_client_that_has_left_is_not_waited_for(keeps);
}

const ASGI: &str = "
async def app(scope, receive, send):
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'2')]})
        await send({'type': 'http.response.body', 'body': b'ok'})
";

#[test]
fn a_connection_that_hypercorn_keeps_after_its_client_has_left_is_not_waited_for() {
    needs!("hypercorn");
    let keeps = Cluster::of("hypercorn --keep-alive 600 --bind 0.0.0.0:{port} app:app").file("app.py", ASGI);
    a_client_that_has_left_is_not_waited_for(keeps);
}

#[test]
fn a_worker_whose_client_stays_holds_up_no_other_at_a_reload() {
    needs!("python3");
    let cluster = of_servers().workers(3).options("--min-uptime 100ms").start();
    let held = cluster.send("/hold/gate");
    cluster.handed(1);
    let before = cluster.pids();
    cluster.primary().signal(Signal::HUP);
    until("only the worker that holds the request is left of the old ones", || {
        let now = cluster.pids();
        (now.len() == 4 && now.intersection(&before).count() == 1).then_some(())
    });
    assert!(cluster.stderr.said(&["reload done"]).is_empty(), "it waits for that one");
    cluster.open_gate("gate");
    assert_eq!(held.response().expect("the open request is answered").status, 200);
    until("the reload is done", || cluster.stderr.said(&["reload done"]).pop());
    assert!(cluster.pids().is_disjoint(&before));
}

#[test]
fn workers_wait_for_their_own_requests_where_netlink_is_forbidden() {
    needs!("python3");
    // What a seccomp profile says, and what `RestrictAddressFamilies=` of systemd does.
    for error in [libc::EPERM, libc::EAFNOSUPPORT] {
        let error = error.to_string();
        let setup = of_servers().under(&["python3", "{fixtures}/forbids.py", "netlink", &error]);
        let cluster = a_worker_waits_for_its_own_request_alone(setup);
        assert_eq!(cluster.stderr.said(&["cannot list connections over netlink"]).len(), 1);
    }
}

/// Processes that have nothing to do with the cluster.
struct Crowd(Vec<Child>);

impl Crowd {
    fn of(size: usize) -> Self {
        let sleeper = || Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep");
        Self((0..size).map(|_| sleeper()).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The size of a test, which may be made that of the real thing.
fn size(small: usize, variable: &str) -> usize {
    std::env::var(variable).ok().and_then(|size| size.parse().ok()).unwrap_or(small)
}

#[test]
fn no_open_request_is_cut_where_descriptors_are_few_and_processes_many() {
    needs!("python3", "prlimit");
    let workers = size(8, "CLUSTERD_TEST_DRAIN_WORKERS");
    let limit = size(256, "CLUSTERD_TEST_DRAIN_NOFILE");
    let _crowd = Crowd::of(size(300, "CLUSTERD_TEST_DRAIN_CROWD"));
    let nofile = format!("--nofile={limit}:{limit}");
    let number = u32::try_from(workers).expect("few enough");
    let mut cluster = of_servers().workers(number).under(&["prlimit", &nofile]).start();
    let held: Vec<_> = (0..workers).map(|_| cluster.send("/hold/gate")).collect();
    let handed = cluster.handed(workers as u64);
    assert_eq!(handed.len(), workers, "one for each: {handed:?}");
    cluster.primary().signal(Signal::TERM);
    until("it accepts no more", || cluster.connect().is_err().then_some(()));
    // So that several looks are taken.
    until("all of them drain", || {
        (cluster.stderr.messages("worker draining").len() == workers).then_some(())
    });
    cluster.open_gate("gate");
    let cut = held.into_iter().filter_map(|held| held.response().err()).count();
    assert_eq!(cut, 0, "of {workers} open requests");
    cluster.wait_success();
}
