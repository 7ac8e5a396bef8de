//! What a process must be told before it runs another program, and what this one is told once at its start.
//!
//! Only the steps: which program is run, with which environment, is decided by the caller.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal};

/// What holds for a child from before its program starts.
#[derive(Clone, Copy, Debug)]
pub struct ChildSetup {
    /// The signal that the kernel sends the child when the *thread* that spawned it ends: spawn from the main
    /// thread (PR_SET_PDEATHSIG, prctl(2)). A child that changes its credentials loses it.
    pub parent_death: Signal,
    /// The child's soft limit of open descriptors, `None` for no limit; the hard limit stays.
    pub nofile: Option<u64>,
}

impl ChildSetup {
    /// Makes `command` apply this in the child, in a process group of its own.
    ///
    /// The spawn fails with ESRCH if the parent dies before the child is tied to it.
    pub fn apply_to(self, command: &mut Command) {
        let parent = rustix::process::getpid();
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed. `in_child` makes plain system
        // calls, captures two copies, and neither allocates nor locks.
        unsafe { command.pre_exec(move || self.in_child(parent)) };
    }

    fn in_child(self, parent: Pid) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(self.parent_death))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(Errno::SRCH.into());
        }
        let limit = rustix::process::getrlimit(Resource::Nofile);
        if limit.current != self.nofile {
            rustix::process::setrlimit(
                Resource::Nofile,
                Rlimit { current: self.nofile, maximum: limit.maximum },
            )?;
        }
        Ok(())
    }
}

/// Adopts every orphan among the descendants of this process, as PID 1 does (PR_SET_CHILD_SUBREAPER, prctl(2)).
/// They must then be waited for.
///
/// # Errors
/// Those of prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Ignores these signals from now on, also in programs that are started later.
///
/// # Errors
/// Those of sigaction(2): SIGKILL and SIGSTOP cannot be ignored.
pub fn ignore(signals: &[Signal]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: SIG_IGN installs no handler, so no code of this process runs on the signal.
        if unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Keeps every open descriptor from `first` upwards out of the programs that this process starts. Meant for
/// the very start, for descriptors that were inherited by mistake.
///
/// # Errors
/// Those of close_range(2); on kernels older than 5.11, of reading /proc/self/fd.
pub fn close_on_exec_above(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing and touches no memory; it only sets a flag.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::EPERM) => close_on_exec_one_by_one(first),
        _ => Err(error),
    }
}

/// A close-on-exec duplicate of the descriptor that has this number: one that was inherited, or any other.
///
/// # Errors
/// Those of fcntl(2) with F_DUPFD_CLOEXEC: EBADF if there is none.
pub fn duplicate(number: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: the borrow ends with this statement; a number that is not open makes the call fail with EBADF and
    // nothing else, and the duplicate is a new descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(raw) };
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

fn close_on_exec_one_by_one(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(raw) = i32::try_from(number) else {
            continue;
        };
        if number >= first {
            // SAFETY: the number was just listed as open, and the borrow ends with this statement; a descriptor
            // closed meanwhile makes the call fail with EBADF and nothing else.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            match rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC) {
                Ok(()) | Err(Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
