//! Clients of HTTP are asked to leave a worker that drains, and nothing else of what it sends is changed.

use crate::harness::http::{Kept, Response};
use crate::harness::needs::{self, needs};
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Signal, nginx_config, until};
use crate::shutdown::nothing_is_left;

/// A server of HTTP/1.1. At /raw its body begins like a response, and is sent in a call of its own.
const PYTHON: &str = r#"
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"HTTP/1.1 200 OK\r\n\r\n" if self.path == "/raw" else b"worker"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "keep-alive")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

const ASGI: &str = "
async def app(scope, receive, send):
    if scope['type'] != 'http': raise ValueError
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'6')]})
    await send({'type': 'http.response.body', 'body': b'worker'})
";

const WSGI: &str = "
def app(environ, start):
    start('200 OK', [('Content-Length', '6')])
    return [b'worker']
";

const RACK: &str = "run lambda { |_| [200, { 'content-type' => 'text/plain' }, ['worker']] }";

fn python() -> Setup {
    Cluster::of("python3 {folder}/server.py").file("server.py", PYTHON)
}

/// Enough time for tests.
fn started(setup: Setup) -> Cluster {
    setup.workers(1).options("--drain-timeout 10m --min-uptime 1ms").start()
}

fn connection(response: &Response) -> Vec<&str> {
    let lines = response.headers.iter().filter(|(name, _)| name == "connection" || name == "keep-alive");
    lines.map(|(_, value)| value.as_str()).collect()
}

/// A client that has asked once, and was not asked to leave.
#[track_caller]
fn kept(cluster: &Cluster) -> Kept {
    let mut client = Kept::new(cluster.address());
    let response = client.get("/").expect("an answer");
    assert_ne!(response.header("connection"), Some("close"), "{response:?}");
    client
}

fn drains(cluster: &Cluster) {
    until("a worker drains", || (!cluster.stderr.messages("worker draining").is_empty()).then_some(()));
}

/// It is asked to leave on the connection that it has, and then does.
#[track_caller]
fn is_asked_to_leave(client: &mut Kept) {
    let response = until("the client is asked to leave", || {
        let response = client.get("/").expect("an answer");
        (response.header("connection") == Some("close")).then_some(response)
    });
    assert_eq!(connection(&response), ["close"]);
    assert!(!response.body.is_empty());
    assert_eq!(client.opened(), 1);
}

/// One reload, during which a client has a connection to the old worker.
#[track_caller]
fn asks_to_leave_at_a_reload(setup: Setup) {
    let cluster = started(setup);
    let mut client = kept(&cluster);
    cluster.primary().signal(Signal::HUP);
    drains(&cluster);
    is_asked_to_leave(&mut client);
    until("the old worker is gone", || (!cluster.stderr.said(&["reload done"]).is_empty()).then_some(()));
    // The new one does not drain.
    kept(&cluster);
}

#[test]
fn python_asks() {
    needs!("python3");
    asks_to_leave_at_a_reload(python());
    // Below a shell, and with another public port.
    asks_to_leave_at_a_reload(
        Cluster::of("sh -c")
            .arg("python3 {folder}/server.py; true")
            .file("server.py", PYTHON)
            .worker_port(free_port()),
    );
}

#[test]
fn workers_of_another_user_ask() {
    needs!("python3");
    if needs::root() {
        asks_to_leave_at_a_reload(python().options("--user 65534 --group 65534"));
    }
}

#[test]
fn node_asks() {
    needs!("node");
    asks_to_leave_at_a_reload(Cluster::of("node {fixtures}/server.js").options("--attach preload"));
}

#[test]
fn uvicorn_asks() {
    needs!("uvicorn");
    let command = "uvicorn --host 0.0.0.0 --port {port} --timeout-keep-alive 600 --app-dir {folder} app:app";
    asks_to_leave_at_a_reload(Cluster::of(command).file("app.py", ASGI).worker_port(free_port()));
}

#[test]
fn gunicorn_asks_in_the_processes_that_it_forks() {
    needs!("gunicorn");
    let command =
        "gunicorn -b 0.0.0.0:{port} -k gthread --threads 4 --keep-alive 600 --chdir {folder} app:app";
    asks_to_leave_at_a_reload(Cluster::of(command).file("app.py", WSGI).worker_port(free_port()));
}

#[test]
fn puma_asks() {
    needs!("puma");
    let command = "puma -b tcp://0.0.0.0:{port} -t 1:2 -C {folder}/puma.rb {folder}/config.ru";
    let setup = Cluster::of(command).file("puma.rb", "persistent_timeout 600").file("config.ru", RACK);
    asks_to_leave_at_a_reload(setup.worker_port(free_port()));
}

