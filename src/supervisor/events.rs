//! What happens to an app's workers, as it is told to hooks, to the control socket and to whoever follows a command.
//!
//! It is the same shape everywhere: one JSON object an event. Nothing here decides anything.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Event {
    /// When, in UTC and to the millisecond.
    pub time: Time,
    /// To which app.
    pub app: String,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. `worker` is always the number of the slot, `pid` the process that leads the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub(crate) enum EventKind {
    /// A worker's process was started.
    WorkerStarted { worker: u32, pid: i32 },
    /// It listens on a port.
    WorkerListens { worker: u32, pid: i32, port: u16 },
    /// It is ready on every port.
    WorkerOnline { worker: u32, pid: i32 },
    /// It did not become ready in time, or did not answer its probe, and is stopped.
    WorkerFailed { worker: u32, pid: i32, reason: String },
    /// It gets no further connection, and finishes what it has.
    WorkerDraining { worker: u32, pid: i32 },
    /// It was asked to end.
    WorkerStopping { worker: u32, pid: i32 },
    /// Its process has ended; `expected` if it was asked to.
    WorkerEnded { worker: u32, pid: i32, how: String, ran_ms: u64, expected: bool },
    /// It is started again, after this time.
    WorkerRestarts { worker: u32, reason: String, in_ms: u64 },
    /// It is not started again: it has failed too often.
    WorkerErrored { worker: u32, reason: String, last_lines: Vec<String> },
    /// It has taken no connection in time, and gets none until it moves.
    WorkerStalled { worker: u32 },
    /// It moves again.
    WorkerMoves { worker: u32 },
    /// It is to be replaced by a new process, for this reason.
    WorkerReplaced { worker: u32, reason: String },
    /// What a Node worker has sent to its primary (`process.send`).
    WorkerSays { worker: u32, message: Value },
    /// A reload has begun.
    ReloadStarted { by: String },
    /// Every worker was replaced.
    ReloadDone { workers: u32 },
    /// It was given up, and the old workers keep serving.
    ReloadFailed { reason: String, last_lines: Vec<String> },
    /// So many workers are wanted from now on.
    Scaled { workers: u32, by: String },
    /// The app was started by a command after it had been stopped.
    AppStarted { by: String },
    /// The app is stopped by a command; its ports are kept, and refuse clients.
    AppStopping { by: String },
    /// clusterd itself was replaced while it served.
    Upgraded { from: String, to: String, by: String },
    /// It was not, though somebody wanted it.
    UpgradeFailed { reason: String, by: String },
    /// clusterd itself stops.
    Stopping { by: String },
    /// So many events were missed, because whoever follows was too slow.
    Missed { events: u64 },
}

/// The last second of a year with four digits, since 1970.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A time as RFC 3339 has it, in UTC and to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It has no words for a clock that is further off.
        let last = SystemTime::UNIX_EPOCH + LAST;
        humantime::format_rfc3339_millis(self.0.clamp(SystemTime::UNIX_EPOCH, last)).fmt(f)
    }
}

#[cfg(feature = "internal")]
impl schemars::JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Time).map_err(serde::de::Error::custom)
    }
}

/// A duration as events and the control socket have it, in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration without what is less than a millisecond, to be told in words.
pub(crate) fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(millis(duration))
}

/// An error as a part of an event or a message, which have one line: without the line breaks before its hints.
pub(crate) fn on_one_line(error: &str) -> String {
    error.replace("\nhint: ", "; ")
}

/// Who asks for something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A signal to clusterd.
    Signal(&'static str),
    /// A command at the control socket.
    Command {
        /// The process that gave it.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// `--cron`.
    Cron,
    /// `--watch`: this path has changed.
    Watch(String),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asker::Signal(name) => f.write_str(name),
            Asker::Command { pid, uid } => write!(f, "a command (pid {pid}, user {uid})"),
            Asker::Cron => f.write_str("cron"),
            Asker::Watch(path) => write!(f, "a change of {path}"),
        }
    }
}

/// Why one worker is replaced while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplaceReason {
    /// `--max-memory`: its process group has so many bytes.
    Memory(u64),
    /// `--max-age`.
    Age(Duration),
    /// `--max-connections`: it has taken so many.
    Connections(u64),
    /// `--health-http`: so many probes in a row have failed, the last one like this.
    Unhealthy {
        /// How many.
        failures: u32,
        /// How the last one failed.
        last: String,
    },
    /// `--stuck-timeout`: it has taken nothing for so long.
    Stuck(Duration),
}

impl fmt::Display for ReplaceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplaceReason::Memory(bytes) => write!(f, "it uses {bytes} bytes of memory"),
            ReplaceReason::Age(age) => write!(f, "it has run for {}", humantime::format_duration(*age)),
            ReplaceReason::Connections(count) => write!(f, "it has taken {count} connections"),
            ReplaceReason::Unhealthy { failures, last } => {
                write!(f, "{failures} health probes failed: {last}")
            }
            ReplaceReason::Stuck(time) => {
                write!(f, "it has taken no connection for {}", humantime::format_duration(*time))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_clock_says_is_told_as_a_time() {
        let after = |seconds| Time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        assert_eq!(after(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(after(253_402_300_799), "9999-12-31T23:59:59.000Z");
        assert_eq!(after(1 << 40), "9999-12-31T23:59:59.000Z");
        let before = Time(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.to_string(), "1970-01-01T00:00:00.000Z");
    }
}
