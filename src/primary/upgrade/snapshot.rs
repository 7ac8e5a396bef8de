//! All that goes to the next image of clusterd: what each room has, and what the primary itself was given and has opened.
//!
//! It has a version: an image reads the formats that it knows, and refuses any other, and whatever it does not know in one that
//! it does.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::attach_way::WaySnapshot;
use super::super::control::ControlSnapshot;
use super::super::worker_hooks::HooksSnapshot;
use crate::attach::snapshot::{AttachSnapshot, BoundSnapshot, OpenedSnapshot, OpeningsSnapshot};
use crate::carry::{CarriedFd, Moment, Raw};
use crate::connections::{ConnectionsSnapshot, NotesSnapshot, StatisticsSnapshot};
use crate::front::snapshot::FrontSnapshot;
use crate::home::HeldSnapshot;
use crate::logs::OutputSnapshot;
use crate::logs::console::ConsoleSnapshot;
use crate::metrics::MetricsSnapshot;
use crate::preload::ExposedSnapshot;
use crate::settings::carried::{CarriedCommandLine, CarriedSettings};
use crate::settings::load::CommandLine;
use crate::supervisor::snapshot::SupervisorSnapshot;

/// The format that is written.
const FORMAT: u32 = 1;

/// Those that are read: the last two that there were.
const READ: [u32; 1] = [FORMAT];

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::primary) struct Snapshot {
    pub(super) format: u32,
    /// The version of clusterd that has written it.
    pub clusterd: String,
    /// A number by chance: who says it has read this.
    pub(super) word: u64,
    pub order: OrderSnapshot,
    pub settings: SettingsSnapshot,
    pub primary: PrimarySnapshot,
    pub supervisor: SupervisorSnapshot,
    pub hooks: HooksSnapshot,
    pub front: FrontSnapshot,
    pub attach: AttachSnapshot,
    pub bound: BoundSnapshot,
    /// The addresses that were opened for workers that asked, where any is.
    pub opened: Option<Vec<OpenedSnapshot>>,
    pub openings: OpeningsSnapshot,
    /// How many channels were given numbers.
    pub channels: u64,
    pub connections: ConnectionsSnapshot,
    /// What waits to be closed.
    pub closing: Vec<CarriedFd>,
    pub notes: NotesSnapshot,
    pub statistics: Option<StatisticsSnapshot>,
    pub output: OutputSnapshot,
    pub metrics: MetricsSnapshot,
}

/// What was ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::primary) struct OrderSnapshot {
    /// By whom.
    pub by: String,
    /// When the front stopped to accept.
    pub stood_still: Moment,
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::primary) struct SettingsSnapshot {
    /// As they were when clusterd was started: what was opened then goes by these.
    pub first: CarriedSettings,
    /// By which they are read again.
    pub command_line: CarriedCommandLine,
}

/// What the primary was given, and has opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::primary) struct PrimarySnapshot {
    pub held: Option<HeldSnapshot>,
    pub console: Option<ConsoleSnapshot>,
    /// Descriptors that are found by their numbers.
    pub numbered: Vec<CarriedFd>,
    /// The capabilities that were kept when clusterd became another user (`--primary-user`), as a number of bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileges: Option<u64>,
    /// What all that descends from workers is known by.
    pub family: u64,
    pub started: SystemTime,
    pub way: WaySnapshot,
    /// The limits of open files that clusterd was started with; `None` is no limit.
    pub open_files: (Option<u64>, Option<u64>),
    /// Whether it has no terminal, or is to outlive it.
    pub outlives_terminal: bool,
    pub folder: Option<Raw>,
    pub shim: Option<ExposedSnapshot>,
    pub admin: Option<CarriedFd>,
    pub control: Option<ControlSnapshot>,
    /// Whether every port has a worker.
    pub is_ready: bool,
    /// Whether it was said that clients may come.
    pub greeted: bool,
}

/// What an image reads first: all have it.
#[derive(Deserialize)]
struct Beginning {
    format: u32,
    clusterd: String,
}

/// Why a snapshot cannot be read, or not be gone on with.
#[derive(Debug, thiserror::Error)]
#[error("clusterd {version} cannot take over: {0}", version = env!("CARGO_PKG_VERSION"))]
pub(super) struct NotRead(String);

impl NotRead {
    /// For this reason.
    pub(super) fn because(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }
}

