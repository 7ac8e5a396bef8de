//! Who clusterd is here, whose orphans it adopts, and whether there is room for its threads and processes.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::{fs, io};

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use super::child::{self, Different};
use super::finding::{Found, count};
use crate::settings::load::cpus;
use crate::supervisor::processes::spawn::fresh_token;
use crate::sys::process::{become_subreaper, own_program};
use crate::sys::{cgroups, privileges};

/// What `--user` takes.
const CHANGES_USERS: CapabilitySet =
    CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::KILL);

pub(super) fn user() -> Found {
    let has = privileges::effective().unwrap_or(CapabilitySet::empty());
    judge_user(rustix::process::geteuid().is_root(), has)
}

fn judge_user(is_root: bool, has: CapabilitySet) -> Found {
    let who = if is_root { "clusterd runs as root" } else { "clusterd does not run as root" };
    let lacks = CHANGES_USERS - has;
    if !lacks.is_empty() {
        return Found::limited(
            format!("{who}, and lacks {}", privileges::names(lacks)),
            "Workers run as clusterd's user; --user and --group take root",
        );
    }
    if !has.contains(CapabilitySet::SYS_PTRACE) {
        return Found::limited(
            format!("{who}, and lacks CAP_SYS_PTRACE"),
            "Workers of another user (--user) are served, but clusterd does not look into them: Node gets connections over its \
             channel, and --max-memory counts shared memory for each process; docker run --cap-add SYS_PTRACE permits it",
        );
    }
    Found::works(format!("{who}, and may run workers as other users"))
}

/// What others put before a server as the first process of a container.
const INITS: [&str; 5] = ["tini", "docker-init", "dumb-init", "catatonit", "tini-static"];

pub(super) fn orphans() -> Found {
    let first = std::fs::read_to_string("/proc/1/comm").ok();
    judge_orphans(rustix::process::getpid().is_init(), adopts(), first.as_deref().map(str::trim))
}

/// # Errors
/// Those of prctl(2).
fn adopts() -> io::Result<()> {
    let before = rustix::process::child_subreaper()?;
    become_subreaper()?;
    Ok(rustix::process::set_child_subreaper(before)?)
}

fn judge_orphans(is_first: bool, adopts: io::Result<()>, first: Option<&str>) -> Found {
    match adopts {
        Err(error) => Found::fails(
            format!("clusterd cannot adopt orphans (PR_SET_CHILD_SUBREAPER): {error}"),
            "clusterd does not start; let the filter of system calls permit prctl",
        ),
        Ok(()) if is_first => {
            Found::works("clusterd is PID 1 here: it reaps every orphan, and the kernel ends all with it")
        }
        Ok(()) => match first.filter(|first| INITS.contains(first)) {
            Some(init) => Found::limited(
                format!("{init} is PID 1 here"),
                "TTIN and TTOU that are sent to the container do not reach clusterd, which needs no init: leave it out, or \
                 use clusterd scale",
            ),
            None => Found::works("clusterd adopts the orphans of its workers"),
        },
    }
}

pub(super) fn random() -> Found {
    judge_random(fresh_token().map(drop))
}

fn judge_random(got: io::Result<()>) -> Found {
    match got {
        Ok(()) => Found::works("the kernel has random numbers, by which workers are told apart"),
        Err(error) => Found::fails(
            format!("the kernel has no random numbers: {error}"),
            "No worker starts, since none could be told from a stranger; let the filter of system calls permit getrandom",
        ),
    }
}

/// How many threads clusterd starts, about.
const THREADS: usize = 10;

/// How many of them have the stack that std gives a thread, 2 MiB: the front, and those that may block.
const WITH_STACK: usize = 3;

/// How many processes and threads a worker has, at the least that is usual: Node has eleven.
const OF_A_WORKER: u64 = 11;

pub(super) fn room() -> Found {
    judge_room(start_some(), left(), getrlimit(Resource::Nproc).current, u64::from(cpus().get()))
}

/// How many processes and threads more the control groups permit.
fn left() -> Option<u64> {
    let number = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let of_group = |file: PathBuf| {
        Some(number(&file)?.saturating_sub(number(&file.with_file_name("pids.current")).unwrap_or(0)))
    };
    cgroups::files_up_to_root("pids.max", ("pids", "pids.max")).into_iter().filter_map(of_group).min()
}

