//! What /proc tells about other processes: who holds a socket, who belongs to a process group, who listens.
//!
//! Every answer is a look at a moving picture, and old when it is given. Looking at all processes takes
//! milliseconds: never on a data path.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::ProcError;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, MMapPath, MemoryMap, Process, Stat, all_processes};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::kin;

/// How many generations a process may be away from its ancestor.
const GENERATIONS: usize = 256;

/// Which of the sockets with these inodes does any process hold that descends from this one? The `hints`, which have had
/// them, are asked first, and then those that may have got them from there: their families, and what was adopted. Nobody
/// else's processes are looked at, however many there are on the machine.
///
/// Of a process that lets nobody look into it, it is assumed that it holds all; as well where nobody can be looked at. A descriptor on its way through a Unix
/// socket is held by nobody.
pub(crate) fn held(sockets: &BTreeSet<u64>, hints: &[Pid]) -> BTreeSet<u64> {
    let mut held = BTreeSet::new();
    let me = rustix::process::getpid().as_raw_pid();
    let hinted = hints.iter().map(|pid| pid.as_raw_pid()).filter(|&pid| pid != me);
    let mut seen: BTreeSet<i32> = hinted.collect();
    let look_into = |pid: i32, held: &mut BTreeSet<u64>| {
        let looked = kin::each_socket(pid, |socket| {
            if sockets.contains(&socket) {
                held.insert(socket);
            }
            if held.len() == sockets.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if !looked.is_ok_and(|looked| !looked.is_closed) {
            held.extend(sockets);
        }
    };
    for &pid in &seen {
        look_into(pid, &mut held);
    }
    if held.len() == sockets.len() {
        return held;
    }
    let Ok(relatives) = relatives(hints) else {
        return sockets.clone();
    };
    for pid in relatives {
        if seen.insert(pid) {
            look_into(pid, &mut held);
        }
    }
    held
}

/// Is the socket with this inode held as for [`held`], or may it be on its way from the hinted process to another one? A
/// server may be sent to a child process that has yet to start.
pub(crate) fn may_be_held(inode: u64, hint: Option<Pid>) -> bool {
    // In this order: what arrives meanwhile is found to be held.
    hint.is_some_and(passes_descriptors) || !held(&BTreeSet::from([inode]), hint.as_slice()).is_empty()
}

/// The processes that may have got something from these: what descends from the children of this process that they descend
/// from, and from those that it has adopted. If one of them is gone or not known, all that descends from this process.
///
/// # Errors
/// Those of reading /proc.
fn relatives(of: &[Pid]) -> io::Result<BTreeSet<i32>> {
    let me = rustix::process::getpid().as_raw_pid();
    let roots = of.iter().map(|pid| ancestor_below(pid.as_raw_pid(), me));
    let roots = roots.collect::<Option<BTreeSet<i32>>>().filter(|roots| !roots.is_empty());
    // Read from /proc, where it may be 0: with `docker exec` this process is of a session that its namespace has no number for.
    let own_session = Process::myself().and_then(|process| process.stat()).map_or(0, |stat| stat.session);
    let is_wanted = |child: i32| {
        let Some(roots) = &roots else { return true };
        // What this process has started leads a group in its session; what a worker has left behind does not do both.
        let started = |stat: Stat| stat.pgrp == stat.pid && stat.session == own_session;
        roots.contains(&child) || !Process::new(child).and_then(|process| process.stat()).is_ok_and(started)
    };
    kin::descendants(me, is_wanted)
}

/// The child of `ancestor` from which a process descends, or which it is.
fn ancestor_below(pid: i32, ancestor: i32) -> Option<i32> {
    let mut process = pid;
    for _ in 0..GENERATIONS {
        match Process::new(process).and_then(|process| process.stat()).ok()?.ppid {
            parent if parent == ancestor => return Some(process),
            parent if parent > 1 => process = parent,
            _ => return None,
        }
    }
    None
}

/// As [`may_be_held`], where only the hinted process and its children can have the socket.
pub(crate) fn is_passed_on(inode: u64, hint: Option<Pid>) -> bool {
    let process = hint.and_then(|pid| Process::new(pid.as_raw_pid()).ok());
    match process {
        Some(process) if has_children(&process) == Some(false) => {
            find_socket(&process, |socket| socket == inode) != Found::No
        }
        _ => may_be_held(inode, hint),
    }
}

/// `None` if the kernel does not tell (CONFIG_PROC_CHILDREN).
pub(super) fn has_children(process: &Process) -> Option<bool> {
    for task in process.tasks().ok()? {
        if !task.ok()?.children().ok()?.is_empty() {
            return Some(true);
        }
    }
    Some(false)
}

/// Whether descriptors lie unread in streams between processes of this one's group (`scm_fds`, since Linux 5.5). Nobody
/// can be asked what they are.
fn passes_descriptors(process: Pid) -> bool {
    let group_of = |process: &Process| process.stat().map(|stat| stat.pgrp).ok();
    let Some(group) = Process::new(process.as_raw_pid()).ok().as_ref().and_then(group_of) else {
        return false;
    };
    let Ok(relatives) = relatives(&[process]) else { return true };
    let relatives = relatives.into_iter().filter_map(|pid| Process::new(pid).ok());
    let of_group = relatives.filter(|process| group_of(process) == Some(group));
    let unread: BTreeSet<u64> =
        of_group.flat_map(|process| sockets_with_unread_descriptors(&process)).collect();
    // Those with connections for the worker are no streams.
    !unread.is_empty() && unix_streams().iter().any(|stream| unread.contains(stream))
}

/// The Unix sockets of the type SOCK_STREAM. Their names, at the end of each line, may be anything but text.
fn unix_streams() -> Vec<u64> {
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    let streams = table.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
        let is_stream = fields.nth(4)? == b"0001";
        let inode = str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        is_stream.then_some(inode)
    });
    streams.collect()
}

