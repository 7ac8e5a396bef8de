//! What clients notice when all workers are replaced, and how long that takes; contenders without a reload have no row.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{LIGHT, Stage, late};
use crate::contender::Reload;
use crate::load::{self, Load, Pace, Seen};
use crate::report::{Unit, Value};

/// The longest that a reload may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at the workers.
const GLANCE: Duration = Duration::from_millis(5);

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    if matches!(stage.running.contender.reload(), Reload::None) {
        return Ok(Vec::new());
    }
    let (kept, took_kept) = under(stage, true)?;
    let (new, took_new) = under(stage, false)?;
    let seconds = |name, took: Option<Duration>| {
        Value::new(name, Unit::Seconds, took.map_or(f64::INFINITY, |took| took.as_secs_f64()))
    };
    Ok(vec![
        Value::new("failed, kept", Unit::Count, kept.failed as f64),
        Value::new("failed, new", Unit::Count, new.failed as f64),
        late(&kept).named("over 100 ms, kept"),
        late(&new).named("over 100 ms, new"),
        seconds("took, kept", took_kept),
        seconds("took, new", took_new),
    ])
}

/// Replaces the workers while clients ask; returns how long it took, unless that was too long.
fn under(stage: &Stage<'_>, is_kept: bool) -> anyhow::Result<(Seen, Option<Duration>)> {
    let load = stage.load(Pace::Open(LIGHT), is_kept, 1.0);
    let load = Load { lasts: PATIENCE + stage.slice * 2, ..load };
    let (running, enough) = (stage.running, AtomicBool::new(false));
    let old: BTreeSet<_> = answering(stage)?;
    thread::scope(|scope| {
        let clients = scope.spawn(|| load::run_until(load, &enough));
        thread::sleep(stage.slice / 2);
        let begin = Instant::now();
        let took = running.reload().and_then(|_| {
            while begin.elapsed() < PATIENCE {
                let workers = running.workers()?;
                if !workers.iter().any(|pid| old.contains(&pid.as_raw_nonzero().get())) {
                    return Ok(Some(begin.elapsed()));
                }
                thread::sleep(GLANCE);
            }
            Ok(None)
        });
        thread::sleep(stage.slice / 2);
        enough.store(true, Ordering::Relaxed);
        let seen = clients.join().expect("no client panics")?;
        Ok((seen, took?))
    })
}

/// The workers that there are now: those of the start may have been replaced.
fn answering(stage: &Stage<'_>) -> anyhow::Result<BTreeSet<i32>> {
    let load = stage.load(Pace::Closed, false, 0.2);
    Ok(load::run(load)?.by_worker.into_keys().collect())
}
