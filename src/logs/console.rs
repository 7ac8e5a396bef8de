//! Standard streams that several clusterds write to, as the apps of `clusterd up` do: what stands before the lines of each,
//! and whose turn it is to write.
//!
//! It writes nothing itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, MemfdFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::look::{Look, coloured};
use crate::carry::{CarriedFd, CarriedFds};
use crate::ids::Slot;
use crate::sys::process::path_of;

/// What this process is to know of the streams that it shares.
#[derive(Debug)]
pub(crate) struct Console {
    /// Before each of its lines.
    pub label: Label,
    /// For stdout and for stderr; without one, lines longer than PIPE_BUF (pipe(7)) may be torn.
    pub turns: [Option<Turn>; 2],
}

/// What is known of shared streams, as it is written down for the next image of clusterd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsoleSnapshot {
    label: Label,
    turns: [Option<CarriedFd>; 2],
}

impl Console {
    /// As it is written down. The turns stay where they are for as long as this process writes.
    pub(crate) fn snapshot(&self) -> ConsoleSnapshot {
        let turns = [0, 1].map(|stream| self.turns[stream].as_ref().map(|turn| CarriedFd::of(&turn.0)));
        ConsoleSnapshot { label: self.label.clone(), turns }
    }

    /// As it was written down.
    ///
    /// # Errors
    /// A turn is gone.
    pub(crate) fn restore(written: ConsoleSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let [out, err] = written.turns;
        let turn = |turn: Option<CarriedFd>| turn.map(|turn| fds.take(turn).map(Turn)).transpose();
        Ok(Self { label: written.label, turns: [turn(out)?, turn(err)?] })
    }
}

/// No label is wider, in characters.
const WIDEST: usize = 1024;

/// Whose a line is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Label {
    /// The app; `None` for the clusterd that has started them all.
    pub app: Option<String>,
    /// How wide all labels are, in characters.
    pub width: usize,
    /// The app's place among all, which decides its colour.
    pub number: usize,
}

impl Label {
    /// How wide the label of this app is, with so many workers.
    pub(crate) fn width_of(app: &str, workers: u32) -> usize {
        app.chars().count() + 1 + workers.max(1).ilog10() as usize + 1
    }

    /// Before a line of a worker, or of clusterd itself.
    pub(crate) fn prefix(&self, look: Look, worker: Option<Slot>) -> String {
        let name = self.app.as_deref().unwrap_or(env!("CARGO_PKG_NAME"));
        let worker = worker.map(|slot| format!(" {slot}")).unwrap_or_default();
        let width = self.width.min(WIDEST);
        let label = format!("{:width$} |", format!("{name}{worker}"));
        match (look, &self.app) {
            (Look::Terminal { colour: true }, Some(_)) => format!("{} ", coloured(&label, self.number)),
            _ => format!("{label} "),
        }
    }
}

/// The right to write to one stream, which one process has at a time: a pipe takes no more than 4096 bytes at once without
/// letting others in between (pipe(7)).
///
/// It is an flock(2) on a file that nobody else opens. The kernel lets it go with the process.
#[derive(Debug)]
pub(crate) struct Turn(OwnedFd);

/// Something to take turns at. Each process needs a [`Turn`] of its own.
#[derive(Debug)]
pub(crate) struct TurnFile(OwnedFd);

impl TurnFile {
    /// A new one.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(rustix::fs::memfd_create(c"clusterd-turn", MemfdFlags::CLOEXEC)?))
    }

    /// For one process: descriptors that have a lock in common are opened once.
    ///
    /// # Errors
    /// Those of open(2): /proc is not mounted.
    pub(crate) fn turn(&self) -> io::Result<Turn> {
        let file: File = OpenOptions::new().read(true).write(true).open(path_of(&self.0))?;
        Ok(Turn(file.into()))
    }
}

impl Turn {
    /// The one that came with this descriptor.
    pub(crate) fn passed_on(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The descriptor, to be passed on.
    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Waits until nobody else writes, has this done, and lets others write. `pause` is called whenever the waiting was
    /// interrupted.
    pub(super) fn during<T>(turn: Option<&Self>, pause: impl Fn(), write: impl FnOnce() -> T) -> T {
        let Some(Self(file)) = turn else { return write() };
        // Where there are no more locks, lines are better torn than lost.
        let is_held = loop {
            match flock(file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => pause(),
                outcome => break outcome.is_ok(),
            }
        };
        let written = write();
        if is_held {
            let _ = flock(file, FlockOperation::Unlock);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_the_app_and_the_worker_and_is_as_wide_as_the_others() {
        let label = |app: Option<&str>| Label { app: app.map(str::to_owned), width: 8, number: 1 };
        let (plain, colour) = (Look::Plain, Look::Terminal { colour: true });
        let table = [
            (Some("web"), plain, Some(Slot(1)), "web 1    | "),
            (Some("web"), plain, None, "web      | "),
            (Some("longer-than-all"), plain, Some(Slot(12)), "longer-than-all 12 | "),
            (None, plain, None, "clusterd | "),
            (Some("web"), colour, Some(Slot(1)), "\x1b[33mweb 1    |\x1b[0m "),
            (None, colour, None, "clusterd | "),
        ];
        for (app, look, worker, expected) in table {
            assert_eq!(label(app).prefix(look, worker), expected);
        }
        let wide = Label { width: usize::MAX, ..label(Some("web")) };
        assert_eq!(wide.prefix(plain, None).len(), WIDEST + 3);
        let widths = [1, 9, 10, 100].map(|workers| Label::width_of("web", workers));
        assert_eq!(widths, [5, 5, 6, 7]);
    }

    #[test]
    fn one_at_a_time_has_its_turn() {
        let file = TurnFile::new().unwrap();
        let (first, second) = (file.turn().unwrap(), file.turn().unwrap());
        let is_free = |turn: &Turn| {
            let taken = flock(&turn.0, FlockOperation::NonBlockingLockExclusive).is_ok();
            let _ = flock(&turn.0, FlockOperation::Unlock);
            taken
        };
        Turn::during(Some(&first), || (), || assert!(!is_free(&second)));
        assert!(is_free(&second));
        assert_eq!(Turn::during(None, || (), || 7), 7);
    }
}
