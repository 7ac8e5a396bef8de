//! How the next image of clusterd begins: with what the image before has written down, and until all of that is in its place, so
//! that it could be given back.

use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use super::super::control;
use super::super::error::PrimaryError;
use super::super::primary_user::KeptPrivileges;
use super::next_image::Handed;
use super::snapshot::{NotRead, PrimarySnapshot, Snapshot};
use tracing::debug;

use crate::carry::{self, CarriedFd, CarriedFds};
use crate::connections::notes::Notes;
use crate::connections::{ConnectionsSnapshot, StatisticsSnapshot};
use crate::control::api::Upgrade;
use crate::home::{Given, Held};
use crate::logs::console::Console;
use crate::settings::Config;
use crate::settings::load::{CommandLine, Told};
use crate::supervisor::events::{EventKind, Time};
use crate::sys::closer::ForeignFd;
use crate::sys::mark::Family;

/// What the image before has left.
#[derive(Debug)]
pub(crate) struct Restoring {
    /// What it has written down.
    pub(in crate::primary) snapshot: Snapshot,
    /// Where its descriptors are.
    pub(in crate::primary) fds: CarriedFds,
    /// The configuration by which workers go: that of the last reload.
    pub(in crate::primary) in_force: Config,
    handed: Handed,
    /// All that is written down.
    carried: Vec<CarriedFd>,
}

/// Whether this image could go on with this, and the word in it.
///
/// # Errors
/// Why not.
pub(super) fn check(written: &[u8]) -> Result<u64, NotRead> {
    let snapshot = Snapshot::read(written)?;
    let carried = carry::descriptors(written).map_err(NotRead::because)?;
    CarriedFds::check(&carried).map_err(NotRead::because)?;
    settings(&snapshot)?;
    Ok(snapshot.word)
}

/// The configurations of the start and in force, and by what they are read again.
///
/// # Errors
/// This version has other settings.
pub(super) fn settings(snapshot: &Snapshot) -> Result<(Config, Config, CommandLine), NotRead> {
    let (settings, last) = (&snapshot.settings, snapshot.supervisor.settings());
    let (config, in_force) = settings.first.in_force_after(last).map_err(NotRead::because)?;
    let command_line = settings.command_line.clone().read().map_err(NotRead::because)?;
    Ok((config, in_force, command_line))
}

/// Goes on as clusterd where the image before has left off; `serve` does the main job.
pub(crate) fn resume_main(handed: Handed, serve: impl FnOnce(Told, Given, Box<Restoring>) -> u8) -> ExitCode {
    // It was begun by a path that may be a number.
    let _ = rustix::thread::set_name(c"clusterd");
    let mut carried = Vec::new();
    let why = match take_over(&handed, &mut carried) {
        Ok((written, fds)) => match begin(&written, &fds).and_then(lower) {
            Ok((told, given, snapshot, in_force)) => {
                let restoring = Restoring { snapshot, fds, in_force, handed, carried };
                return serve(told, given, Box::new(restoring)).into();
            }
            Err(why) => not_given_back(&handed, &carried, &why),
        },
        Err(error) => not_given_back(&handed, &carried, &NotRead::because(error)),
    };
    crate::cli::complain(&why);
    ExitCode::FAILURE
}

/// Gives everything back to the image before. If that cannot be, whoever started clusterd starts it again; this is what it says.
fn not_given_back(handed: &Handed, carried: &[CarriedFd], why: &NotRead) -> String {
    // What was handed on to this image is handed on from it.
    let error = handed.give_back(carried, (&why.to_string(), None));
    format!("{why}; cannot go back to the clusterd before: {error}")
}

/// What was written down, and the descriptors. Those that it names are noted before any is touched.
fn take_over(handed: &Handed, carried: &mut Vec<CarriedFd>) -> std::io::Result<(Vec<u8>, CarriedFds)> {
    let written = handed.read()?;
    *carried = carry::descriptors(&written)?;
    let all: Vec<_> = carried.iter().copied().chain(handed.own()).collect();
    Ok((written, CarriedFds::adopt(&all)?))
}

type Begun = (Told, Given, Snapshot, Config);

/// From now on what was kept of root's capabilities goes to nobody else: there is one thread yet.
fn lower(begun: Begun) -> Result<Begun, NotRead> {
    let privileges = begun.2.primary.privileges.map(KeptPrivileges::of_number);
    privileges.map_or(Ok(()), KeptPrivileges::keep).map_err(|error| {
        NotRead::because(format!("what was kept of root's capabilities is lost (--primary-user): {error}"))
    })?;
    Ok(begun)
}

