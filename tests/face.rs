//! README and docs name only what there is: flags, variables, metrics, files, and an example that compiles.
//!
//! It does not judge what is said about them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PAGES: [&str; 7] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/operations.md",
    "docs/out-of-scope.md",
    "docs/protocol.md",
];
const FILES: [&str; 5] = [
    "Dockerfile",
    "config/clusterd.service",
    "config/clusterd.socket",
    "config/kubernetes.yaml",
    "config/prometheus.yml",
];

const DEADLINE: Duration = Duration::from_secs(30);

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn clusterd() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("clusterd"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn help() -> String {
    let output = clusterd().arg("--help").output().expect("clusterd runs");
    String::from_utf8(output.stdout).expect("text")
}

/// What can be said to a clusterd that runs, as the help lists it.
fn verbs(help: &str) -> BTreeSet<&str> {
    let (_, list) = help.split_once("To a clusterd that runs").expect("the list of them");
    let lines = list.lines().skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).collect()
}

fn help_of(verb: &str) -> String {
    let output = clusterd().args([verb, "--help"]).output().expect("clusterd runs");
    assert!(output.status.success(), "{verb}");
    String::from_utf8(output.stdout).expect("text")
}

/// The longest words of `of` that begin with `start`.
fn words<'a>(text: &'a str, start: &'a str, of: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        let word = text[at..].split(|character| !of(character)).next()?;
        (!before.is_some_and(of) && word.len() > start.len()).then_some(word)
    })
}

fn flags(text: &str) -> BTreeSet<&str> {
    words(text, "--", |character| character.is_ascii_lowercase() || character == '-').collect()
}

fn variables(text: &str) -> BTreeSet<&str> {
    words(text, "CLUSTERD_", |character| character.is_ascii_uppercase() || character == '_').collect()
}

/// The parts of a text that are about clusterd's own flags: what follows its name up to the command, and what is
/// quoted by itself. Other programs have flags, too.
fn own_flags(text: &str) -> BTreeSet<&str> {
    let mut own = BTreeSet::new();
    for line in text.lines() {
        for (at, name) in line.match_indices("clusterd ") {
            let rest = line[at + name.len()..].split('`').next().unwrap_or_default();
            own.extend(flags(rest.split(" -- ").next().unwrap_or_default()));
        }
        for quote in ["`--", "\"--"] {
            let spans = line.match_indices(quote).map(|(at, _)| &line[at + 1..]);
            own.extend(spans.filter_map(|span| flags(span.split(['`', '"']).next()?).pop_first()));
        }
    }
    own
}

#[test]
fn every_flag_that_is_named_exists_and_the_readme_names_all() {
    let help = help();
    let helps: Vec<String> = verbs(&help).into_iter().map(help_of).collect();
    let existing = flags(&help);
    let with_verbs: BTreeSet<_> =
        existing.iter().copied().chain(helps.iter().flat_map(|help| flags(help))).collect();
    for name in PAGES.iter().chain(&FILES) {
        let text = text(name);
        let missing: Vec<_> = own_flags(&text).difference(&with_verbs).copied().collect();
        assert!(missing.is_empty(), "{name} names {missing:?}, which clusterd --help does not");
    }
    let readme = text("README.md");
    let unnamed: Vec<_> = existing.difference(&flags(&readme)).copied().collect();
    assert_eq!(unnamed, ["--version"], "README.md names every other flag");
}

#[test]
fn the_operations_guide_names_every_verb_and_its_flags() {
    let (help, guide) = (help(), text("docs/operations.md"));
    let verbs = verbs(&help);
    assert!(verbs.len() > 7, "{verbs:?}");
    for verb in verbs {
        assert!(guide.contains(&format!("`clusterd {verb}")), "docs/operations.md lacks {verb}");
        let help = help_of(verb);
        let unnamed: Vec<_> = flags(&help).difference(&flags(&guide)).copied().collect();
        assert!(
            unnamed.iter().all(|flag| *flag == "--help"),
            "docs/operations.md lacks {unnamed:?} of {verb}"
        );
    }
}

#[test]
fn every_variable_is_in_the_operations_guide() {
    let (help, guide) = (help(), text("docs/operations.md"));
    let unnamed: Vec<_> = variables(&help).difference(&variables(&guide)).copied().collect();
    assert!(unnamed.is_empty(), "docs/operations.md lacks {unnamed:?}");
}

/// The built-in demo with its metrics, ended when dropped.
struct Demo {
    process: Child,
    metrics: String,
}

impl Demo {
    fn start() -> Self {
        let arguments = ["--bind", "127.0.0.1:0:8080", "--metrics", "127.0.0.1:0", "--workers", "1"];
        let mut process = clusterd()
            .args(arguments)
            .args(["--log-format", "json"])
            .env("CLUSTERD_HOME", env!("CARGO_TARGET_TMPDIR"))
            // Without these, there are no metrics of them.
            .args(["--health-http", "/", "--scrape", "/"])
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
        Self { process, metrics: metrics.expect("an address") }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.metrics).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Waits until the worker is online, and its health is looked after.
    fn wait_until_ready(&self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.get("/metrics").contains("clusterd_worker_health_failures_total{worker=\"1\"}") {
            assert!(Instant::now() < deadline, "it does not become ready");
            std::thread::yield_now();
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.process.wait();
    }
}

fn metrics<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    words(text, prefix, |character| character.is_ascii_lowercase() || character == '_')
}

#[test]
fn every_metric_that_is_named_is_exposed_and_the_operations_guide_names_all() {
    let demo = Demo::start();
    demo.wait_until_ready();
    let answer = demo.get("/metrics");
    let families = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exposed: BTreeSet<&str> = families.collect();
    assert!(exposed.len() > 15, "{answer}");
    for name in PAGES.iter().chain(&FILES) {
        let text = text(name);
        let missing: Vec<_> = metrics(&text, "clusterd_").filter(|name| !exposed.contains(name)).collect();
        assert!(missing.is_empty(), "{name} names {missing:?}, which /metrics does not");
    }
    let guide = text("docs/operations.md");
    let named: BTreeSet<&str> = metrics(&guide, "clusterd_").chain(metrics(&guide, "process_")).collect();
    let unnamed: Vec<_> = exposed.difference(&named).collect();
    assert!(unnamed.is_empty(), "docs/operations.md lacks {unnamed:?}");
    for label in ["state=\"", "reason=\""] {
        let values = answer.split(label).skip(1).filter_map(|rest| rest.split('"').next());
        let unnamed: BTreeSet<&str> = values.filter(|value| !guide.contains(&format!("`{value}`"))).collect();
        assert!(unnamed.is_empty(), "docs/operations.md lacks {unnamed:?}");
    }
}

#[test]
fn the_example_in_the_readme_is_the_one_that_is_compiled() {
    let (readme, library) = (text("README.md"), text("src/worker.rs"));
    let shown =
        readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let compiled = library.split("//! ```no_run\n").nth(1).and_then(|rest| rest.split("//! ```").next());
    // The example in the library hides the lines around its point, and so does not indent what is within.
    let lines = compiled.expect("an example").lines().map(|line| line.trim_start_matches("//!").trim());
    let lines = lines.map(|line| if line == "#" { "" } else { line.strip_prefix("# ").unwrap_or(line) });
    let compiled: Vec<&str> = lines.map(str::trim).collect();
    assert_eq!(shown.lines().map(str::trim).collect::<Vec<_>>(), compiled);
}

#[test]
fn links_lead_to_files() {
    for name in PAGES {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = text(name);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            assert!(page.with_file_name("").join(target).exists(), "{name} links to {target}");
        }
    }
}