#[test]
fn webrick_asks() {
    needs!("ruby");
    asks_to_leave_at_a_reload(Cluster::of("ruby {fixtures}/webrick.rb"));
}

#[test]
fn nginx_asks() {
    needs!("nginx");
    let config =
        nginx_config!("daemon off; error_log stderr; events {}", "listen {port}; keepalive_timeout 600s;");
    let command = "nginx -e stderr -p {folder} -c {folder}/nginx.conf";
    asks_to_leave_at_a_reload(
        Cluster::of(command).worker_port(free_port()).filled_file("nginx.conf", config),
    );
}

#[test]
fn java_asks() {
    needs!("java");
    asks_to_leave_at_a_reload(Cluster::of("java {fixtures}/Server.java"));
}

#[test]
fn whatever_ends_a_worker_has_its_clients_asked() {
    needs!("python3");
    let scaled = python().workers(2).options("--drain-timeout 10m").start();
    let mut clients: Vec<_> = (0..2).map(|_| kept(&scaled)).collect();
    scaled.primary().signal(Signal::TTOU);
    drains(&scaled);
    let is_asked =
        |client: &mut Kept| client.get("/").expect("an answer").header("connection") == Some("close");
    until("one of them is asked", || clients.iter_mut().any(is_asked).then_some(()));

    let mut stopped = started(python());
    let mut client = kept(&stopped);
    let processes = stopped.processes();
    stopped.primary().signal(Signal::TERM);
    until("it accepts no more", || stopped.connect().is_err().then_some(()));
    is_asked_to_leave(&mut client);
    stopped.wait_success();
    nothing_is_left(&stopped, &processes);
}

#[test]
fn a_body_that_begins_like_a_response_is_not_changed() {
    needs!("python3");
    let cluster = started(python());
    let mut client = kept(&cluster);
    cluster.primary().signal(Signal::HUP);
    drains(&cluster);
    let response = until("the client is asked to leave", || {
        let response = client.get("/raw").expect("an answer");
        assert_eq!(response.text(), "HTTP/1.1 200 OK\r\n\r\n");
        (response.header("connection") == Some("close")).then_some(response)
    });
    assert_eq!(connection(&response), ["close"]);
}

#[test]
fn nobody_is_asked_with_drain_http_off() {
    needs!("python3");
    let cluster = started(python().options("--drain-http off"));
    let mut client = kept(&cluster);
    cluster.primary().signal(Signal::HUP);
    drains(&cluster);
    for _ in 0..20 {
        let response = client.get("/").expect("an answer");
        assert_eq!(connection(&response), ["keep-alive"]);
    }
    assert_eq!(client.opened(), 1);
}

#[test]
fn a_runtime_folder_that_was_emptied_keeps_nobody_from_being_asked() {
    needs!("python3");
    let cluster = started(python());
    let mut old = kept(&cluster);
    let page = cluster.runtime_folder().join("draining");
    std::fs::remove_file(&page).expect("the page is there");
    cluster.primary().signal(Signal::HUP);
    drains(&cluster);
    assert!(page.is_file(), "it was made again");
    is_asked_to_leave(&mut old);
    until("the old worker is gone", || (!cluster.stderr.said(&["reload done"]).is_empty()).then_some(()));
    let mut new = kept(&cluster);
    cluster.primary().signal(Signal::HUP);
    is_asked_to_leave(&mut new);
}

#[test]
fn describe_says_whose_clients_are_not_asked() {
    needs!("python3");
    let reached = started(python());
    assert_eq!(reached.say("describe -o json").json()["asks_to_leave"], true);
    assert!(!reached.say("describe").done().contains("to leave"));

    let off = started(python().options("--drain-http off"));
    assert!(off.say("describe").done().contains("HTTP clients are not asked to leave (--drain-http off"));

    let line = "env -u LD_PRELOAD sleep 600 & exec python3 {folder}/server.py";
    let partly = started(Cluster::of("sh -c").arg(line).file("server.py", PYTHON));
    // The shell's child has not become sleep at once.
    until("sleep is without it", || {
        let processes = partly.say("describe -o json").json()["workers"][0]["without_shim"].to_string();
        (processes.contains("sleep (pid ") && !processes.contains("python")).then_some(())
    });
    assert!(partly.say("describe").done().contains("worker 1 does not ask HTTP clients of sleep (pid "));
}
