//! Whether bind(2) and listen(2) of workers can be intercepted, and whether clusterd may look into whoever calls them.
//!
//! A child makes the one call, and is told that it has failed: nothing is bound.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::process::Pid;

use super::child::{self, Different};
use super::finding::Found;
use crate::sys::process::own_program;
use crate::sys::remote::Remote;
use crate::sys::seccomp::notifications::{Asks, Notifications};
use crate::sys::seccomp::{self, Privilege, Unsupported};

/// How long the child may take to call: it has started by then.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn seccomp() -> Found {
    judge(&seccomp::supported())
}

fn judge(supported: &Result<Privilege, Unsupported>) -> Found {
    let help = match supported {
        Ok(Privilege::Capability) => {
            return Found::works("bind and listen can be intercepted: Go and static servers are served");
        }
        Ok(Privilege::NoNewPrivileges) => {
            return Found::limited(
                "bind and listen can be intercepted with no_new_privs, for clusterd has no CAP_SYS_ADMIN",
                "Go and static servers are served; sudo, ping and other setuid programs do not work in them",
            );
        }
        Err(Unsupported::Processor) => "clusterd intercepts on x86_64 and aarch64",
        Err(Unsupported::Kernel) => "use a newer kernel",
        Err(Unsupported::Nested) => "run this clusterd outside of the other program",
        Err(Unsupported::System(_)) => {
            "let the filter of system calls permit seccomp (docker run --security-opt seccomp=PROFILE)"
        }
    };
    let error = supported.as_ref().err().map(ToString::to_string).unwrap_or_default();
    Found::fails(
        format!("bind and listen cannot be intercepted: {error}"),
        format!("Go and static servers are not served, except with --attach listen-fds; {help}"),
    )
}

/// What clusterd could look at, of a process that waits in a call.
#[derive(Debug)]
enum Access {
    /// Its memory and its descriptors.
    Whole,
    /// Its memory, and what /proc tells of its descriptors.
    NoDuplicates,
    /// Nothing that would do, for this reason.
    Denied(io::Error),
    /// The call was not told, for this reason.
    NotTold(io::Error),
}

pub(super) fn access() -> Found {
    match seccomp::supported() {
        Ok(privilege) => {
            let seen = intercept(privilege).unwrap_or_else(Access::NotTold);
            judge_access(&seen, ptrace_scope())
        }
        Err(_) => Found::not_applicable("nothing can be intercepted, so clusterd looks into nobody"),
    }
}

/// # Errors
/// The child cannot be started, or its call is not told.
fn intercept(privilege: Privilege) -> io::Result<Access> {
    let (filter, listening) = seccomp::for_child(privilege)?;
    let filter = Different { filter: Some(Arc::new(filter)), ..Different::default() };
    let _child = child::start(&own_program(), &[child::VERB, child::BINDS], filter)?;
    let notifications = listening.receive()?;
    wait_for(&notifications)?;
    let call = notifications.receive()?;
    let Asks::Bind { fd, address, len } = call.asks else {
        return Err(io::Error::other("another call was told"));
    };
    let seen = look(call.thread, fd, (address, len)).unwrap_or_else(Access::Denied);
    notifications.tell(&call, Err(libc::EADDRINUSE))?;
    Ok(seen)
}

fn wait_for(notifications: &Notifications) -> io::Result<()> {
    let mut watched = [PollFd::new(notifications, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    match retry_on_intr(|| rustix::event::poll(&mut watched, Some(&patience)))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// As for a worker that binds.
fn look(thread: Pid, fd: i32, (address, len): (u64, u32)) -> io::Result<Access> {
    let process = Remote::of_thread(thread)?;
    let mut bytes = [0; 128];
    let read = usize::try_from(len).ok().and_then(|len| bytes.get_mut(..len));
    process.read(address, read.ok_or(io::ErrorKind::InvalidData)?)?;
    match process.socket(fd)? {
        Some(socket) if socket.is_likeness => Ok(Access::NoDuplicates),
        Some(_) => Ok(Access::Whole),
        None => Err(io::Error::other("its socket is taken for something else")),
    }
}

/// Yama's, where there is that: who may look into whom.
fn ptrace_scope() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?.trim().parse().ok()
}

fn judge_access(seen: &Access, ptrace_scope: Option<u8>) -> Found {
    match seen {
        Access::Whole => Found::works("clusterd may look into the processes of its workers"),
        Access::NoDuplicates => Found::limited(
            "clusterd may read the memory of its workers, and pidfd_getfd is kept from it",
            "Go and static servers are served, but what one sets on its socket before it binds is not seen; permit it with \
             docker run --cap-add SYS_PTRACE",
        ),
        Access::Denied(error) => {
            let help = match ptrace_scope {
                Some(2) => "kernel.yama.ptrace_scope is 2, which takes CAP_SYS_PTRACE",
                Some(3..) => "kernel.yama.ptrace_scope is 3, which permits it to nobody until the next boot",
                _ => "permit it with docker run --cap-add SYS_PTRACE, or start clusterd with CAP_SYS_PTRACE",
            };
            Found::fails(
                format!("clusterd may not look into the processes of its workers: {error}"),
                format!("Go and static servers are not served; {help}"),
            )
        }
        Access::NotTold(error) => Found::fails(
            format!("a call that should have been intercepted was not: {error}"),
            "Go and static servers are not served, except with --attach listen-fds",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_keeps_from_interception_is_named() {
        let denied = || Unsupported::System(io::Error::from_raw_os_error(libc::EPERM));
        let table = [
            (Ok(Privilege::Capability), Verdict::Works, ""),
            (Ok(Privilege::NoNewPrivileges), Verdict::Limited, "sudo"),
            (Err(Unsupported::Processor), Verdict::Fails, "x86_64"),
            (Err(Unsupported::Kernel), Verdict::Fails, "newer kernel"),
            (Err(Unsupported::Nested), Verdict::Fails, "outside of the other"),
            (Err(denied()), Verdict::Fails, "seccomp=PROFILE"),
        ];
        for (supported, verdict, words) in table {
            let found = judge(&supported);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.follows.unwrap_or_default().contains(words), "{words}");
        }
    }

    #[test]
    fn what_keeps_from_looking_is_named() {
        let denied = || Access::Denied(io::Error::from_raw_os_error(libc::EPERM));
        let table = [
            (Access::Whole, None, Verdict::Works, ""),
            (Access::Whole, Some(3), Verdict::Works, ""),
            (Access::NoDuplicates, None, Verdict::Limited, "SYS_PTRACE"),
            (denied(), None, Verdict::Fails, "CAP_SYS_PTRACE"),
            (denied(), Some(2), Verdict::Fails, "ptrace_scope is 2"),
            (denied(), Some(3), Verdict::Fails, "nobody"),
            (Access::NotTold(io::ErrorKind::TimedOut.into()), None, Verdict::Fails, "listen-fds"),
        ];
        for (seen, scope, verdict, words) in table {
            let found = judge_access(&seen, scope);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.follows.unwrap_or_default().contains(words), "{words}");
        }
    }
}
