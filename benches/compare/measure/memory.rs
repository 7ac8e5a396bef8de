//! Memory of the front, and its share of what processes have in common; workers are the application's business.

use std::fs;

use anyhow::Context;
use rustix::process::Pid;

use super::Stage;
use crate::process;
use crate::report::{Unit, Value};

pub(super) fn run(stage: &mut Stage<'_>) -> anyhow::Result<Vec<Value>> {
    let (mut resident, mut proportional) = (0, 0);
    for pid in stage.running.front()? {
        resident += process::resident_bytes(pid)?;
        proportional += proportional_bytes(pid)?;
    }
    let value = |name, bytes| Value::new(name, Unit::Megabytes, bytes as f64 / 1e6);
    Ok(vec![value("RSS of front", resident), value("PSS of front", proportional)])
}

/// `Pss` of proc_pid_smaps(5): a page that so many processes share counts for each as that part.
fn proportional_bytes(pid: Pid) -> anyhow::Result<u64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = smaps.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("smaps_rollup holds no Pss")?;
    Ok(number.parse::<u64>()? * 1024)
}
