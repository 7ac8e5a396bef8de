//! The examples of the library `clusterd-worker`, with clusterd in front and without.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::harness::build::example;
use crate::harness::output::Output;
use crate::harness::process::Process;
use crate::harness::{Cluster, Load, Signal, http, until};

/// How many requests are open at the drain; `drain` takes 300 ms for each.
const LINES: usize = 20;

#[test]
fn hello_answers_through_two_workers() {
    let cluster = Cluster::of(&example("hello")).workers(2).start();
    let workers: BTreeSet<_> = (0..8).map(|_| greeting(cluster.connect().unwrap())).collect();
    assert_eq!(workers, BTreeSet::from(["1".to_owned(), "2".to_owned()]));
}

#[test]
fn axum_serves_over_a_reload_without_a_failed_request() {
    let cluster = Cluster::of(&example("axum")).workers(2).start();
    assert!(cluster.get("/").starts_with("hello from worker "));
    let before = cluster.pids();
    let load = Load::of_requests(&cluster);
    for _ in 0..3 {
        cluster.reload().unwrap();
    }
    load.goes_on();
    load.lost_nothing();
    assert!(cluster.pids().is_disjoint(&before), "every worker was replaced");
}

#[test]
fn drain_finishes_open_requests_and_exits_with_success() {
    // Nothing but the drain ends a worker: the signal would come long after the test has given up.
    let setup = Cluster::of(&example("drain")).options("--drain-timeout 10m --min-uptime 1ms");
    let cluster = setup.start();
    let (mut idle, mut busy) = (Lines::connect(cluster.address()), Lines::connect(cluster.address()));
    assert_eq!((idle.ask("one"), busy.ask("two")), ("ONE".to_owned(), "TWO".to_owned()));
    let old = cluster.worker(1);
    let lines: Vec<_> = (0..LINES).map(|line| format!("LINE {line}")).collect();
    lines.iter().for_each(|line| busy.send(&line.to_lowercase()));
    cluster.primary().signal(Signal::HUP);
    cluster.wait_for(1, "draining");
    let answers: Vec<_> = lines.iter().map_while(|_| busy.line()).collect();
    assert_eq!(answers, lines, "what was open is finished");
    assert_eq!((busy.line(), idle.line()), (None, None), "then both connections are closed");
    until("the old worker has ended", || (!old.is_alive()).then_some(()));
    let drained = || cluster.stdout.text().contains("drained 2 connections").then_some(());
    until("the old worker has said that it is done", drained);
    let exited = || cluster.stderr.said(&["worker exited with"]).pop();
    let exited = until("clusterd has said how it ended", exited);
    assert!(exited.starts_with("worker exited with code 0"), "{exited}");
    assert_eq!(Lines::connect(cluster.address()).ask("four"), "FOUR", "its successor serves");
}

#[test]
fn without_clusterd_hello_listens_by_itself() {
    assert_eq!(greeting(Alone::start("hello").connect()), "alone");
}

#[test]
fn without_clusterd_axum_listens_by_itself_until_a_signal() {
    let mut alone = Alone::start("axum");
    let response = http::send_on(alone.connect(), "GET", "/").unwrap().response().unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "hello from worker alone\n"));
    alone.ends_with_success();
}

#[test]
fn without_clusterd_drain_listens_by_itself_until_a_signal() {
    let mut alone = Alone::start("drain");
    let mut client = Lines::connect(alone.address);
    assert_eq!(client.ask("one"), "ONE");
    client.send("two");
    alone.ends_with_success();
    assert_eq!((client.line().as_deref(), client.line()), (Some("TWO"), None));
}

/// Reads the only line of `hello`, and returns which worker it is from.
fn greeting(mut stream: TcpStream) -> String {
    let client = stream.local_addr().unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).unwrap();
    let worker = greeting.trim_end().strip_prefix(&format!("hello {client}, this is worker "));
    worker.unwrap_or_else(|| panic!("{client} was greeted with {greeting:?}")).to_owned()
}

/// A client of `drain`.
struct Lines(BufReader<TcpStream>);

impl Lines {
    fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(http::connect(address).unwrap()))
    }

    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line; `None` when the server has closed the connection.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line().expect("an answer")
    }
}

/// An example without clusterd; dropping it ends it.
struct Alone {
    child: Child,
    address: SocketAddr,
}

impl Alone {
    fn start(name: &str) -> Self {
        let mut command = Command::new(example(name));
        command.env_clear().env("PORT", "0").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let output = Output::read(child.stdout.take().expect("stdout is a pipe"));
        let address: SocketAddr = until("it says where it listens", || {
            output.lines().first()?.strip_prefix("listening on ")?.parse().ok()
        });
        Self { child, address: ([127, 0, 0, 1], address.port()).into() }
    }

    fn connect(&self) -> TcpStream {
        http::connect(self.address).unwrap()
    }

    fn ends_with_success(&mut self) {
        Process::find(self.child.id().cast_signed()).expect("it runs").signal(Signal::TERM);
        let child = &mut self.child;
        let status = until("it has ended", || child.try_wait().expect("the child is ours"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
