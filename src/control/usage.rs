//! How much CPU and memory the workers use, as the kernel counts it.
//!
//! It samples on request, and remembers only what the next sample needs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::sys::usage::{Usage, group_usages};

/// A sample sooner than this repeats the one before: the kernel counts CPU time in hundredths of a second.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

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
pub(crate) struct UsageSampler(HashMap<Pid, Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    cpu: Duration,
    percent: f64,
}

impl UsageSampler {
    /// Samples these process groups; with each comes the time for which it has run.
    pub(crate) fn sample(&mut self, groups: &[(Pid, Duration)]) -> HashMap<Pid, GroupUsage> {
        let pids: Vec<Pid> = groups.iter().map(|&(pid, _)| pid).collect();
        self.record(groups, &group_usages(&pids), Instant::now())
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
            let sample = next(self.0.get(pid), usage.cpu, *ran, now);
            used.insert(*pid, GroupUsage { cpu_percent: sample.percent, memory: usage.resident });
            samples.insert(*pid, sample);
        }
        self.0 = samples;
        used
    }
}

fn next(before: Option<&Sample>, cpu: Duration, ran: Duration, now: Instant) -> Sample {
    match before {
        // Less than before: it is another process of the same number.
        Some(before) if before.cpu <= cpu => {
            let passed = now.saturating_duration_since(before.at);
            if passed < MIN_INTERVAL {
                return *before;
            }
            Sample { at: now, cpu, percent: percent(cpu - before.cpu, passed) }
        }
        _ => Sample { at: now, cpu, percent: percent(cpu, ran) },
    }
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

    #[test]
    fn what_is_gone_is_not_remembered() {
        let mut sampler = UsageSampler::default();
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let group = Pid::from_child(&child);
        let used = sampler.sample(&[(group, Duration::from_secs(1))]);
        child.kill().and_then(|()| child.wait()).unwrap();
        assert!(used[&group].memory > 100_000);
        assert!(sampler.sample(&[]).is_empty());
        assert!(sampler.0.is_empty());
    }
}
