//! What /proc tells about other processes: who holds a socket, who belongs to a process group, who listens.
//!
//! Every answer is a look at a moving picture, and old when it is given. Looking at all processes takes
//! milliseconds: never on a data path.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::ProcError;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};
use rustix::process::Pid;

/// How many generations a process may be away from its ancestor.
const GENERATIONS: usize = 256;

/// Does any process but this one hold the socket with this inode? `hint` is asked first.
///
/// Of a process that lets nobody look into it, it is assumed if it descends from this process. A descriptor on
/// its way through a Unix socket is held by nobody.
pub fn is_held(inode: u64, hint: Option<Pid>) -> bool {
    let me = rustix::process::getpid().as_raw_pid();
    let holds = |process: &Process| match find_socket(process, |socket| socket == inode) {
        Found::Yes => true,
        Found::No => false,
        Found::NotAllowed => descends_from(process, me),
    };
    let hinted = hint.and_then(|pid| Process::new(pid.as_raw_pid()).ok());
    if hinted.is_some_and(|process| process.pid != me && holds(&process)) {
        return true;
    }
    match all_processes() {
        Ok(processes) => processes.filter_map(Result::ok).any(|process| process.pid != me && holds(&process)),
        // Without /proc nobody can be asked.
        Err(_) => true,
    }
}

/// The name of the file that this process executes; `None` if it is gone or lets nobody look into it.
pub fn program_name(process: Pid) -> Option<OsString> {
    let file = Process::new(process.as_raw_pid()).ok()?.exe().ok()?;
    file.file_name().map(ToOwned::to_owned)
}

/// Has this process mapped the file, as it has a library that it loaded? `None` if it cannot be told: the process is
/// gone or lets nobody look into it, or there is no such file.
pub fn has_mapped(process: Pid, file: &Path) -> Option<bool> {
    let inode = std::fs::metadata(file).ok()?.ino();
    let maps = Process::new(process.as_raw_pid()).ok()?.maps().ok()?;
    Some(maps.0.iter().any(|map| map.inode == inode))
}

/// The living members of a process group; zombies are not among them.
pub fn members(group: Pid) -> Vec<Pid> {
    group_processes(group).iter().filter_map(|process| Pid::from_raw(process.pid)).collect()
}

/// The TCP ports on which processes of this group listen themselves, as their network namespace has it.
pub fn listening_ports(group: Pid) -> BTreeSet<u16> {
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

/// How many TCP connections to these local ports are open: established, or closed by the client alone.
pub fn open_connections(ports: &[u16]) -> usize {
    let tables = Process::myself().as_ref().map(tcp_tables).unwrap_or_default();
    tables
        .iter()
        .filter(|entry| matches!(entry.state, TcpState::Established | TcpState::CloseWait))
        .filter(|entry| ports.contains(&entry.local_address.port()))
        .count()
}

/// A process, as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
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
pub fn listener_of(port: u16) -> Option<Named> {
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
    let processes = all_processes().into_iter().flatten().filter_map(Result::ok);
    let is_member = |process: &Process| {
        process.stat().is_ok_and(|stat| stat.pgrp == group.as_raw_pid() && !matches!(stat.state, 'Z' | 'X'))
    };
    processes.filter(is_member).collect()
}

fn tcp_tables(process: &Process) -> Vec<TcpNetEntry> {
    let mut entries = process.tcp().unwrap_or_default();
    // Absent where the kernel has no IPv6.
    entries.extend(process.tcp6().unwrap_or_default());
    entries
}

fn descends_from(process: &Process, ancestor: i32) -> bool {
    let mut parent = process.stat().map(|stat| stat.ppid);
    for _ in 0..GENERATIONS {
        match parent {
            Ok(pid) if pid == ancestor => return true,
            Ok(pid) if pid > 1 => {
                parent = Process::new(pid).and_then(|process| process.stat()).map(|stat| stat.ppid);
            }
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

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
    fn open_connections_are_counted_by_local_port() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let address = listener.local_addr().expect("bound");
            let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("connected")).collect();
            let servers: Vec<_> = (0..3).map(|_| listener.accept().expect("accepted")).collect();
            assert_eq!(open_connections(&[address.port()]), 3);
            drop(servers);
            drop(clients);
            eventually(|| open_connections(&[address.port()]) == 0);
        }
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
