use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use futures_util::FutureExt;
use prometheus::IntGauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;

use super::*;
use crate::control::fake::Fake;
use crate::http::MOST_HEADERS;
use crate::ids::WorkerPort;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running listener, ended when dropped.
struct Server {
    address: SocketAddr,
    registry: Registry,
    readiness: watch::Sender<Readiness>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(limits: ConnectionLimits) -> Self {
        Self::draining(limits, DRAIN)
    }

    fn draining(limits: ConnectionLimits, drain: Duration) -> Self {
        let mut admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        admin.limits = limits;
        admin.drain = drain;
        let address = admin.address();
        let registry = Registry::new();
        let unknown = Box::new(|| futures_util::future::ready(None).boxed());
        let open_connections = OpenConnections::new(unknown);
        open_connections.register(&registry).unwrap();
        let (readiness, told) = watch::channel(Readiness::Ready);
        let state = AdminState {
            registry: registry.clone(),
            scraper: None,
            open_connections,
            readiness: told,
            app: Arc::new(Fake::new()),
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shutdown = async { stopped.await.unwrap() };
            runtime.block_on(async { admin.watched().unwrap().serve(state, shutdown).await });
        });
        Self { address, registry, readiness, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes and reads until the server closes.
    fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read(stream)
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until it has ended by itself.
    fn wait(&mut self) {
        let thread = self.thread.take().unwrap();
        until("it does not end", || thread.is_finished());
        thread.join().unwrap();
    }

    fn get(&self, path: &str) -> String {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.stop();
            self.wait();
        }
    }
}

fn until(otherwise: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::yield_now();
    }
}

