//! The same clients while two processes of somebody else compute all the time; they have no priority over anybody.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{LIGHT, Stage, failures, latencies};
use crate::load::{self, Pace};
use crate::report::{Unit, Value};

/// The first argument of a process that computes.
pub(crate) const ROLE: &str = "role-neighbour";
const NEIGHBOURS: usize = 2;
/// After this, it ends by itself.
const LIFE: Duration = Duration::from_secs(60);

/// Computes until it is killed, or whoever has started it ends.
pub(crate) fn run() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let begin = Instant::now();
    while begin.elapsed() < LIFE {
        std::hint::black_box((0..100_000_u64).fold(0_u64, |sum, number| sum.wrapping_mul(31) ^ number));
    }
    Ok(())
}

pub(super) fn measure(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let _neighbours = Neighbours::start()?;
    let light = load::run(stage.load(Pace::Open(LIGHT), false, 1.0))?;
    let full = load::run(stage.load(Pace::Closed, false, 1.0))?;
    let mut values = latencies(&light);
    values.push(Value::new("connections/s", Unit::PerSecond, full.per_second()));
    values.push(failures(&light));
    Ok(values)
}

struct Neighbours(Vec<Child>);

impl Neighbours {
    fn start() -> anyhow::Result<Self> {
        let mut neighbours = Self(Vec::new());
        for _ in 0..NEIGHBOURS {
            let mut command = Command::new(std::env::current_exe()?);
            neighbours.0.push(command.arg(ROLE).stdin(Stdio::null()).spawn()?);
        }
        Ok(neighbours)
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
