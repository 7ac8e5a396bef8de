//! Servers that know how to send their clients away, by GOAWAY or a close frame: told at the beginning of the drain
//! (`--stop-signal-at drain`), they cut no stream, and no client holds up the drain.
//!
//! These are the recipes of docs/guide.md.

use std::process::{Child, Command, Stdio};

use crate::harness::folder::fixtures;
use crate::harness::needs::{self, needs};
use crate::harness::output::Output;
use crate::harness::setup::Setup;
use crate::harness::tools;
use crate::harness::{Cluster, Signal, until};

/// A client, and what it has said.
struct Client {
    child: Child,
    said: Output,
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the client starts");
        let said = Output::read(child.stdout.take().expect("stdout is a pipe"));
        Self { child, said }
    }

    /// Waits until it has said this.
    #[track_caller]
    fn says(&self, line: &str) {
        until(&format!("the client says {line:?}"), || {
            let text = self.said.text();
            assert!(!text.contains("cut"), "{text}");
            text.lines().any(|said| said == line).then_some(())
        });
    }

    /// The number of the process that it has named last.
    #[track_caller]
    fn last_pid(&self) -> i32 {
        until("the client names a process", || {
            let text = self.said.text();
            let last = text.lines().last()?.strip_prefix("pid ")?;
            Some(last.parse().expect("a number"))
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// That whoever waits for a time-out waits for longer than the test.
const OPTIONS: &str = "--stop-signal-at drain --drain-timeout 10m --kill-timeout 10m --min-uptime 50ms";

/// A stream that is open at a reload goes on, and ends with it the worker; the next request is its successor's.
#[track_caller]
fn an_open_stream_is_finished(setup: Setup, client: impl FnOnce(&Cluster) -> Command) {
    let cluster = setup.options(OPTIONS).start();
    let old = cluster.worker(1);
    let client = Client::start(client(&cluster).current_dir(cluster.folder()));
    client.says("open");
    cluster.primary().signal(Signal::HUP);
    until("the old worker drains", || cluster.stderr.messages("worker draining").pop());
    until("it serves with the new one", || (cluster.pids().len() == 2).then_some(()));
    cluster.open_gate("gate");
    client.says("ended");
    until("the old worker has ended", || (!old.is_alive()).then_some(()));
    let text = cluster.stderr.text();
    assert!(!text.contains("was killed by"), "{text}");
}

#[test]
fn grpc_js_finishes_its_streams() {
    if !needs::package("@grpc/grpc-js") {
        return;
    }
    an_open_stream_is_finished(Cluster::of("node {fixtures}/leaving/grpc.cjs"), |cluster| {
        let mut client = Command::new("node");
        client.arg(fixtures().join("leaving/grpc.cjs")).args(["client", &cluster.address().to_string()]);
        client
    });
}

#[test]
fn grpcio_finishes_its_streams() {
    if !tools::module("grpc") {
        return;
    }
    let python = tools::python();
    let server = format!("{} {{fixtures}}/leaving/grpc_server.py", python.display());
    an_open_stream_is_finished(Cluster::of(&server), |cluster| {
        let mut client = Command::new(&python);
        client
            .arg(fixtures().join("leaving/grpc_server.py"))
            .args(["client", &cluster.address().to_string()]);
        client
    });
}

#[test]
fn hypercorn_finishes_its_streams_of_http_2() {
    needs!("curl");
    if !tools::module("hypercorn") {
        return;
    }
    let hypercorn = "-m hypercorn app:app --workers 0 --bind 0.0.0.0:{port} --graceful-timeout 600";
    let server = format!("{} {hypercorn}", tools::python().display());
    let setup = Cluster::of(&server).file("app.py", include_str!("fixtures/leaving/app.py"));
    an_open_stream_is_finished(setup, |cluster| {
        let mut client = Command::new("curl");
        client.args(["--no-buffer", "--silent", "--fail", "--http2-prior-knowledge"]);
        client.arg(format!("http://{}/ticks", cluster.address()));
        client
    });
}

#[test]
fn uvicorn_says_goodbye_to_web_sockets() {
    if !tools::module("uvicorn") || !tools::module("websockets") {
        return;
    }
    let python = tools::python();
    let server = format!("{} -m uvicorn app:app --host 0.0.0.0 --port {{port}}", python.display());
    let setup = Cluster::of(&server).file("app.py", include_str!("fixtures/leaving/app.py"));
    let cluster = setup.options(OPTIONS).start();
    let old = cluster.worker(1);
    let mut client = Command::new(&python);
    client.arg(fixtures().join("leaving/websocket.py")).arg(cluster.address().to_string());
    let client = Client::start(&mut client);
    client.says("open");
    cluster.primary().signal(Signal::HUP);
    client.says("closed 1012");
    until("it has come again", || (client.said.text().matches("pid ").count() == 2).then_some(()));
    assert_ne!(client.last_pid(), old.pid(), "it was the new worker that it came to");
    until("the old worker has ended", || (!old.is_alive()).then_some(()));
    let text = cluster.stderr.text();
    // It ends by the signal in the end, after all that it does for its clients.
    assert!(!text.contains("was killed by SIGKILL"), "{text}");
}
