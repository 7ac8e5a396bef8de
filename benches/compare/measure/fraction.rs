//! New connections at a part of what the contender serves at most, in the same round; it is not the same rate for all.

use anyhow::Context;

use super::{Stage, steady};
use crate::report::{Unit, Value};

pub(super) fn tenth(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    at(stage, 0.1)
}

pub(super) fn half(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    at(stage, 0.5)
}

fn at(stage: &Stage<'_>, share: f64) -> anyhow::Result<Vec<Value>> {
    let saturated = stage.saturated.context("it needs the measure saturation")?;
    let rate = (saturated * share).max(1.0);
    let mut values = vec![Value::new("connections/s", Unit::PerSecond, rate)];
    values.extend(steady::at(stage, rate)?);
    Ok(values)
}
