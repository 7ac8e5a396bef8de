//! With `--attach listen-fds` a server inherits its listening sockets, as from systemd.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::needs::{self, needs};
use crate::harness::ports::{free_port, free_ports};
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Load, Signal, build, http, tools, until};
use crate::shutdown::nothing_is_left;

/// With a port of the same number for clients and workers.
fn inheriting(setup: Setup) -> Setup {
    let port = free_port();
    let setup = setup.port(&port.to_string()).worker_port(port).options("--attach listen-fds");
    setup.env("PATH", tools::path()).env("NODE_PATH", tools::node_modules())
}

/// All three workers answer, a reload loses nothing, and a stop leaves nothing.
#[track_caller]
fn serves(setup: Setup) {
    let quickly = "--reload-parallel 3 --min-uptime 300ms";
    let mut cluster = inheriting(setup).workers(3).options(quickly).start();
    let mut answered = BTreeSet::new();
    until("each worker answers", || {
        answered.insert(cluster.try_get("/").ok()?.text());
        (answered.len() == 3).then_some(())
    });
    assert!(answered.iter().all(|answer| answer.starts_with("worker ")), "{answered:?}");
    Load::of_requests(&cluster).loses_nothing_by_a_reload(&cluster);
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[]), 0);
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    nothing_is_left(&cluster, &processes);
}

const WSGI: &str = r#"
import os
BODY = b"worker " + os.environ["CLUSTERD_WORKER_ID"].encode()
def app(_environment, start):
    start("200 OK", [("Content-Length", str(len(BODY)))])
    return [BODY]
"#;

const ASGI: &str = r#"
import os
BODY = b"worker " + os.environ["CLUSTERD_WORKER_ID"].encode()
async def app(scope, receive, send):
    if scope["type"] != "http": raise ValueError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": BODY})
"#;

const RACK: &str = "
body = \"worker #{ENV['CLUSTERD_WORKER_ID']}\"
run ->(_) { [200, { 'content-type' => 'text/plain', 'content-length' => body.size.to_s }, [body]] }
";

const NODE: &str = "
require('http')
  .createServer((request, response) => response.end(`worker ${process.env.CLUSTERD_WORKER_ID}`))
  .listen({ fd: 3 });
";

/// A server of systemd's in C.
fn activated() -> Setup {
    Cluster::of(&build::program("activated", "activated.c", &["gcc"]))
}

#[test]
fn gunicorn_serves() {
    needs!("gunicorn");
    serves(Cluster::of("gunicorn --chdir {folder} app:app").file("app.py", WSGI));
}

#[test]
fn uvicorn_serves() {
    needs!("uvicorn");
    serves(Cluster::of("uvicorn --fd 3 --app-dir {folder} app:app").file("app.py", ASGI));
}

#[test]
fn puma_serves() {
    needs!("puma");
    serves(Cluster::of("puma -b tcp://[::]:{port} -t 1:2 {folder}/config.ru").file("config.ru", RACK));
}

#[test]
fn node_serves() {
    needs!("node");
    serves(Cluster::of("node {folder}/app.js").file("app.js", NODE));
}

#[test]
fn go_serves() {
    needs!("go");
    serves(Cluster::of(&build::go("go-activated", "activated.go")));
}

#[test]
fn a_server_that_knows_sd_listen_fds_serves() {
    needs!("gcc");
    serves(activated());
}

#[test]
fn a_shell_that_becomes_the_server_passes_the_listeners_on() {
    needs!("gcc");
    let program = build::program("activated", "activated.c", &["gcc"]);
    serves(Cluster::of("sh -c").arg(&format!("true && exec {program}")));
}

#[test]
fn static_programs_and_another_user_are_served() {
    needs!("gcc", "setpriv");
    if needs::root() {
        let program = build::program("activated-static", "activated.c", &["gcc", "-static"]);
        serves(Cluster::of(&program).options("--user 65534 --group 65534"));
    }
}

