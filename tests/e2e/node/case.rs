//! A case of compatibility: the same small application under Node's own primary and under clusterd, and what each of
//! its workers and a client see.
//!
//! With `CLUSTERD_TEST_NODE_PRIMARY=1` Node's primary takes clusterd's place too, which shows that a case compares
//! nothing but what is the same every time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use serde_json::Value;

use super::Attach;
use super::reference::Reference;
use crate::harness::folder::{Folder, fixtures};
use crate::harness::ports::free_ports;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, until};

/// The ports that a case has for itself.
const PORTS: u16 = 10;

/// A case; the methods read as the sentence that describes it.
pub(crate) struct Case {
    app: String,
    workers: u32,
    served: Vec<u16>,
    client_first: bool,
    environment: Vec<(String, String)>,
}

impl Case {
    /// A case that two workers play, with their server on the first of the case's ports.
    pub(crate) fn of(app: &str) -> Self {
        let environment = Vec::new();
        Self { app: app.to_owned(), workers: 2, served: vec![0], client_first: false, environment }
    }

    pub(crate) fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// The ports that clusterd serves from its start, counted from the case's first one. Any other is opened when a
    /// worker asks for it.
    pub(crate) fn serving(mut self, ports: &[u16]) -> Self {
        self.served = ports.to_vec();
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The client acts before the workers tell what they saw.
    pub(crate) fn client_first(mut self) -> Self {
        self.client_first = true;
        self
    }

    /// Plays it under both primaries; what is seen must be the same.
    #[track_caller]
    pub(crate) fn assert_same(self, attach: Attach) {
        let (tcp, udp) = taken();
        let taken = tcp.local_addr().expect("a bound socket has an address").port();
        let case = self.env("CASE_TAKEN", &taken.to_string());
        let base = free_ports(PORTS);
        let under_node = case.play_under_node(base);
        let under_clusterd = match env::var_os("CLUSTERD_TEST_NODE_PRIMARY") {
            Some(_) => case.play_under_node(base),
            None => case.play_under_clusterd(base, attach),
        };
        drop(udp);
        let mut differences = Vec::new();
        compare("", &under_clusterd, &under_node, &mut differences);
        let text = differences.join("\n");
        assert!(
            differences.is_empty(),
            "what is seen under clusterd ({attach:?}) and under Node's primary:\n{text}"
        );
    }

    fn play_under_node(&self, base: u16) -> Value {
        let folder = Folder::new();
        for (name, content) in files() {
            folder.write(name, content);
        }
        let reference = Reference::start(folder, self.workers, &self.app, &self.environment(base));
        self.play(base, reference.folder())
    }

    fn play_under_clusterd(&self, base: u16, attach: Attach) -> Value {
        let command = format!("node {{fixtures}}/node/{}", self.app);
        // Turns are compared, and a loaded machine may hold a worker up.
        let mut setup = Cluster::of(&command)
            .workers(self.workers)
            .options(attach.option())
            .env("CLUSTERD_HANDOFF_TIMEOUT", "30s")
            .env("CLUSTERD_REDISPATCH_AFTER", "30s");
        setup = self.served.iter().fold(setup, |setup, port| setup.port(&(base + port).to_string()));
        setup = files().iter().fold(setup, |setup, (name, content)| setup.file(name, content));
        let cluster = self.environment(base).iter().fold(setup, with_variable).launch();
        self.play(base, cluster.folder())
    }

    fn play(&self, base: u16, folder: &Path) -> Value {
        let before = self.client_first.then(|| self.client(base, folder));
        let workers = until("every worker has told what it saw", || {
            let workers = told(folder);
            (workers.len() >= self.workers as usize).then_some(workers)
        });
        let client = before.unwrap_or_else(|| self.client(base, folder));
        let workers = if self.client_first { workers } else { told(folder) };
        let seen = serde_json::json!({ "client": client, "workers": workers });
        with_names(seen, &folder.to_string_lossy(), &mut Vec::new())
    }

    fn client(&self, base: u16, folder: &Path) -> Value {
        let mut command = Command::new("node");
        command.arg(fixtures().join("node").join(&self.app)).arg("client");
        command.current_dir(folder).envs(self.environment(base));
        let output = command.output().expect("node can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("the client says {text:?}: {errors}"))
    }

    fn environment(&self, base: u16) -> Vec<(String, String)> {
        let mut environment = self.environment.clone();
        environment.push(("CASE_PORT".to_owned(), base.to_string()));
        environment
    }
}

/// As it is, with names for what is another one each time: the folder, and ports that the kernel chose.
fn with_names(value: Value, folder: &str, ports: &mut Vec<String>) -> Value {
    match value {
        Value::String(text) if text.starts_with("port:") => {
            let known = ports.iter().position(|port| *port == text).unwrap_or_else(|| {
                ports.push(text);
                ports.len() - 1
            });
            Value::String(format!("port {known}"))
        }
        Value::String(text) => Value::String(text.replace(folder, "{folder}")),
        Value::Array(values) => values.into_iter().map(|value| with_names(value, folder, ports)).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(key, value)| (key, with_names(value, folder, ports))).collect()
        }
        value => value,
    }
}

/// Where two values differ: the way there, and what stands on either side.
fn compare(way: &str, clusterd: &Value, node: &Value, differences: &mut Vec<String>) {
    match (clusterd, node) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                compare(&format!("{way}/{key}"), &clusterd[key], &node[key], differences);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{way}/{index}"), left, right, differences);
            }
        }
        _ if clusterd == node => {}
        _ => differences.push(format!("  {way}: {clusterd} | {node}")),
    }
}

/// What the workers have told so far, by file, which bears the worker's number.
fn told(folder: &Path) -> BTreeMap<String, Value> {
    let entries =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("a file").path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.map(|path| (file_name(&path), read(&path))).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("a worker's file");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}: {text:?}", path.display()))
}

fn with_variable(setup: Setup, (name, value): &(String, String)) -> Setup {
    setup.env(name, value)
}

/// What an application finds in its folder: a certificate with its key, and a file that is no socket.
fn files() -> [(&'static str, &'static str); 2] {
    [("server.pem", certificate()), ("app.file", "")]
}

fn certificate() -> &'static str {
    static PEM: OnceLock<String> = OnceLock::new();
    PEM.get_or_init(|| {
        let options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2 \
                       -keyout - -out -";
        let output = Command::new("openssl").args(options.split_whitespace()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    })
}

/// A port that is another program's, for TCP and UDP.
fn taken() -> (TcpListener, UdpSocket) {
    until("a port is free for TCP and UDP", || {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
        Some((tcp, udp))
    })
}
