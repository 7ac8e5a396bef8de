//! What things are called: worker slots, worker launches, channels and the ports that workers ask for.
//!
//! Only names: nothing here has behaviour, and every room may use it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A worker's place in the cluster, counted from 1. It outlives the processes that fill it, so it is what
/// users see (`worker 2`), and the only worker label that metrics carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One launch of a worker: a slot is filled by a new launch each time its process is started. A message about
/// an old launch can thereby never be taken for one about its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct WorkerId {
    /// The place that this launch fills.
    pub slot: Slot,
    /// Counts launches over the whole life of the primary; never used twice.
    pub launch: u64,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slot.fmt(f)
    }
}

/// One channel between the primary and a worker's listener. A worker has one for each listener it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct LinkId(pub u64);

/// The port that a worker asks to listen on. It is the public port too unless `--port PUBLIC:WORKER` maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct WorkerPort(pub u16);

impl fmt::Display for WorkerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a public listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum ServiceId {
    /// A port that is served as long as clusterd runs.
    Port(WorkerPort),
    /// An address that workers asked for beside those, served as long as one of them wants it. Numbered, never used
    /// twice.
    Opened(u64),
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceId::Port(port) => port.fmt(f),
            ServiceId::Opened(number) => write!(f, "opened on demand ({number})"),
        }
    }
}
