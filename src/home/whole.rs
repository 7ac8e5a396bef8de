//! Keeps an app's folder whole as long as its primary runs: what somebody has removed from it is made again.
//!
//! It looks when it is told to, and blocks as long as the disk does. The control socket is not here
//! ([`control`](crate::control)), and neither are logs: who writes them opens them again.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::apps::{self, AppFolder};
use super::ids::Ids;
use super::lock::{Holder, Lock, LockError};

/// A file is kept in mind up to this size, in bytes: what an app is takes some kilobytes.
const LARGEST: u64 = 1024 * 1024;

/// What keeps the folder of an app whole.
#[derive(Debug)]
pub(crate) struct Keeper {
    folder: AppFolder,
    holder: Holder,
    /// Which file the lock is that this process holds.
    lock: Which,
    /// That of a file which was made again; the first is still held by whoever has made this.
    again: Option<Lock>,
    files: Vec<Kept>,
    numbers: Vec<u32>,
}

/// Which file it is: its device and its number there.
type Which = (u64, u64);

/// A file, with what was in it when it was last seen.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    seen: Option<(Which, i64, i64)>,
    content: Option<Vec<u8>>,
}

/// What a look has seen.
#[derive(Debug)]
pub(crate) enum Seen {
    /// All is there.
    Whole,
    /// Something was gone, and is there again.
    Mended,
    /// The lock is gone, and somebody else has taken it anew.
    Taken(LockError),
}

impl Keeper {
    /// Of a folder that this process holds with this lock. Only the lock is kept, unless the app `is_kept` there.
    pub(super) fn new(folder: &AppFolder, lock: &Lock, holder: Holder, is_kept: bool) -> io::Result<Self> {
        let files = [folder.definition(), folder.environment(), folder.record()];
        let kept = |path| Kept { path, seen: None, content: None };
        Ok(Self {
            folder: folder.clone(),
            holder,
            lock: which(&lock.metadata()?),
            again: None,
            files: files.into_iter().filter(|_| is_kept).map(kept).collect(),
            numbers: Vec::new(),
        })
    }

    /// Where the app is.
    pub(crate) fn folder(&self) -> &AppFolder {
        &self.folder
    }

    /// Looks, and makes again what is not there.
    ///
    /// # Errors
    /// It cannot be made: those of mkdir(2), open(2) and rename(2). The folder that the home folder is in is never made.
    pub(crate) fn look(&mut self) -> io::Result<Seen> {
        let mut is_whole = true;
        if !self.folder.lock().metadata().is_ok_and(|found| which(&found) == self.lock) {
            is_whole = false;
            if let Err(error) = self.take_again()? {
                return Ok(Seen::Taken(error));
            }
        }
        for file in &mut self.files {
            is_whole &= file.look()?;
        }
        is_whole &= self.keep_numbers()?;
        Ok(if is_whole { Seen::Whole } else { Seen::Mended })
    }

    fn take_again(&mut self) -> io::Result<Result<(), LockError>> {
        // Else mkdir(2) says which it is that is gone.
        if !self.folder.home().is_dir() {
            fs::create_dir(self.folder.home())?;
        }
        let lock = match Lock::take(&self.folder) {
            Ok(lock) => lock,
            Err(LockError::Unusable { source, .. }) => return Err(source),
            Err(held) => return Ok(Err(held)),
        };
        lock.say(&self.holder)?;
        self.lock = which(&lock.metadata()?);
        self.again = Some(lock);
        Ok(Ok(()))
    }

    /// Workers have the numbers that they had. Whether they had them still.
    fn keep_numbers(&mut self) -> io::Result<bool> {
        let (home, name) = (self.folder.home(), self.folder.name());
        let now = Ids::of(home).of_app(name).to_vec();
        if now.is_empty() && !self.numbers.is_empty() {
            Ids::give_back(home, name, &self.numbers)?;
            return Ok(false);
        }
        self.numbers = now;
        Ok(true)
    }
}

impl Kept {
    /// Whether it is there, or was never.
    fn look(&mut self) -> io::Result<bool> {
        match self.path.metadata() {
            Ok(found) => {
                let seen = Some((which(&found), found.mtime(), found.mtime_nsec()));
                if seen != self.seen {
                    self.content = (found.len() <= LARGEST).then(|| fs::read(&self.path)).transpose()?;
                    self.seen = seen;
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Some(content) = &self.content else { return Ok(true) };
                apps::replace(&self.path, content)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn which(file: &Metadata) -> Which {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::super::apps::Apps;
    use super::*;

    fn app() -> (tempfile::TempDir, AppFolder, Lock, Keeper) {
        let parent = tempfile::tempdir().unwrap();
        let app = Apps::in_folder(&parent.path().join("home")).app("web");
        let lock = Lock::take(&app).unwrap();
        let holder = Holder { pid: 7, terminal: None, ports: vec![80] };
        lock.say(&holder).unwrap();
        apps::replace(&app.definition(), b"name = 'web'").unwrap();
        Ids::give(app.home(), "api", 1).unwrap();
        Ids::give(app.home(), "web", 2).unwrap();
        let keeper = Keeper::new(&app, &lock, holder, true).unwrap();
        (parent, app, lock, keeper)
    }

    fn text(file: PathBuf) -> String {
        fs::read_to_string(file).unwrap()
    }

    #[test]
    fn what_was_removed_is_made_again_as_it_was_last() {
        let (_parent, app, _lock, mut keeper) = app();
        let removals: [&dyn Fn(); 4] = [
            &|| fs::remove_dir_all(app.home()).unwrap(),
            &|| fs::remove_dir_all(app.path()).unwrap(),
            &|| fs::remove_file(app.definition()).unwrap(),
            &|| fs::remove_file(app.lock()).unwrap(),
        ];
        for remove in removals {
            assert!(matches!(keeper.look().unwrap(), Seen::Whole));
            apps::replace(&app.definition(), b"workers = 2").unwrap();
            assert!(matches!(keeper.look().unwrap(), Seen::Whole));
            remove();
            assert!(matches!(keeper.look().unwrap(), Seen::Mended));
            assert_eq!(text(app.definition()), "workers = 2");
            assert!(!app.record().exists(), "there was none");
            assert_eq!(Lock::holder(&app), Some(Holder { pid: 7, terminal: None, ports: vec![80] }));
            assert!(matches!(Lock::take(&app), Err(LockError::Held { .. })));
            assert_eq!(Ids::of(app.home()).of_app("web"), [1, 2]);
        }
    }

    #[test]
    fn who_has_taken_the_name_meanwhile_keeps_it() {
        let (_parent, app, _lock, mut keeper) = app();
        assert!(matches!(keeper.look().unwrap(), Seen::Whole));
        fs::remove_dir_all(app.path()).unwrap();
        let other = Lock::take(&app).unwrap();
        for _ in 0..2 {
            assert!(matches!(keeper.look().unwrap(), Seen::Taken(_)));
            assert!(!app.definition().exists());
        }
        drop(other);
        assert!(matches!(keeper.look().unwrap(), Seen::Mended));
    }

    #[test]
    fn nothing_is_made_where_the_home_folder_has_no_place() {
        let (parent, app, _lock, mut keeper) = app();
        assert!(matches!(keeper.look().unwrap(), Seen::Whole));
        fs::remove_dir_all(parent.path()).unwrap();
        assert_eq!(keeper.look().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!parent.path().exists() && !app.path().exists());
    }
}
