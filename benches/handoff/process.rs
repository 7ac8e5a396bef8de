//! A process seen from outside: its CPU time, its memory, stopped or running.

use std::fs;
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

/// The longest backlog that the kernel gives any listener, in connections.
pub(crate) fn longest_backlog() -> usize {
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn");
    limit.ok().and_then(|limit| limit.trim().parse().ok()).unwrap_or(128)
}
