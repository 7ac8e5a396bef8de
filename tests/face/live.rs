//! What only a running clusterd shows: its metrics, the signals that it handles, the paths of its API.
//!
//! It runs the built-in demo once for each test.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::commands::clusterd;
use super::{API, FILES, PAGES, REFERENCE, code_spans, first_cells, lacking, section, text, words};

const DEADLINE: Duration = Duration::from_secs(30);
const NAME: &str = "face";

/// The built-in demo with its metrics, ended when dropped.
struct Demo {
    process: Child,
    home: tempfile::TempDir,
    metrics: String,
}

impl Demo {
    fn start() -> Self {
        // A name is taken once in a home folder.
        let home = tempfile::tempdir().expect("a folder");
        let arguments = ["--bind", "127.0.0.1:0:8080", "--metrics", "127.0.0.1:0", "--workers", "1"];
        let mut process = clusterd()
            .args(arguments)
            .args(["--log-format", "json"])
            .args(["--name", NAME])
            .env("CLUSTERD_HOME", home.path())
            // Without these, there are no metrics of them.
            .args(["--health-http", "/", "--scrape", "/", "--connection-stats"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("clusterd runs");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let metrics = lines.find_map(|line| {
            let said: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
            (said["message"] == "metrics").then(|| said["address"].as_str().map(str::to_owned))?
        });
        // Until its end somebody has to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, metrics: metrics.expect("an address"), home }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.metrics).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The status of the answer to a request at the control socket.
    fn control(&self, method: &str, path: &str) -> String {
        let socket = self.home.path().join(format!("{NAME}-{}.sock", self.process.id()));
        let mut stream = UnixStream::connect(socket).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).expect("a status").to_owned()
    }

    /// Waits until the worker is online, and its health is looked after.
    fn wait_until_ready(&self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.get("/metrics").contains("clusterd_worker_health_failures_total{worker=\"1\"}") {
            assert!(Instant::now() < deadline, "it does not become ready");
            std::thread::yield_now();
        }
    }

    /// The numbers of the signals for which it has a handler (proc_pid_status(5)).
    /// Those that are caught, and those that wait until they are read from a descriptor (signalfd(2)).
    fn handled_signals(&self) -> BTreeSet<i32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let mask = |name| {
            let mask = status.lines().find_map(|line| line.strip_prefix(name)).expect("a mask");
            u64::from_str_radix(mask.trim(), 16).expect("a number")
        };
        let mask = mask("SigCgt:") | mask("SigBlk:");
        (1..=31).filter(|number| mask & (1 << (number - 1)) != 0).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::INT);
        let _ = self.process.wait();
    }
}

fn metrics<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    words(text, prefix, |character| character.is_ascii_lowercase() || character == '_')
}

#[test]
fn every_metric_that_is_named_is_exposed_and_the_reference_has_all() {
    let demo = Demo::start();
    demo.wait_until_ready();
    let answer = demo.get("/metrics");
    let families = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exposed: BTreeSet<&str> = families.collect();
    assert!(exposed.len() > 15, "{answer}");
    for name in PAGES.iter().chain(&FILES) {
        let text = text(name);
        // A query may be of a part of a histogram.
        let families = metrics(&text, "clusterd_").map(|name| name.trim_end_matches("_bucket"));
        let missing = lacking(&families.collect(), &exposed);
        assert!(missing.is_empty(), "{name} names {missing:?}, which /metrics does not");
    }
    let reference = text(REFERENCE);
    let reference = section(&reference, "## Metrics");
    let named = metrics(reference, "clusterd_").chain(metrics(reference, "process_")).collect();
    assert_eq!(lacking(&exposed, &named), [""; 0], "{REFERENCE} lacks them");
    assert_eq!(lacking(&named, &exposed), [""; 0], "/metrics lacks them");
    for label in ["state=\"", "reason=\"", "result=\""] {
        let values = answer.split(label).skip(1).filter_map(|rest| rest.split('"').next());
        let unnamed: BTreeSet<&str> =
            values.filter(|value| !reference.contains(&format!("`{value}`"))).collect();
        assert!(unnamed.is_empty(), "{REFERENCE} lacks {unnamed:?}");
    }
}

#[test]
fn the_reference_has_every_signal_that_is_handled_and_no_other() {
    let demo = Demo::start();
    demo.wait_until_ready();
    let mut handled = demo.handled_signals();
    // Rust's own stack guard, the reaper, and what interrupts a close(2) that takes long.
    for internal in [Signal::SEGV, Signal::BUS, Signal::CHILD, Signal::URG] {
        handled.remove(&internal.as_raw());
    }
    let reference = text(REFERENCE);
    let cells = first_cells(section(&reference, "## Signals"));
    let names = cells.flat_map(|cell| cell.split(|character: char| !character.is_ascii_alphanumeric()));
    let named: BTreeSet<i32> = names.filter_map(number).collect();
    assert_eq!(named, handled);
}

/// Those that a program can handle and that mean something to clusterd, or might.
fn number(name: &str) -> Option<i32> {
    let signal = match name {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "ALRM" => Signal::ALARM,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "TTIN" => Signal::TTIN,
        "TTOU" => Signal::TTOU,
        "CONT" => Signal::CONT,
        "TSTP" => Signal::TSTP,
        "WINCH" => Signal::WINCH,
        "PWR" => Signal::POWER,
        _ => return None,
    };
    Some(signal.as_raw())
}

/// A path that exists refuses a method that it does not have, and does nothing.
#[test]
fn every_path_of_the_api_page_exists() {
    let demo = Demo::start();
    demo.wait_until_ready();
    let reference = text(API);
    let mut paths = BTreeSet::new();
    for cell in first_cells(section(&reference, "## HTTP API")) {
        let mut spans = code_spans(cell);
        let request = spans.next().and_then(|span| span.strip_prefix("GET ").or(span.strip_prefix("POST ")));
        let Some(path) = request.map(|path| path.replace("APP", NAME)) else { continue };
        // Those of one row differ in the last part.
        let (folder, _) = path.rsplit_once('/').expect("a path");
        paths.extend(spans.filter(|span| !span.starts_with('?')).map(|last| format!("{folder}/{last}")));
        paths.insert(path);
    }
    assert!(paths.len() > 7, "{paths:?}");
    for path in paths {
        assert_eq!(demo.control("DELETE", &path), "405", "{path}");
    }
    assert_eq!(demo.control("DELETE", "/v1/no/such/path"), "404");
}
