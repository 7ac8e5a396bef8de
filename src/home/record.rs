//! What is wanted of an app, and how it ended: `state.json`.
//!
//! Only verbs change what is wanted. A signal ends a primary, and changes nothing: at the next boot the app is wanted as before.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::apps::{self, AppFolder};
use super::owner::by_owner;
use crate::supervisor::events::Time;

/// How many crashes of a primary its guardian mends within [`CRASHES_WITHIN`].
const MOST_CRASHES: usize = 5;

/// How long a crash counts.
const CRASHES_WITHIN: Duration = Duration::from_secs(60);

/// What is known of an app beside what it is. Keys of a later version are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Whether it is to run.
    #[serde(default)]
    pub wanted: Wanted,
    /// How many workers were asked for since its settings were given; `None` for as many as those say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// While it is stopped, at which ports clients wait (`stop --hold`), and in which ways they arrive there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<u16, Vec<String>>,
    /// How its last primary ended; `None` while one runs, or if that was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// When primaries have crashed lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crashes: Vec<Time>,
    /// What another version has written. It is kept for that version.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Whether an app is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    /// Also after the next boot.
    #[default]
    Running,
    /// Until it is started again.
    Stopped,
}

/// How a primary ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// With which code.
    pub code: u8,
    /// When.
    pub at: Time,
}

impl Record {
    /// The record of an app; the default if there is none, or none that can be read.
    pub(crate) fn of(app: &AppFolder) -> Self {
        let text = fs::read(app.record()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it.
    ///
    /// # Errors
    /// Those of writing a file.
    pub(crate) fn write(&self, app: &AppFolder) -> io::Result<()> {
        let text = self.text()?;
        by_owner(app.home(), || apps::replace(&app.record(), &text))
    }

    /// The file.
    ///
    /// # Errors
    /// None that can happen: it is plain.
    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Reads it, has it changed, and writes it again. Who does so holds the app's lock, or nobody does.
    ///
    /// # Errors
    /// Those of writing a file.
    pub(crate) fn change(app: &AppFolder, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let before = Self::of(app);
        let mut record = before.clone();
        change(&mut record);
        if record == before && app.record().exists() { Ok(()) } else { record.write(app) }
    }

    /// Notes that a primary has crashed. Whether it is to be started again: one that crashes again and again is not.
    pub(crate) fn crashed(&mut self, now: SystemTime) -> bool {
        let is_recent = |at: &Time| now.duration_since(at.0).is_ok_and(|ago| ago < CRASHES_WITHIN);
        self.crashes.retain(is_recent);
        self.crashes.push(Time(now));
        self.crashes.len() <= MOST_CRASHES
    }

    /// In PM2's words, while no primary runs.
    pub(crate) fn state(&self) -> &'static str {
        match (self.wanted, &self.ended, self.crashes.len() > MOST_CRASHES) {
            (Wanted::Stopped, ..) => "stopped",
            (_, _, true) => "errored",
            (_, Some(ended), _) if ended.code != 0 => "errored",
            _ => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::apps::Apps;
    use super::*;

    #[test]
    fn a_record_outlives_its_writer() {
        let home = tempfile::tempdir().unwrap();
        let app = Apps::in_folder(home.path()).app("web");
        app.create().unwrap();
        assert_eq!(Record::of(&app), Record::default());
        Record::change(&app, |record| record.workers = Some(3)).unwrap();
        Record::change(&app, |record| record.wanted = Wanted::Stopped).unwrap();
        assert_eq!(
            Record::of(&app),
            Record { wanted: Wanted::Stopped, workers: Some(3), ..Record::default() }
        );
        // Of a later version, and not to be read at all.
        apps::replace(&app.record(), br#"{"wanted":"running","colour":"red"}"#).unwrap();
        Record::change(&app, |record| record.workers = Some(2)).unwrap();
        let text = fs::read_to_string(app.record()).unwrap();
        assert!(text.contains("\"workers\": 2") && text.contains("\"colour\": \"red\""), "{text}");
        apps::replace(&app.record(), b"{").unwrap();
        assert_eq!(Record::of(&app), Record::default());
    }

    #[test]
    fn a_primary_is_started_again_five_times_a_minute() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut record = Record::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mended: Vec<_> = (0..7).map(|second| record.crashed(at(second))).collect();
        assert_eq!(mended, [true, true, true, true, true, false, false]);
        assert_eq!(record.state(), "errored");
        assert!(record.crashed(at(120)));
        assert_eq!(record.crashes, [Time(at(120))]);
    }

    #[test]
    fn an_app_that_does_not_run_is_stopped_or_errored() {
        let ended = |code| Some(Ended { code, at: Time(SystemTime::UNIX_EPOCH) });
        let table = [
            (Wanted::Running, None, "stopped"),
            (Wanted::Running, ended(0), "stopped"),
            (Wanted::Running, ended(1), "errored"),
            (Wanted::Stopped, ended(1), "stopped"),
        ];
        for (wanted, ended, expected) in table {
            let record = Record { wanted, ended, ..Record::default() };
            assert_eq!(record.state(), expected, "{record:?}");
        }
    }
}
