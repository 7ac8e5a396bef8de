//! Processes, held by pidfd so that a signal never reaches another one that was given the same number.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use procfs::process::FDTarget;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that lives, or lived when it was looked up.
pub(crate) struct Process {
    pid: i32,
    handle: OwnedFd,
}

impl Process {
    /// The process of this number, if there is one that has not exited.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let process = Self { pid, handle };
        process.is_alive().then_some(process)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal; one that is gone needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Whether it has not exited; a zombie has.
    pub(crate) fn is_alive(&self) -> bool {
        let mut exited = [PollFd::new(&self.handle, PollFlags::IN)];
        matches!(poll(&mut exited, Some(&Timespec::default())), Ok(0))
    }

    /// A variable of the environment that it was started with.
    pub(crate) fn environment(&self, name: &str) -> Option<String> {
        let environment = procfs::process::Process::new(self.pid).ok()?.environ().ok()?;
        environment.get(OsStr::new(name)).map(|value| value.to_string_lossy().into_owned())
    }

    /// Seconds since it was started.
    pub(crate) fn age(&self) -> Option<f64> {
        let started = stat(self.pid)?.starttime as f64 / procfs::ticks_per_second() as f64;
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        Some(uptime.split(' ').next()?.parse::<f64>().ok()? - started)
    }

    /// Whether SIGSTOP has stopped it, with all its threads.
    pub(crate) fn is_stopped(&self) -> bool {
        let tasks = procfs::process::Process::new(self.pid).and_then(|process| process.tasks());
        tasks.is_ok_and(|mut tasks| {
            tasks.all(|task| task.and_then(|task| task.stat()).is_ok_and(|stat| stat.state == 'T'))
        })
    }

    /// The user that it acts as.
    pub(crate) fn user(&self) -> Option<u32> {
        procfs::process::Process::new(self.pid).ok()?.status().ok().map(|status| status.euid)
    }

    /// The signals that it blocks, as a mask.
    pub(crate) fn blocked_signals(&self) -> Option<u64> {
        procfs::process::Process::new(self.pid).ok()?.status().ok().map(|status| status.sigblk)
    }

    /// The signals that it ignores, as a mask.
    pub(crate) fn ignored_signals(&self) -> Option<u64> {
        procfs::process::Process::new(self.pid).ok()?.status().ok().map(|status| status.sigign)
    }

