//! Waits until something happens to log files, as the kernel tells it (inotify(7)).
//!
//! It reads no file, and knows none: it watches folders.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::time::{self, timeout};

use crate::sys::watched::Watched;

/// How often it is looked all the same: network file systems tell nothing of what other machines do.
const SOMETIMES: Duration = Duration::from_secs(2);

/// How often where the kernel tells nothing at all.
const OFTEN: Duration = Duration::from_millis(200);

/// How long changes are gathered: who writes much is not read line by line.
const GATHER: Duration = Duration::from_millis(10);

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Files may have more in them.
    Lines,
    /// There may also be others.
    Files,
}

/// Folders in which log files are.
#[derive(Debug)]
pub(crate) struct Folders {
    /// `None` where the user has no more of these, or memory is short.
    inotify: Option<Watched>,
    watched: BTreeSet<i32>,
}

impl Folders {
    /// None yet.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub(crate) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.ok().and_then(|fd| Watched::new(fd, Interest::READABLE).ok());
        Self { inotify, watched: BTreeSet::new() }
    }

    /// Watches this one too, if it is there. Whether it was not watched before: what is in it may have changed meanwhile.
    pub(crate) fn watch(&mut self, folder: &Path) -> bool {
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        let Some(inotify) = &self.inotify else { return false };
        match inotify::add_watch(inotify, folder, flags) {
            Ok(number) => self.watched.insert(number),
            Err(Errno::NOSPC | Errno::NOMEM) => {
                self.inotify = None;
                false
            }
            // It is not there, or closed to this user.
            Err(_) => false,
        }
    }

    /// Waits for the next change, or until it is time to look all the same.
    pub(crate) async fn changed(&mut self) -> Change {
        let Some(inotify) = &self.inotify else {
            time::sleep(OFTEN).await;
            return Change::Files;
        };
        let told = match timeout(SOMETIMES, inotify.when_readable(|inotify| read(inotify))).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => {
                self.inotify = None;
                return Change::Files;
            }
            Err(_) => return Change::Files,
        };
        time::sleep(GATHER).await;
        let rest = read(inotify).unwrap_or_default();
        let mut change = Change::Lines;
        for Told { folder, flags } in told.into_iter().chain(rest) {
            if flags.contains(ReadFlags::IGNORED) {
                self.watched.remove(&folder);
            }
            if flags != ReadFlags::MODIFY {
                change = Change::Files;
            }
        }
        change
    }
}

/// What the kernel has told.
#[derive(Clone, Copy, Debug)]
struct Told {
    folder: i32,
    flags: ReadFlags,
}

/// As much as is read at once.
fn read(inotify: impl AsFd) -> io::Result<Vec<Told>> {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut events = Reader::new(inotify, &mut buffer);
    let mut told = Vec::new();
    loop {
        match events.next() {
            Ok(event) => told.push(Told { folder: event.wd(), flags: event.events() }),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if events.is_buffer_empty() {
            return Ok(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn lines_and_other_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let mut folders = Folders::new();
        assert!(folders.watch(folder.path()) && !folders.watch(folder.path()));
        assert!(!folders.watch(&path), "it is not there");
        let mut file = fs::File::create(&path).unwrap();
        assert_eq!(folders.changed().await, Change::Files);
        file.write_all(b"1\n").unwrap();
        assert_eq!(folders.changed().await, Change::Lines);
        fs::rename(&path, folder.path().join("aside")).unwrap();
        assert_eq!(folders.changed().await, Change::Files);
        file.write_all(b"2\n").unwrap();
        assert_eq!(folders.changed().await, Change::Lines);
    }

    #[tokio::test]
    async fn a_folder_that_is_made_anew_is_watched_anew() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("logs");
        let mut folders = Folders::new();
        for _ in 0..2 {
            fs::create_dir(&folder).unwrap();
            assert!(folders.watch(&folder));
            fs::remove_dir(&folder).unwrap();
            assert_eq!(folders.changed().await, Change::Files);
        }
    }

    #[tokio::test]
    async fn it_is_looked_all_the_same_where_nothing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut folders = Folders { inotify: None, watched: BTreeSet::new() };
        assert!(!folders.watch(folder.path()));
        assert_eq!(folders.changed().await, Change::Files);
    }
}
