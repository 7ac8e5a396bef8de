//! Keeps the workers running: starts them, notices their ends, starts them again, and stops them.
//!
//! One task with one inbox owns every worker. What follows from what is decided in [`lifecycle`], [`restart`] and
//! [`rollout`], which are pure; the task carries it out. It passes no connection and reads no worker's output.
//!
//! In reading order:
//!
//! - `handle`: what the rest of the program can ask; `command`, `plan`, `status` and `worker_hooks` are the words for it.
//! - [`events`]: what is told of all this; `event_log`: as messages and metrics.
//! - [`lifecycle`]: the states of a worker, and what follows from what; [`ends`]: how a process can end.
//! - [`restart`]: whether and when a worker that has ended is started again.
//! - [`rollout`]: how all of them are replaced, so that there are always enough.
//! - `task` carries out what those decide, with `jobs` for what users ask, `replacement` for reloads and the like, and
//!   `instance` for what is remembered of a worker.
//! - [`processes`]: how a worker's process is started, and how its end is noticed.
//! - [`triggers`]: what has workers replaced without anybody asking.
//! - [`diagnose`]: why a worker does not listen.
//! - [`process_table`]: the process table, for whoever has a question.

mod command;
pub mod diagnose;
pub mod ends;
mod event_log;
pub mod events;
mod handle;
mod instance;
mod jobs;
pub mod lifecycle;
mod plan;
pub mod process_table;
pub mod processes;
mod replacement;
pub mod restart;
pub mod rollout;
mod status;
mod task;
pub mod triggers;
mod worker_hooks;

pub use self::command::{Command, FAST, Failed, MOST_WORKERS, Refused, Scale, Stop, Underway};
pub use self::handle::{Handle, new};
use self::handle::{Order, Request};
pub use self::plan::{Plan, Reread, Spec, Wanted};
pub use self::processes::guardian::Orders;
pub use self::processes::reaper::Scope;
pub use self::processes::spawn::{AttachEnv, CommandSpec, NodeChannel, Pipes, StartError};
pub use self::processes::{exec_context, guardian, identity, spawn};
pub use self::status::{Overview, Status};
pub use self::task::Supervisor;
pub use self::worker_hooks::{Launched, WorkerHooks};

#[cfg(test)]
mod tests;
