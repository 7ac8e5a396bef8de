//! How much CPU and memory the workers use, as the kernel counts it.
//!
//! It looks when it is asked to, and remembers only what the next look needs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::sys::usage::{Usage, group_usages};

/// Two looks that are nearer than this count as one: the kernel counts CPU time in hundredths of a second.
const NEAR: Duration = Duration::from_millis(500);

/// What a process group uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// CPU time since the last look, or (at the first) since its start, in percent of one CPU.
    pub cpu_percent: f64,
    /// Resident memory, in bytes.
    pub memory: u64,
}

/// Remembers the last look.
#[derive(Debug, Default)]
pub struct Looks(HashMap<Pid, Mark>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    cpu: Duration,
    percent: f64,
}

impl Looks {
    /// Looks at these process groups, with the time that each has run.
    pub fn look(&mut self, groups: &[(Pid, Duration)]) -> HashMap<Pid, Used> {
        let pids: Vec<Pid> = groups.iter().map(|&(pid, _)| pid).collect();
        self.note(groups, &group_usages(&pids), Instant::now())
    }

    fn note(
        &mut self,
        groups: &[(Pid, Duration)],
        usages: &HashMap<Pid, Usage>,
        now: Instant,
    ) -> HashMap<Pid, Used> {
        let mut marks = HashMap::new();
        let mut used = HashMap::new();
        for (pid, ran) in groups {
            let Some(usage) = usages.get(pid) else { continue };
            let mark = mark(self.0.get(pid), usage.cpu, *ran, now);
            used.insert(*pid, Used { cpu_percent: mark.percent, memory: usage.resident });
            marks.insert(*pid, mark);
        }
        self.0 = marks;
        used
    }
}

fn mark(before: Option<&Mark>, cpu: Duration, ran: Duration, now: Instant) -> Mark {
    match before {
        // Less than before: it is another process of the same number.
        Some(before) if before.cpu <= cpu => {
            let passed = now.saturating_duration_since(before.at);
            if passed < NEAR {
                return *before;
            }
            Mark { at: now, cpu, percent: percent(cpu - before.cpu, passed) }
        }
        _ => Mark { at: now, cpu, percent: percent(cpu, ran) },
    }
}

/// To a tenth.
fn percent(cpu: Duration, of: Duration) -> f64 {
    let percent = 100.0 * cpu.as_secs_f64() / of.as_secs_f64().max(0.01);
    (percent * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_counted_from_one_look_to_the_next() {
        let (start, pid) = (Instant::now(), rustix::process::getpid());
        let mut looks = Looks::default();
        let mut at = |seconds: f64, cpu: f64| {
            let ran = Duration::from_secs_f64(seconds);
            let usage = Usage { resident: 7, cpu: Duration::from_secs_f64(cpu) };
            let used = looks.note(&[(pid, ran)], &[(pid, usage)].into(), start + ran);
            assert_eq!(used[&pid].memory, 7);
            used[&pid].cpu_percent
        };
        let table = [
            (10.0, 1.0, 10.0, "since its start"),
            (12.0, 2.0, 50.0, "since the last look"),
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
        let mut looks = Looks::default();
        let own = rustix::process::getpgrp();
        assert!(looks.look(&[(own, Duration::from_secs(1))])[&own].memory > 100_000);
        assert!(looks.look(&[]).is_empty());
        assert!(looks.0.is_empty());
    }
}
