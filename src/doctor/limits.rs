//! How much there is of what workers need: CPUs, memory, open files. The default number of workers is the measure.

use std::fs;
use std::num::NonZeroUsize;

use bytesize::ByteSize;
use procfs::{Current as _, CurrentSI as _};
use rustix::process::{Resource, getrlimit};

use super::finding::{Found, count};
use crate::primary::{affordable_queue, least_to_start};
use crate::settings::Config;
use crate::settings::load::cpus as usable_cpus;
use crate::settings::resolve::{Sources, resolve};
use crate::sys::cgroups;

/// The settings where nobody has said any.
pub(super) fn defaults() -> Option<Config> {
    resolve(Sources::default(), usable_cpus()).ok().map(|resolved| resolved.config)
}

/// What control groups permit at a time, in CPUs.
fn quota() -> Option<f64> {
    let v2 = cgroups::files_up_to_root("cpu.max", ("cpu", "cpu.cfs_quota_us"));
    let quotas = v2.iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.ends_with("cpu.max") {
            true => share(&text),
            false => share(&format!(
                "{} {}",
                text.trim(),
                fs::read_to_string(file.with_file_name("cpu.cfs_period_us")).ok()?
            )),
        }
    });
    quotas.reduce(f64::min)
}

/// From a quota and a period (cpu.max of cgroups(7)); none is `max`, or below 0 in version 1.
fn share(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next()?.parse::<f64>().ok()?, words.next()?.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

pub(super) fn cpus() -> Found {
    let machine = procfs::KernelStats::current().ok().map(|stats| stats.cpu_time.len());
    judge_cpus(usable_cpus().get(), machine, quota())
}

fn judge_cpus(usable: u32, machine: Option<usize>, quota: Option<f64>) -> Found {
    let of = machine.map(|machine| format!(" of {machine}")).unwrap_or_default();
    match quota {
        Some(quota) if quota < 1.0 => Found::limited(
            format!("the control group permits {quota:.2} of a CPU"),
            "There is one worker by default, and the kernel pauses it, and clusterd, for the rest of each period, which clients \
             wait for; permit one CPU at least (docker run --cpus 1)",
        ),
        _ => Found::works(format!(
            "{} can be used{of}, and there are as many workers by default",
            count(usable.into(), "CPU")
        )),
    }
}

/// The least of the limits of memory, in bytes.
fn memory_limit() -> Option<u64> {
    let files = cgroups::files_up_to_root("memory.max", ("memory", "memory.limit_in_bytes"));
    files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// What a worker has at least, to be of use: an idle one of Node takes some 50 MiB.
const MEMORY_OF_A_WORKER: u64 = 64 * 1024 * 1024;

pub(super) fn memory() -> Found {
    let machine = procfs::Meminfo::current().ok().map(|memory| memory.mem_total);
    judge_memory(memory_limit(), machine, usable_cpus().get())
}

fn judge_memory(limit: Option<u64>, machine: Option<u64>, workers: u32) -> Found {
    // Without a limit, version 1 tells a number that no machine has.
    let limit = limit.filter(|limit| machine.is_none_or(|machine| *limit < machine));
    let (memory, whose) = match (limit, machine) {
        (Some(limit), _) => (limit, "control group's limit"),
        (None, Some(machine)) => (machine, "machine's"),
        (None, None) => return Found::not_applicable("how much memory there is, is not told"),
    };
    let each = memory / u64::from(workers.max(1));
    let what = format!(
        "{} of memory ({whose}), {} for each of {}",
        ByteSize(memory),
        ByteSize(each),
        count(workers.into(), "worker")
    );
    match each < MEMORY_OF_A_WORKER {
        false => Found::works(what),
        true => Found::limited(
            what,
            "The kernel may kill workers for want of memory; start fewer (--workers 1), or raise the limit (docker run --memory); \
             --max-memory replaces a worker before it takes too much",
        ),
    }
}

pub(super) fn open_files() -> Found {
    let limit = getrlimit(Resource::Nofile);
    judge_open_files(
        (limit.current, limit.maximum),
        defaults().map(|config| config.queue),
        usable_cpus().get(),
    )
}

fn judge_open_files(
    (soft, hard): (Option<u64>, Option<u64>),
    queue: Option<NonZeroUsize>,
    workers: u32,
) -> Found {
    const HELP: &str =
        "raise the hard limit (ulimit -Hn, LimitNOFILE=65536, docker run --ulimit nofile=65536)";
    let text = |limit: Option<u64>| limit.map_or("any number of".to_owned(), |limit| limit.to_string());
    let (most, each) = (text(hard), text(soft));
    let what = format!(
        "clusterd may have {most} open files, and each worker {each} (--nofile), one for each connection"
    );
    let workers_text = count(workers.into(), "worker");
    if hard.is_some_and(|hard| hard < least_to_start(workers)) {
        let least = least_to_start(workers);
        return Found::fails(what, format!("clusterd takes {least} to start {workers_text}; {HELP}"));
    }
    match queue.map(|queue| (queue, affordable_queue(queue, hard, workers, 1))) {
        Some((wanted, affordable)) if affordable < wanted => {
            let affordable = count(affordable.get() as u64, "connection");
            Found::limited(
                what,
                format!(
                    "{affordable} instead of {wanted} can wait for {workers_text} (--queue), and more in the kernel; {HELP}"
                ),
            )
        }
        _ => Found::works(what),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict::{Fails, Limited, NotApplicable, Works};
    use super::*;

    #[test]
    fn a_share_of_cpus_is_a_quota_of_a_period() {
        let table = [
            ("max 100000", None),
            ("50000 100000\n", Some(0.5)),
            ("250000 100000", Some(2.5)),
            ("-1 100000", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(share(text), expected, "{text}");
        }
    }

    #[test]
    fn less_than_one_cpu_is_little() {
        let table = [
            (judge_cpus(2, Some(8), Some(2.5)), Works, "2 CPUs can be used of 8"),
            (judge_cpus(1, None, None), Works, "1 CPU can be used, "),
            (judge_cpus(1, Some(8), Some(0.25)), Limited, "0.25 of a CPU"),
        ];
        for (found, verdict, words) in table {
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }

    #[test]
    fn memory_is_judged_by_what_a_worker_gets() {
        const GIB: u64 = 1 << 30;
        let table = [
            (
                Some(GIB),
                Some(8 * GIB),
                4,
                Works,
                "1.0 GiB of memory (control group's limit), 256.0 MiB for each of 4",
            ),
            (Some(GIB / 8), Some(8 * GIB), 4, Limited, "32.0 MiB for each of 4"),
            (None, Some(8 * GIB), 4, Works, "(machine's)"),
            (Some(u64::MAX / 2), Some(8 * GIB), 4, Works, "(machine's)"),
            (None, None, 4, NotApplicable, "not told"),
        ];
        for (limit, machine, workers, verdict, words) in table {
            let found = judge_memory(limit, machine, workers);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }

    #[test]
    fn few_open_files_make_a_short_queue() {
        let queue = NonZeroUsize::new(1024);
        let table = [
            ((Some(1024), Some(65_536)), Works, "65536 open files, and each worker 1024"),
            ((None, None), Works, "any number of open files"),
            ((Some(256), Some(256)), Limited, "256 open files"),
            ((Some(20), Some(76)), Limited, "76 open files, and each worker 20"),
            ((Some(20), Some(75)), Fails, "75 open files"),
        ];
        for (limits, verdict, words) in table {
            let found = judge_open_files(limits, queue, 4);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }
}
