//! Who users and groups are, by name and by number.
//!
//! A static binary reads /etc/passwd and /etc/group by itself. Its C library would load a library for anything else that
//! /etc/nsswitch.conf names, and with that the C library a second time, which may be another one (nss(5)): with systemd's, for
//! users without an entry (`DynamicUser=`), the process would die of a segmentation fault. Other builds ask the C library.

use std::env;
use std::io;
use std::path::PathBuf;

use rustix::fs::{Gid, Uid};

#[cfg(any(test, not(target_feature = "crt-static")))]
mod c_library;
#[cfg(any(test, target_feature = "crt-static"))]
mod files;

#[cfg(not(target_feature = "crt-static"))]
use self::c_library as database;
#[cfg(target_feature = "crt-static")]
use self::files as database;

/// A user of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    /// Its login group.
    pub(crate) gid: Gid,
    pub(crate) home: PathBuf,
}

/// The user of this name (getpwnam(3)); `None` if there is none, or no database at all, as in an empty root folder.
///
/// # Errors
/// The database does not answer.
pub(crate) fn named(name: &str) -> io::Result<Option<User>> {
    none_without_database(database::named(name))
}

/// The user of this number (getpwuid(3)), of several the first; `None` as for [`named`].
///
/// # Errors
/// The database does not answer.
pub(crate) fn numbered(uid: Uid) -> io::Result<Option<User>> {
    none_without_database(database::numbered(uid))
}

/// The group of this name (getgrnam(3)); `None` as for [`named`].
///
/// # Errors
/// The database does not answer.
pub(crate) fn group_named(name: &str) -> io::Result<Option<Gid>> {
    none_without_database(database::group_named(name))
}

/// `gid`, and the groups that have this user as a member (getgrouplist(3)).
///
/// # Errors
/// The database does not answer, or no user can have this name.
pub(crate) fn groups_of(name: &str, gid: Gid) -> io::Result<Vec<Gid>> {
    database::groups_of(name, gid)
}

/// The user that this process runs as; `None` also if the database does not answer.
pub(crate) fn own() -> Option<User> {
    numbered(rustix::process::geteuid()).ok().flatten()
}

/// The home of this process's user: `HOME`, or else the database's.
pub(crate) fn home() -> Option<PathBuf> {
    let named_here = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    named_here.or_else(|| Some(own()?.home))
}

fn none_without_database<T>(found: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match found {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_database_nobody_is_found() {
        let found = |number| none_without_database::<u32>(Err(io::Error::from_raw_os_error(number)));
        assert_eq!(found(libc::ENOENT).unwrap(), None);
        assert_eq!(found(libc::EMFILE).unwrap_err().raw_os_error(), Some(libc::EMFILE));
        assert_eq!(none_without_database(Ok(Some(1))).unwrap(), Some(1));
    }
}
