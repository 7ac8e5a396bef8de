//! A process seen from outside: its CPU time, its memory, stopped or running.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// The CPU time of all living threads of a process, to the nanosecond (the first number of `schedstat`,
/// Documentation/scheduler/sched-stats.rst); `stat` counts in ticks of 10 ms.
pub(crate) fn cpu_time(pid: Pid) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut total = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        // A thread can end at any moment.
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let nanoseconds = schedstat.split_whitespace().next().and_then(|number| number.parse().ok());
        total += Duration::from_nanos(nanoseconds.context("schedstat holds no number")?);
    }
    Ok(total)
}

/// The CPU time of a process and of all its descendants, as [`cpu_time`] takes it. Those that have ended count for
/// nothing.
pub(crate) fn cpu_time_of_all(pid: Pid) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in with_descendants(pid)? {
        // A process can end at any moment.
        total += cpu_time(pid).unwrap_or_default();
    }
    Ok(total)
}

/// A process, its children, theirs, and so on.
pub(crate) fn with_descendants(pid: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut children = BTreeMap::<i32, Vec<Pid>>::new();
    for stat in procfs::process::all_processes()?.filter_map(|process| process.ok()?.stat().ok()) {
        children.entry(stat.ppid).or_default().extend(Pid::from_raw(stat.pid));
    }
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        found.extend(children.get(&found[next].as_raw_nonzero().get()).into_iter().flatten());
        next += 1;
    }
    Ok(found)
}

/// The memory that a process occupies (`VmRSS`, proc_pid_status(5)).
pub(crate) fn resident_bytes(pid: Pid) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("status holds no VmRSS")?;
    Ok(number.parse::<u64>()? * 1024)
}

/// Stops a process and returns once no thread of it runs.
pub(crate) fn stop(pid: Pid) -> anyhow::Result<()> {
    kill_process(pid, Signal::STOP)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_stopped(pid)? {
        anyhow::ensure!(Instant::now() < deadline, "process {pid} does not stop");
        thread::yield_now();
    }
    Ok(())
}

fn is_stopped(pid: Pid) -> anyhow::Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        // The name before it, in parentheses, can hold anything.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets a stopped process run again.
pub(crate) fn resume(pid: Pid) -> anyhow::Result<()> {
    Ok(kill_process(pid, Signal::CONT)?)
}

/// Asks a process to end, and has it end once that takes longer than this. A stopped one takes no notice of SIGTERM until it
/// continues.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    let pid = Pid::from_child(child);
    let _ = kill_process(pid, Signal::TERM);
    let _ = kill_process(pid, Signal::CONT);
    let _ = ended_by(child, Instant::now() + patience);
}

/// How a process has ended; `None` if it has not by then, and was killed.
pub(crate) fn ended_by(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let ended @ Some(_) = child.try_wait()? {
            return Ok(ended);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The longest backlog that the kernel gives any listener, in connections.
pub(crate) fn longest_backlog() -> usize {
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn");
    limit.ok().and_then(|limit| limit.trim().parse().ok()).unwrap_or(128)
}
