//! The app and its workers as the rest of the program sees them.
//!
//! Snapshots, published as they change; nothing is decided from them here.

use std::sync::Arc;
use std::time::SystemTime;

use rustix::process::Pid;

use super::events::Asker;
use super::lifecycle::Phase;
use super::{Environment, Plan};
use crate::ids::{Slot, WorkerId, WorkerPort};

/// A worker as the rest of the program sees it. While a worker is replaced, its slot has two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Its place.
    pub slot: Slot,
    /// Where it stands.
    pub phase: Phase,
    /// The process of this launch, while there is one.
    pub running: Option<(WorkerId, Pid)>,
    /// It has said that it listens on these ports.
    pub listening: Vec<WorkerPort>,
    /// When the process was started.
    pub since: Option<SystemTime>,
    /// How many times the worker was started again.
    pub restarts: u64,
    /// How its last process ended, in words, if one has.
    pub last_end: Option<String>,
    /// The last lines that it has written to standard error.
    pub last_lines: Vec<String>,
    /// What the process was given.
    pub environment: Option<Environment>,
}

/// The app as the rest of the program sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overview {
    /// How many workers are wanted.
    pub wanted: u32,
    /// What a worker that is started now is started with; `None` before the first is.
    pub plan: Option<Arc<Plan>>,
    /// It was stopped by a command.
    pub is_stopped: bool,
    /// And clients wait meanwhile.
    pub is_held: bool,
    /// Who has asked for the reload that is under way.
    pub reload: Option<Asker>,
    /// The workers, in the order of their slots.
    pub workers: Vec<Status>,
}

impl Status {
    /// A slot with nobody in it.
    pub(super) fn empty(slot: Slot, restarts: u64) -> Self {
        Self {
            slot,
            phase: Phase::Stopped,
            running: None,
            listening: Vec::new(),
            since: None,
            restarts,
            last_end: None,
            last_lines: Vec::new(),
            environment: None,
        }
    }
}
