//! As many new connections as a contender serves, and what each costs; what clients wait there is their own number.

use super::{Stage, costs, failures, latencies, with_cpu};
use crate::load::Pace;
use crate::report::{Unit, Value};

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let (seen, cpu) = with_cpu(stage.running, stage.load(Pace::Closed, false, 1.0))?;
    stage.saturated = Some(seen.per_second());
    let mut values = vec![Value::new("connections/s", Unit::PerSecond, seen.per_second())];
    values.extend(costs(&seen, cpu));
    values.extend(latencies(&seen));
    values.push(failures(&seen));
    Ok(values)
}
