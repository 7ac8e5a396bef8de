//! The primary's runtime folder: where workers find the attach socket and the shim.
//!
//! It is for this one run: the name is random, and it is removed at the end.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::supervisor::identity::Identity;

/// Longest path of the folder, in bytes, so that the socket in it fits into `sun_path` (unix(7)).
const LONGEST: usize = 90;

/// A folder that others may pass through but not list (0711), removed on drop.
#[derive(Debug)]
pub(super) struct RuntimeFolder {
    path: PathBuf,
}

impl RuntimeFolder {
    /// Makes the folder in the first place that lets us, and these workers in: `/run` (as root), the folder for
    /// temporary files, `/dev/shm`. `None` on a system where none can be written.
    pub(super) fn create(workers: Option<&Identity>) -> Option<Self> {
        let temporary = std::env::temp_dir();
        let parents = [Path::new("/run"), &temporary, Path::new("/tmp"), Path::new("/dev/shm")];
        let is_open = |parent: &&Path| workers.is_none_or(|workers| workers.may_pass(parent));
        parents.into_iter().filter(is_open).find_map(|parent| match Self::create_in(parent) {
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
        DirBuilder::new().mode(0o711).create(&path)?;
        let folder = Self { path };
        // The mode of a new folder is cut by the umask.
        std::fs::set_permissions(&folder.path, Permissions::from_mode(0o711))?;
        Ok(folder)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            debug!(folder = %self.path.display(), %error, "cannot remove the runtime folder");
        }
    }
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
    fn a_path_too_long_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("x".repeat(LONGEST));
        std::fs::create_dir(&long).unwrap();
        assert!(RuntimeFolder::create_in(&long).is_err());
    }
}
