//! The primary's runtime folder: where workers find the attach socket and the shim.
//!
//! It is for this one run: the name is random, and it is removed at the end. Meanwhile it is kept whole.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use tracing::{debug, warn};

use super::leaving::LeavingNotes;
use crate::attach::socket::Rebind;
use crate::preload::{self, Exposed};
use crate::supervisor::identity::Identity;

/// Longest path of the folder, in bytes, so that the socket in it fits into `sun_path` (unix(7)).
const LONGEST: usize = 90;

/// A folder that others may pass through but not list (0711), removed on drop.
#[derive(Debug)]
pub(crate) struct RuntimeFolder {
    path: PathBuf,
    /// Another image of clusterd may still go on with it.
    stays: bool,
}

impl RuntimeFolder {
    /// Makes the folder in the first place that lets us, and these workers in: `/run` (as root), the folder for
    /// temporary files, `/dev/shm`. Those from which programs cannot load the shim come last: on Debian and Ubuntu, for one,
    /// `/run` is mounted with noexec. `None` on a system where none can be written.
    pub(crate) fn create(workers: Option<&Identity>) -> Option<Self> {
        let temporary = std::env::temp_dir();
        let parents = [Path::new("/run"), &temporary, Path::new("/tmp"), Path::new("/dev/shm")];
        let is_open = |parent: &&Path| workers.is_none_or(|workers| workers.may_pass(parent));
        Self::create_in_one_of(parents.into_iter().filter(is_open))
    }

    fn create_in_one_of<'a>(parents: impl Iterator<Item = &'a Path>) -> Option<Self> {
        let (best, others): (Vec<_>, Vec<_>) = parents.partition(|parent| preload::lets_load(parent).is_ok());
        best.into_iter().chain(others).find_map(|parent| match Self::create_in(parent) {
            Ok(folder) => Some(folder),
            Err(error) => {
                debug!(folder = %parent.display(), %error, "no place for the runtime folder");
                None
            }
        })
    }

    fn create_in(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("clusterd-{:016x}", fastrand::u64(..)));
        if path.as_os_str().len() > LONGEST || !path.is_absolute() {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        create(&path)?;
        Ok(Self { path, stays: false })
    }

    /// The one that the image of clusterd before has made. It stays until it is owned.
    pub(super) fn restore(path: PathBuf) -> Self {
        Self { path, stays: true }
    }

    /// It goes with this process.
    pub(super) fn own(&mut self) {
        self.stays = false;
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeFolder {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            debug!(folder = %self.path.display(), %error, "cannot remove the runtime folder");
        }
    }
}

/// The mode of a new folder is cut by the umask.
fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o711).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o711))
}

/// Keeps what workers look for in the folder: those who clean folders for temporary files remove what is old.
#[derive(Debug)]
pub(super) struct FolderKeeper {
    folder: PathBuf,
    attach: Rebind,
    /// The shim, if it is in the folder.
    shim: Option<PathBuf>,
    /// The folder itself, locked: systemd-tmpfiles passes over it then (tmpfiles.d(5)).
    lock: Option<OwnedFd>,
}

impl FolderKeeper {
    /// Of this folder, in which all of it is by now.
    pub(super) fn new(folder: &Path, attach: Rebind, shim: Option<&Path>) -> Self {
        let lock = lock(folder);
        Self { folder: folder.to_owned(), attach, shim: shim.map(ToOwned::to_owned), lock }
    }

    /// Looks whether everything is there, and makes again what is not.
    pub(super) fn make_whole(&mut self, leaving: Option<&mut LeavingNotes>) {
        let outcome = self.make_missing(leaving);
        let folder = self.folder.display();
        match outcome {
            Ok(false) => {}
            Ok(true) => warn!(
                "the runtime folder {folder} was emptied or removed; it is made again for new workers\n\
                 hint: exclude it from what cleans temporary files (tmpfiles.d: x {folder})"
            ),
            Err(error) => warn!(
                "cannot make the runtime folder {folder} again, which was emptied or removed: {error}; new workers get no \
                 connections"
            ),
        }
    }

    /// Whether something was missing.
    fn make_missing(&mut self, leaving: Option<&mut LeavingNotes>) -> io::Result<bool> {
        let has_folder = is_own_folder(&self.folder)?;
        if !has_folder {
            if let Some(parent) = self.folder.parent() {
                fs::create_dir_all(parent)?;
            }
            create(&self.folder)?;
            self.lock = None;
        }
        if self.lock.is_none() {
            self.lock = lock(&self.folder);
        }
        let has_attach = self.attach.is_bound();
        if !has_attach {
            self.attach.again()?;
        }
        let has_shim = self.shim.as_ref().is_none_or(|shim| shim.is_file());
        if !has_shim {
            Exposed::write_again(&self.folder)?;
        }
        let had_page = !leaving.map_or(Ok(false), LeavingNotes::make_again)?;
        Ok(!(has_folder && has_attach && has_shim && had_page))
    }
}

/// Whether the folder is there; it may have another owner only if it was removed, and somebody took its name.
fn is_own_folder(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Ok(found) if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() => Ok(true),
        Ok(_) => Err(io::Error::other("something else has its name")),
        Err(error) => Err(error),
    }
}

/// Whoever cleans it right now has it locked; then it is locked the next time.
fn lock(folder: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let locked = rustix::fs::open(folder, flags, Mode::empty()).and_then(|folder| {
        rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
        Ok(folder)
    });
    locked
        .inspect_err(|error| debug!(folder = %folder.display(), %error, "cannot lock the runtime folder"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_pass_through_it_but_not_list_it_and_it_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RuntimeFolder::create_in(parent.path()).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o711);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn it_is_where_programs_can_load_the_shim_if_there_is_such_a_place() {
        let root = tempfile::tempdir().unwrap();
        let [spaced, plain] = ["with space", "plain"].map(|name| root.path().join(name));
        for folder in [&spaced, &plain] {
            std::fs::create_dir(folder).unwrap();
        }
        let parent_in = |parents: &[&PathBuf]| {
            let folder = RuntimeFolder::create_in_one_of(parents.iter().map(|parent| parent.as_path()))?;
            folder.path().parent().map(Path::to_owned)
        };
        assert_eq!(parent_in(&[&spaced, &plain]), Some(plain.clone()));
        assert_eq!(parent_in(&[&spaced, &root.path().join("none")]), Some(spaced.clone()));
        assert_eq!(parent_in(&[&root.path().join("none")]), None);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("x".repeat(LONGEST));
        std::fs::create_dir(&long).unwrap();
        assert!(RuntimeFolder::create_in(&long).is_err());
    }
}
