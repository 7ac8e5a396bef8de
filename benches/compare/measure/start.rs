//! How long it takes from starting a contender to the first answer; when all workers answer does not count.

use super::Stage;
use crate::report::{Unit, Value};

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let took = stage.running.started_within.as_secs_f64() * 1e3;
    Ok(vec![Value::new("first answer", Unit::Milliseconds, took)])
}
