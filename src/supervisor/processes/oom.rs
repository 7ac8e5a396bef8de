//! Whether the kernel has killed a process here for want of memory.
//!
//! The kernel does not say which one: it counts, for each control group. It decides nothing, and limits nothing.

use std::fs;
use std::path::PathBuf;

use crate::sys::cgroups;

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
        let own = cgroups::own_files("memory.events", ("memory", "memory.oom_control")).into_iter();
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
