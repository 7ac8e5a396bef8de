//! Whoever changes a home folder that is another user's does so with that user's rights.
//!
//! Root may name any folder (`CLUSTERD_HOME`). What it makes there is then its owner's, as of a primary that gives up root
//! (`--primary-user`), and links that the owner has put there lead root nowhere.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Gid, Uid};

use crate::sys::acting::with_rights_of;
use crate::sys::process::Credentials;

/// Changes something in this home folder.
///
/// # Errors
/// Those of what is done, and those of setresuid(2).
pub(super) fn by_owner<T>(home: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match owner(home).filter(|_| rustix::process::geteuid().is_root()) {
        Some(owner) => with_rights_of(&owner, act)?,
        None => act(),
    }
}

/// Whose it is, if it is there and not root's.
fn owner(home: &Path) -> Option<Credentials> {
    let found = home.metadata().ok()?;
    let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    (!uid.is_root()).then(|| Credentials { uid, gid, groups: Some(vec![gid]) })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::super::apps::Apps;
    use super::super::lock::Lock;
    use super::super::record::Record;
    use super::*;

    #[test]
    fn what_root_makes_in_anothers_folder_is_the_others_and_links_lead_it_nowhere() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let (home, own) = (folder.path().join("home"), folder.path().join("roots"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&own).unwrap();
        chown(&home, Some(12_345), Some(12_345)).unwrap();
        let app = Apps::in_folder(&home).app("web");
        let lock = Lock::take(&app).unwrap();
        Record::default().write(&app).unwrap();
        app.log("clusterd.log").unwrap();
        let made = [app.path(), app.lock(), app.record(), app.logs(), app.logs().join("clusterd.log")];
        for path in made {
            assert_eq!(path.metadata().unwrap().uid(), 12_345, "{}", path.display());
        }
        drop(lock);
        fs::remove_dir_all(app.path()).unwrap();
        symlink(&own, app.path()).unwrap();
        assert!(Lock::take(&app).is_err() && Record::default().write(&app).is_err());
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
    }
}
