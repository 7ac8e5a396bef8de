//! An app and its workers, as the control socket shows them.
//!
//! Where the figures come from is the backend's concern.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Traffic;
use crate::settings::table::keys;
use crate::supervisor::events::Time;

/// What `/v1/apps` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Apps {
    /// Every app, without the lines that workers wrote.
    pub apps: Vec<App>,
    /// Why some may be missing, where several clusterds were asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// An app, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct App {
    /// Its name (`--name`).
    pub name: String,
    /// The namespace that it is in (`--namespace`).
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The command of its workers; empty for the built-in demo.
    pub command: Vec<String>,
    /// The process id of its clusterd.
    pub pid: u32,
    /// The version of its clusterd.
    pub version: String,
    /// The file of its clusterd was replaced or removed since it was started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
    /// The last time that clusterd itself was replaced, or was not though somebody wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    /// When clusterd was started.
    pub started: Time,
    /// How long ago that is, in milliseconds.
    pub uptime_ms: u64,
    /// Where clients connect to.
    pub addresses: Vec<Address>,
    /// How many workers are wanted.
    pub wanted: u32,
    /// It was stopped by a command.
    pub stopped: bool,
    /// Every port has a worker that listens, as `/readyz` tells.
    #[serde(default)]
    pub ready: bool,
    /// Who accepts connections.
    #[serde(default)]
    pub accept: Accept,
    /// Whether HTTP clients are asked to leave workers that drain, as far as these have the shim.
    #[serde(default)]
    pub asks_to_leave: bool,
    /// Who started the reload that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<String>,
    /// What passes through it, for those who ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Its workers, in the order of their numbers. While a worker is replaced, two have the same one.
    pub workers: Vec<Worker>,
}

fn default_namespace() -> String {
    keys::namespace.key.default.unwrap_or_default().to_owned()
}

/// How long a worker without a port has to run until it counts as up.
const LASTING: Duration = Duration::from_secs(1);

impl App {
    /// Whether every port is served. Of workers without a port it is only known that they run: they have to do so for a while.
    pub(crate) fn is_up(&self) -> bool {
        let lasts = |uptime: u64| Duration::from_millis(uptime) >= LASTING;
        let runs =
            self.workers.iter().all(|worker| worker.state == "online" && worker.uptime_ms.is_some_and(lasts));
        self.ready && (!self.addresses.is_empty() || runs)
    }
}

/// How clusterd itself was replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Upgrade {
    /// When.
    pub time: Time,
    /// The version before.
    pub from: String,
    /// The version since; of one that failed, the one that was wanted if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// For how long no connection was accepted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<f64>,
    /// Why it was not replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Who accepts an app's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accept {
    /// clusterd, which gives each to a worker.
    #[default]
    Primary,
    /// Workers, among which the kernel chooses.
    Workers,
    /// Somebody of whom a newer clusterd knows.
    #[serde(other)]
    Other,
}

/// A public address, and the port that workers ask for to be served from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Address {
    /// The address.
    pub address: SocketAddr,
    /// The port.
    pub worker_port: u16,
}

/// What the connections of a worker have moved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Moved {
    /// How many have ended.
    pub connections_ended: u64,
    /// How long those lasted together.
    pub duration_sum_seconds: f64,
    /// Bytes that clients have sent.
    pub received_bytes: u64,
    /// Bytes that clients have acknowledged.
    pub sent_bytes: u64,
}

/// A worker, as it is now. Facts of its process are absent while it has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Worker {
    /// Its number, from 1.
    pub worker: u32,
    /// Its state, as the `state` label of the metrics has it.
    pub state: String,
    /// The process that leads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// When that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// How long ago that is, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// How many times it was restarted.
    pub restarts: u64,
    /// The CPU time of its process group since the last sample, or since its start, in percent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// The resident memory of its process group, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How many connections workers of this number have taken.
    pub connections_taken: u64,
    /// How many connections it has open, for those who ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_open: Option<u64>,
    /// What connections of workers of this number have moved, for those who ask for it; with `--connection-stats`.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    /// The ports on which it listens.
    pub listening: Vec<u16>,
    /// Processes of it that have not loaded the shim: their HTTP clients are not asked to leave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_shim: Vec<String>,
    /// How its previous process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
    /// The last lines that it wrote to standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// What its process was given, for those who ask for it. What is no UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<BTreeMap<String, String>>,
}
