//! What clients notice when one worker is killed, and when a new one answers; the others go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::{LIGHT, Stage, failures, late};
use crate::contender::Reload;
use crate::load::{self, Load, Pace};
use crate::report::{Unit, Value};

/// How long a new one is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions who answers.
const GLANCE: Duration = Duration::from_millis(10);

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let (running, slice) = (stage.running, stage.plan.slice);
    let worker = running.ask("/").and_then(Pid::from_raw).context("no worker answers")?;
    let load = stage.load(Pace::Open(LIGHT), false, 1.0);
    let load = Load { lasts: slice + patience(stage), ..load };
    let enough = AtomicBool::new(false);
    let (seen, back) = thread::scope(|scope| {
        let clients = scope.spawn(|| load::run_until(load, &enough));
        thread::sleep(slice);
        let back = kill(stage, worker);
        enough.store(true, Ordering::Relaxed);
        let seen = clients.join().expect("no client panics")?;
        anyhow::Ok((seen, back?))
    })?;
    let back = back.map_or(f64::INFINITY, |back| back.as_secs_f64());
    Ok(vec![failures(&seen), late(&seen), Value::new("a new one answers", Unit::Seconds, back)])
}

/// Where nobody starts a new one, it need not be waited for long.
fn patience(stage: &Stage<'_>) -> Duration {
    match stage.running.contender.reload() {
        Reload::None => stage.plan.slice * 2,
        _ => (stage.plan.slice * 20).min(PATIENCE),
    }
}

/// Kills a worker, and returns when one answers that was not there.
fn kill(stage: &Stage<'_>, worker: Pid) -> anyhow::Result<Option<Duration>> {
    let before = stage.running.workers()?;
    let is_new = |pid: i32| Pid::from_raw(pid).is_some_and(|pid| !before.contains(&pid));
    let begin = Instant::now();
    kill_process(worker, Signal::KILL).context("cannot kill a worker")?;
    while begin.elapsed() < patience(stage) {
        if stage.running.ask("/").is_some_and(is_new) {
            return Ok(Some(begin.elapsed()));
        }
        thread::sleep(GLANCE);
    }
    Ok(None)
}