/// Starts as many threads as clusterd has, and a process beside them.
///
/// # Errors
/// Those of clone(2), and how many threads there were.
fn start_some() -> Result<(), (usize, io::Error)> {
    let mut held = Vec::new();
    for count in 0..THREADS {
        let (sender, receiver) = mpsc::channel::<()>();
        let waits = move || receiver.recv().is_err();
        let thread = thread::Builder::new();
        let thread = if count < WITH_STACK { thread } else { thread.stack_size(64 * 1024) };
        match thread.spawn(waits) {
            Ok(thread) => held.push((sender, thread)),
            Err(error) => return Err((count, error)),
        }
    }
    let process = child::start(&own_program(), &[child::VERB, child::ECHOES], Different::default());
    let answered = process.and_then(|mut process| process.echo());
    for (sender, thread) in held {
        drop(sender);
        let _ = thread.join();
    }
    answered.map_err(|error| (THREADS, error))
}

fn judge_room(
    started: Result<(), (usize, io::Error)>,
    left: Option<u64>,
    limit: Option<u64>,
    workers: u64,
) -> Found {
    const HELP: &str =
        "raise the limit (ulimit -u, TasksMax=, docker run --pids-limit), or that of memory (ulimit -v)";
    let wanted = THREADS as u64 + workers * OF_A_WORKER;
    let workers = count(workers, "worker");
    match (started, left) {
        (Err((threads, error)), _) => {
            let help = match error.kind() {
                io::ErrorKind::WouldBlock => HELP,
                _ => "a filter of system calls may forbid it",
            };
            Found::fails(
                format!(
                    "with {} started, the next one, or a process, cannot be: {error}",
                    count(threads as u64, "thread")
                ),
                format!("clusterd does not start; {help}"),
            )
        }
        (Ok(()), Some(left)) if left < wanted => Found::limited(
            format!("{left} more processes and threads can be started"),
            format!(
                "clusterd and {workers} of Node have about {wanted}, and a worker that can start none fails; {HELP}"
            ),
        ),
        (Ok(()), _) => {
            let text =
                |number: Option<u64>| number.map_or("no limit".to_owned(), |number| number.to_string());
            let (limit, left) = (text(limit), text(left));
            Found::works(format!(
                "processes can be started (user's limit: {limit}; left of the container's: {left})"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict::{Fails, Limited, Works};
    use super::*;

    #[test]
    fn a_user_is_judged_by_capabilities() {
        let all = CHANGES_USERS | CapabilitySet::SYS_PTRACE;
        let table = [
            (true, all, Works, "may run workers as other users"),
            (true, CHANGES_USERS, Limited, "lacks CAP_SYS_PTRACE"),
            (true, CapabilitySet::SYS_PTRACE, Limited, "CAP_SETUID"),
            (
                false,
                CapabilitySet::empty(),
                Limited,
                "does not run as root, and lacks CAP_KILL, CAP_SETGID, CAP_SETUID",
            ),
            (false, all, Works, "does not run as root, and may"),
        ];
        for (is_root, has, verdict, words) in table {
            let found = judge_user(is_root, has);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }

    #[test]
    fn who_is_first_makes_a_difference() {
        let table = [
            (true, Ok(()), Some("clusterd"), Works, "PID 1"),
            (false, Ok(()), Some("systemd"), Works, "adopts"),
            (false, Ok(()), None, Works, "adopts"),
            (false, Ok(()), Some("tini"), Limited, "tini is PID 1"),
            (false, Err(io::ErrorKind::PermissionDenied.into()), None, Fails, "PR_SET_CHILD_SUBREAPER"),
        ];
        for (is_first, adopts, first, verdict, words) in table {
            let found = judge_orphans(is_first, adopts, first);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }

    #[test]
    fn room_for_processes_is_what_is_left() {
        let none = || Err((3, io::Error::from_raw_os_error(libc::EAGAIN)));
        let table = [
            (Ok(()), None, None, Works, "user's limit: no limit"),
            (Ok(()), Some(100), Some(500), Works, "user's limit: 500; left of the container's: 100"),
            (Ok(()), Some(20), None, Limited, "20 more processes and threads"),
            (none(), Some(100), None, Fails, "with 3 threads started"),
        ];
        for (started, left, limit, verdict, words) in table {
            let found = judge_room(started, left, limit, 2);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }
}
