//! The database of files: /etc/passwd (passwd(5)) and /etc/group (group(5)).
//!
//! As glibc reads them: spaces before a line, a member or a number and lines that begin with `#` do not count, a user may have no
//! more than its numbers, and a line that is none of an entry is passed over, as are those that begin with `+` or `-`, which
//! mean another database.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{Gid, Uid};

use super::User;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

pub(super) fn named(name: &str) -> io::Result<Option<User>> {
    Ok(users(&fs::read(USERS)?).find(|user| user.name == name))
}

pub(super) fn numbered(uid: Uid) -> io::Result<Option<User>> {
    Ok(users(&fs::read(USERS)?).find(|user| user.uid == uid))
}

pub(super) fn group_named(name: &str) -> io::Result<Option<Gid>> {
    let file = fs::read(GROUPS)?;
    let found = groups(&file).find(|group| group.name == name.as_bytes()).map(|group| group.gid);
    Ok(found)
}

pub(super) fn groups_of(name: &str, gid: Gid) -> io::Result<Vec<Gid>> {
    match fs::read(GROUPS) {
        Ok(file) => Ok(groups_with(&file, name, gid)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![gid]),
        Err(error) => Err(error),
    }
}

fn groups_with(file: &[u8], name: &str, gid: Gid) -> Vec<Gid> {
    let mut with = vec![gid];
    for group in groups(file).filter(|group| group.has(name)) {
        if !with.contains(&group.gid) {
            with.push(group.gid);
        }
    }
    with
}

/// A group of the database.
struct Group<'a> {
    name: &'a [u8],
    gid: Gid,
    members: &'a [u8],
}

impl Group<'_> {
    fn has(&self, member: &str) -> bool {
        self.members.split(|&byte| byte == b',').any(|one| one.trim_ascii_start() == member.as_bytes())
    }
}

fn users(file: &[u8]) -> impl Iterator<Item = User> {
    entries(file, 7).filter_map(|mut fields| {
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
        let (_full_name, home) = (fields.next(), fields.next().unwrap_or_default());
        let name = String::from_utf8_lossy(name).into_owned();
        Some(User {
            name,
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            home: OsStr::from_bytes(home).into(),
        })
    })
}

fn groups(file: &[u8]) -> impl Iterator<Item = Group<'_>> {
    // Whatever comes after the third colon are members.
    entries(file, 4).filter_map(|mut fields| {
        let (name, _password, gid) = (fields.next()?, fields.next()?, number(fields.next()?)?);
        Some(Group { name, gid: Gid::from_raw(gid), members: fields.next().unwrap_or_default() })
    })
}

/// So many fields of each line that may be an entry.
fn entries(file: &[u8], most: usize) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    let lines = file.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_start);
    lines
        .filter(|line| !matches!(line.first(), None | Some(b'#' | b'+' | b'-' | b':')))
        .map(move |line| line.splitn(most, |&byte| byte == b':'))
}

/// The highest means none (chown(2)).
fn number(field: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(field.trim_ascii_start()).ok()?;
    text.parse().ok().filter(|&number| number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::c_library;
    use super::*;

    #[test]
    fn an_entry_is_read_and_what_is_none_is_passed_over() {
        let file = b"# root:x:7:7::/:\n\nroot:x:0:0:root:/root:/bin/sh\n  web:x:33:34::/var/www:\n\
            +nis:x:5:5::/:\n-no:x:6:6::/:\n:x:8:8::/:\nshort:x:9:9\nword:x:nine:9::/:/\nsigned:x: +9:9::/s:/\n\
            none:x:4294967295:9::/:/\nfar:x:4294967294:9::/h:\xff";
        let read: Vec<_> = users(file)
            .map(|user| {
                (user.name, user.uid.as_raw(), user.gid.as_raw(), user.home.to_str().unwrap().to_owned())
            })
            .collect();
        let expected = [
            ("root", 0, 0, "/root"),
            ("web", 33, 34, "/var/www"),
            ("short", 9, 9, ""),
            ("signed", 9, 9, "/s"),
            ("far", u32::MAX - 1, 9, "/h"),
        ];
        let expected = expected.map(|(name, uid, gid, home)| (name.to_owned(), uid, gid, home.to_owned()));
        assert_eq!(read, expected);
    }

    #[test]
    fn a_user_has_its_own_group_and_once_each_that_it_is_a_member_of() {
        let file = b"web:x:33:\nlogs:x:40:root, web\nlog:x:41:webmaster\nagain:x:40:web\nshort:x\nlast:x:42:a,web,b\nbare:x:43\n\
            space:x:44:web ,b\ncolon:x:45:a:web";
        let groups = |name: &str, gid| {
            let groups = groups_with(file, name, Gid::from_raw(gid));
            groups.into_iter().map(Gid::as_raw).collect::<Vec<_>>()
        };
        assert_eq!(groups("web", 33), [33, 40, 42]);
        assert_eq!(groups("web", 40), [40, 42]);
        assert_eq!(groups("nobody", 65_534), [65_534]);
    }

    #[test]
    fn the_c_library_finds_the_same_in_the_files_of_this_machine() {
        let file = fs::read(USERS).expect("a database");
        for user in users(&file) {
            assert_eq!(named(&user.name).unwrap(), c_library::named(&user.name).unwrap());
            assert_eq!(numbered(user.uid).unwrap(), c_library::numbered(user.uid).unwrap());
            let mut groups = [groups_of, c_library::groups_of].map(|of| of(&user.name, user.gid).unwrap());
            groups.iter_mut().for_each(|groups| groups.sort_by_key(|group| group.as_raw()));
            assert_eq!(groups[0], groups[1], "{}", user.name);
        }
        let file = fs::read(GROUPS).expect("a database");
        for name in groups(&file).filter_map(|group| std::str::from_utf8(group.name).ok()) {
            assert_eq!(group_named(name).unwrap(), c_library::group_named(name).unwrap());
        }
        assert_eq!(named("nobody-has-this-name").unwrap(), None);
        assert_eq!(group_named("nobody-has-this-name").unwrap(), None);
    }
}
