//! The applications: what each needs, how it is built, and the command that serves it on one port.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::process;

const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/apps");
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/accepting");

/// Contenders are compared with those that serve the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Application {
    /// A thread that accepts until there is nothing, and epoll.
    C,
    /// Node's http.
    Node,
    /// Go's net/http.
    Go,
    /// gunicorn with threads, which keeps connections.
    Gunicorn,
    Uvicorn,
    Puma,
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Application::C => "a C server with epoll",
            Application::Node => "Node's http",
            Application::Go => "Go's net/http",
            Application::Gunicorn => "gunicorn",
            Application::Uvicorn => "uvicorn",
            Application::Puma => "puma",
        })
    }
}

impl Application {
    /// The program that has to be installed.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Application::C => "gcc",
            Application::Node => "node",
            Application::Go => "go",
            Application::Gunicorn => "gunicorn",
            Application::Uvicorn => "uvicorn",
            Application::Puma => "puma",
        }
    }

    /// What serves this port, in one process.
    pub(crate) fn command(self, place: &Place, port: u16) -> anyhow::Result<Vec<String>> {
        let words = match self {
            Application::C | Application::Go => vec![place.built(self)?.display().to_string()],
            Application::Node => vec!["node".to_owned(), self.source("server.js")],
            Application::Gunicorn => gunicorn(port, 1),
            Application::Uvicorn => uvicorn(port, 1),
            Application::Puma => puma(port, &[]),
        };
        Ok(words)
    }

    pub(crate) fn source(self, name: &str) -> String {
        format!("{APPS}/{name}")
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Threads, because its default workers keep no connection.
pub(crate) fn gunicorn(port: u16, workers: usize) -> Vec<String> {
    words(&format!(
        "gunicorn --chdir {APPS} -b 127.0.0.1:{port} -w {workers} --threads 4 --log-level error app:wsgi"
    ))
}

pub(crate) fn uvicorn(port: u16, workers: usize) -> Vec<String> {
    let flags = "--no-access-log --log-level warning";
    words(&format!("uvicorn --app-dir {APPS} --port {port} --workers {workers} {flags} app:asgi"))
}

pub(crate) fn puma(port: u16, flags: &[&str]) -> Vec<String> {
    let mut words = words(&format!("puma -q -e production -t 4:4 -b tcp://127.0.0.1:{port}"));
    words.extend(flags.iter().map(|&flag| flag.to_owned()));
    words.push(format!("{APPS}/config.ru"));
    words
}

/// Compilers at work, or what they have made.
#[derive(Default)]
pub(crate) struct Builds(BTreeMap<Application, Result<PathBuf, String>>);

impl Builds {
    /// Builds what has to be, at the same time, for so long at most.
    pub(crate) fn new(folder: &Path, path: &str, wanted: &[Application], patience: Duration) -> Self {
        let deadline = Instant::now() + patience;
        let begin = |&application| Some((application, begin(application, folder, path)?));
        let begun: Vec<_> = wanted.iter().filter_map(begin).collect();
        let ended = begun.into_iter().map(|(application, (program, child))| {
            let built = child.map_err(|error| error.to_string()).and_then(|child| finish(child, deadline));
            (application, built.map(|()| program))
        });
        Self(ended.collect())
    }

    pub(crate) fn get(&self, application: Application) -> anyhow::Result<&Path> {
        match self.0.get(&application) {
            Some(Ok(program)) => Ok(program),
            Some(Err(error)) => anyhow::bail!("{application} cannot be built: {error}"),
            None => anyhow::bail!("{application} was not built"),
        }
    }
}

fn begin(application: Application, folder: &Path, path: &str) -> Option<(PathBuf, std::io::Result<Child>)> {
    let (program, source) = (folder.join(format!("server-{}", application.program())), Path::new(SOURCES));
    let mut command = Command::new(application.program());
    match application {
        Application::C => command.args(["-O2", "-o"]).arg(&program).arg(source.join("server.c")),
        Application::Go => command.args(["build", "-o"]).arg(&program).arg(source.join("server.go")),
        _ => return None,
    };
    command.env("PATH", path).env("GO111MODULE", "off");
    command.env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go-cache"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Some((program, child))
}

fn finish(mut child: Child, deadline: Instant) -> Result<(), String> {
    match process::ended_by(&mut child, deadline) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("its compiler ended with {status}")),
        Ok(None) => Err("its compiler took too long".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
