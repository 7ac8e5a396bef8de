//! How much CPU and memory the workers use, as the kernel counts it.
//!
//! It samples on request, no more often than [`pace`] allows, and remembers only what the next sample needs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::admin::pace::pace;
use crate::sys::usage::{Usage, group_usages};

/// A sample sooner than this repeats the one before: the kernel counts CPU time in hundredths of a second.
const MIN_INTERVAL: Duration = Duration::from_millis(400);

/// What a process group uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GroupUsage {
    /// CPU time since the last sample, or (at the first) since its start, in percent of one CPU.
    pub cpu_percent: f64,
    /// Resident memory, in bytes.
    pub memory: u64,
}

/// Remembers the last sample of each process group.
#[derive(Debug, Default)]
pub(crate) struct UsageSampler {
    samples: HashMap<Pid, Sample>,
    last: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    cpu: Duration,
    percent: f64,
    memory: u64,
}

/// When the kernel was last asked.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    took: Duration,
}

impl UsageSampler {
    /// Samples these process groups; with each comes the time for which it has run. Those that were all sampled a moment
    /// ago are as they were then.
    pub(crate) fn sample(&mut self, groups: &[(Pid, Duration)]) -> HashMap<Pid, GroupUsage> {
        let is_known = groups.iter().all(|(pid, _)| self.samples.contains_key(pid));
        if is_known && self.last.is_some_and(|last| last.at.elapsed() < pace(last.took)) {
            return self.samples.iter().map(|(pid, sample)| (*pid, sample.used())).collect();
        }
        let pids: Vec<Pid> = groups.iter().map(|&(pid, _)| pid).collect();
        let (now, begun) = (Instant::now(), cpu_time());
        let usages = group_usages(&pids);
        // On a busy machine much more time passes than it takes.
        self.last = Some(Reading { at: now, took: cpu_time().saturating_sub(begun) });
        self.record(groups, &usages, now)
    }

    fn record(
        &mut self,
        groups: &[(Pid, Duration)],
        usages: &HashMap<Pid, Usage>,
        now: Instant,
    ) -> HashMap<Pid, GroupUsage> {
        let mut samples = HashMap::new();
        let mut used = HashMap::new();
        for (pid, ran) in groups {
            let Some(usage) = usages.get(pid) else { continue };
            let sample = next(self.samples.get(pid), *usage, *ran, now);
            used.insert(*pid, sample.used());
            samples.insert(*pid, sample);
        }
        self.samples = samples;
        used
    }
}

impl Sample {
    fn used(self) -> GroupUsage {
        GroupUsage { cpu_percent: self.percent, memory: self.memory }
    }
}

fn next(before: Option<&Sample>, usage: Usage, ran: Duration, now: Instant) -> Sample {
    let Usage { cpu, resident: memory } = usage;
    match before {
        // Less than before: it is another process of the same number.
        Some(before) if before.cpu <= cpu => {
            let passed = now.saturating_duration_since(before.at);
            if passed < MIN_INTERVAL {
                return Sample { memory, ..*before };
            }
            Sample { at: now, cpu, percent: percent(cpu - before.cpu, passed), memory }
        }
        _ => Sample { at: now, cpu, percent: percent(cpu, ran), memory },
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// To a tenth.
fn percent(cpu: Duration, of: Duration) -> f64 {
    let percent = 100.0 * cpu.as_secs_f64() / of.as_secs_f64().max(0.01);
    (percent * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn cpu_is_counted_from_one_sample_to_the_next() {
        let (start, pid) = (Instant::now(), rustix::process::getpid());
        let mut sampler = UsageSampler::default();
        let mut at = |seconds: f64, cpu: f64| {
            let ran = Duration::from_secs_f64(seconds);
            let usage = Usage { resident: 7, cpu: Duration::from_secs_f64(cpu) };
            let used = sampler.record(&[(pid, ran)], &[(pid, usage)].into(), start + ran);
            assert_eq!(used[&pid].memory, 7);
            used[&pid].cpu_percent
        };
        let table = [
            (10.0, 1.0, 10.0, "since its start"),
            (12.0, 2.0, 50.0, "since the last sample"),
            (12.1, 2.1, 50.0, "too near to tell"),
            (14.0, 6.0, 200.0, "on several processors"),
            (16.0, 0.4, 2.5, "another process of that number"),
        ];
        for (seconds, cpu, expected, why) in table {
            assert_eq!(at(seconds, cpu), expected, "{why}");
        }
    }

    /// The first sample in which all of them are. The kernel may leave out a child while others come and go
    /// (`/proc/PID/task/TID/children`, proc(5)), and tests run side by side.
    fn seen(sampler: &mut UsageSampler, groups: &[(Pid, Duration)]) -> HashMap<Pid, GroupUsage> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let used = sampler.sample(groups);
            if used.len() == groups.len() {
                return used;
            }
            assert!(Instant::now() < deadline, "{used:?}");
        }
    }

    #[test]
    fn what_is_gone_is_not_remembered() {
        let mut sampler = UsageSampler::default();
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let group = Pid::from_child(&child);
        let used = seen(&mut sampler, &[(group, Duration::from_secs(1))]);
        child.kill().and_then(|()| child.wait()).unwrap();
        assert!(used[&group].memory > 100_000);
        let other = rustix::process::getpgrp();
        sampler.sample(&[(other, Duration::from_secs(1))]);
        assert!(!sampler.samples.contains_key(&group), "it was asked anew, for there is another one");
    }

    #[test]
    fn a_sample_of_a_moment_ago_is_good_enough() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let groups = [(Pid::from_child(&child), Duration::from_secs(1))];
        let mut sampler = UsageSampler::default();
        let first = seen(&mut sampler, &groups);
        sampler.last = Some(Reading { at: Instant::now(), took: Duration::from_secs(60) });
        let read = sampler.last.map(|last| last.at);
        assert_eq!(sampler.sample(&groups), first);
        assert_eq!(sampler.last.map(|last| last.at), read, "the kernel is not asked again");
        sampler.last = Some(Reading { at: Instant::now() - Duration::from_secs(60), took: Duration::ZERO });
        sampler.sample(&groups);
        assert!(
            sampler.last.is_some_and(|last| last.at.elapsed() < Duration::from_secs(60)),
            "but it is later"
        );
        child.kill().and_then(|()| child.wait()).unwrap();
    }
}
