//! For npm: installed from a registry on this machine, as `npx`, `npm start` and a command for everyone.
//!
//! The registry is verdaccio, which knows no other: what npm asks for and is not there fails the test.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Weak};

use rustix::process::{Pid, kill_process_group};

use super::dist;
use crate::harness::folder::Folder;
use crate::harness::needs::{self, needs};
use crate::harness::output::Output;
use crate::harness::ports::free_port;
use crate::harness::process::{Process, with_environment};
use crate::harness::setup::MARK;
use crate::harness::{Signal, http, until};

const REGISTRY: &str = "
storage: ./storage
max_body_size: 1gb
uplinks: {}
auth: { htpasswd: { file: ./htpasswd } }
packages: { '**': { access: $all, publish: $all } }
log: { type: stdout, format: pretty, level: warn }
";

/// A server whose answer to /slow is held back until there is a file `release`.
const SERVER: &str = "
const fs = require('fs');
require('http').createServer((request, response) => {
  const answer = () => response.end(`worker ${process.pid}`);
  if (request.url !== '/slow') return answer();
  console.log('slow has come');
  const timer = setInterval(() => fs.existsSync('release') && (clearInterval(timer), answer()), 10);
}).listen(8080);
";

/// A registry that has clusterd's packages; dropping it ends it.
struct Registry {
    server: Child,
    output: Output,
    address: SocketAddr,
    _folder: Folder,
}

impl Registry {
    /// The one of all tests that run now; `None` where something is missing, and the test is skipped.
    fn get() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Registry>> = Mutex::new(Weak::new());
        if !["node", "npm", "npx", "verdaccio"].into_iter().all(needs::program) {
            return None;
        }
        let packages = dist()?;
        // A test that has failed meanwhile left it whole.
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let registry = shared.upgrade().unwrap_or_else(|| Arc::new(Self::start(&packages)));
        *shared = Arc::downgrade(&registry);
        Some(registry)
    }

    fn start(packages: &Path) -> Self {
        let folder = Folder::new();
        let config = folder.write("config.yaml", REGISTRY);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new("verdaccio");
        command.arg("--config").arg(config).arg("--listen").arg(address.to_string()).env_remove("NODE_PATH");
        command.current_dir(folder.path()).env("HOME", folder.path());
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = piped.spawn().expect("verdaccio can be started");
        let output = Output::read(server.stdout.take().expect("a pipe"));
        let registry = Self { server, output, address, _folder: folder };
        until("the registry answers", || {
            http::request(address, "GET", "/-/ping").is_ok_and(|answer| answer.status == 200).then_some(())
        });
        let publisher = Place::new(&registry);
        let files = fs::read_dir(packages).expect("it was built").map(|entry| entry.expect("a file").path());
        for package in files.filter(|file| file.extension().is_some_and(|extension| extension == "tgz")) {
            publisher.npm(&["publish", "--access", "public", &package.to_string_lossy()]);
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            eprintln!("--- what the registry said\n{}\n---", self.output.text());
        }
    }
}

/// A folder in which a user of the registry works.
struct Place {
    folder: Folder,
    registry: SocketAddr,
}

impl Place {
    fn new(registry: &Registry) -> Self {
        let folder = Folder::new();
        let address = registry.address;
        // npm publishes nothing without a token; the registry asks for none.
        folder.write("npmrc", &format!("//{address}/:_authToken=none\n"));
        folder.write("app/server.js", SERVER);
        folder.write("app/package.json", r#"{ "name": "app", "version": "1.0.0" }"#);
        Self { folder, registry: address }
    }

    fn app(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// A command of the user, in the folder of the app.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.app());
        // Nothing of this machine's own npm, of the one that may run the tests, and no way to another registry.
        let foreign = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.starts_with("npm_") || name.ends_with("_proxy")
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(foreign)) {
            command.env_remove(name);
        }
        let own = |name| self.folder.path().join(name);
        command.env_remove("NODE_PATH").env_remove("PORT").env_remove("WEB_CONCURRENCY");
        command.env("HOME", self.folder.path()).env("CLUSTERD_HOME", self.folder.home());
        command.env("npm_config_registry", format!("http://{}", self.registry));
        command.env("npm_config_userconfig", own("npmrc")).env("npm_config_globalconfig", own("no-npmrc"));
        command.env("npm_config_cache", own("cache")).env("npm_config_update_notifier", "false");
        command.env("npm_config_audit", "false").env("npm_config_fund", "false");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs npm, which must not fail.
    fn npm(&self, arguments: &[&str]) {
        let output = self.command("npm", arguments).output().expect("npm can be started");
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "npm {arguments:?}: {}\n{}{}", output.status, text[0], text[1]);
    }

    /// The clusterd that npm has put into the folder of the app.
    fn linked(&self) -> PathBuf {
        self.app().join("node_modules/.bin/clusterd")
    }