#[test]
fn listeners_have_the_order_of_the_ports_and_their_names() {
    needs!("gcc");
    let first = free_ports(2);
    let ports = [first + 1, first];
    let setup = activated().port(&ports[0].to_string()).port(&ports[1].to_string());
    let cluster = setup.options("--attach listen-fds").workers(1).start();
    for (at, port) in ports.into_iter().enumerate() {
        let answer = http::request(([127, 0, 0, 1], port).into(), "GET", "/").expect("an answer");
        assert_eq!(answer.text(), format!("worker 1: {port} at {at}"));
    }
    // A connection that was answered may be closed a moment later.
    until("it has the standard streams and the listeners, and nothing else", || {
        let kept: usize = cluster.worker(1).descriptors().values().sum();
        (kept == 5).then_some(())
    });
}

#[test]
fn a_program_that_cannot_be_run_does_not_count() {
    let setup = inheriting(Cluster::of("{folder}/server"));
    let server = setup.folder.path().join("server");
    std::fs::write(&server, "#!/nonexistent/interpreter\n").expect("a temporary folder");
    std::fs::set_permissions(&server, Permissions::from_mode(0o755)).expect("it is there");
    let cluster = setup.workers(1).launch();
    until("it is said", || cluster.stderr.text().contains("cannot start").then_some(()));
    until("it ends as in a shell", || cluster.stderr.text().contains("exited with code 127").then_some(()));
    assert_eq!(cluster.metrics().count("clusterd_workers", &[("state", "online")]), 0);
}

#[test]
fn a_server_below_a_process_that_waits_for_it_gets_nothing() {
    needs!("gcc");
    let program = build::program("activated", "activated.c", &["gcc"]);
    let setup = inheriting(Cluster::of("sh -c").arg(&format!("{program}; true")));
    let cluster = setup.workers(1).launch();
    until("the server says that the listeners are not its own", || {
        cluster.stderr.text().contains("no listeners for process").then_some(())
    });
}

#[test]
fn a_process_that_waits_for_its_server_is_named_once_clients_wait() {
    needs!("gcc");
    let program = build::program("activated", "activated.c", &["gcc"]);
    let script = format!("if [ $CLUSTERD_WORKER_ID = 1 ]; then sleep 1000; true; else exec {program}; fi");
    let setup = inheriting(Cluster::of("sh -c").arg(&script)).workers(2);
    let cluster = setup.options("--handoff-timeout 100ms").start();
    let mut clients = Vec::new();
    let advice = "which is sh, and that runs sleep; have sh become the server";
    until("clusterd says so", || {
        clients.push(cluster.connect());
        cluster.stderr.text().contains(advice).then_some(())
    });
}

#[test]
fn a_worker_that_says_when_it_is_ready_is_waited_for() {
    needs!("python3");
    let server = r#"
import os, socket, time
while not os.path.exists("gate"):
    time.sleep(0.01)
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path = os.environ["NOTIFY_SOCKET"]
manager.sendto(b"READY=1", "\0" + path[1:] if path[0] == "@" else path)
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nworker")
    client.close()
"#;
    let setup = Cluster::of("python3 {folder}/server.py").file("server.py", server);
    let cluster = inheriting(setup).workers(1).options("--wait-ready").launch();
    until("it listens", || (!cluster.stderr.messages("worker listens").is_empty()).then_some(()));
    assert_eq!(cluster.probe("/readyz").status, 503);
    cluster.open_gate("gate");
    cluster.wait_online();
    for _ in 0..3 {
        assert_eq!(cluster.get("/"), "worker");
    }
    let restarts = cluster.metrics().count("clusterd_worker_restarts_total", &[]);
    assert_eq!(restarts, 0, "accept waits, as on systemd's sockets");
}

#[test]
fn what_clusterd_has_inherited_it_passes_on() {
    needs!("gcc", "python3");
    let port = free_port();
    let under = ["python3", "{fixtures}/activate.py", &format!("[::]:{port}"), "--"].map(str::to_owned);
    let under: Vec<_> = under.iter().map(|word| word.replace("{fixtures}", &fixtures())).collect();
    let under: Vec<_> = under.iter().map(String::as_str).collect();
    let setup = activated().port(&port.to_string()).worker_port(port).options("--attach listen-fds");
    let cluster = setup.under(&under).workers(2).start();
    let mut answered = BTreeSet::new();
    until("each worker answers", || {
        answered.insert(cluster.try_get("/").ok()?.text());
        (answered.len() == 2).then_some(())
    });
}

fn fixtures() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/fixtures").to_owned()
}