fn sockets_with_unread_descriptors(process: &Process) -> Vec<u64> {
    let unread = |fd: i32| {
        let text = std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", process.pid)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse::<u64>().ok())
    };
    let fds = process.fd().into_iter().flatten().filter_map(Result::ok);
    fds.filter_map(|fd| match fd.target {
        FDTarget::Socket(inode) if unread(fd.fd).is_some_and(|count| count > 0) => Some(inode),
        _ => None,
    })
    .collect()
}

/// The name of the file that this process executes; `None` if it is gone or lets nobody look into it.
pub(crate) fn program_name(process: Pid) -> Option<OsString> {
    let file = Process::new(process.as_raw_pid()).ok()?.exe().ok()?;
    file.file_name().map(ToOwned::to_owned)
}

/// Has this process mapped the file, as it has a library that it loaded? `None` if it cannot be told: the process is
/// gone, ends at this moment or lets nobody look into it, or there is no such file.
pub(crate) fn has_mapped(process: Pid, file: &Path) -> Option<bool> {
    let inode = std::fs::metadata(file).ok()?.ino();
    let maps = maps_of(&Process::new(process.as_raw_pid()).ok()?)?;
    Some(maps.iter().any(|map| map.inode == inode))
}

/// What a process has mapped, if that can be told: one that ends has nothing any more while it still has its descriptors.
fn maps_of(process: &Process) -> Option<Vec<MemoryMap>> {
    process.maps().ok().map(|maps| maps.0).filter(|maps| !maps.is_empty())
}

/// The members of this group that have mapped no file of this name, as they have a library that they loaded. Who lets nobody
/// look is not among them.
pub(crate) fn members_without(group: Pid, name: &str) -> Vec<Named> {
    let is_it = |map: &MemoryMap| matches!(&map.pathname, MMapPath::Path(path) if path.to_string_lossy().contains(name));
    let processes = group_processes(group);
    let without =
        processes.iter().filter(|process| maps_of(process).is_some_and(|maps| !maps.iter().any(is_it)));
    without.filter_map(|process| Some(Named { pid: process.pid, name: process.stat().ok()?.comm })).collect()
}

/// A living process, and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The process.
    pub pid: Pid,
    /// Its process group.
    pub group: i32,
}

/// Every living process that is `wanted`.
pub(crate) fn members_where(wanted: impl Fn(Pid) -> bool) -> Vec<Member> {
    living().filter_map(|(_, stat)| member(&stat)).filter(|member| wanted(member.pid)).collect()
}

/// What this process has adopted: its living children but those of these numbers, and what descends from them; none if
/// that cannot be told now.
pub(crate) fn adopted(own: &BTreeSet<i32>) -> Vec<Member> {
    let me = rustix::process::getpid().as_raw_pid();
    let found = kin::descendants(me, |child| !own.contains(&child)).unwrap_or_default();
    let stated = found.into_iter().filter_map(|pid| Process::new(pid).ok()?.stat().ok());
    stated.filter(is_alive).filter_map(|stat| member(&stat)).collect()
}

fn member(stat: &Stat) -> Option<Member> {
    Some(Member { pid: Pid::from_raw(stat.pid)?, group: stat.pgrp })
}

/// Sends a signal to a process if it is still `wanted`, and to no other that was given its number meanwhile.
pub(crate) fn signal_if(pid: Pid, signal: Signal, wanted: impl FnOnce() -> bool) {
    let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    if wanted() {
        // It may have ended, or be another user's: nothing can be done about it then.
        let _ = rustix::process::pidfd_send_signal(handle, signal);
    }
}

/// The living members of a process group; zombies are not among them.
pub(crate) fn members(group: Pid) -> Vec<Pid> {
    group_processes(group).iter().filter_map(|process| Pid::from_raw(process.pid)).collect()
}

