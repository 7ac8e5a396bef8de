//! Where clusterd has its files: /proc, the runtime folder, the control socket.

use std::path::Path;

use bytesize::ByteSize;
use rustix::fs::StatVfsMountFlags;

use super::finding::Found;
use crate::control::home::Home;
use crate::preload::SHIM;
use crate::primary::RuntimeFolder;
use crate::sys::process::has_proc;

pub(super) fn proc() -> Found {
    judge_proc(has_proc())
}

fn judge_proc(is_mounted: bool) -> Found {
    match is_mounted {
        true => Found::works("/proc is mounted"),
        false => Found::limited(
            "/proc is not mounted",
            "clusterd serves, but sees neither what workers use nor whose connections are open, and `clusterd up` does not run; \
             mount it: mount -t proc proc /proc",
        ),
    }
}

/// Where the runtime folder has come to be.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// In which folder, in words: one that TMPDIR names may have a user's name in it.
    parent: &'static str,
    /// Nothing can be executed there, or loaded.
    is_noexec: bool,
    /// How much can be written, in bytes.
    room: u64,
}

/// A container's.
const TMPFS: &str = "mount a tmpfs without noexec at /run (docker run --tmpfs /run:exec)";

/// Attach socket, shim and page of drains.
const WANTED_ROOM: u64 = 1024 * 1024;

pub(super) fn runtime_folder() -> Found {
    let folder = RuntimeFolder::create(None);
    judge_folder(folder.as_ref().and_then(|folder| place(folder.path())))
}

fn place(folder: &Path) -> Option<Place> {
    let status = rustix::fs::statvfs(folder).ok()?;
    let parent = match folder.parent().and_then(Path::to_str) {
        Some("/run") => "/run",
        Some("/tmp") => "/tmp",
        Some("/dev/shm") => "/dev/shm",
        _ => "the folder that TMPDIR names",
    };
    let is_noexec = status.f_flag.contains(StatVfsMountFlags::NOEXEC);
    Some(Place { parent, is_noexec, room: status.f_bavail.saturating_mul(status.f_frsize) })
}

fn judge_folder(place: Option<Place>) -> Found {
    let Some(Place { parent, is_noexec, room }) = place else {
        return Found::limited(
            "none of /run, TMPDIR, /tmp and /dev/shm can be written",
            format!(
                "The shim is in memory, from where servers that change their user and those of --user cannot load it; {TMPFS}"
            ),
        );
    };
    if room < WANTED_ROOM.max(SHIM.map_or(0, |shim| shim.len() as u64)) {
        return Found::limited(
            format!("the runtime folder is in {parent}, where {} are free", ByteSize(room)),
            format!("What workers need to find clusterd may not fit; make room there, or {TMPFS}"),
        );
    }
    match is_noexec {
        true => Found::limited(
            format!("the runtime folder is in {parent}, which is mounted with noexec"),
            format!(
                "The shim is in memory, from where servers that change their user and those of --user cannot load it; {TMPFS}"
            ),
        ),
        false => {
            Found::works(format!("the runtime folder is in {parent}, from where workers can load the shim"))
        }
    }
}

pub(super) fn control_socket() -> Found {
    judge_control(Home::of_this_process().has_room())
}

fn judge_control(has_room: bool) -> Found {
    match has_room {
        true => Found::works("there is a folder for the control socket"),
        false => Found::limited(
            "no folder for the control socket can be written",
            "Commands reach a clusterd from within the same container only, and no app can be started in the background; let \
             CLUSTERD_HOME name a folder that can be written",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_runtime_folder_is_judged_by_where_it_is() {
        let place = |is_noexec, room| Some(Place { parent: "/run", is_noexec, room });
        let table = [
            (place(false, 1 << 30), Verdict::Works, "is in /run"),
            (place(true, 1 << 30), Verdict::Limited, "noexec"),
            (place(false, 4096), Verdict::Limited, "where 4.0 KiB are free"),
            (None, Verdict::Limited, "none of /run, TMPDIR, /tmp and /dev/shm"),
        ];
        for (place, verdict, words) in table {
            let found = judge_folder(place);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }

    #[test]
    fn a_folder_of_the_users_is_not_named() {
        let folder = tempfile::Builder::new().prefix("ann").tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let place = place(&inner).unwrap();
        assert_eq!(place.parent, "the folder that TMPDIR names");
    }

    #[test]
    fn without_them_something_follows() {
        for found in [judge_proc(false), judge_control(false)] {
            assert_eq!(found.verdict, Verdict::Limited);
            assert!(found.follows.is_some());
        }
        assert_eq!(judge_proc(true).verdict, Verdict::Works);
        assert_eq!(judge_control(true).verdict, Verdict::Works);
    }
}
