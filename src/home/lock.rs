//! The lock that an app's primary holds for as long as it lives, and who holds it.
//!
//! It is an flock(2): it goes from whoever starts the primary to the primary with the descriptor, and the kernel lets it go
//! when the last process that has it ends, however it ends.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use serde::{Deserialize, Serialize};

use super::apps::AppFolder;
use super::owner::by_owner;
use crate::carry::CarriedFd;

/// How often a lock is tried to be had whose file is removed meanwhile.
const TRIES: u32 = 16;

/// The lock, held.
#[derive(Debug)]
pub(crate) struct Lock(File);

/// Who holds a lock, as it has said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Its process.
    pub pid: u32,
    /// The terminal in which it runs; `None` if in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    /// The ports that it opens, or is about to: a socket that does not listen yet shows nobody whose it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process has it.
    #[error("app {app} is running already{}", .by.as_ref().map(Holder::to_string).unwrap_or_default())]
    Held {
        /// What it runs.
        app: String,
        /// Who, unless it has just begun.
        by: Option<Holder>,
    },
    /// The file cannot be used.
    #[error("cannot lock app {app}: {source}\nhint: name another folder for apps: CLUSTERD_HOME")]
    Unusable {
        /// The app.
        app: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Holder {
    /// This process.
    pub(crate) fn this_process() -> Self {
        let terminal = rustix::termios::ttyname(rustix::stdio::stderr(), Vec::new()).ok();
        let terminal = terminal.map(|name| name.to_string_lossy().into_owned());
        Self { pid: std::process::id(), terminal, ports: Vec::new() }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.terminal {
            Some(terminal) => write!(f, " (pid {}, on {terminal})", self.pid),
            None => write!(f, " (pid {})", self.pid),
        }
    }
}

impl Lock {
    /// Takes the lock of an app, whose folder is made if there is none.
    ///
    /// # Errors
    /// Somebody has it, or the folder cannot be written.
    pub(crate) fn take(app: &AppFolder) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable { app: app.name().to_owned(), source };
        for _ in 0..TRIES {
            app.create().map_err(unusable)?;
            let mut file = match open(app) {
                // Whoever had it has just removed the folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(unusable)?,
            };
            match file.try_lock() {
                Ok(()) if is_at(&file, app) => return Ok(Self(file)),
                // Whoever had it has just removed the file: it is nobody's lock any more.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held { app: app.name().to_owned(), by: read(&mut file) });
                }
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
            }
        }
        Err(unusable(io::Error::other("its file is removed again and again")))
    }

    /// Whether somebody has the lock of an app. It makes nothing.
    pub(crate) fn is_held(app: &AppFolder) -> bool {
        let Ok(file) = File::open(app.lock()) else { return false };
        // Shared, and let go at once: two who look do not see each other.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Who has said to hold the lock of an app.
    pub(crate) fn holder(app: &AppFolder) -> Option<Holder> {
        File::open(app.lock()).ok().and_then(|mut file| read(&mut file))
    }

    /// Says who holds it.
    ///
    /// # Errors
    /// Those of write(2).
    pub(crate) fn say(&self, holder: &Holder) -> io::Result<()> {
        let mut file = &self.0;
        file.rewind()?;
        file.set_len(0)?;
        // At once: whoever reads it meanwhile sees all of it, or nothing.
        file.write_all(&serde_json::to_vec(holder)?)
    }

    /// Those of its file, wherever that is by now.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// The descriptor, to be passed on with the lock.
    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.0.into()
    }

    /// The descriptor, as it is written down for the next image of clusterd, which has the lock with it.
    pub(super) fn carried(&self) -> CarriedFd {
        CarriedFd::of(&self.0)
    }

    /// The lock that came with a descriptor.
    pub(crate) fn passed_on(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }
}

/// Whether this is still the file of that name.
fn is_at(file: &File, app: &AppFolder) -> bool {
    let same = |one: Metadata, other: Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    file.metadata().and_then(|one| Ok(same(one, app.lock().metadata()?))).unwrap_or(false)
}

fn open(app: &AppFolder) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    by_owner(app.home(), || options.open(app.lock()))
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::super::apps::Apps;
    use super::*;

    #[test]
    fn one_at_a_time_has_the_lock_and_says_who_it_is() {
        let home = tempfile::tempdir().unwrap();
        let app = Apps::in_folder(home.path()).app("web");
        assert!(!Lock::is_held(&app) && !app.path().exists());
        let lock = Lock::take(&app).unwrap();
        let refused = |app| Lock::take(app).unwrap_err().to_string();
        assert_eq!(refused(&app), "app web is running already");
        lock.say(&Holder { pid: 4711, terminal: Some("/dev/pts/3".to_owned()), ports: vec![80] }).unwrap();
        assert_eq!(refused(&app), "app web is running already (pid 4711, on /dev/pts/3)");
        lock.say(&Holder { pid: 5, terminal: None, ports: Vec::new() }).unwrap();
        assert_eq!(refused(&app), "app web is running already (pid 5)");
        assert!(Lock::is_held(&app));
        // Somebody who looks does not take it away.
        let passed_on = Lock::passed_on(lock.into_descriptor());
        assert!(Lock::is_held(&app));
        drop(passed_on);
        assert!(!Lock::is_held(&app));
        Lock::take(&app).unwrap();
    }

    #[test]
    fn who_takes_a_lock_whose_file_is_removed_meanwhile_is_still_the_only_one() {
        let home = tempfile::tempdir().unwrap();
        let app = Apps::in_folder(home.path()).app("web");
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(lock) = Lock::take(&app) else { continue };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        super::super::leave(&app, &lock);
                    }
                });
            }
        });
        assert!(!app.path().exists());
    }
}
