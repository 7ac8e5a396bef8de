//! Starts an app of the home folder, and waits until it serves or has failed.
//!
//! The app goes on, whoever waits or gives up: nothing is ended here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::{VerbError, interrupt};
use crate::cli::complain;
use crate::control::api::App;
use crate::control::client;
use crate::control::home::Home;
use crate::home::apps::AppFolder;
use crate::home::definition::{self, NotWritten};
use crate::home::lock::Lock;
use crate::home::record::{Record, Wanted};
use crate::home::startup::units::Instance;
use crate::home::{launch, logs};
use crate::logs::plan::Place;
use crate::settings::error::Invalid;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// How much longer than a worker may take to be ready.
const BEYOND: Duration = Duration::from_secs(5);

/// How much of the end of the log is looked at, in bytes.
const TAIL: u64 = 16 * 1024;

/// How many lines of that are told.
const LINES: usize = 10;

/// How many warnings of clusterd are told beside them.
const WARNINGS: usize = 3;

/// An app that did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotUp {
    /// The primary cannot be started.
    #[error("cannot start app {app}: {source}{}", room(.source))]
    NotStarted {
        /// The app.
        app: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its settings cannot be read.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It has ended.
    #[error("app {app} {how}{}", quoted(.last_lines))]
    Ended {
        /// The app.
        app: String,
        /// How.
        how: String,
        /// What it has said last.
        last_lines: LastLines,
    },
    /// Its workers end as soon as they are started.
    #[error("app {app} does not come up: its worker {how}; clusterd goes on trying{}", quoted(.last_lines))]
    Crashing {
        /// The app.
        app: String,
        /// How.
        how: String,
        /// What it has said last.
        last_lines: LastLines,
    },
    /// Nobody waits for it any more.
    #[error("{app} goes on starting; `clusterd logs {app}` shows how, and `clusterd delete {app}` ends it")]
    Interrupted {
        /// The app.
        app: String,
    },
    /// It takes too long.
    #[error("app {app} is not ready after {}; clusterd goes on waiting{}", humantime::format_duration(*.after), quoted(.last_lines))]
    Late {
        /// The app.
        app: String,
        /// How long.
        after: Duration,
        /// What it has said last.
        last_lines: LastLines,
    },
}

fn room(error: &io::Error) -> &'static str {
    let has_none = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    );
    if has_none { "\nhint: make room, or name another folder for apps: CLUSTERD_HOME" } else { "" }
}

fn quoted(LastLines { written, warnings }: &LastLines) -> String {
    let part = |title: &str, lines: &[String]| match lines {
        [] => String::new(),
        lines => format!("\n{title}:{}", super::print::quoted(lines)),
    };
    part("its last lines", written) + &part("clusterd warns", warnings)
}

/// What the logs say of an app that does not come up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastLines {
    /// What its workers have written last, or else clusterd.
    written: Vec<String>,
    /// What clusterd has warned of beside that.
    warnings: Vec<String>,
}

/// Who starts the primary.
#[derive(Debug)]
pub(super) enum Way {
    /// This process, which has the lock.
    Detached(Lock),
    /// systemd.
    Unit(Instance),
}

/// A primary that is being started.
struct Starting {
    /// The primary, or systemctl, which ends when systemd has started it.
    child: Child,
    unit: Option<Instance>,
}

impl Starting {
    fn begin(folder: &AppFolder, way: Way) -> io::Result<Self> {
        Ok(match way {
            Way::Detached(lock) => Self { child: launch::spawn(folder, lock)?, unit: None },
            Way::Unit(unit) => Self { child: unit.start()?, unit: Some(unit) },
        })
    }

    /// How it has failed, if it has.
    fn failure(&mut self) -> io::Result<Option<String>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        Ok(match (&self.unit, status.code()) {
            (Some(_), Some(0)) => None,
            (Some(unit), _) => Some(format!(
                "is not started by systemd ({status})\nhint: with the rights that it needs: {}",
                unit.by_hand("start")
            )),
            (None, Some(code)) => Some(format!("has ended with code {code}")),
            (None, None) => Some(format!("has ended: {status}")),
        })
    }

    /// The primary's process, once it is known.
    fn primary(&self, folder: &AppFolder) -> Option<u32> {
        match self.unit {
            None => Some(self.child.id()),
            Some(_) => Lock::is_held(folder).then(|| Lock::holder(folder)).flatten().map(|holder| holder.pid),
        }
    }
}

