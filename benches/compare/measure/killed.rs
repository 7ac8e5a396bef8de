//! What clients notice when one worker is killed, and when a new one answers; the others go on.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::{LIGHT, Stage, failures, late};
use crate::load::{self, Pace};
use crate::report::{Unit, Value};

/// Between two questions who answers.
const GLANCE: Duration = Duration::from_millis(10);

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let (running, slice) = (stage.running, stage.slice);
    let before: Vec<_> = running.workers()?;
    let known = |pid: i32| Pid::from_raw(pid).is_some_and(|pid| before.contains(&pid));
    let worker = running.ask("/").and_then(Pid::from_raw).context("no worker answers")?;
    let load = stage.load(Pace::Open(LIGHT), false, 3.0);
    let (seen, back) = thread::scope(|scope| {
        let clients = scope.spawn(|| load::run(load));
        thread::sleep(slice);
        let begin = Instant::now();
        let killed = kill_process(worker, Signal::KILL);
        let mut back = f64::INFINITY;
        while begin.elapsed() < slice * 2 {
            if running.ask("/").is_some_and(|pid| !known(pid)) {
                back = begin.elapsed().as_secs_f64();
                break;
            }
            thread::sleep(GLANCE);
        }
        let seen = clients.join().expect("no client panics")?;
        killed.context("cannot kill a worker")?;
        anyhow::Ok((seen, back))
    })?;
    Ok(vec![failures(&seen), late(&seen), Value::new("a new one answers", Unit::Seconds, back)])
}