    /// Whether it leads a process group, as every worker does.
    pub(crate) fn leads_its_group(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.pgrp == self.pid)
    }

    /// Whether it leads a session, as a daemon does.
    pub(crate) fn leads_its_session(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.session == self.pid)
    }

    /// The CPU time that it has used, in clock ticks.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        stat(self.pid).map_or(0, |stat| stat.utime + stat.stime)
    }

    /// The memory that it occupies, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        stat(self.pid).map_or(0, |stat| stat.rss * procfs::page_size())
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> i64 {
        stat(self.pid).map_or(0, |stat| stat.num_threads)
    }

    /// How many descriptors it has.
    pub(crate) fn open_files(&self) -> usize {
        procfs::process::Process::new(self.pid).and_then(|process| process.fd_count()).unwrap_or(0)
    }

    /// What its descriptors are, without what tells one from another of a kind, and how many there are of each.
    pub(crate) fn descriptors(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        let process = procfs::process::Process::new(self.pid);
        for descriptor in process.and_then(|process| process.fd()).into_iter().flatten().flatten() {
            let kind = match descriptor.target {
                FDTarget::Socket(inode) => self.kind_of_socket(inode),
                FDTarget::Pipe(_) => "a pipe".to_owned(),
                FDTarget::Path(path) => path.to_string_lossy().into_owned(),
                other => format!("{other:?}"),
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    fn kind_of_socket(&self, inode: u64) -> String {
        let of_unix = || {
            let table = std::fs::read(format!("/proc/{}/net/unix", self.pid)).unwrap_or_default();
            let table = String::from_utf8_lossy(&table).into_owned();
            let line = table
                .lines()
                .find(|line| line.split_whitespace().nth(6).is_some_and(|known| known == inode.to_string()));
            line.map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                format!("unix of type {} in state {} {}", fields[4], fields[5], fields.get(7).unwrap_or(&""))
            })
        };
        // The table of TCP may have 100,000 lines, which are not read for a message.
        of_unix().unwrap_or_else(|| "another socket".to_owned())
    }

    /// The clients' ports of the connections among its descriptors; none if it has ended.
    pub(crate) fn clients(&self) -> BTreeSet<u16> {
        self.peers().into_iter().map(|peer| peer.port()).collect()
    }

    /// The other ends of the connections among its descriptors, an IPv4 address as such; none if it has ended.
    pub(crate) fn peers(&self) -> BTreeSet<SocketAddr> {
        let sockets = self.sockets();
        let tables = procfs::process::Process::new(self.pid).map(|process| [process.tcp(), process.tcp6()]);
        let connections = tables.into_iter().flatten().flatten().flatten();
        let own = connections.filter(|connection| sockets.contains(&connection.inode));
        own.map(|connection| connection.remote_address)
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
            .collect()
    }

    /// The paths of the Unix sockets among its descriptors.
    pub(crate) fn unix_sockets(&self) -> BTreeSet<std::path::PathBuf> {
        let sockets = self.sockets();
        // Paths, of other programs too, need not be text (unix(7)), which `procfs` does not read.
        let table = std::fs::read("/proc/net/unix").expect("/proc is mounted");
        let table = String::from_utf8_lossy(&table);
        let paths = table.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(6);
            let inode = fields.next()?.parse().ok()?;
            sockets.contains(&inode).then(|| fields.next())?.map(Into::into)
        });
        paths.collect()
    }

    fn sockets(&self) -> BTreeSet<u64> {
        let process = procfs::process::Process::new(self.pid);
        let descriptors =
            process.and_then(|process| process.fd()).into_iter().flatten().filter_map(Result::ok);
        descriptors
            .filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })
            .collect()
    }

    /// What it calls itself (`/proc/PID/comm`).
    pub(crate) fn name(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/comm", self.pid()))
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }

    /// Its program's file.
    pub(crate) fn program(&self) -> Option<std::path::PathBuf> {
        std::fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }

    /// Its children that have not exited.
    pub(crate) fn children(&self) -> Vec<Process> {
        let tree = tree();
        tree.get(&self.pid).into_iter().flatten().filter_map(|&pid| Process::find(pid)).collect()
    }

    /// Its children, their children and so on, without those that have exited.
    pub(crate) fn descendants(&self) -> Vec<Process> {
        descendants_of(self.pid).into_iter().filter_map(Process::find).collect()
    }

    /// How many of its descendants have exited and were not waited for.
    pub(crate) fn zombies(&self) -> usize {
        let states = descendants_of(self.pid).into_iter().filter_map(stat);
        states.filter(|stat| stat.state == 'Z').count()
    }
}

/// Every process whose environment says `name=value`.
pub(crate) fn with_environment(name: &str, value: &str) -> Vec<Process> {
    let processes = tree().into_values().flatten().filter_map(Process::find);
    processes.filter(|process| process.environment(name).is_some_and(|known| known == value)).collect()
}

fn stat(pid: i32) -> Option<procfs::process::Stat> {
    procfs::process::Process::new(pid).ok()?.stat().ok()
}

/// Children by parent.
fn tree() -> BTreeMap<i32, Vec<i32>> {
    let mut tree = BTreeMap::<i32, Vec<i32>>::new();
    let all = procfs::process::all_processes().expect("/proc is mounted");
    for stat in all.filter_map(|process| process.ok()?.stat().ok()) {
        tree.entry(stat.ppid).or_default().push(stat.pid);
    }
    tree
}

fn descendants_of(pid: i32) -> Vec<i32> {
    let tree = tree();
    let mut found = tree.get(&pid).cloned().unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        found.extend(tree.get(&found[next]).into_iter().flatten());
        next += 1;
    }
    found
}
