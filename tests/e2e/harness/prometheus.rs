//! A real Prometheus, which scrapes what a test tells it to, and promtool.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::folder::Folder;
use super::output::Output;
use super::{http, until};

/// A server that scrapes each second; dropping it ends it.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    said: Output,
    /// Its configuration and its data.
    _folder: Folder,
}

/// What one query found: the value of each series, by its labels.
pub(crate) type Found = BTreeMap<BTreeMap<String, String>, String>;

impl Prometheus {
    /// Scrapes `/metrics` of each of these addresses as a job of this name.
    pub(crate) fn of(jobs: &[(&str, SocketAddr)]) -> Self {
        let jobs: String = jobs
            .iter()
            .map(|(name, address)| {
                format!("- {{job_name: {name}, static_configs: [{{targets: ['{address}']}}]}}\n")
            })
            .collect();
        let global = "global: {scrape_interval: 1s, scrape_timeout: 1s}";
        Self::with(&format!("{global}\nscrape_configs:\n{jobs}"))
    }

    /// With this configuration.
    pub(crate) fn with(config: &str) -> Self {
        let folder = Folder::new();
        let config = folder.write("prometheus.yml", config);
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus can be started");
        let said = Output::read(child.stderr.take().expect("stderr is a pipe"));
        let address = until("Prometheus listens", || {
            let status = child.try_wait().expect("the child is ours");
            assert!(status.is_none(), "Prometheus ended: {}", said.text());
            let lines = said.lines();
            let line = lines.iter().find(|line| line.contains("\"Listening on\""))?;
            line.split_once("address=")?.1.split(' ').next()?.parse().ok()
        });
        Self { child, address, said, _folder: folder }
    }

    /// What it answers to a query now; nothing before it is ready to answer.
    pub(crate) fn query(&self, query: &str) -> Found {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        let found = answer["data"]["result"].as_array().into_iter().flatten();
        found
            .map(|series| {
                let labels = serde_json::from_value(series["metric"].clone()).expect("labels");
                (labels, series["value"][1].as_str().expect("a value").to_owned())
            })
            .collect()
    }

    /// What its API answers; null before it is ready to answer.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = http::request(self.address, "GET", path).expect("Prometheus answers");
        serde_json::from_str(&answer.text()).unwrap_or_default()
    }

    /// Waits until it has scraped a job so often and has taken the page.
    #[track_caller]
    pub(crate) fn wait_taken(&self, job: &str, times: f64) {
        until("Prometheus takes the page", || (self.number("sum_over_time", job)? >= times).then_some(()));
    }

    /// Waits until it has scraped a job, and returns how often it has taken the page so far.
    #[track_caller]
    pub(crate) fn taken(&self, job: &str) -> f64 {
        until("Prometheus scrapes", || self.number("count_over_time", job));
        self.number("sum_over_time", job).expect("it is there by now")
    }

    fn number(&self, function: &str, job: &str) -> Option<f64> {
        let found = self.query(&format!("{function}(up{{job=\"{job}\"}}[1h])"));
        found.into_values().next()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what Prometheus said\n{}\n---", self.said.text());
        }
    }
}

/// What `promtool check metrics` thinks of a page: an error when it cannot be read, or else what should be better.
pub(crate) fn promtool(page: &str) -> Result<String, String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be started");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // It stops reading at the first error.
    let _ = stdin.write_all(page.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        // 3 is for what could be better named (promtool's documentation).
        Some(0 | 3) => Ok(said),
        _ => Err(said),
    }
}