impl Beginning {
    /// Why this is not read, which for the whole of it is this `error`.
    fn refused(written: &[u8], error: Option<serde_json::Error>) -> NotRead {
        let because = match serde_json::from_slice(written) {
            Err(error) => format!("what it was given is no snapshot: {error}"),
            Ok(Self { format, clusterd }) if !READ.contains(&format) => {
                format!(
                    "clusterd {clusterd} writes down its state in format {format}, and this version reads {READ:?}"
                )
            }
            Ok(Self { clusterd, .. }) => {
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                format!("the state of clusterd {clusterd} cannot be read: {error}")
            }
        };
        NotRead::because(because)
    }
}

impl SettingsSnapshot {
    /// Of the start.
    pub(in crate::primary) fn of(settings: &CarriedSettings, command_line: &CommandLine) -> Self {
        Self { first: settings.clone(), command_line: CarriedCommandLine::of(command_line) }
    }
}

impl Snapshot {
    /// The format and the version of this image, and a word.
    pub(super) fn written_here() -> (u32, String, u64) {
        (FORMAT, env!("CARGO_PKG_VERSION").to_owned(), fastrand::u64(..))
    }

    /// What is written here.
    ///
    /// # Errors
    /// This version does not know the format, or something that is in it; or it cannot have been so.
    pub(super) fn read(written: &[u8]) -> Result<Self, NotRead> {
        let snapshot = match serde_json::from_slice::<Self>(written) {
            Ok(snapshot) if READ.contains(&snapshot.format) => snapshot,
            // Most need not be read twice while clients wait.
            read => return Err(Beginning::refused(written, read.err())),
        };
        snapshot.supervisor.check().map_err(NotRead::because)?;
        snapshot.front.check(snapshot.channels).map_err(NotRead::because)?;
        match snapshot.openings.goes_on() {
            true => Ok(snapshot),
            false => Err(NotRead::because("there are no further numbers for what is opened")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// A snapshot of this format with one of everything that there can be in it.
    fn golden(format: u32) -> Vec<u8> {
        let name = format!("tests/golden/upgrade-{format}.json");
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("each format has a file")
    }

    #[test]
    fn the_formats_that_are_read_are_the_last_two_that_there_were() {
        let last_two: Vec<_> = (FORMAT.saturating_sub(1).max(1)..=FORMAT).collect();
        assert_eq!(READ.to_vec(), last_two);
        for format in READ {
            let snapshot = Snapshot::read(&golden(format)).unwrap();
            assert_eq!(snapshot.format, format);
        }
    }

    #[test]
    fn the_format_does_not_change_without_another_number() {
        let written = golden(FORMAT);
        let again = Snapshot::read(&written).map(|read| serde_json::to_value(read).unwrap());
        let written: Value = serde_json::from_slice(&written).unwrap();
        let differs = match again {
            Ok(again) if again == written => return,
            Ok(again) => difference(&written, &again, String::new()),
            Err(error) => error.to_string(),
        };
        panic!(
            "a clusterd of before and this one write down their state differently, with one number of the format: {differs}\n\
             Once a version with format {FORMAT} is released: raise FORMAT, read the last two formats (READ), add \
             tests/golden/upgrade-{}.json, and leave the file of format {FORMAT} as it is. Before that, change that file.",
            FORMAT + 1
        );
    }

    /// Where they differ first.
    fn difference(written: &Value, again: &Value, at: String) -> String {
        let inner = |key: String, (one, other): (Option<&Value>, Option<&Value>)| match (one, other) {
            (Some(one), Some(other)) if one == other => None,
            (Some(one), Some(other)) => Some(difference(one, other, format!("{at}/{key}"))),
            (one, _) => Some(format!("{at}/{key} is {}", if one.is_some() { "gone" } else { "new" })),
        };
        let found = match (written, again) {
            (Value::Object(one), Value::Object(other)) => {
                let mut keys = one.keys().chain(other.keys());
                keys.find_map(|key| inner(key.clone(), (one.get(key), other.get(key))))
            }
            (Value::Array(one), Value::Array(other)) => {
                let mut places = 0..one.len().max(other.len());
                places.find_map(|place| inner(place.to_string(), (one.get(place), other.get(place))))
            }
            _ => None,
        };
        found.unwrap_or_else(|| format!("{at} was {written} and is {again}"))
    }
}