    /// The exit status of a command, and what it has written as an error.
    fn ended(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> (ExitStatus, String) {
        let output = self.command(program, arguments).output().expect("it can be started");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts a command that leads a process group of its own, and becomes or runs a clusterd for this port.
    fn start(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str], port: u16) -> Running<'_> {
        let mark = format!("npm-{}-{port}", std::process::id());
        let mut command = self.command(program, arguments);
        let command = command.env(MARK, &mark).process_group(0).stdin(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let outputs = [
            Output::read(child.stdout.take().expect("a pipe")),
            Output::read(child.stderr.take().expect("a pipe")),
        ];
        let running = Running { place: self, child, mark, outputs, address: ([127, 0, 0, 1], port).into() };
        until("clusterd is ready", || running.says(&["ready; try"]));
        running
    }
}

/// The arguments of clusterd with which it serves at this port.
fn serving(port: u16) -> String {
    format!("--port {port}:8080 -w 1 --metrics 127.0.0.1:0 --log-format json -- node server.js")
}

/// A command that runs, with all that it has started; dropping it ends them.
struct Running<'a> {
    place: &'a Place,
    child: Child,
    mark: String,
    outputs: [Output; 2],
    address: SocketAddr,
}

impl Running<'_> {
    fn says(&self, words: &[&str]) -> Option<String> {
        self.outputs.iter().find_map(|output| output.line_with(words))
    }

    fn processes(&self) -> Vec<Process> {
        with_environment(MARK, &self.mark)
    }

    /// Stops it while a client waits for an answer, which comes: the stop was a graceful one, once.
    #[track_caller]
    fn drains_at(mut self, signal: fn(&Self)) -> ExitStatus {
        let answer = http::request(self.address, "GET", "/").expect("the worker answers");
        assert!(answer.text().starts_with("worker "), "{}", answer.text());
        let pending = http::send(self.address, "GET", "/slow").expect("a connection");
        until("the worker has the request", || self.says(&["slow has come"]));
        signal(&self);
        until("it drains", || self.says(&["worker draining"]));
        fs::write(self.place.app().join("release"), "").expect("a file");
        assert!(pending.response().expect("an answer").text().starts_with("worker "));
        let status = until("it ends", || self.child.try_wait().expect("the child is ours"));
        until("nothing is left", || self.processes().is_empty().then_some(()));
        assert!(self.says(&["stopping at once"]).is_none(), "the stop was made a fast one");
        fs::remove_file(self.place.app().join("release")).expect("it is there");
        status
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.processes().iter().for_each(|process| process.signal(Signal::KILL));
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let [stdout, stderr] = &self.outputs;
            eprintln!("--- what {} said\n{}\n{}\n---", self.mark, stdout.text(), stderr.text());
        }
    }
}

fn to_the_process(running: &Running) {
    Process::find(running.child.id() as i32).expect("it runs").signal(Signal::TERM);
}

fn to_the_group(running: &Running) {
    let group = Pid::from_raw(running.child.id() as i32).expect("a number");
    kill_process_group(group, Signal::TERM).expect("the group is there");
}

/// How a signal gets to a command.
const WAYS: [fn(&Running); 2] = [to_the_process, to_the_group];

#[test]
fn an_installed_command_is_clusterd_itself() {
    let Some(registry) = Registry::get() else { return };
    let place = Place::new(&registry);
    place.folder.write("app/fails", "exit 7\n");
    let prefix = place.folder.path().join("global");
    place.npm(&["install", "clusterd"]);
    place.npm(&["install", "--global", "--prefix", &prefix.to_string_lossy(), "clusterd"]);
    for command in [place.linked(), prefix.join("bin/clusterd")] {
        for way in WAYS {
            let port = free_port();
            let arguments = serving(port);
            let running = place.start(&command, &arguments.split(' ').collect::<Vec<_>>(), port);
            let program = Process::find(running.child.id() as i32).and_then(|process| process.program());
            let program = program.expect("it runs");
            assert!(program.ends_with("@clusterd/linux-x64/bin/clusterd"), "{}", program.display());
            assert_eq!(running.drains_at(way).code(), Some(0));
        }
        let (status, said) = place.ended(&command, &["--nonsense"]);
        assert_eq!(status.code(), Some(2), "{said}");
        let (status, said) = place.ended(&command, &FAILING);
        assert_eq!(status.code(), Some(7), "{said}");
    }
}

/// The arguments of a clusterd that gives up, with the code of its worker.
const FAILING: [&str; 9] =
    ["--port", "0:8080", "--metrics", "127.0.0.1:0", "--max-restarts", "0", "--", "sh", "./fails"];

