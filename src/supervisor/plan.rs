//! What is wanted of an app: how its workers are started and treated, and how many of them there are.
//!
//! It is plain data: where it comes from is the settings' affair, what follows from it the supervisor's.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::Environment;
use super::lifecycle::Rules;
use super::processes::guardian::{Guardian, Orders, Waiting};
use super::processes::reaper::Scope;
use super::processes::spawn::CommandSpec;
use super::rollout::Parallel;
use super::snapshot::SupervisorSnapshot;
use crate::ids::WorkerId;
use crate::logs::LastLines;
use crate::settings::carried::CarriedSettings;
use crate::sys::mark::Family;

/// What a worker is started with, and how it is treated. It keeps that for life; a reload brings another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it is started with.
    pub spec: CommandSpec,
    /// What holds for its life.
    pub rules: Rules,
    /// How long it may take, once it gets no further connection, to finish those that it has.
    pub drain_timeout: Duration,
}

/// What is wanted by now, at the start and again at each reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredState {
    /// How workers are started and treated.
    pub plan: Arc<Plan>,
    /// How many there are, unless another number was asked for meanwhile.
    pub workers: NonZeroU32,
    /// How many are replaced at a time.
    pub reload_parallel: Parallel,
    /// What was said of all settings when this was read, for the next image of clusterd.
    pub settings: Arc<CarriedSettings>,
}

/// What the image before has left to the supervisor of this one.
#[derive(Debug)]
pub(crate) struct Carried {
    /// How its workers stand.
    pub snapshot: SupervisorSnapshot,
    /// What each launch wrote last.
    pub output: HashMap<WorkerId, LastLines>,
    /// Its guardian.
    pub guardian: Option<Guardian>,
}

/// Reads the configuration again, for workers that inherit this. It may block. An error is for the user to read.
pub(crate) type Reread = Arc<dyn Fn(Environment) -> Result<DesiredState, String> + Send + Sync>;

/// What is to be supervised.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The workers.
    pub wanted: DesiredState,
    /// How many CPUs there are for them: so many are started at a time.
    pub cpus: NonZeroU32,
    /// Whether they are started; if not, the app is stopped until it is started.
    pub starts: bool,
    /// Whether clients wait meanwhile.
    pub holds: bool,
    /// Which children are waited for.
    pub scope: Scope,
    /// What the app is called.
    pub app: String,
    /// What a guardian does if this process is killed; `None` for no guardian. PID 1 needs none: when it dies,
    /// the kernel kills the whole namespace.
    pub guardian: Option<Orders>,
    /// One that waits for them, if there is one already.
    pub waiting_guardian: Option<Waiting>,
    /// What all that descends from workers is known by.
    pub family: Family,
    /// Whether what leaves the workers' process groups ends with them.
    pub treekill: bool,
    /// Workers that run already.
    pub carried: Option<Carried>,
}
