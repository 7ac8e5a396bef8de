//! Where the files of this process's control groups are (cgroups(7)), of both versions.
//!
//! It reads none of them.

use std::path::{Component, Path, PathBuf};

use procfs::process::{MountInfo, MountInfos, Process};
use procfs::{ProcessCGroup, ProcessCGroups};

/// A group of this process: where it is in the file system, and what is mounted there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    folder: PathBuf,
    mount: PathBuf,
}

/// The files of this process's own groups, of version 2 by this name, then of version 1 where this controller has that one:
/// a machine may have both, with the controller in one.
pub(crate) fn own_files(v2: &str, (controller, v1): (&str, &str)) -> Vec<PathBuf> {
    files(v2, (controller, v1), |group| vec![group.folder])
}

/// The same, each followed by those of the groups that it is in, as far as they can be seen: their limits hold, too.
pub(crate) fn files_up_to_root(v2: &str, (controller, v1): (&str, &str)) -> Vec<PathBuf> {
    files(v2, (controller, v1), Group::up_to_root)
}

fn files(
    v2_file: &str,
    (controller, v1_file): (&str, &str),
    folders: impl Fn(Group) -> Vec<PathBuf>,
) -> Vec<PathBuf> {
    let Ok(me) = Process::myself() else { return Vec::new() };
    let (Ok(ProcessCGroups(groups)), Ok(MountInfos(mounts))) = (me.cgroups(), me.mountinfo()) else {
        return Vec::new();
    };
    // The one group of v2 names no controller.
    let v2 = groups.iter().filter(|group| group.controllers.concat().is_empty());
    let v1 = groups.iter().filter(|group| group.controllers.iter().any(|name| name == controller));
    let is_v1 = |mount: &MountInfo| mount.fs_type == "cgroup" && mount.super_options.contains_key(controller);
    let v2 = v2.flat_map(|group| places(group, &mounts, |mount| mount.fs_type == "cgroup2"));
    let v1 = v1.flat_map(|group| places(group, &mounts, is_v1));
    let named = |groups: Vec<Group>, name: &str| -> Vec<PathBuf> {
        groups.into_iter().flat_map(&folders).map(|folder| folder.join(name)).collect()
    };
    [named(v2.collect(), v2_file), named(v1.collect(), v1_file)].concat()
}

fn places(group: &ProcessCGroup, mounts: &[MountInfo], is_wanted: impl Fn(&MountInfo) -> bool) -> Vec<Group> {
    let place = |mount: &MountInfo| {
        let below = below(Path::new(&group.pathname), Path::new(&mount.root))?;
        Some(Group { folder: mount.mount_point.join(below), mount: mount.mount_point.clone() })
    };
    mounts.iter().filter(|mount| is_wanted(mount)).filter_map(place).collect()
}

impl Group {
    fn up_to_root(self) -> Vec<PathBuf> {
        let is_mounted = |folder: &&Path| folder.starts_with(&self.mount);
        self.folder.ancestors().take_while(is_mounted).map(Path::to_owned).collect()
    }
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
    fn the_groups_above_end_with_what_is_mounted() {
        let group = Group { folder: "/sys/fs/cgroup/a/b".into(), mount: "/sys/fs/cgroup".into() };
        let folders = ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"].map(PathBuf::from);
        assert_eq!(group.up_to_root(), folders);
    }
}
