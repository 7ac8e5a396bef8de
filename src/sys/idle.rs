//! Whether an event loop would have ended by itself, if it were not for one socket that it holds.
//!
//! Each answer is a look at a moving picture, and "no" whenever it cannot be told.

use procfs::process::{FDTarget, Process, Syscall};
use rustix::process::Pid;

use super::processes::has_children;

/// Whether nothing is left to happen in a process whose main thread runs an event loop of libuv, but by way of the socket with
/// this inode: the loop waits without a timer, no other thread works, and there is no child, no other socket and no watched
/// file. It takes CAP_SYS_PTRACE to look into processes of another user, and a kernel that has proc_pid_syscall(5).
pub(crate) fn only_socket_keeps(pid: Pid, inode: u64) -> bool {
    Process::new(pid.as_raw_pid()).ok().is_some_and(|process| {
        let waits = || loop_waits(&process).unwrap_or(false);
        // What another thread has finished has woken up the loop by then.
        waits()
            && others_wait(&process).unwrap_or(false)
            && holds_nothing_but(&process, inode).unwrap_or(false)
            && has_children(&process) == Some(false)
            && waits()
    })
}

/// The main thread waits in epoll, for however long it takes.
fn loop_waits(process: &Process) -> Option<bool> {
    let main = process.task_from_tid(process.pid()).ok()?;
    Some(is_endless_poll(&main.syscall().ok()?))
}

/// Each other thread waits for work: on a condition variable, or in a loop of its own.
fn others_wait(process: &Process) -> Option<bool> {
    for task in process.tasks().ok()? {
        let task = task.ok()?;
        let syscall = if task.tid == process.pid() { continue } else { task.syscall().ok()? };
        if !is_endless_poll(&syscall) && !is_in(&syscall, &[libc::SYS_futex]) {
            return Some(false);
        }
    }
    Some(true)
}

fn is_endless_poll(syscall: &Syscall) -> bool {
    #[cfg(target_arch = "x86_64")]
    let polls = [libc::SYS_epoll_pwait, libc::SYS_epoll_wait];
    #[cfg(not(target_arch = "x86_64"))]
    let polls = [libc::SYS_epoll_pwait];
    let Syscall::Blocked { argument_registers: [_, _, _, timeout, ..], .. } = syscall else { return false };
    // An int, of which a register's upper half says nothing.
    is_in(syscall, &polls) && timeout & 0xffff_ffff == 0xffff_ffff
}

fn is_in(syscall: &Syscall, calls: &[i64]) -> bool {
    matches!(syscall, Syscall::Blocked { syscall_number, .. } if calls.contains(syscall_number))
}

fn holds_nothing_but(process: &Process, inode: u64) -> Option<bool> {
    for fd in process.fd().ok()? {
        match fd.ok()?.target {
            FDTarget::Socket(socket) if socket != inode => return Some(false),
            // What watches files.
            FDTarget::AnonInode(kind) if kind.contains("inotify") => return Some(false),
            _ => {}
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked(syscall_number: i64, timeout: u64) -> Syscall {
        let argument_registers = [5, 0x7ffc_0000, 1024, timeout, 0, 8];
        Syscall::Blocked { syscall_number, argument_registers, stack_pointer: 0, program_counter: 0 }
    }

    #[test]
    fn only_a_poll_without_a_timer_is_endless() {
        let table = [
            (blocked(libc::SYS_epoll_pwait, u64::MAX), true),
            (blocked(libc::SYS_epoll_pwait, 0xffff_ffff), true),
            (blocked(libc::SYS_epoll_pwait, 400), false),
            (blocked(libc::SYS_epoll_pwait, 0), false),
            (blocked(libc::SYS_futex, u64::MAX), false),
            (blocked(libc::SYS_read, u64::MAX), false),
            (Syscall::Running, false),
        ];
        for (syscall, is_endless) in table {
            assert_eq!(is_endless_poll(&syscall), is_endless, "{syscall:?}");
        }
    }

    #[test]
    fn who_is_at_work_is_not_idle() {
        assert!(!only_socket_keeps(rustix::process::getpid(), 0));
    }
}
