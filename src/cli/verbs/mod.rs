//! The verbs, which control a running clusterd: one file each.
//!
//! The first argument decides whether it is one: a server program that is called as a verb is run with
//! `clusterd -- list`. They reach clusterd by its control socket ([`crate::control`]) and know nothing else of it.

mod app;
mod bring_up;
mod choose;
mod completions;
mod connections;
mod curl;
mod delete;
mod describe;
mod dialect;
mod doctor;
mod ending;
mod env;
mod events;
mod flush;
mod id;
mod import;
mod init;
mod interrupt;
mod jlist;
mod kept_apps;
mod kill;
mod list;
mod log_lines;
mod logs;
mod monit;
mod order;
mod pid;
mod ping;
mod print;
mod reload;
mod reload_logs;
mod reset;
mod rest;
mod restart;
mod save;
mod scale;
mod send;
mod send_signal;
mod sentence;
mod serve;
mod side_by_side;
mod start;
mod start_file;
mod start_or;
mod startup;
mod stop;
mod up;
mod upgrade;
mod web;
mod whole;
pub(super) mod words;

use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::bring_up::NotUp;
use self::choose::NotChosen;
use crate::admin::bind_hint;
use crate::control::client;
use crate::home::apps::NoHome;
use crate::home::definition::NotWritten;
use crate::home::lock::LockError;
use crate::home::startup::StartupError;
use crate::settings;
use crate::settings::error::{Invalid, Problem};
use crate::settings::workplace::WorkplaceError;
use crate::sys::{blocking, event_loop, exhausted};
use crate::up::UpError;

