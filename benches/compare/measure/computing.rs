//! What clients wait for while a request now and then keeps its worker busy; that request itself does not count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{LIGHT, Stage, failures, late, latencies};
use crate::load::{self, Pace};
use crate::report::Value;

/// Between the end of one and the next.
const REST: Duration = Duration::from_millis(300);

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let load = stage.load(Pace::Open(LIGHT), false, 2.0);
    let (running, is_over) = (stage.running, AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                running.ask("/compute");
                thread::sleep(REST);
            }
        });
        let seen = load::run(load);
        is_over.store(true, Ordering::Relaxed);
        seen
    })?;
    let mut values = latencies(&seen);
    values.push(late(&seen));
    values.push(failures(&seen));
    Ok(values)
}
