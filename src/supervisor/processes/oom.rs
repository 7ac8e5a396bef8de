//! Whether the kernel has killed a process here for want of memory.
//!
//! The kernel does not say which one: it counts, for each control group. It decides nothing, and limits nothing.

use std::fs;
use std::path::{Component, Path, PathBuf};

use procfs::process::{MountInfo, MountInfos, Process};
use procfs::{ProcessCGroup, ProcessCGroups};

/// The count of kills in this process's own control group.
///
/// A container, a systemd unit and a Kubernetes pod have one of their own. Under cgroup v2 the count holds what is
/// below it too; v1 counts each group alone. Where there is none, the machine's own count is used: a worker and another
/// program that die of want of memory at the same moment are then taken for each other.
#[derive(Debug)]
pub(crate) struct Kills {
    file: PathBuf,
    seen: u64,
}

impl Kills {
    /// From now on. `None` where nothing is counted.
    pub(crate) fn from_now() -> Option<Self> {
        let own = own_files().into_iter();
        own.chain([PathBuf::from("/proc/vmstat")]).find_map(|file| {
            let seen = counted(&fs::read_to_string(&file).ok()?)?;
            Some(Self { file, seen })
        })
    }

    /// How many processes were killed since this was asked before. Ask at every end of a worker, whatever it was:
    /// else an older kill is taken for the reason of a later end.
    pub(crate) fn since_last(&mut self) -> u64 {
        // A group whose count cannot be read any more has no news.
        let now = fs::read_to_string(&self.file).ok().and_then(|text| counted(&text)).unwrap_or(self.seen);
        let new = now.saturating_sub(self.seen);
        self.seen = now;
        new
    }
}

/// The count in `memory.events` (cgroup v2), `memory.oom_control` (v1, since Linux 4.13) or `/proc/vmstat`. A kill of a
/// whole group counts here once for each of its processes, beside `oom_group_kill`.
fn counted(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The files of this process's control groups, that of v2 first: a machine may have both, with the memory in one.
fn own_files() -> Vec<PathBuf> {
    let Ok(me) = Process::myself() else { return Vec::new() };
    let (Ok(ProcessCGroups(groups)), Ok(MountInfos(mounts))) = (me.cgroups(), me.mountinfo()) else {
        return Vec::new();
    };
    // The one group of v2 names no controller.
    let v2 = groups.iter().filter(|group| group.controllers.concat().is_empty());
    let v1 = groups.iter().filter(|group| group.controllers.iter().any(|name| name == "memory"));
    let is_v1 = |mount: &MountInfo| mount.fs_type == "cgroup" && mount.super_options.contains_key("memory");
    let v2 = v2.flat_map(|group| places(group, &mounts, |mount| mount.fs_type == "cgroup2", "memory.events"));
    let v1 = v1.flat_map(|group| places(group, &mounts, is_v1, "memory.oom_control"));
    v2.chain(v1).collect()
}

fn places(
    group: &ProcessCGroup,
    mounts: &[MountInfo],
    is_wanted: impl Fn(&MountInfo) -> bool,
    file: &str,
) -> Vec<PathBuf> {
    let place = |mount: &MountInfo| {
        let below = below(Path::new(&group.pathname), Path::new(&mount.root))?;
        Some(mount.mount_point.join(below).join(file))
    };
    mounts.iter().filter(|mount| is_wanted(mount)).filter_map(place).collect()
}

/// The path of a group relative to what is mounted. In a container that sees the names of the machine, the mount begins
/// at the container's own group; one with a namespace for groups may be in a group outside of what it sees (`/..`).
fn below<'a>(group: &'a Path, mounted: &Path) -> Option<&'a Path> {
    let below = group.strip_prefix(mounted).ok()?;
    below.components().all(|part| matches!(part, Component::Normal(_))).then_some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_each_of_the_files() {
        let table = [
            ("low 0\nhigh 0\nmax 93\noom 5\noom_kill 3\noom_group_kill 1\n", Some(3)),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n", Some(12)),
            ("oom_kill_disable 0\nunder_oom 0\n", None),
            ("pgfault 1\noom_kill 0\n", Some(0)),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(counted(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_groups_place_is_told_by_what_is_mounted() {
        let table = [
            ("/", "/", Some("")),
            ("/user.slice/a", "/", Some("user.slice/a")),
            ("/docker/1", "/docker/1", Some("")),
            ("/docker/1/a", "/docker/1", Some("a")),
            ("/a", "/docker/1", None),
            ("/../other", "/", None),
        ];
        for (group, mounted, expected) in table {
            assert_eq!(below(Path::new(group), Path::new(mounted)), expected.map(Path::new), "{group}");
        }
    }

    #[test]
    fn each_kill_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.events");
        let mut kills = Kills { file: file.clone(), seen: 2 };
        assert_eq!(kills.since_last(), 0, "a file that is not there");
        fs::write(&file, "oom_kill 4\n").unwrap();
        assert_eq!(kills.since_last(), 2);
        assert_eq!(kills.since_last(), 0);
    }

    #[test]
    fn this_machine_counts() {
        let mut kills = Kills::from_now().expect("Linux 4.13 or later");
        assert_eq!(kills.since_last(), 0);
    }
}
