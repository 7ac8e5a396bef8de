//! Requests over kept connections, and how evenly they fall on workers; nothing is closed meanwhile.

use super::{Stage, costs, failures, latencies, spread, with_cpu};
use crate::load::Pace;
use crate::report::{Unit, Value};

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let (seen, cpu) = with_cpu(stage.running, stage.load(Pace::Closed, true, 1.0))?;
    let mut values = vec![Value::new("requests/s", Unit::PerSecond, seen.per_second())];
    values.extend(latencies(&seen));
    values.push(spread(stage.running, &seen));
    values.extend(costs(&seen, cpu));
    values.push(failures(&seen));
    Ok(values)
}
