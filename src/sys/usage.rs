//! How much memory and CPU time process groups use.
//!
//! Every answer is a look at a moving picture, and takes milliseconds on a machine with many processes.

use std::collections::HashMap;
use std::fs::File;
use std::time::Duration;

use procfs::FromRead as _;
use procfs::process::{Process, Stat};
use rustix::process::Pid;

use super::kin;

/// What the processes of a group use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory in bytes. What several of them share, such as what a server had in memory before it forked, is
    /// counted for each.
    pub resident: u64,
    /// User and system time since they were started, that of their ended children included.
    pub cpu: Duration,
}

/// What each of these process groups uses, whose leaders descend from this process, with one look at them. One without a living member is left out.
pub(crate) fn group_usages(groups: &[Pid]) -> HashMap<Pid, Usage> {
    let mut usages = HashMap::new();
    for stat in processes() {
        // Of one that ends at this moment, the group is -1.
        let Some(group) = groups.iter().find(|group| group.as_raw_pid() == stat.pgrp) else { continue };
        let usage: &mut Usage = usages.entry(*group).or_default();
        usage.resident = usage.resident.saturating_add(stat.rss.saturating_mul(procfs::page_size()));
        usage.cpu = usage.cpu.saturating_add(cpu_time(&stat));
    }
    // One that has ended and is not waited for yet has no memory.
    usages.retain(|_, usage| usage.resident > 0);
    usages
}

/// The memory of this group in bytes, a page that n processes share counted as its nth part for each (Pss,
/// proc_pid_smaps(5)). The kernel walks through all of the memory for it: about a millisecond for 100 MB. `None` where
/// one of the processes lets nobody look into it.
pub(crate) fn proportional_memory(group: Pid) -> Option<u64> {
    let members = processes().filter(|stat| stat.pgrp == group.as_raw_pid() && stat.rss > 0);
    members.map(|stat| proportional_memory_of(stat.pid)).sum()
}

fn proportional_memory_of(pid: i32) -> Option<u64> {
    let rollup = Process::new(pid).and_then(|process| process.smaps_rollup()).ok()?.memory_map_rollup;
    Some(rollup.0.iter().filter_map(|map| map.extension.map.get("Pss")).sum())
}

/// That of a process which has ended counts too, for it is not its parent's before that has waited for it.
fn cpu_time(stat: &Stat) -> Duration {
    let children = u64::try_from(stat.cutime.saturating_add(stat.cstime)).unwrap_or(0);
    let ticks = stat.utime.saturating_add(stat.stime).saturating_add(children);
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// What descends from this process: it has adopted what has lost its parent. The whole machine may have thousands.
fn processes() -> impl Iterator<Item = Stat> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let descendants = kin::seen_descendants(own).unwrap_or_default().into_iter();
    // One without a state has ended meanwhile.
    descendants.filter_map(|pid| Stat::from_read(File::open(format!("/proc/{pid}/stat")).ok()?).ok())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const MEGABYTE: u64 = 1_000_000;

    /// A shell in a group of its own that has done this and waits; ended when dropped.
    struct Shell(Child);

    impl Shell {
        fn that_has(done: &str) -> Self {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{done} (echo done; read line); exit 0")]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
            let mut shell = Self(command.spawn().expect("a shell"));
            let mut line = String::new();
            let output = shell.0.stdout.take().expect("a pipe");
            BufReader::new(output).read_line(&mut line).expect("a line");
            assert_eq!(line, "done\n");
            shell
        }

        fn group(&self) -> Pid {
            Pid::from_child(&self.0)
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            // At the end of its input it exits.
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }

    #[test]
    fn what_forks_share_is_told_apart() {
        let shell = Shell::that_has("x=$(head -c 30000000 /dev/zero | tr '\\0' x);");
        let resident = group_usages(&[shell.group()])[&shell.group()].resident;
        assert!(resident > 58 * MEGABYTE, "two processes with 30 MB each: {resident}");
        let proportional = proportional_memory(shell.group()).expect("they are this user's");
        assert!((28 * MEGABYTE..50 * MEGABYTE).contains(&proportional), "{proportional} of {resident}");
    }

    #[test]
    fn the_time_of_ended_children_counts() {
        let shell = Shell::that_has("sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done';");
        assert!(group_usages(&[shell.group()])[&shell.group()].cpu >= Duration::from_millis(20));
    }

    #[test]
    fn groups_are_told_apart() {
        let much = "x=$(head -c 9000000 /dev/zero | tr '\\0' x);";
        let (little, much) = (Shell::that_has(""), Shell::that_has(much));
        let nobody = Pid::from_raw(i32::MAX).expect("a number");
        let usages = group_usages(&[much.group(), nobody, little.group()]);
        assert!(usages[&much.group()].resident > usages[&little.group()].resident + 8 * MEGABYTE);
        assert!(!usages.contains_key(&nobody));
        assert_eq!(proportional_memory(nobody), Some(0));
        assert!(group_usages(&[]).is_empty());
    }

    #[test]
    fn a_group_that_has_ended_uses_nothing() {
        let mut child = Command::new("true").process_group(0).spawn().expect("true");
        let pid = Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).expect("it ends");
        assert!(group_usages(&[pid]).is_empty(), "although nobody has waited for it");
        child.wait().expect("it ended");
    }
}
