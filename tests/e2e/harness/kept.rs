//! Servers whose connections are kept, and clients that keep them: the lists in `fixtures/kept`, which
//! `benches/reload.py` reads as well.
//!
//! It starts clients and reads what they count, and judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::thread;

use rustix::process::{Pid, kill_process_group};
use serde::Deserialize;

use super::Signal;
use super::build;
use super::cluster::Cluster;
use super::folder::fixtures;
use super::output::Output;
use super::ports::free_port;
use super::setup::Setup;
use super::tools;
use super::wait::until;

/// The clients, by name.
pub(crate) const CLIENTS: [&str; 8] =
    ["node", "undici", "urllib3", "aiohttp", "go", "curl", "java-http-client", "java-url-connection"];

/// A program of one of the lists.
///
/// In its words `{servers}` and `{clients}` are the folders of the fixtures, `{build}` a folder for what `build` makes,
/// `{python}` the Python that has the packages, and `{hyper}` the example of this package. Those of a server may hold what
/// [`Setup`] replaces.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    command: Vec<String>,
    #[serde(default)]
    build: Vec<String>,
    program: Option<String>,
    python: Option<String>,
    npm: Option<String>,
}

/// This server, to be started; none if it is not installed.
pub(crate) fn server(name: &str) -> Option<Setup> {
    let command = Entry::of("servers.json", name).command(name)?;
    let setup = Cluster::of("").worker_port(free_port());
    let setup = command.iter().fold(setup, |setup, word| setup.arg(word));
    let setup = setup.filled_file("nginx.conf", include_str!("../fixtures/kept/servers/nginx.conf"));
    Some(setup.env("PATH", tools::path()).env("NODE_PATH", tools::node_modules()))
}

/// What clients have counted.
#[derive(Debug, Deserialize)]
pub(crate) struct Counts {
    /// Failed ones too.
    pub(crate) requests: u64,
    /// By kind.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// A program with some clients, each with a connection that it keeps; dropping it ends it.
pub(crate) struct Clients {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    stdout: Output,
    stderr: Output,
}

impl Clients {
    /// Starts it; none if it is not installed.
    pub(crate) fn start(name: &'static str, address: SocketAddr, connections: usize) -> Option<Self> {
        let words = Entry::of("clients.json", name).command(name)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(format!("http://{address}/")).arg(connections.to_string());
        command.env("PATH", tools::path()).env("NODE_PATH", tools::node_modules());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Output::read(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Output::read(child.stderr.take().expect("stderr is a pipe"));
        let input = child.stdin.take();
        Some(Self { name, child, input, stdout, stderr })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Asks for the counts.
    #[track_caller]
    pub(crate) fn counts(&mut self) -> Counts {
        let said = self.stdout.lines().len();
        let input = self.input.as_mut().expect("it was not ended");
        input.write_all(b"\n").unwrap_or_else(|error| panic!("{} reads nothing: {error}", self.name));
        self.counts_after(said)
    }

    /// Has the clients finish the requests that are under way, and ends them.
    #[track_caller]
    pub(crate) fn end(mut self) -> Counts {
        let said = self.stdout.lines().len();
        drop(self.input.take());
        let counts = self.counts_after(said);
        let status = until(&format!("{} ends", self.name), || self.child.try_wait().expect("it is ours"));
        assert!(status.success(), "{}: {status}", self.name);
        counts
    }

    #[track_caller]
    fn counts_after(&self, said: usize) -> Counts {
        let line = until(&format!("{} says what it has counted", self.name), || {
            self.stdout.lines().get(said).cloned()
        });
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {error}: {line}", self.name))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("--- what {} said\n{}\n{}\n---", self.name, self.stdout.text(), self.stderr.text());
        }
    }
}

impl Entry {
    fn of(list: &str, name: &str) -> Self {
        let list = fs::read_to_string(folder().join(list)).expect("a fixture");
        let mut list: BTreeMap<String, Self> = serde_json::from_str(&list).expect("a list of programs");
        list.remove(name).unwrap_or_else(|| panic!("{name} is in the list"))
    }

    /// Its words, once it is built; none if it is not installed.
    fn command(&self, name: &str) -> Option<Vec<String>> {
        let mut programs = [self.command.first(), self.build.first(), self.program.as_ref()].into_iter();
        let is_there = programs
            .all(|name| name.is_none_or(|name| name.starts_with('{') || tools::program(name)))
            && self.python.as_deref().is_none_or(tools::module)
            && self.npm.as_deref().is_none_or(tools::package);
        is_there.then(|| {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kept-{name}"));
            self.build(&target);
            self.command.iter().map(|word| fill(word, &target)).collect()
        })
    }

    /// Builds it, once for all tests.
    fn build(&self, target: &Path) {
        static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
        let mut built = BUILT.lock().expect("no build panics twice");
        if self.build.is_empty() || built.contains(target) {
            return;
        }
        fs::create_dir_all(target).expect("a folder among Cargo's own");
        let words: Vec<_> = self.build.iter().map(|word| fill(word, target)).collect();
        build::run(&words);
        built.insert(target.to_owned());
    }
}

fn folder() -> PathBuf {
    fixtures().join("kept")
}

fn fill(word: &str, target: &Path) -> String {
    let path = |name: &str| folder().join(name).to_string_lossy().into_owned();
    let word = match word {
        "{hyper}" => build::example("hyper"),
        word => word.to_owned(),
    };
    word.replace("{servers}", &path("servers"))
        .replace("{clients}", &path("clients"))
        .replace("{build}", &target.to_string_lossy())
        .replace("{python}", &tools::python().to_string_lossy())
}
