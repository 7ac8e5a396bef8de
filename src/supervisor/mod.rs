//! Keeps the workers running: starts them, notices their ends, starts them again, and stops them.
//!
//! One task with one inbox owns every worker. What follows from what is decided in [`lifecycle`], [`restart`] and
//! [`rollout`], which are pure; the task carries it out. It passes no connection and reads no worker's output.
//!
//! In reading order:
//!
//! - `handle`: what the rest of the program can ask; `command`, `plan`, `status` and `worker_hooks` are the words for it.
//! - [`events`]: what is told of all this; `publisher`, with `event_log`: how.
//! - [`lifecycle`]: the states of a worker, and what follows from what; [`ends`]: how a process can end.
//! - [`restart`]: whether and when a worker that has ended is started again.
//! - `pace`: how fast empty slots are filled; [`rollout`]: how all are replaced, so that there are always enough.
//! - `accept`: whether a command is carried out; [`signal_name`]: the signals that can be sent.
//! - `task` owns the rest, and brings one thing after the other: `workers`, which carries out what the lifecycle decides,
//!   `replacement` for reloads and the like, and `jobs` for the other commands under way.
//! - `workers` owns `worker_table` (slots, and the `instance`s that fill them), [`processes`] (how one is started, and how
//!   its end is noticed), `leftovers` (what workers that have ended left behind) and `background` (what is waited for
//!   beside the task).
//! - [`snapshot`]: what of all this goes to the next image of clusterd when it is upgraded in place.
//! - [`triggers`]: what has workers replaced without anybody asking.
//! - [`diagnose`]: why a worker does not listen.
//! - [`process_table`]: the process table, for whoever has a question.

mod accept;
mod background;
mod command;
pub(crate) mod diagnose;
pub(crate) mod ends;
mod event_bus;
mod event_log;
pub(crate) mod events;
mod handle;
mod instance;
mod jobs;
mod lanes;
mod leftovers;
pub(crate) mod lifecycle;
mod pace;
mod plan;
pub(crate) mod process_table;
pub(crate) mod processes;
mod publisher;
mod replacement;
pub(crate) mod restart;
pub(crate) mod rollout;
pub(crate) mod signal_name;
pub(crate) mod snapshot;
mod status;
mod task;
pub(crate) mod triggers;
pub(crate) mod turn;
mod worker_hooks;
mod worker_table;
mod workers;

pub(crate) use self::command::{Command, Failed, MOST_WORKERS, Refused, Scale, Stop, Underway, UpgradeOrder};
#[cfg(test)]
pub(crate) use self::handle::testing;
pub(crate) use self::handle::{Handle, new};
pub(crate) use self::plan::{Carried, DesiredState, Plan, Reread, Spec};
pub(crate) use self::processes::environment::{self, Environment};
pub(crate) use self::processes::reaper::Scope;
pub(crate) use self::processes::spawn::{AttachEnv, CommandSpec, NodeChannel, Pipes, StartError};
pub(crate) use self::processes::{exec_context, guardian, identity, spawn};
pub(crate) use self::rollout::Parallel;
pub(crate) use self::status::{Overview, Status};
pub(crate) use self::task::Supervisor;
pub(crate) use self::worker_hooks::{Launched, WorkerHooks};

#[cfg(test)]
mod tests;