/// Yarn has Node run the commands of packages, whatever they are written in.
#[test]
fn a_command_that_node_is_told_to_run_is_the_same() {
    let Some(registry) = Registry::get() else { return };
    let place = Place::new(&registry);
    place.folder.write("app/fails", "exit 7\n");
    place.npm(&["install", "clusterd"]);
    let command = place.linked().to_string_lossy().into_owned();
    for node in needs::nodes() {
        for way in WAYS {
            let port = free_port();
            let arguments = format!("{command} {}", serving(port));
            let running = place.start(&node, &arguments.split(' ').collect::<Vec<_>>(), port);
            assert_eq!(running.drains_at(way).code(), Some(0), "{}", node.display());
        }
        let (status, said) = place.ended(&node, &[&[command.as_str()][..], &FAILING].concat());
        assert_eq!(status.code(), Some(7), "{}: {said}", node.display());
    }
    let (status, said) = place.ended("node", &[&command, "--nonsense"]);
    assert_eq!(status.code(), Some(2), "{said}");
}

#[test]
fn npx_runs_what_the_registry_has() {
    let Some(registry) = Registry::get() else { return };
    let place = Place::new(&registry);
    place.folder.write("app/fails", "exit 7\n");
    let port = free_port();
    let arguments = format!("--yes clusterd {}", serving(port));
    // The shell of npx may not become the last command, and ends by the signal alone: what is left of it then drains.
    place.start("npx", &arguments.split(' ').collect::<Vec<_>>(), port).drains_at(to_the_group);
    let (status, said) = place.ended("npx", &[&["--yes", "clusterd"][..], &FAILING].concat());
    assert_eq!(status.code(), Some(7), "{said}");
    let (status, said) = place.ended("npx", &["--yes", "clusterd", "--nonsense"]);
    assert_eq!(status.code(), Some(2), "{said}");
}

#[test]
fn a_signal_that_npm_passes_on_counts_once() {
    needs!("script");
    let Some(registry) = Registry::get() else { return };
    let place = Place::new(&registry);
    place.npm(&["install", "clusterd"]);
    place.folder.write("app/fails", "exit 7\n");
    let port = free_port();
    let (start, fail) = (serving(port), FAILING.join(" "));
    let scripts = format!(r#""start": "exec clusterd {start}", "fail": "exec clusterd {fail}""#);
    let manifest = format!(r#"{{ "name": "app", "version": "1.0.0", "scripts": {{ {scripts} }} }}"#);
    place.folder.write("app/package.json", &manifest);
    for way in WAYS {
        assert_eq!(place.start("npm", &["start"], port).drains_at(way).code(), Some(0));
    }
    assert_eq!(place.ended("npm", &["run", "fail"]).0.code(), Some(7));

    // Ctrl-C is for all that the terminal has in its foreground, and npm passes it on.
    let mut terminal = place.start("script", &["-qec", "exec npm start", "/dev/null"], port);
    let keys = terminal.child.stdin.as_mut().expect("a pipe");
    keys.write_all(b"\x03").expect("script reads it");
    let status = until("it ends", || terminal.child.try_wait().expect("the child is ours"));
    until("nothing is left", || terminal.processes().is_empty().then_some(()));
    until("all is read", || terminal.outputs[0].has_ended().then_some(()));
    assert_eq!(terminal.outputs[0].text().matches("stopping at once").count(), 1);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn what_is_missing_is_said_in_one_sentence() {
    let Some(registry) = Registry::get() else { return };
    let place = Place::new(&registry);
    place.npm(&["install", "--omit=optional", "clusterd"]);
    let sentence = |output: (ExitStatus, String), beginning: &str| {
        assert_eq!(output.0.code(), Some(1), "{}", output.1);
        assert!(output.1.starts_with(beginning) && output.1.matches('\n').count() == 1, "{}", output.1);
    };
    let missing = "clusterd: the package @clusterd/linux-x64, which has the program, is not installed: ";
    sentence(place.ended(place.linked(), &["--version"]), missing);

    // Somebody else's machine.
    let uname = place.folder.write("other/uname", "#!/bin/sh\necho Darwin arm64\n");
    let run = "chmod +x \"$0\" && PATH=\"${0%/*}:$PATH\" exec \"$@\"";
    let command = place.linked();
    let words = ["-c", run, &uname.to_string_lossy(), &command.to_string_lossy(), "--version"];
    sentence(place.ended("sh", &words), "clusterd: there is no package for Darwin arm64, ");

    // Where it is not beside the command, Node knows where else packages are.
    let elsewhere = place.folder.path().join("elsewhere");
    place.npm(&["install", "--prefix", &elsewhere.to_string_lossy(), "@clusterd/linux-x64"]);
    let mut found = place.command(&command, &["--version"]);
    let found = found.env("NODE_PATH", elsewhere.join("node_modules")).output().expect("it can be started");
    let said = String::from_utf8_lossy(&found.stdout);
    assert!(said.starts_with("clusterd "), "{said}{}", String::from_utf8_lossy(&found.stderr));
}
