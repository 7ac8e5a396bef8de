//! One client at a time: what a connection takes when nobody else wants anything.

use super::{Stage, costs, failures, latencies, with_cpu};
use crate::load::{Load, Pace};
use crate::report::Value;

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let load = Load { clients: 1, ..stage.load(Pace::Closed, false, 0.5) };
    let (seen, cpu) = with_cpu(stage.running, load)?;
    let mut values = latencies(&seen);
    values.extend(costs(&seen, cpu));
    values.push(failures(&seen));
    Ok(values)
}