#[derive(Debug, Parser)]
#[command(name = "clusterd", max_term_width = 110, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(list::List),
    Jlist(jlist::Jlist),
    Prettylist(jlist::Prettylist),
    Describe(describe::Describe),
    Env(env::Env),
    Pid(pid::Pid),
    Id(id::Id),
    Ping(ping::Ping),
    Reload(reload::Reload),
    Restart(restart::Restart),
    Scale(scale::Scale),
    #[command(name = "sendSignal")]
    SendSignal(send_signal::SendSignal),
    Reset(reset::Reset),
    Upgrade(upgrade::Upgrade),
    Send(send::Send),
    Stop(stop::Stop),
    Start(start::Start),
    Serve(serve::Serve),
    Up(up::Up),
    #[command(name = "startOrRestart")]
    StartOrRestart(start_or::StartOrRestart),
    #[command(name = "startOrReload")]
    StartOrReload(start_or::StartOrReload),
    Delete(delete::Delete),
    Kill(kill::Kill),
    Save(save::Save),
    Resurrect(save::Resurrect),
    Cleardump(save::ClearDump),
    Startup(startup::Startup),
    Unstartup(startup::Unstartup),
    Connections(connections::Connections),
    Events(events::Events),
    Logs(logs::Logs),
    Monit(monit::Monit),
    Web(web::Web),
    Flush(flush::Flush),
    #[command(name = "reloadLogs")]
    ReloadLogs(reload_logs::ReloadLogs),
    Curl(curl::Curl),
    Init(init::Init),
    Import(import::Import),
    Completions(completions::Completions),
    Doctor(doctor::Doctor),
    /// PM2's words, which are read elsewhere.
    #[command(skip)]
    Dialect(dialect::Dialect),
}

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerbError {
    /// The arguments are wrong.
    #[error("{0}")]
    Usage(String),
    /// It is not clear which app is meant.
    #[error(transparent)]
    NotChosen(#[from] NotChosen),
    /// A script was meant.
    #[error("there is neither an app nor a file {0}")]
    NoApp(String),
    /// No app of this name was started in the background.
    #[error("no app {wanted} was started in the background\nhint: {}", if .known.is_empty() { "those that run in the foreground write to the terminal or the service that they were started by".to_owned() } else { format!("there are {known}") })]
    NotKept {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// The page cannot listen.
    #[error("cannot listen on {address}: {source}{}", if .source.kind() == io::ErrorKind::AddrInUse { "\nhint: choose another port: clusterd web --listen PORT" } else { bind_hint(.source) })]
    NotListening {
        /// Where it should.
        address: SocketAddr,
        /// What bind(2) or listen(2) said.
        source: io::Error,
    },
    /// A log file cannot be emptied.
    #[error("cannot empty {}: {}", .0.display(), .1)]
    NotFlushed(std::path::PathBuf, io::Error),
    /// No file of apps is named, and the usual ones are not there.
    #[error(
        "this folder has neither a clusterd.toml nor an ecosystem file of PM2\n\
         hint: name a file: clusterd up FILE; or write one to begin with: clusterd init"
    )]
    NoFile,
    /// Apps cannot be run in the foreground.
    #[error(transparent)]
    Up(#[from] UpError),
    /// There is no app at all.
    #[error(
        "there is no app{0} to start\nhint: a new one is started by its script or command: clusterd start app.js, clusterd start -- COMMAND"
    )]
    NothingToStart(String),
    /// An app cannot be started.
    #[error(transparent)]
    NotUp(#[from] NotUp),
    /// Somebody else runs it.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// There is no place for apps.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// The app cannot be written down.
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    /// What `save` has kept is damaged.
    #[error("cannot read {}: {}\nhint: clusterd save writes it anew, and clusterd cleardump removes it", .0.display(), .1)]
    NotRead(std::path::PathBuf, io::Error),
    /// Its settings are wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It goes on.
    #[error("cannot end app {0}: {1}")]
    NotEnded(String, String),
    /// Its program cannot be run.
    #[error(transparent)]
    Workplace(#[from] WorkplaceError),
    /// The same of one app of a file.
    #[error("{app}: {source}")]
    WorkplaceOf {
        /// Its name.
        app: String,
        /// Why not.
        source: WorkplaceError,
    },
    /// It would be started nowhere.
    #[error("{}", no_folder())]
    NoFolder,
    /// Ctrl-C; what goes on without this command.
    #[error("{0}")]
    Interrupted(String),
    /// systemd does not do it.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// clusterd gives no answer, or refuses.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A file that is to be made is there.
    #[error("cannot make {}: {}", .0.display(), .1)]
    NotMade(std::path::PathBuf, io::Error),
    /// A worker gets no line.
    #[error(transparent)]
    NotSent(#[from] send::NotSent),
    /// A worker's answer has no end.
    #[error("the worker's response is incomplete: {0}")]
    Broken(String),
    /// There is no way to clusterd.
    #[error("cannot start the event loop: {0}")]
    Runtime(#[source] io::Error),
    /// The terminal, pipe or file is gone or full.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl VerbError {
    /// 2 if something else has to be said, otherwise 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            VerbError::Usage(_) | VerbError::NotChosen(NotChosen::Ambiguous { .. }) => 2,
            VerbError::Invalid(invalid) => invalid.exit_code(),
            VerbError::Workplace(error) | VerbError::WorkplaceOf { source: error, .. } => error.exit_code(),
            VerbError::Interrupted(_) => interrupt::CODE,
            // As a program that SIGPIPE ends says nothing: nobody wants to read more.
            VerbError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// What is said about it; nothing if nobody would read it.
    pub(super) fn complaints(&self) -> Vec<String> {
        match self {
            VerbError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Vec::new(),
            VerbError::Client(client::Error::Refused(problem)) => vec![print::problem(problem)],
            VerbError::Invalid(invalid) => invalid.problems().iter().map(Problem::to_string).collect(),
            _ => vec![exhausted::told(self)],
        }
    }
}

/// The folder in which this command was called.
///
/// # Errors
/// No name leads there.
fn start_folder() -> Result<PathBuf, VerbError> {
    settings::start_folder::of_this_process().ok_or(VerbError::NoFolder)
}

/// That relative names lead somewhere.
///
/// # Errors
/// This folder was removed.
fn check_start_folder() -> Result<(), VerbError> {
    if settings::start_folder::is_gone() { Err(VerbError::NoFolder) } else { Ok(()) }
}

fn no_folder() -> &'static str {
    match settings::start_folder::is_gone() {
        true => {
            "the current folder was removed\nhint: change to another one, or to the one that has its name now: cd \"$PWD\""
        }
        false => "the current folder cannot be named: a folder above it is closed to this user",
    }
}

/// What was asked for, ready to be carried out.
#[derive(Debug)]
pub(super) struct Asked(Verb);

/// Whether this first argument is a verb.
pub(super) fn is_verb(word: &OsStr) -> bool {
    names().any(|name| word == name.as_str())
}

fn names() -> impl Iterator<Item = String> {
    let command = Arguments::command();
    let names = |verb: &clap::Command| {
        std::iter::once(verb.get_name()).chain(verb.get_all_aliases()).map(str::to_owned).collect::<Vec<_>>()
    };
    command.get_subcommands().flat_map(names).collect::<Vec<_>>().into_iter()
}

/// The verbs themselves.
pub(super) fn declared() -> Vec<clap::Command> {
    Arguments::command().get_subcommands().cloned().collect()
}

/// A line for each verb, for the help of the whole.
pub(super) fn summary() -> String {
    let mut lines = vec![
        "Control a running clusterd (details: clusterd list --help; a program named list: clusterd -- list):"
            .to_owned(),
    ];
    let verbs = declared();
    let width = verbs.iter().map(|verb| verb.get_name().len()).max().unwrap_or(0);
    for verb in &verbs {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        lines.push(format!("  {:<width$}  {about}", verb.get_name()));
    }
    lines.join("\n")
}

/// Reads the arguments; the first is the program's name, the second a verb.
///
/// # Errors
/// If they are wrong, or ask for the help.
pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Asked, clap::Error> {
    Ok(Asked(Arguments::try_parse_from(arguments)?.verb))
}

/// What was asked for in the words of PM2; the first is the program's name.
pub(super) fn of_pm2(arguments: &[OsString]) -> Asked {
    Asked(Verb::Dialect(dialect::Dialect::of(arguments)))
}

/// Carries it out.
///
/// # Errors
/// Why not.
pub(super) fn run(Asked(verb): Asked) -> Result<ExitCode, VerbError> {
    // What an event loop needs may be what is missing.
    if let Verb::Doctor(doctor) = verb {
        return doctor.run();
    }
    // They go on for long, or read what may not answer.
    if let Verb::Up(_) | Verb::Web(_) | Verb::Logs(_) | Verb::Monit(_) = verb {
        blocking::begin().map_err(VerbError::Runtime)?;
    }
    let runtime = event_loop::begin().map_err(VerbError::Runtime)?;
    let done = runtime.block_on(carry_out(verb));
    // What a verb needs it has waited for. What is still read for somebody who has left may never end: from a file system that
    // does not answer.
    runtime.shutdown_background();
    done.map(interrupt::code)
}

async fn carry_out(verb: Verb) -> Result<ExitCode, VerbError> {
    match verb {
        Verb::List(list) => list.run().await,
        Verb::Jlist(list) => list.run().await,
        Verb::Prettylist(list) => list.run().await,
        Verb::Describe(describe) => describe.run().await,
        Verb::Env(env) => env.run().await,
        Verb::Pid(pid) => pid.run().await,
        Verb::Id(id) => id.run().await,
        Verb::Ping(ping) => ping.run().await,
        Verb::Reload(reload) => reload.run().await,
        Verb::Restart(restart) => restart.run().await,
        Verb::Scale(scale) => scale.run().await,
        Verb::SendSignal(signal) => signal.run().await,
        Verb::Reset(reset) => reset.run().await,
        Verb::Upgrade(upgrade) => upgrade.run().await,
        Verb::Send(send) => send.run().await,
        Verb::Stop(stop) => stop.run().await,
        Verb::Start(start) => start.run().await,
        Verb::Serve(serve) => serve.run().await,
        Verb::Up(up) => up.run().await,
        Verb::StartOrRestart(start) => start.run().await,
        Verb::StartOrReload(start) => start.run().await,
        Verb::Delete(delete) => delete.run().await,
        Verb::Kill(kill) => kill.run().await,
        Verb::Save(save) => save.run(),
        Verb::Resurrect(resurrect) => resurrect.run().await,
        Verb::Cleardump(clear) => clear.run(),
        Verb::Startup(startup) => startup.run(),
        Verb::Unstartup(unstartup) => unstartup.run(),
        Verb::Connections(connections) => connections.run().await,
        Verb::Events(events) => events.run().await,
        Verb::Logs(logs) => logs.run().await,
        Verb::Monit(monit) => monit.run().await,
        Verb::Web(web) => web.run().await,
        Verb::Flush(flush) => flush.run(),
        Verb::ReloadLogs(reload) => reload.run().await,
        Verb::Curl(curl) => curl.run().await,
        Verb::Init(init) => init.run(),
        Verb::Import(import) => import.run(),
        Verb::Completions(completions) => completions.run(),
        Verb::Doctor(doctor) => doctor.run(),
        Verb::Dialect(dialect) => Box::pin(dialect.run()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declarations_are_sound() {
        Arguments::command().debug_assert();
    }
}
