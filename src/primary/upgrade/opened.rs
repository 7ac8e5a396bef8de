//! What the primary itself was given and has opened, which it names to the next image.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::process::Rlimit;
use tokio::sync::watch;

use super::super::attach_way::Way;
use super::super::control::ControlSocket;
use super::super::primary_user::KeptPrivileges;
use super::snapshot::PrimarySnapshot;
use crate::admin::Readiness;
use crate::carry::CarriedFd;
use crate::front::{self, Accepts};
use crate::home::{Held, HeldSnapshot};
use crate::logs::console::{Console, ConsoleSnapshot};
use crate::preload::ExposedSnapshot;
use crate::sys::mark::Family;

/// What it was given, as it is written down.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Kept {
    held: Option<HeldSnapshot>,
    console: Option<ConsoleSnapshot>,
    numbered: Vec<CarriedFd>,
    pub(super) privileges: Option<KeptPrivileges>,
}

impl Kept {
    /// The folder, the console, and descriptors that are found by their numbers: all of them stay as long as this process. And
    /// what it has kept of root's capabilities, if it has become another user.
    pub(in crate::primary) fn of(
        held: Option<&Held>,
        console: Option<&Console>,
        numbered: Vec<CarriedFd>,
        privileges: Option<KeptPrivileges>,
    ) -> Self {
        Self { held: held.map(Held::snapshot), console: console.map(Console::snapshot), numbered, privileges }
    }
}

/// All of it.
pub(in crate::primary) struct Opened {
    pub kept: Kept,
    /// What all that descends from workers is known by.
    pub family: Family,
    pub started: SystemTime,
    pub way: Way,
    /// The limits of open files that clusterd was started with.
    pub open_files: Rlimit,
    /// It has no terminal, or is to outlive it.
    pub outlives_terminal: bool,
    pub folder: Option<PathBuf>,
    pub shim: Option<ExposedSnapshot>,
    pub admin: Option<CarriedFd>,
    pub front: front::handle::Handle,
    pub control: ControlSocket,
    pub readiness: watch::Receiver<Readiness>,
    /// It was said that clients may come.
    pub greeted: Arc<AtomicBool>,
}

impl Opened {
    /// As it is written down.
    pub(super) fn snapshot(&self) -> PrimarySnapshot {
        let Kept { held, console, numbered, privileges } = self.kept.clone();
        PrimarySnapshot {
            held,
            console,
            numbered,
            privileges: privileges.map(KeptPrivileges::number),
            family: self.family.number(),
            started: self.started,
            way: self.way.snapshot(Accepts::of(&self.front)),
            open_files: (self.open_files.current, self.open_files.maximum),
            outlives_terminal: self.outlives_terminal,
            folder: self.folder.as_deref().map(Into::into),
            shim: self.shim.clone(),
            admin: self.admin,
            control: self.control.snapshot(),
            is_ready: self.readiness.borrow().is_ready(),
            greeted: self.greeted.load(Ordering::Relaxed),
        }
    }
}
