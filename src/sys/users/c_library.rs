//! The database of the C library: files, and whatever else /etc/nsswitch.conf names.

use std::ffi::CString;
use std::io;

use nix::unistd;
use rustix::fs::{Gid, Uid};

use super::User;

pub(super) fn named(name: &str) -> io::Result<Option<User>> {
    Ok(unistd::User::from_name(name)?.map(Into::into))
}

pub(super) fn numbered(uid: Uid) -> io::Result<Option<User>> {
    Ok(unistd::User::from_uid(uid.as_raw().into())?.map(Into::into))
}

pub(super) fn group_named(name: &str) -> io::Result<Option<Gid>> {
    Ok(unistd::Group::from_name(name)?.map(|group| Gid::from_raw(group.gid.as_raw())))
}

pub(super) fn groups_of(name: &str, gid: Gid) -> io::Result<Vec<Gid>> {
    let groups = unistd::getgrouplist(&CString::new(name)?, gid.as_raw().into())?;
    Ok(groups.into_iter().map(|group| Gid::from_raw(group.as_raw())).collect())
}

impl From<unistd::User> for User {
    fn from(user: unistd::User) -> Self {
        let unistd::User { name, uid, gid, dir, .. } = user;
        Self { name, uid: Uid::from_raw(uid.as_raw()), gid: Gid::from_raw(gid.as_raw()), home: dir }
    }
}
