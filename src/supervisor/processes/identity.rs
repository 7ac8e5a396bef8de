//! Whom the workers run as: `--user` and `--group`, looked up before anything is started.
//!
//! It changes nobody: that is done in the new process, before its program starts.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::settings::parse::split_user;
use crate::sys::process::Credentials;
use crate::sys::users::{self, User};

/// Another user or group than clusterd's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// In numbers.
    pub credentials: Credentials,
    /// The user's name; `None` for a number that the user database does not have.
    pub name: Option<String>,
    /// Where the user is at home: `/` where the database does not say.
    pub home: PathBuf,
    /// Whether it is another user, and not only another group.
    pub is_other_user: bool,
}

/// A user and a group, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

impl Account {
    /// What this process runs as.
    pub(crate) fn of_this_process() -> Self {
        Self { uid: rustix::process::geteuid(), gid: rustix::process::getegid() }
    }
}

/// Workers cannot run as they should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// There is no such user.
    #[error(
        "there is no user {0}\nhint: --user and --primary-user take a name from /etc/passwd (`getent passwd` lists all), or a number"
    )]
    NoUser(String),
    /// There is no such group.
    #[error(
        "there is no group {0}\nhint: --group takes a name from /etc/group (`getent group` lists all), or a number"
    )]
    NoGroup(String),
    /// A number without an entry belongs to no group.
    #[error(
        "user {0} is not in the user database, so its group is unknown\nhint: add --group, or name it behind a colon in --primary-user"
    )]
    GroupUnknown(u32),
    /// The database does not answer.
    #[error("cannot look up {what}: {source}")]
    Database {
        /// What was looked for.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// clusterd itself lacks the privilege.
    #[error(
        "cannot run workers as {who}: clusterd lacks {lacking}\nhint: start it as root, grant it that, or leave out --user \
         and --group"
    )]
    NotPermitted {
        /// As whom.
        who: String,
        /// The capabilities.
        lacking: String,
    },
}