/// What comes until the server closes, or resets because it did not read everything.
fn read(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(all).unwrap(),
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn metrics_come_in_the_text_format() {
    let server = Server::start(LIMITS);
    let gauge = IntGauge::new("test_things", "Things.").unwrap();
    server.registry.register(Box::new(gauge.clone())).unwrap();
    gauge.set(7);
    let answer = server.get("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    let expected = "# HELP test_things Things.\n# TYPE test_things gauge\ntest_things 7\n";
    assert_eq!(body(&answer), expected);
    let head = server.ask(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.contains(&format!("content-length: {}\r\n", expected.len())), "{head}");
    assert_eq!(body(&head), "");
}

#[test]
fn readiness_follows_what_it_is_told_and_liveness_does_not() {
    let server = Server::start(LIMITS);
    let waiting_for = vec![WorkerPort(3000)];
    let table = [
        (
            Readiness::Starting { waiting_for },
            "503",
            "not ready: waiting for a worker to listen on port 3000\n",
        ),
        (Readiness::Ready, "200", "ready\n"),
        (Readiness::Stopping, "503", "not ready: clusterd is stopping\n"),
    ];
    for (readiness, status, sentence) in table {
        server.readiness.send_replace(readiness);
        let answer = server.get("/readyz");
        assert_eq!(&answer[9..12], status);
        assert_eq!(body(&answer), sentence);
        assert_eq!(body(&server.get("/livez")), "ok\n");
        let answer = server.ask(b"OPTIONS /readyz HTTP/1.0\r\n\r\n");
        assert_eq!(&answer[9..12], if status == "200" { "204" } else { status });
        assert!(answer.contains("allow: GET, HEAD, OPTIONS\r\n"), "{answer}");
    }
}

#[test]
fn what_there_is_not_is_refused_with_what_there_is() {
    let server = Server::start(LIMITS);
    let answer = server.get("/metrics/");
    assert_eq!(&answer[9..12], "404");
    assert_eq!(body(&answer), "not found: use /metrics, /livez, /readyz, or / for the page\n");
    let answer = server.ask(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(&answer[9..12], "405");
    assert!(answer.contains("allow: GET, HEAD, OPTIONS\r\n"), "{answer}");
}

#[test]
fn options_name_the_methods_of_a_path() {
    let server = Server::start(LIMITS);
    for path in ["/livez", "/metrics"] {
        let answer = server.ask(format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(&answer[9..12], "204", "{path}");
        assert!(answer.contains("allow: GET, HEAD, OPTIONS\r\n"), "{answer}");
    }
    assert_eq!(&server.ask(b"OPTIONS /nothing HTTP/1.1\r\n\r\n")[9..12], "404");
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answer() {
    let server = Server::start(LIMITS);
    let mut probe = server.connect();
    probe.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    probe.shutdown(Shutdown::Write).unwrap();
    assert_eq!(body(&read(probe)), "ok\n");

    let slow = Slow::new();
    server.registry.register(Box::new(slow.clone())).unwrap();
    let mut scrape = server.connect();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    scrape.shutdown(Shutdown::Write).unwrap();
    slow.wait_for(1);
    // It is answered after the server has met the end of what the client sends.
    assert_eq!(&server.get("/livez")[9..12], "200");
    slow.open();
    assert_eq!(&read(scrape)[9..12], "200");

    let mut unfinished = server.connect();
    unfinished.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    unfinished.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(unfinished), "");
}

#[test]
fn garbage_and_excess_are_refused_and_do_no_harm() {
    let server = Server::start(LIMITS);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
    let unread = "GET /livez HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".to_owned() + &"x".repeat(1 << 20);
    let table: [(&[u8], &str); 6] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello", "400"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "400"),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n", "400"),
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (unread.as_bytes(), "200"),
    ];
    for (bytes, status) in table {
        let mut stream = server.connect();
        // The server may have answered and closed before everything is sent.
        let _ = stream.write_all(bytes);
        let answer = read(stream);
        // A reset may overtake the answer.
        let start = String::from_utf8_lossy(&bytes[..16]);
        assert!(answer.is_empty() || &answer[9..12] == status, "{answer} for {start}");
        assert_eq!(&server.get("/livez")[9..12], "200");
    }
}

#[test]
fn a_client_that_does_not_finish_its_request_is_closed() {
    let server = Server::start(ConnectionLimits { head: Duration::from_millis(200), ..LIMITS });
    let silent = server.connect();
    let mut slow = server.connect();
    slow.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    let pace = Some(Duration::from_millis(50));
    slow.set_read_timeout(pace).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while matches!(slow.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
        assert!(Instant::now() < deadline);
        let _ = slow.write_all(b"a: b\r\n");
    }
    assert_eq!(read(silent), "");
}

#[test]
fn silent_clients_cannot_keep_a_probe_out() {
    let server = Server::start(ConnectionLimits { connections: 3, ..LIMITS });
    let silent: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    assert_eq!(&server.get("/livez")[9..12], "200");
    for oldest in silent.into_iter().take(40) {
        assert_eq!(read(oldest), "");
    }
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let limits = ConnectionLimits { total: Duration::from_secs(1), ..LIMITS };
    let mut server = Server::draining(limits, Duration::from_secs(3600));
    let more_than_sockets_hold = "x".repeat(32 << 20);
    let long = IntGauge::new("test_long", more_than_sockets_hold).unwrap();
    server.registry.register(Box::new(long)).unwrap();
    let mut stream = server.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(&server.get("/livez")[9..12], "200");
    server.stop();
    server.wait();
}

/// A collector that takes until it is told to go on.
#[derive(Clone)]
struct Slow {
    gauge: IntGauge,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    waiting: usize,
    open: bool,
}

impl Slow {
    fn new() -> Self {
        Self { gauge: IntGauge::new("test_slow", "Slow.").unwrap(), gate: Arc::default() }
    }

    fn wait_for(&self, scrapes: usize) {
        let (gate, changed) = &*self.gate;
        let guard = gate.lock().unwrap();
        let (_guard, result) =
            changed.wait_timeout_while(guard, PATIENCE, |gate| gate.waiting < scrapes).unwrap();
        assert!(!result.timed_out());
    }

    fn open(&self) {
        self.gate.0.lock().unwrap().open = true;
        self.gate.1.notify_all();
    }
}

impl Collector for Slow {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (gate, changed) = &*self.gate;
        let mut guard = gate.lock().unwrap();
        guard.waiting += 1;
        changed.notify_all();
        let open = changed.wait_timeout_while(guard, PATIENCE, |gate| !gate.open);
        assert!(open.unwrap().0.open);
        self.gauge.collect()
    }
}

#[test]
fn too_many_scrapes_are_shed_and_probes_are_still_answered() {
    let server = Server::start(LIMITS);
    let slow = Slow::new();
    server.registry.register(Box::new(slow.clone())).unwrap();
    let scrapes: Vec<TcpStream> = (0..routes::SCRAPES)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    slow.wait_for(scrapes.len());
    let shed = server.get("/metrics");
    assert_eq!(&shed[9..12], "503");
    assert_eq!(body(&shed), "overloaded: 4 scrapes are running\n");
    assert_eq!(&server.get("/livez")[9..12], "200");
    assert_eq!(&server.get("/readyz")[9..12], "200");
    slow.open();
    for scrape in scrapes {
        assert_eq!(&read(scrape)[9..12], "200");
    }
}

#[test]
fn a_shutdown_answers_what_is_open() {
    let mut server = Server::draining(ConnectionLimits { connections: usize::MAX, ..LIMITS }, PATIENCE);
    let slow = Slow::new();
    server.registry.register(Box::new(slow.clone())).unwrap();
    let mut scrape = server.connect();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    slow.wait_for(1);
    server.stop();
    until("it still accepts", || TcpStream::connect(server.address).is_err());
    slow.open();
    assert_eq!(&read(scrape)[9..12], "200");
    server.wait();
}

#[test]
fn a_shutdown_does_not_wait_for_silent_clients() {
    let hour = Duration::from_secs(3600);
    let limits = ConnectionLimits { head: hour, total: hour, ..LIMITS };
    let mut server = Server::draining(limits, Duration::from_millis(50));
    let silent = server.connect();
    assert_eq!(&server.get("/livez")[9..12], "200");
    server.stop();
    server.wait();
    assert_eq!(read(silent), "");
}

#[test]
fn an_address_in_use_names_the_option() {
    let first = Admin::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let error = Admin::bind(first.address()).unwrap_err().to_string();
    let expected = format!("cannot listen on --metrics {}: Address already in use", first.address());
    assert!(error.starts_with(&expected), "{error}");
}