fn begin(written: &[u8], fds: &CarriedFds) -> Result<Begun, NotRead> {
    let snapshot = Snapshot::read(written)?;
    let (config, in_force, command_line) = settings(&snapshot)?;
    let told = Told { config, settings: snapshot.settings.first.clone(), command_line };
    let primary = snapshot.primary.clone();
    let held = primary.held.map(|held| Held::restore(held, fds)).transpose().map_err(NotRead::because)?;
    let console = primary.console.map(|console| Console::restore(console, fds)).transpose();
    for &number in &primary.numbered {
        // Whoever uses it finds it by its number, for as long as this process lives.
        std::mem::forget(fds.keep(number).map_err(NotRead::because)?);
    }
    let console = console.map_err(NotRead::because)?;
    let given = Given { held, console, guardian: None, numbered: primary.numbered };
    Ok((told, given, snapshot, in_force))
}

impl Restoring {
    /// When clusterd was started.
    pub(in crate::primary) fn started(&self) -> SystemTime {
        self.snapshot.primary.started
    }

    /// What was kept of root's capabilities, if clusterd has become another user.
    pub(in crate::primary) fn privileges(&self) -> Option<KeptPrivileges> {
        self.snapshot.primary.privileges.map(KeptPrivileges::of_number)
    }

    /// What all that descends from workers is known by.
    pub(in crate::primary) fn family(&self) -> Family {
        Family::of_number(self.snapshot.primary.family)
    }

    /// What is known of connections. What was noted, and not read, is in these notes again.
    pub(in crate::primary) fn noted(&self, notes: &Notes) -> ConnectionsSnapshot {
        notes.restore(self.snapshot.notes.clone());
        self.snapshot.connections.clone()
    }

    /// The control socket, if there was one.
    ///
    /// # Errors
    /// It was not carried.
    pub(in crate::primary) fn control(&self) -> std::io::Result<Option<control::Watched>> {
        let written = self.snapshot.primary.control.clone();
        written.map(|control| control::restore(control, &self.fds)).transpose()
    }

    /// How the upgrade went, once all is in its place.
    fn outcome(&self) -> Upgrade {
        let (paused, from) =
            (Instant::from(self.snapshot.order.stood_still).elapsed(), &self.snapshot.clusterd);
        let is_done = self.failed().is_none();
        Upgrade {
            time: Time(SystemTime::now()),
            from: from.clone(),
            to: is_done.then(|| env!("CARGO_PKG_VERSION").to_owned()),
            pause_ms: is_done.then(|| (paused.as_secs_f64() * 1e5).round() / 100.0),
            failed: self.failed().map(ToOwned::to_owned),
        }
    }

    /// The same, as it is told.
    fn event(&self) -> EventKind {
        let by = self.snapshot.order.by.clone();
        match self.failed() {
            Some(reason) => EventKind::UpgradeFailed { reason: reason.to_owned(), by },
            None => EventKind::Upgraded {
                from: self.snapshot.clusterd.clone(),
                to: env!("CARGO_PKG_VERSION").to_owned(),
                by,
            },
        }
    }

    /// Why the image between has given everything back, if one has.
    fn failed(&self) -> Option<&str> {
        self.handed.failed.as_deref()
    }

    /// All is in its place: there is no way back to the image before.
    pub(in crate::primary) fn own(self) -> TakenOver {
        let PrimarySnapshot { is_ready, greeted, .. } = &self.snapshot.primary;
        let taken_over = TakenOver {
            outcome: Some(self.outcome()),
            event: Some(self.event()),
            was_ready: *is_ready,
            has_greeted: *greeted,
            statistics: self.snapshot.statistics.clone(),
        };
        for &closing in &self.snapshot.closing {
            // Elsewhere, and not where the others are: this may be the last one.
            self.fds.keep(closing).into_iter().for_each(|fd| drop(ForeignFd::from(fd)));
        }
        let untaken = self.fds.untaken();
        debug!(?untaken, "took over from clusterd {}", self.snapshot.clusterd);
        taken_over
    }

    /// Gives everything back to the image before, for this reason. It returns only if that cannot be.
    pub(in crate::primary) fn give_back(self, why: PrimaryError) -> PrimaryError {
        let failed = self.handed.give_back(&self.carried, (&why.to_string(), self.privileges()));
        PrimaryError::NotGivenBack { why: Box::new(why), failed }
    }
}

/// What is left of the image before, once all else is in its place.
#[derive(Debug, Default)]
pub(in crate::primary) struct TakenOver {
    /// How the upgrade went.
    pub outcome: Option<Upgrade>,
    /// The same, as it is told.
    pub event: Option<EventKind>,
    /// Every port had a worker.
    pub was_ready: bool,
    /// It was said that clients may come.
    pub has_greeted: bool,
    /// What was counted of connections that are open.
    pub statistics: Option<StatisticsSnapshot>,
}