impl Identity {
    /// What these two stand for, each a name or a number; `None` if it is what clusterd runs as.
    ///
    /// With a user come the supplementary groups that the database gives it (initgroups(3)); a group alone changes
    /// that group alone.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, IdentityError> {
        let identity = Self::beside(Account::of_this_process(), user, group)?;
        identity.iter().try_for_each(Self::check_privilege)?;
        Ok(identity)
    }

    /// The same where clusterd runs as this account, or will. Whether it may start workers so is not looked at.
    ///
    /// # Errors
    /// [`IdentityError`], but for the last.
    pub(crate) fn beside(
        own: Account,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Self>, IdentityError> {
        let gid = group.map(look_up_group).transpose()?;
        let identity = match (user, gid) {
            (None, None) => return Ok(None),
            (None, Some(gid)) => Self::of_own_user(own, gid),
            (Some(user), gid) => Self::of_user(own, user, gid)?,
        };
        Ok((identity.account() != own).then_some(identity))
    }

    /// Another account that clusterd itself is to have, as its own: `USER` or `USER:GROUP`. What it has now does not matter.
    ///
    /// # Errors
    /// [`IdentityError`], but for the last.
    pub(crate) fn of_primary(text: &str) -> Result<Self, IdentityError> {
        let (user, group) = split_user(text);
        let gid = group.map(look_up_group).transpose()?;
        let identity = Self::of_user(Account::of_this_process(), user, gid)?;
        Ok(Self { is_other_user: true, ..identity })
    }

    /// Its user and its group.
    pub(crate) fn account(&self) -> Account {
        Account { uid: self.credentials.uid, gid: self.credentials.gid }
    }

    fn of_own_user(own: Account, gid: Gid) -> Self {
        let credentials = Credentials { uid: own.uid, gid, groups: None };
        Self { credentials, name: None, home: "/".into(), is_other_user: false }
    }

    fn of_user(own: Account, user: &str, gid: Option<Gid>) -> Result<Self, IdentityError> {
        let (uid, entry) = look_up_user(user)?;
        let own_gid = entry.as_ref().map(|entry| entry.gid);
        let gid = gid.or(own_gid).ok_or(IdentityError::GroupUnknown(uid.as_raw()))?;
        let groups = match &entry {
            Some(entry) => users::groups_of(&entry.name, gid).map_err(|source| IdentityError::Database {
                what: format!("the groups of user {user}"),
                source,
            })?,
            None => vec![gid],
        };
        let home = entry.as_ref().map_or_else(|| "/".into(), |entry| entry.home.clone());
        Ok(Self {
            credentials: Credentials { uid, gid, groups: Some(groups) },
            name: entry.map(|entry| entry.name),
            home,
            is_other_user: uid != own.uid,
        })
    }

    /// CAP_KILL too: who cannot end a worker must not start it.
    fn check_privilege(&self) -> Result<(), IdentityError> {
        let mut needed = vec![(CapabilitySet::SETGID, "CAP_SETGID")];
        if self.is_other_user {
            needed.extend([(CapabilitySet::SETUID, "CAP_SETUID"), (CapabilitySet::KILL, "CAP_KILL")]);
        }
        let database = |source: rustix::io::Errno| IdentityError::Database {
            what: "the capabilities of clusterd".to_owned(),
            source: source.into(),
        };
        let own = rustix::thread::capabilities(None).map_err(database)?.effective;
        let lacking: Vec<_> =
            needed.into_iter().filter(|(one, _)| !own.contains(*one)).map(|(_, name)| name).collect();
        match lacking.is_empty() {
            true => Ok(()),
            false => Err(IdentityError::NotPermitted { who: self.to_string(), lacking: lacking.join(", ") }),
        }
    }

    /// What the user finds in its environment, and what it must not find there because it is about another one. With
    /// a group alone it is the same user, and so is its environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, Option<OsString>)> {
        if !self.is_other_user {
            return Vec::new();
        }
        let name = || self.name.as_ref().map(OsString::from);
        vec![("HOME", Some(self.home.clone().into())), ("USER", name()), ("LOGNAME", name())]
    }

    /// Whether it may pass through this folder and all above it, as their modes tell: access lists, for one, may say
    /// otherwise.
    pub(crate) fn may_pass(&self, folder: &Path) -> bool {
        folder.ancestors().all(|folder| folder.metadata().is_ok_and(|folder| self.may_enter(&folder)))
    }

    fn may_enter(&self, folder: &impl MetadataExt) -> bool {
        let Credentials { uid, gid, groups } = &self.credentials;
        let is_member = |folder: u32| {
            gid.as_raw() == folder || groups.iter().flatten().any(|group| group.as_raw() == folder)
        };
        let class = match () {
            () if uid.is_root() => 0o111,
            () if uid.as_raw() == folder.uid() => 0o100,
            () if is_member(folder.gid()) => 0o010,
            () => 0o001,
        };
        folder.mode() & class != 0
    }
}

/// For people: `user www-data (33), group www-data (33)` would say too much, so it is the user, if it is another one.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credentials { uid, gid, .. } = &self.credentials;
        match (self.is_other_user, &self.name) {
            (false, _) => write!(f, "group {}", gid.as_raw()),
            (true, None) => write!(f, "user {}", uid.as_raw()),
            (true, Some(name)) => write!(f, "user {name} ({})", uid.as_raw()),
        }
    }
}

/// The users whose processes may speak for a worker: root, clusterd's own, and the workers'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Users(BTreeSet<u32>);

impl Users {
    /// Where workers run as this.
    pub(crate) fn of_workers(identity: Option<&Identity>) -> Self {
        let workers = identity.map(|identity| identity.credentials.uid.as_raw());
        Self([0, rustix::process::geteuid().as_raw()].into_iter().chain(workers).collect())
    }

    /// Whether a user is one of them.
    pub(crate) fn contains(&self, uid: u32) -> bool {
        self.0.contains(&uid)
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&users.join(", "))
    }
}

/// A name is tried first: there may be a user that is called by a number.
fn look_up_user(user: &str) -> Result<(Uid, Option<User>), IdentityError> {
    let failed = |source| IdentityError::Database { what: format!("user {user}"), source };
    if let Some(entry) = users::named(user).map_err(failed)? {
        return Ok((entry.uid, Some(entry)));
    }
    let uid = number(user).map(Uid::from_raw).ok_or_else(|| IdentityError::NoUser(user.to_owned()))?;
    Ok((uid, users::numbered(uid).map_err(failed)?))
}

