//! What clients notice when all workers are replaced, and how long that takes; contenders without a reload have no row.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::{LIGHT, Stage, failures, late};
use crate::contender::Reload;
use crate::load::{self, Load, Pace, Seen};
use crate::report::{Unit, Value};

/// How long who answers is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks at the workers.
const GLANCE: Duration = Duration::from_millis(5);

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    if matches!(stage.running.contender.reload(), Reload::None) {
        return Ok(Vec::new());
    }
    let (kept, took) = under(stage, true)?;
    let mut values = values(["failed, kept", "over 100 ms, kept", "took, kept"], &kept, took.gone);
    // One reload at a time: one that waits for kept connections ends once they are closed, or is not measured further.
    if took.gone.is_some() || await_end(stage, &took.old, Instant::now())?.is_some() {
        let (new, took) = under(stage, false)?;
        values.extend(self::values(["failed, new", "over 100 ms, new", "took, new"], &new, took.gone));
    }
    Ok(values)
}

fn values([failed, slow, took]: [&'static str; 3], seen: &Seen, gone: Option<Duration>) -> Vec<Value> {
    let seconds = gone.map_or(f64::INFINITY, |gone| gone.as_secs_f64());
    vec![failures(seen).named(failed), late(seen).named(slow), Value::new(took, Unit::Seconds, seconds)]
}

/// The workers that were to go, and when they were gone.
struct Took {
    old: BTreeSet<i32>,
    gone: Option<Duration>,
}

/// Replaces the workers while clients ask.
fn under(stage: &Stage<'_>, is_kept: bool) -> anyhow::Result<(Seen, Took)> {
    let load = stage.load(Pace::Open(LIGHT), is_kept, 1.0);
    let load = Load { lasts: stage.plan.patience + stage.plan.slice * 2, ..load };
    let enough = AtomicBool::new(false);
    let old = old(stage)?;
    thread::scope(|scope| {
        let clients = scope.spawn(|| load::run_until(load, &enough));
        thread::sleep(stage.plan.slice / 2);
        let begin = Instant::now();
        let gone = stage.running.reload().and_then(|_| await_end(stage, &old, begin));
        thread::sleep(stage.plan.slice / 2);
        enough.store(true, Ordering::Relaxed);
        let seen = clients.join().expect("no client panics")?;
        Ok((seen, Took { gone: gone?, old }))
    })
}

/// How long it takes from then until none of them is there, unless that is too long.
fn await_end(stage: &Stage<'_>, old: &BTreeSet<i32>, begin: Instant) -> anyhow::Result<Option<Duration>> {
    let deadline = Instant::now() + stage.plan.patience;
    while Instant::now() < deadline {
        let workers = stage.running.workers()?;
        if !workers.iter().any(|pid| old.contains(&pid.as_raw_nonzero().get())) {
            return Ok(Some(begin.elapsed()));
        }
        thread::sleep(GLANCE);
    }
    Ok(None)
}

/// The workers that there are now, with what stands between them and the front: those of the start may have been replaced,
/// and a server of one worker may be two processes.
fn old(stage: &Stage<'_>) -> anyhow::Result<BTreeSet<i32>> {
    let load = Load { lasts: LOOK, ..stage.load(Pace::Closed, false, 1.0) };
    let deadline = Instant::now() + stage.plan.patience / 2;
    let mut old = BTreeSet::new();
    // After a reload, the last ones may take a while.
    while old.len() < stage.running.answering.len() && Instant::now() < deadline {
        old.extend(load::run(load)?.by_worker.into_keys());
        let workers = stage.running.workers()?;
        old.retain(|pid| Pid::from_raw(*pid).is_some_and(|pid| workers.contains(&pid)));
    }
    anyhow::ensure!(!old.is_empty(), "no worker answers");
    let workers = stage.running.workers()?;
    let mut below: Vec<_> = old.iter().copied().collect();
    while let Some(pid) = below.pop() {
        let parent =
            procfs::process::Process::new(pid).and_then(|process| process.stat()).map(|stat| stat.ppid);
        let parent =
            parent.ok().filter(|parent| Pid::from_raw(*parent).is_some_and(|pid| workers.contains(&pid)));
        if let Some(parent) = parent.filter(|parent| old.insert(*parent)) {
            below.push(parent);
        }
    }
    Ok(old)
}
