//! The folder that the apps of one user share: what each app is, what is wanted of it, and that it runs only once.
//!
//! It supervises nothing: each app has a primary of its own, which is reached by its control socket
//! ([`control`](crate::control)), and there is no other process. What is here are files.
//!
//! ```text
//! CLUSTERD_HOME/apps/NAME/   0700
//!     app.toml               the app as it is wanted: its command and every setting that is not the default
//!     environment            the variables that it was started with, as in /proc/PID/environ
//!     state.json             whether it is wanted running, with how many workers, and how it ended
//!     lock                   held (flock(2)) for as long as its primary lives
//!     logs/                  out.log and error.log of its workers, clusterd.log of its primary
//! ```
//!
//! In reading order: [`apps`] (where all that is), [`lock`], [`definition`] (`app.toml` and `environment`), [`record`]
//! (`state.json`), [`at_rest`] (those that do not run), [`logs`] (where its logs are), [`app_log`] (what is in them), [`saved`] (what `clusterd save` keeps of all), [`ids`] (the numbers of workers),
//! [`launch`] (a primary is started, detached from whoever starts it, or as a service), [`startup`] (systemd does it at boot),
//! [`whole`] (the folder of a primary that runs is made again where it was removed), [`owner`] (with whose rights all that is
//! changed).
//! [`Given`] is what a primary has of all that.

pub(crate) mod app_log;
pub(crate) mod apps;
pub(crate) mod at_rest;
pub(crate) mod definition;
pub(crate) mod ids;
pub(crate) mod launch;
pub(crate) mod lock;
pub(crate) mod logs;
mod owner;
pub(crate) mod pm2_names;
pub(crate) mod record;
pub(crate) mod saved;
pub(crate) mod startup;
pub(crate) mod whole;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tracing::warn;

use self::apps::AppFolder;
use self::ids::Ids;
use self::lock::{Holder, Lock};
use self::record::{Ended, Record, Wanted};
use self::whole::Keeper;
use crate::carry::{CarriedFd, CarriedFds, Raw};
use crate::logs::console::Console;
use crate::supervisor::events::Time;
use crate::supervisor::guardian::Waiting;

/// What a primary was given by whoever has started it.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The app's folder, if it has one.
    pub held: Option<Held>,
    /// What is to be known of the standard streams, if other primaries write to them, too.
    pub console: Option<Console>,
    /// A guardian that was forked while this process was small.
    pub guardian: Option<Waiting>,
    /// Descriptors that it finds by their numbers.
    pub numbered: Vec<CarriedFd>,
}

/// Who has started a primary that holds an app's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starter {
    /// Somebody who waits for it, and has said what the app is: the folder keeps nothing of that.
    Foreground,
    /// `clusterd start`: nobody waits for it, and its guardian starts it again.
    Detached,
    /// A service manager, which starts it again, and reads what it has to say.
    Service,
}

impl Starter {
    /// What the app is, and what is wanted of it, is in its folder.
    pub(crate) fn keeps_app(self) -> bool {
        self != Starter::Foreground
    }
}

/// An app's folder, held by this process: no other primary runs the app.
#[derive(Debug)]
pub(crate) struct Held {
    /// Where everything of the app is.
    pub folder: AppFolder,
    /// Who has started this primary.
    pub starter: Starter,
    /// Let go when this is dropped.
    lock: Lock,
}

/// An app's folder as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeldSnapshot {
    folder: Raw,
    starter: CarriedStarter,
    lock: CarriedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CarriedStarter {
    Foreground,
    Detached,
    Service,
}

impl Held {
    /// As it is written down for the next image of clusterd.
    pub(crate) fn snapshot(&self) -> HeldSnapshot {
        let starter = match self.starter {
            Starter::Foreground => CarriedStarter::Foreground,
            Starter::Detached => CarriedStarter::Detached,
            Starter::Service => CarriedStarter::Service,
        };
        HeldSnapshot { folder: self.folder.path().as_path().into(), starter, lock: self.lock.carried() }
    }

    /// As it was written down.
    ///
    /// # Errors
    /// It is no app's folder, or the lock is gone.
    pub(crate) fn restore(written: HeldSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let path = PathBuf::from(written.folder);
        let folder = AppFolder::at(&path)
            .ok_or_else(|| io::Error::other(format!("{} is no app's folder", path.display())))?;
        let starter = match written.starter {
            CarriedStarter::Foreground => Starter::Foreground,
            CarriedStarter::Detached => Starter::Detached,
            CarriedStarter::Service => Starter::Service,
        };
        Ok(Self::new(folder, Lock::passed_on(fds.take(written.lock)?), starter))
    }

    /// Says in the lock that this process has it.
    pub(crate) fn new(folder: AppFolder, lock: Lock, starter: Starter) -> Self {
        let held = Self { folder, starter, lock };
        held.say(&Holder::this_process());
        held
    }

    /// Says in the lock which ports this process is about to open.
    pub(crate) fn opens(&self, ports: Vec<u16>) {
        self.say(&Holder { ports, ..Holder::this_process() });
    }

    /// What keeps the folder whole, whose ports are these; `None` if the lock's file shows nobody which it is.
    pub(crate) fn keeper(&self, ports: Vec<u16>) -> Option<Keeper> {
        let holder = Holder { ports, ..Holder::this_process() };
        Keeper::new(&self.folder, &self.lock, holder, self.starter.keeps_app()).ok()
    }

    fn say(&self, holder: &Holder) {
        if let Err(error) = self.lock.say(holder) {
            warn!("cannot write {}: {error}", self.folder.lock().display());
        }
    }

    /// Whether workers are to be started with it.
    pub(crate) fn wants_workers(&self) -> bool {
        !self.starter.keeps_app() || Record::of(&self.folder).wanted == Wanted::Running
    }

    /// Whether clients are to wait until they are.
    pub(crate) fn has_clients_wait(&self) -> bool {
        !self.wants_workers() && !Record::of(&self.folder).held.is_empty()
    }

    /// The primary ends with this code.
    pub(crate) fn ends(&self, code: u8) {
        if self.starter.keeps_app() {
            note(&self.folder, |record| record.ended = Some(Ended { code, at: Time(SystemTime::now()) }));
        } else {
            leave(&self.folder, &self.lock);
        }
    }
}

/// Forgets an app that has run in the foreground, unless it was started in the background once. Its logs stay, and whoever
/// holds the lock does so.
pub(crate) fn leave(folder: &AppFolder, _held: &Lock) {
    if !folder.is_defined() {
        let _ = Ids::forget(folder.home(), folder.name());
        let _ = folder.remove(false);
    }
}

/// Changes the record of an app that this process holds. It may block.
pub(crate) fn note(folder: &AppFolder, change: impl FnOnce(&mut Record)) {
    if let Err(error) = Record::change(folder, change) {
        not_kept(&folder.record(), &error);
    }
}

/// What a command has changed is forgotten at the next start.
pub(crate) fn not_kept(file: &Path, error: &io::Error) {
    warn!(
        "cannot write {}: {error}; after a restart of clusterd the app is as it was before",
        file.display()
    );
}
