//! What a connection costs that has waited with many others; how long it waited is not its subject.

use std::thread;
use std::time::Duration;

use super::{Stage, costs, failures};
use crate::load::{self, Load, Pace};
use crate::process;
use crate::report::Value;

/// More than a backlog holds (net.core.somaxconn).
const CLIENTS: usize = 10_000;
/// How long all of them have to connect.
const CONNECTING: Duration = Duration::from_millis(500);

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let load = stage.load(Pace::Closed, false, 1.0);
    // Nobody comes again: what is measured is only those that have waited.
    let load = Load { clients: CLIENTS, lasts: CONNECTING, ..load };
    let workers = stage.running.workers()?;
    for worker in &workers {
        process::stop(*worker)?;
    }
    let before = stage.running.cpu()?;
    let seen = thread::scope(|scope| {
        let clients = scope.spawn(|| load::run(load));
        thread::sleep(CONNECTING);
        let resumed: Vec<_> = workers.iter().map(|worker| process::resume(*worker)).collect();
        let seen = clients.join().expect("no client panics");
        resumed.into_iter().collect::<anyhow::Result<()>>().and(seen)
    })?;
    let after = stage.running.cpu()?;
    let mut cpu = after;
    cpu.front -= before.front;
    cpu.workers -= before.workers;
    let mut values = costs(&seen, cpu);
    values.push(failures(&seen));
    Ok(values)
}
