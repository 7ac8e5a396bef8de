//! clusterd turns any TCP server into a cluster of worker processes behind one port.
//!
//! This crate is the `clusterd` command, and no library: whatever is public here may change with any version. For
//! servers in Rust there is `clusterd-worker`, a crate of its own.
//!
//! The rooms, in reading order (`docs/architecture.md` has the picture):
//!
//! - [`ids`]: what slots, launches, channels and ports are called.
//! - [`settings`]: what clusterd was told to do; [`cli`]: how it is told on the command line.
//! - [`primary`]: wires all the other rooms together, from the first check to the last process.
//! - [`attach`]: how workers get their channels: at the attach socket, and from the cluster primary of Node workers.
//! - [`protocol`]: how a worker is spoken to; its messages, one channel, and Node's cluster protocol.
//! - [`policy`]: which idle worker is next.
//! - [`front`]: the data path, from a client's connection to a worker that takes it.
//! - [`connections`]: who has which connection, what is open and what has ended.
//! - [`private`]: connections of clusterd's own to one worker: probes, metrics, and what is asked of one alone.
//! - [`supervisor`]: starts, watches, restarts and stops the workers.
//! - [`home`]: the folder that apps share: what each is, what is wanted of it, and how it is started.
//! - [`up`]: the apps of a file in the foreground, each with a primary of its own.
//! - [`hooks`]: runs a command for each event; [`systemd`]: speaks with service managers, and as one.
//! - [`control`]: commands and questions from other processes; [`http`]: the connections of that and of [`admin`].
//! - [`carry`]: how what a room has is written down for the next image of clusterd (upgrade in place).
//! - [`controls`]: which characters of others' texts are never printed as they are.
//! - [`logs`]: carries what workers and clusterd itself write.
//! - [`metrics`]: what is counted; [`admin`]: where it is shown, with the probes.
//! - [`monit`]: the apps of this user on one screen; [`web`]: on one page.
//! - [`doctor`]: what this machine allows, in words.
//! - [`preload`]: the shim that makes unmodified programs workers.
//! - [`demo`], [`files`]: the built-in servers; [`http_worker`]: their connections; `worker`: the listener of
//!   `clusterd-worker`, compiled in for them.
//! - `internal`: what benches, tests and fuzz targets reach; `properties`: what must hold whatever others send.
//! - [`tasks`]: how tasks begin; [`sys`]: system calls that no safe library wraps.

// What only benches, tests and fuzz targets use is `pub` within its room, and is judged with the feature alone.
#![cfg_attr(feature = "internal", warn(unreachable_pub))]
#![cfg_attr(not(feature = "internal"), allow(dead_code, unused_imports))]

pub(crate) mod admin;
pub(crate) mod attach;
pub(crate) mod carry;
pub(crate) mod cli;
pub(crate) mod connections;
pub(crate) mod control;
pub(crate) mod controls;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod files;
pub(crate) mod front;
pub(crate) mod home;
pub(crate) mod hooks;
pub(crate) mod http;
pub(crate) mod http_worker;
pub(crate) mod ids;
#[cfg(feature = "internal")]
#[doc(hidden)]
pub mod internal;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod monit;
pub(crate) mod policy;
pub(crate) mod preload;
pub(crate) mod primary;
pub(crate) mod private;
#[cfg(feature = "internal")]
mod properties;
pub(crate) mod protocol;
pub(crate) mod settings;
pub(crate) mod supervisor;
pub(crate) mod sys;
pub(crate) mod systemd;
pub(crate) mod tasks;
pub(crate) mod up;
pub(crate) mod web;
#[allow(unreachable_pub, reason = "these files are the library's, too")]
mod worker;

use std::process::ExitCode;

use crate::attach::listen_fds;
use crate::home::{Given, launch};
use crate::primary::Restoring;
use crate::settings::load::Told;
use crate::supervisor::{guardian, spawn};

/// What the `clusterd` command does with this process's arguments, and what it exits with: the command line, the demo
/// worker, or the guardian.
#[doc(hidden)]
pub fn main() -> ExitCode {
    sys::memory::keep_little();
    if let Some(handed) = primary::Handed::to_this_process() {
        return primary::resume_main(handed, |told, given, restoring| run(told, given, Some(restoring)));
    }
    let verb = std::env::args_os().nth(1);
    match verb.as_deref().and_then(|verb| verb.to_str()) {
        Some(spawn::DEMO_VERB) => demo::demo_main(),
        Some(settings::file_server::VERB) => files::files_main(std::env::args_os().skip(2)),
        Some(listen_fds::VERB) => listen_fds::step_main(std::env::args_os().skip(2)),
        Some(primary::CHECK_VERB) => primary::check_main(),
        Some(doctor::child::VERB) => doctor::child::child_main(std::env::args_os().skip(2)),
        Some(guardian::VERB) => guardian::guardian_main(launch::start_again),
        Some(launch::VERB) => launch::primary_main(std::env::args_os().skip(2), |command_line, given| {
            cli::run_app(command_line, given, serve)
        }),
        Some(up::app::VERB) => up::app::app_main(std::env::args_os().skip(2), |command_line, given| {
            cli::run_app(command_line, given, serve)
        }),
        _ => cli::run(std::env::args_os(), serve),
    }
}

fn serve(told: Told, given: Given) -> u8 {
    run(told, given, None)
}

fn run(told: Told, mut given: Given, restoring: Option<Box<Restoring>>) -> u8 {
    let label = given.console.as_ref().map(|console| console.label.clone());
    let held = given.held.take();
    let code = primary::run(told, (held.as_ref(), given), restoring).unwrap_or_else(|failure| {
        cli::complain_as(label.as_ref(), &sys::exhausted::told(&failure));
        failure.exit_code()
    });
    // Before the lock is let go, by which others see that it has ended.
    held.iter().for_each(|held| held.ends(code));
    code
}
