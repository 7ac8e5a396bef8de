//! What a new connection costs with few workers and with many; each number of workers is a start of its own.

use std::thread;
use std::time::{Duration, Instant};

use super::{Stage, costs, with_cpu};
use crate::application::Application;
use crate::load::{Load, Pace};
use crate::report::Value;
use crate::running::Running;

const COUNTS: [(usize, [&str; 2]); 5] = [
    (1, ["front, 1", "both, 1"]),
    (4, ["front, 4", "both, 4"]),
    (16, ["front, 16", "both, 16"]),
    (64, ["front, 64", "both, 64"]),
    (256, ["front, 256", "both, 256"]),
];
/// More workers of a runtime would need memory that few machines have.
const RUNTIME_WORKERS: usize = 16;

/// It has settled once this share of a CPU is all it uses over a glance, or once that takes too long.
const QUIET: f64 = 0.05;
const GLANCE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let contender = stage.running.contender;
    if contender.workers(2) == 1 {
        return Ok(Vec::new());
    }
    let most = if matches!(contender.application, Application::C) { 256 } else { RUNTIME_WORKERS };
    let mut values = Vec::new();
    for (count, names) in COUNTS.into_iter().filter(|(count, _)| *count <= most) {
        let running = Running::start(contender, stage.running.place, count, stage.plan.patience)?;
        settle(&running)?;
        let load = Load { address: running.address, ..stage.load(Pace::Closed, false, 1.0) };
        let (seen, cpu) = with_cpu(&running, load)?;
        let costs = costs(&seen, cpu);
        values.push(costs[0].named(names[0]));
        values.push(costs[2].named(names[1]));
    }
    Ok(values)
}

/// What many workers have to do at their start is no part of what a connection costs.
fn settle(running: &Running<'_>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let before = running.cpu()?;
        thread::sleep(GLANCE);
        let after = running.cpu()?;
        let used = after.front + after.workers - before.front - before.workers;
        if used < GLANCE.as_secs_f64() * QUIET {
            break;
        }
    }
    Ok(())
}