fn look_up_group(group: &str) -> Result<Gid, IdentityError> {
    let failed = |source| IdentityError::Database { what: format!("group {group}"), source };
    let found = users::group_named(group).map_err(failed)?;
    let found = found.or_else(|| number(group).map(Gid::from_raw));
    found.ok_or_else(|| IdentityError::NoGroup(group.to_owned()))
}

/// A number of a user or group; the highest means none (chown(2)).
fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| is_plain && number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn other(uid: u32, gid: u32) -> Identity {
        let credentials =
            Credentials { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups: Some(vec![]) };
        Identity { credentials, name: None, home: "/".into(), is_other_user: true }
    }

    #[test]
    fn what_clusterd_runs_as_is_no_other_identity() {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let gid = rustix::process::getegid().as_raw().to_string();
        assert_eq!(Identity::look_up(None, None).unwrap(), None);
        assert_eq!(Identity::look_up(Some(&uid), Some(&gid)).unwrap(), None);
        assert_eq!(Identity::look_up(None, Some(&gid)).unwrap(), None);
    }

    #[test]
    fn root_is_found_by_name_and_by_number() {
        for user in ["root", "0"] {
            let (uid, entry) = look_up_user(user).unwrap();
            assert!(uid.is_root());
            assert_eq!(entry.unwrap().name, "root");
        }
        assert!(look_up_group("root").unwrap().is_root());
    }

    #[test]
    fn who_is_not_there_is_named() {
        let table = [
            (Some("no-such-user"), None, "there is no user no-such-user\nhint: "),
            (Some("4294967295"), None, "there is no user 4294967295\nhint: "),
            (Some("+5"), None, "there is no user +5\nhint: "),
            (Some("root"), Some("no-such-group"), "there is no group no-such-group\nhint: "),
            (Some("4294967294"), None, "user 4294967294 is not in the user database"),
        ];
        for (user, group, expected) in table {
            let error = Identity::look_up(user, group).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_identity_is_more_than_a_number() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let identity = Identity::look_up(Some("4294967294"), Some("7")).unwrap().expect("another user");
        assert_eq!(
            identity.credentials,
            Credentials { groups: Some(vec![Gid::from_raw(7)]), ..other(4_294_967_294, 7).credentials }
        );
        let environment = [("HOME", Some("/".into())), ("USER", None), ("LOGNAME", None)];
        assert_eq!(identity.environment(), environment);
        assert_eq!(identity.to_string(), "user 4294967294");
        let group = Identity::look_up(None, Some("7")).unwrap().expect("another group");
        assert_eq!((group.to_string().as_str(), group.environment()), ("group 7", Vec::new()));
    }

    #[test]
    fn a_folder_is_passed_by_whom_its_mode_lets() {
        let folder = tempfile::tempdir().unwrap();
        let owner = folder.path().metadata().unwrap();
        for (mode, own, group, stranger) in
            [(0o711, true, true, true), (0o710, true, true, false), (0o700, true, false, false)]
        {
            folder.path().metadata().unwrap();
            std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let folder = folder.path().metadata().unwrap();
            assert!(other(owner.uid(), owner.gid()).may_enter(&folder) == own, "{mode:o}");
            assert!(other(12_345, owner.gid()).may_enter(&folder) == group, "{mode:o}");
            assert!(other(12_345, 12_345).may_enter(&folder) == stranger, "{mode:o}");
            assert!(other(0, 12_345).may_enter(&folder), "{mode:o}");
        }
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(&inner, Permissions::from_mode(0o700)).unwrap();
        assert!(other(12_345, 12_345).may_pass(folder.path()));
        assert!(!other(12_345, 12_345).may_pass(&inner.join("nothing")));
        assert!(!other(12_345, 12_345).may_pass(&inner));
    }

    #[test]
    fn workers_of_another_user_may_attach() {
        let own = rustix::process::geteuid().as_raw();
        let users = Users::of_workers(Some(&other(12_345, 1)));
        assert!([0, own, 12_345].into_iter().all(|uid| users.contains(uid)));
        assert!(!users.contains(12_346));
        assert!(!Users::of_workers(None).contains(12_345));
        assert!(users.to_string().ends_with("12345"));
    }
}
