//! Log files that were set aside: their names, in the order in which they were written, and how many stay.
//!
//! `out.log` becomes `out.log.20261128T235959.123Z`, in UTC: names never change again but for `.gz`, and the order of
//! the names is that of time.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

/// What a compressed file ends with.
pub(crate) const COMPRESSED: &str = ".gz";

/// What one ends with that is being compressed.
pub(super) const UNFINISHED: &str = ".gz.new";

const TIME: &str = "%Y%m%dT%H%M%S%.3fZ";

/// Sets the file at this path aside, behind all that were before: also when the clock was set back.
///
/// # Errors
/// Those of rename(2).
pub(super) fn set_aside(path: &Path, now: DateTime<Utc>) -> io::Result<()> {
    let newest = kept(path).last().and_then(|newest| time_of(newest, path));
    let time = newest.map_or(now, |newest| now.max(newest + TimeDelta::milliseconds(1)));
    let aside = with_suffix(path, &format!(".{}", time.format(TIME)));
    match rustix::fs::renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
        // A file system that does not know the flag. Nobody else gives such names.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(path, &aside),
        outcome => Ok(outcome?),
    }
}

/// When a file was set aside for the one at this path, by its name.
pub(crate) fn time_of(aside: &Path, path: &Path) -> Option<DateTime<Utc>> {
    let name = aside.file_name()?.to_str()?;
    let time = name.strip_prefix(path.file_name()?.to_str()?)?.strip_prefix('.')?;
    let time = time.strip_suffix(COMPRESSED).unwrap_or(time);
    Some(NaiveDateTime::parse_from_str(time, TIME).ok()?.and_utc())
}

/// The files that were set aside for the one at this path, the oldest first, compressed or not.
pub(crate) fn kept(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name());
    let mut kept: Vec<_> =
        names.filter(|other| is_kept(other, name)).map(|other| folder.join(other)).collect();
    kept.sort();
    kept
}

/// Removes the oldest, so that only so many stay.
///
/// # Errors
/// Those of unlink(2).
pub(super) fn prune(path: &Path, keep: usize) -> io::Result<()> {
    let kept = kept(path);
    let surplus = kept.len().saturating_sub(keep);
    kept[..surplus].iter().try_for_each(|file| match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Whether somebody who was started at the same path has given this name.
fn is_kept(other: &OsStr, name: &OsStr) -> bool {
    let Some(time) = other.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."))
    else {
        return false;
    };
    let time = time.strip_suffix(COMPRESSED.as_bytes()).unwrap_or(time);
    // 20261128T235959.123Z
    time.len() == 20
        && time.iter().enumerate().all(|(at, &byte)| match at {
            8 => byte == b'T',
            15 => byte == b'.',
            19 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_order_of_names_is_that_of_time_and_none_is_taken_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let now = DateTime::from_timestamp_millis(1_795_910_399_999).unwrap();
        for text in ["first", "second"] {
            fs::write(&path, text).unwrap();
            set_aside(&path, now).unwrap();
        }
        for other in ["out.log.1", "out.log.20261128T235959.999Z.bak", "error.log.20261128T235959.999Z"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let kept = kept(&path);
        assert_eq!(names(&kept), ["out.log.20261128T235959.999Z", "out.log.20261129T000000.000Z"]);
        assert_eq!(fs::read_to_string(&kept[0]).unwrap(), "first");
        // One that was compressed meanwhile has its name still.
        fs::rename(&kept[1], with_suffix(&kept[1], COMPRESSED)).unwrap();
        fs::write(&path, "third").unwrap();
        set_aside(&path, now).unwrap();
        prune(&path, 2).unwrap();
        let left = super::kept(&path);
        assert_eq!(time_of(&left[0], &path), Some(now + TimeDelta::milliseconds(1)));
        assert_eq!(names(&left), ["out.log.20261129T000000.000Z.gz", "out.log.20261129T000000.001Z"]);
        prune(&path, 0).unwrap();
        assert_eq!(super::kept(&path), [] as [PathBuf; 0]);
        assert!(set_aside(&path, now).is_err());
    }
}