/// Nobody waits for systemd any more; it goes on.
impl Drop for Starting {
    fn drop(&mut self) {
        if self.unit.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Has the app started, and waits. The app as it is when it serves.
///
/// # Errors
/// Why it does not serve.
pub(super) async fn bring_up(folder: &AppFolder, way: Way) -> Result<App, VerbError> {
    let app = || folder.name().to_owned();
    let not_started = |source| NotUp::NotStarted { app: app(), source };
    let wanted = |record: &mut Record| {
        *record = Record {
            wanted: Wanted::Running,
            held: BTreeMap::new(),
            crashes: Vec::new(),
            ended: None,
            ..record.clone()
        };
    };
    Record::change(folder, wanted).map_err(|source| NotWritten::at(&folder.path(), source))?;
    let resolved = definition::settings(folder).map_err(NotUp::from)?;
    resolved.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    let patience = resolved.config.ready_timeout + BEYOND;
    let log = LogEnds::of(folder);
    interrupt::listen();
    let mut starting = Starting::begin(folder, way).map_err(not_started)?;
    let deadline = Instant::now() + patience;
    let home = Home::of_this_process();
    loop {
        if let Some(how) = starting.failure().map_err(not_started)? {
            return Err(NotUp::Ended { app: app(), how, last_lines: log.last_lines() }.into());
        }
        let now = match starting.primary(folder) {
            Some(primary) => client::find_process(&home, primary).await,
            None => None,
        };
        if let Some(now) = now {
            if now.is_up() {
                return Ok(now);
            }
            if let Some(how) = crashing(&now) {
                return Err(NotUp::Crashing { app: app(), how, last_lines: log.last_lines() }.into());
            }
        }
        if Instant::now() > deadline {
            return Err(NotUp::Late { app: app(), after: patience, last_lines: log.last_lines() }.into());
        }
        let is_interrupted = interrupt::within(LOOK).await;
        // One that has ended meanwhile does not go on.
        if is_interrupted && starting.failure().is_ok_and(|failure| failure.is_none()) {
            return Err(NotUp::Interrupted { app: app() }.into());
        }
    }
}

/// How a worker ended, if each of them has by now and none is online.
fn crashing(app: &App) -> Option<String> {
    let has_ended = app.workers.iter().all(|worker| worker.last_end.is_some() && worker.state != "online");
    app.workers.first().filter(|_| has_ended)?.last_end.clone()
}

/// The logs that say why an app does not come up, and how long they were before it was started.
struct LogEnds {
    error: Option<(PathBuf, u64)>,
    own: Option<(PathBuf, u64)>,
}

impl LogEnds {
    fn of(folder: &AppFolder) -> Self {
        let plan = logs::plan(folder);
        let end = |place| match place {
            Place::File(path) => {
                let length = path.metadata().map_or(0, |log| log.len());
                Some((path, length))
            }
            Place::Standard | Place::Nowhere => None,
        };
        Self { error: end(plan.error), own: end(plan.own) }
    }

    /// What was written since.
    fn last_lines(&self) -> LastLines {
        let since = |log: &Option<(PathBuf, u64)>| {
            log.as_ref().map(|(path, since)| lines_since(path, *since)).unwrap_or_default()
        };
        last_lines(since(&self.error), since(&self.own))
    }
}

fn last_lines(of_workers: Vec<String>, own: Vec<String>) -> LastLines {
    let last = |lines: Vec<String>, most: usize| lines[lines.len().saturating_sub(most)..].to_vec();
    if of_workers.is_empty() {
        return LastLines { written: last(own, LINES), warnings: Vec::new() };
    }
    let warnings = own.into_iter().filter(|line| is_warning(line)).collect();
    LastLines { written: last(of_workers, LINES), warnings: last(warnings, WARNINGS) }
}

/// Whether clusterd warns of more than that a worker has ended, which is said already.
fn is_warning(line: &str) -> bool {
    ["WARN", "ERROR"].iter().any(|level| line.contains(level)) && !line.contains("restarting in")
}

fn lines_since(path: &Path, since: u64) -> Vec<String> {
    let read = || {
        let mut log = File::open(path)?;
        let len = log.metadata()?.len();
        log.seek(SeekFrom::Start(since.max(len.saturating_sub(TAIL)).min(len)))?;
        let mut bytes = Vec::new();
        log.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().unwrap_or_else(|_: io::Error| Vec::new());
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clusterd_warns_of_stands_beside_what_workers_have_written() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let own = ["INFO worker started", "WARN port 80 is taken", "WARN worker exited; restarting in 1s"];
        let both = last_lines(lines(&["Error: EADDRINUSE"]), lines(&own));
        assert_eq!(both.warnings, lines(&["WARN port 80 is taken"]));
        assert_eq!(
            quoted(&both),
            "\nits last lines:\n  | Error: EADDRINUSE\nclusterd warns:\n  | WARN port 80 is taken"
        );
        let alone = last_lines(Vec::new(), lines(&own));
        assert_eq!((alone.written, alone.warnings), (lines(&own), Vec::new()));
        assert_eq!(last_lines(vec!["x".to_owned(); 20], Vec::new()).written.len(), LINES);
        assert_eq!(quoted(&LastLines::default()), "");
    }
}