/// The members of a group, and what descends from them, that hold a socket of such an inode.
pub(crate) fn family_with(group: Pid, is_wanted: impl Fn(u64) -> bool) -> Vec<Pid> {
    let family = family(group);
    let holders = family.iter().filter(|process| find_socket(process, &is_wanted) == Found::Yes);
    holders.filter_map(|process| Pid::from_raw(process.pid)).collect()
}

/// Whether this process has an io_uring open.
pub(crate) fn has_io_uring(process: &Process) -> bool {
    let mut fds = process.fd().into_iter().flatten().filter_map(Result::ok);
    fds.any(|fd| matches!(fd.target, FDTarget::AnonInode(name) if name.contains("io_uring")))
}

/// The TCP ports on which processes of this group listen themselves, as their network namespace has it.
pub(crate) fn listening_ports(group: Pid) -> BTreeSet<u16> {
    let processes = group_processes(group);
    let sockets: BTreeSet<u64> = processes.iter().flat_map(sockets).collect();
    // All of a group are in one network namespace, but for exotic cases.
    let tables = processes.first().map(tcp_tables).unwrap_or_default();
    tables
        .iter()
        .filter(|entry| entry.state == TcpState::Listen && sockets.contains(&entry.inode))
        .map(|entry| entry.local_address.port())
        .collect()
}

/// A process, as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its number.
    pub pid: i32,
    /// Its name, as ps(1) shows it.
    pub name: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Who listens on this TCP port, in this network namespace; `None` if nobody does, or nobody that may be seen.
pub(crate) fn listener_of(port: u16) -> Option<Named> {
    let tables = tcp_tables(&Process::myself().ok()?);
    let listens =
        |entry: &&TcpNetEntry| entry.state == TcpState::Listen && entry.local_address.port() == port;
    let inodes: BTreeSet<u64> = tables.iter().filter(listens).map(|entry| entry.inode).collect();
    if inodes.is_empty() {
        return None;
    }
    let holder = all_processes()
        .ok()?
        .filter_map(Result::ok)
        .find(|process| find_socket(process, |socket| inodes.contains(&socket)) == Found::Yes)?;
    Some(Named { pid: holder.pid, name: holder.stat().ok()?.comm })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Yes,
    No,
    NotAllowed,
}

fn find_socket(process: &Process, is_wanted: impl Fn(u64) -> bool) -> Found {
    let fds = match process.fd() {
        Ok(fds) => fds,
        Err(ProcError::PermissionDenied(_)) => return Found::NotAllowed,
        // It has ended.
        Err(_) => return Found::No,
    };
    for fd in fds {
        match fd {
            Ok(fd) if matches!(fd.target, FDTarget::Socket(inode) if is_wanted(inode)) => return Found::Yes,
            Err(ProcError::PermissionDenied(_)) => return Found::NotAllowed,
            // Another one, or closed meanwhile.
            Ok(_) | Err(_) => {}
        }
    }
    Found::No
}

fn sockets(process: &Process) -> Vec<u64> {
    let fds = process.fd().into_iter().flatten().filter_map(Result::ok);
    fds.filter_map(|fd| match fd.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    })
    .collect()
}

fn group_processes(group: Pid) -> Vec<Process> {
    let members = living().filter(|(_, stat)| stat.pgrp == group.as_raw_pid());
    members.map(|(process, _)| process).collect()
}

/// Whether a process is a member of a group, or descends from one.
pub(crate) fn belongs_to(process: Pid, group: Pid) -> bool {
    family(group).iter().any(|member| member.pid == process.as_raw_pid())
}

/// The members of a group and what descends from them, in whatever group that is by now.
fn family(group: Pid) -> Vec<Process> {
    let families = families(|stat| stat.pgrp == group.as_raw_pid());
    families.into_iter().map(|(process, _)| process).collect()
}

/// The processes that are `first`, and what descends from them.
fn families(first: impl Fn(&Stat) -> bool) -> Vec<(Process, Stat)> {
    let (mut family, mut others): (Vec<_>, Vec<_>) = living().partition(|(_, stat)| first(stat));
    let mut pids: BTreeSet<i32> = family.iter().map(|(process, _)| process.pid).collect();
    loop {
        let (children, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, stat)| pids.contains(&stat.ppid));
        if children.is_empty() {
            return family;
        }
        pids.extend(children.iter().map(|(process, _)| process.pid));
        family.extend(children);
        others = rest;
    }
}

/// All processes but zombies.
fn living() -> impl Iterator<Item = (Process, Stat)> {
    let processes = all_processes().into_iter().flatten().filter_map(Result::ok);
    let stated = processes.filter_map(|process| process.stat().ok().map(|stat| (process, stat)));
    stated.filter(|(_, stat)| is_alive(stat))
}

fn is_alive(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X')
}

