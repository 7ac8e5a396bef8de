//! What clients wait for while one worker is stopped: not a crash, nothing closes.

use std::thread;

use super::{LIGHT, Stage, failures, late, latencies};
use crate::load::{self, Pace};
use crate::process;
use crate::report::Value;

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let load = stage.load(Pace::Open(LIGHT), false, 3.0);
    let worker = stage.running.worker(stage.round)?;
    let seen = thread::scope(|scope| {
        let clients = scope.spawn(|| load::run(load));
        thread::sleep(stage.plan.slice);
        let stopped = process::stop(worker);
        thread::sleep(stage.plan.slice);
        let resumed = process::resume(worker);
        let seen = clients.join().expect("no client panics");
        stopped.and(resumed).and(seen)
    })?;
    let mut values = latencies(&seen);
    values.push(late(&seen));
    values.push(failures(&seen));
    Ok(values)
}
