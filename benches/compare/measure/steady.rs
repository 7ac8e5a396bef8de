//! New connections at a rate that is the same for every contender; those that cannot keep up show it in what clients wait.

use super::{STEADY, Stage, costs, failures, latencies, with_cpu};
use crate::load::Pace;
use crate::report::{Unit, Value};

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    at(stage, STEADY)
}

pub(super) fn at(stage: &Stage<'_>, rate: f64) -> anyhow::Result<Vec<Value>> {
    let (seen, cpu) = with_cpu(stage.running, stage.load(Pace::Open(rate), false, 1.0))?;
    let mut values = latencies(&seen);
    let late = seen.begun_late.quantile(0.99).map_or(f64::NAN, |late| late.as_secs_f64() * 1e3);
    values.push(Value::new("clients late, p99", Unit::Milliseconds, late));
    values.extend(costs(&seen, cpu));
    values.push(failures(&seen));
    Ok(values)
}