fn tcp_tables(process: &Process) -> Vec<TcpNetEntry> {
    let mut entries = process.tcp().unwrap_or_default();
    // Absent where the kernel has no IPv6.
    entries.extend(process.tcp6().unwrap_or_default());
    entries
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn of_one_that_ends_it_is_not_known_what_it_has_mapped() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert_eq!(has_mapped(pid, Path::new("/proc/self/exe")), Some(false));
        child.kill().unwrap();
        let start = Instant::now();
        // Nobody has waited for it yet: it is there, without memory.
        while has_mapped(pid, Path::new("/proc/self/exe")).is_some() {
            assert!(start.elapsed() < Duration::from_secs(60), "it has ended");
        }
        assert!(Process::new(pid.as_raw_pid()).is_ok());
        child.wait().unwrap();
    }

    fn is_held(inode: u64, hint: Option<Pid>) -> bool {
        !held(&BTreeSet::from([inode]), hint.as_slice()).is_empty()
    }

    /// A process in a group of its own that has `stdin` open and sleeps; ended when dropped.
    struct Sleeper(Child);

    impl Sleeper {
        fn new(stdin: impl Into<Stdio>) -> Self {
            let child = Command::new("sleep").arg("60").stdin(stdin).process_group(0).spawn();
            Self(child.expect("sleep"))
        }

        fn pid(&self) -> Pid {
            Pid::from_child(&self.0)
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Other tests of this program start processes, which hold its descriptors up to their exec.
    fn eventually(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline, "not in time");
            std::thread::yield_now();
        }
    }

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).expect("a socket").st_ino
    }

    #[test]
    fn a_socket_is_held_for_as_long_as_another_process_has_it() {
        let (mine, theirs) = UnixStream::pair().expect("a pair");
        let inode_of_theirs = inode(&theirs);
        // This process does not count.
        eventually(|| !is_held(inode_of_theirs, None));
        let copy = theirs.try_clone().expect("a duplicate");
        let sleeper = Sleeper::new(OwnedFd::from(theirs));
        assert!(is_held(inode_of_theirs, Some(sleeper.pid())));
        assert!(is_held(inode_of_theirs, None));
        eventually(|| !is_held(inode(&mine), Some(sleeper.pid())));
        drop(sleeper);
        eventually(|| !is_held(inode_of_theirs, None));
        drop(copy);
    }

    #[test]
    fn a_socket_on_its_way_to_another_process_may_be_held() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let sleeper = Sleeper::new(OwnedFd::from(theirs));
        let (_other_end, sent) = UnixStream::pair().expect("a pair");
        let inode_of_sent = inode(&sent);
        eventually(|| !may_be_held(inode_of_sent, Some(sleeper.pid())));
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let passed = [sent.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        sendmsg(&ours, &[std::io::IoSlice::new(b"x")], &mut control, SendFlags::empty())
            .expect("there is room");
        drop(sent);
        assert!(may_be_held(inode_of_sent, Some(sleeper.pid())));
        assert!(!is_held(inode_of_sent, Some(sleeper.pid())));
        assert!(!is_passed_on(inode_of_sent, Some(sleeper.pid())), "it has no children");
        assert!(is_passed_on(inode_of_sent, None) == is_held(inode_of_sent, None));
    }

    /// As `docker exec` and `nsenter` start a program: its session and its group have the number 0.
    #[test]
    fn a_session_of_another_process_namespace_changes_nothing() {
        let unshare = || {
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-root-user", "--pid", "--fork", "--mount-proc"]);
            unshare
        };
        if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
            return;
        }
        let tests = "sys::processes::tests::a_socket_";
        let this = std::env::current_exe().expect("the path of this program");
        let output = unshare().arg(this).arg(tests).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("2 passed; 0 failed"), "{text}");
    }

    #[test]
    fn a_groups_members_and_listening_ports_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("bound").port();
        let sleeper = Sleeper::new(OwnedFd::from(listener));
        assert_eq!(members(sleeper.pid()), [sleeper.pid()]);
        assert_eq!(listening_ports(sleeper.pid()), BTreeSet::from([port]));
    }

    #[test]
    fn a_zombie_is_no_member() {
        let mut child = Command::new("true").process_group(0).spawn().expect("true");
        let pid = Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).expect("it ends");
        assert_eq!(members(pid), []);
        child.wait().expect("it ended");
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
            .or_else(|_| TcpListener::bind("0.0.0.0:0"))
            .expect("a listener");
        let port = listener.local_addr().expect("bound").port();
        let holder = super::listener_of(port).expect("this process");
        assert_eq!(holder.pid, rustix::process::getpid().as_raw_pid());
        assert!(holder.to_string().ends_with(&format!("(pid {})", holder.pid)));
        drop(listener);
        eventually(|| super::listener_of(port).is_none());
    }
}
