//! One app of `clusterd up`: how its primary is started, and what that process does first.
//!
//! Its settings come in a file that has no name, its lock as standard input, and its variables are those of `up`. It ends when
//! `up` does.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Resource, Signal};
use serde::{Deserialize, Serialize};

use crate::carry::CarriedFd;
use crate::control::home::HOME_VARIABLE;
use crate::home::apps::AppFolder;
use crate::home::launch::standard_input;
use crate::home::lock::Lock;
use crate::home::{Given, Held, Starter};
use crate::logs::console::{Console, Label, Turn, TurnFile};
use crate::settings::load::CommandLine;
use crate::settings::{LogFormat, LogLevel, start_folder};
use crate::supervisor::Environment;
use crate::sys::process::{ChildSetup, duplicate, ended_input, inherit, own_program, path_of_number};
use crate::sys::signals;

/// The hidden verb with which `clusterd up` runs itself as the primary of an app.
pub(crate) const VERB: &str = "app-of-up";

/// An app that is to run.
#[derive(Debug)]
pub(crate) struct App {
    /// What it is called.
    pub name: String,
    /// Its settings, as a file has them.
    pub settings: String,
    /// How many workers it begins with.
    pub workers: u32,
    /// How long a worker may take to be ready.
    pub ready_timeout: Duration,
    /// How its messages look.
    pub log_format: LogFormat,
    /// Which messages there are.
    pub log_level: LogLevel,
    /// The places of those that have to be ready first.
    pub needs: Vec<usize>,
}

/// What its primary is told, as its only argument.
#[derive(Debug, Serialize, Deserialize)]
struct Handed {
    /// The app's folder, if its lock is the standard input.
    folder: Option<PathBuf>,
    /// The descriptor of its settings.
    settings: u32,
    /// Before each of its lines.
    label: Label,
    /// Descriptors of its turns to write to stdout and stderr.
    turns: [u32; 2],
}

/// Every signal that is passed on to primaries: none of them ends one that has just been started.
const PASSED_ON: [Signal; 9] = [
    Signal::INT,
    Signal::TERM,
    Signal::QUIT,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::TTIN,
    Signal::TTOU,
    Signal::WINCH,
];

/// A file without a name for the settings of an app.
///
/// # Errors
/// Those of memfd_create(2) and write(2).
pub(super) fn settings_file(settings: &str) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(c"app.toml", MemfdFlags::CLOEXEC)?;
    write_settings(&file, settings)?;
    Ok(file)
}

/// Puts others in their place. The primary reads them when it is reloaded.
///
/// # Errors
/// Those of write(2) and ftruncate(2).
pub(super) fn write_settings(file: &OwnedFd, settings: &str) -> io::Result<()> {
    let file = std::fs::File::from(file.try_clone()?);
    file.write_all_at(settings.as_bytes(), 0)?;
    file.set_len(settings.len() as u64)
}

/// Starts the primary of an app, in a process group of its own: a terminal speaks to `up` alone. The lock goes with it. To be
/// called by the main thread: the primary ends with the thread that has started it.
///
/// # Errors
/// There is no room for a descriptor or a process.
pub(super) fn spawn(
    settings: &OwnedFd,
    label: Label,
    home: Option<(&AppFolder, Lock)>,
    turns: &[TurnFile; 2],
) -> io::Result<Pid> {
    let mut command = Command::new(own_program());
    let mut turn =
        |file: &TurnFile| Ok::<_, io::Error>(inherit(&mut command, file.turn()?.into_descriptor()));
    let turns = [turn(&turns[0])?, turn(&turns[1])?];
    let (folder, input) = match home {
        Some((folder, lock)) => (Some(folder.path()), lock.into_descriptor().into()),
        None => (None, ended_input()?),
    };
    let settings = inherit(&mut command, settings.try_clone()?);
    let handed = Handed { folder, settings, label, turns };
    command.arg0(env!("CARGO_PKG_NAME")).arg(VERB).arg(serde_json::to_string(&handed)?);
    let own = Environment::of_this_process();
    command.env_clear().envs(own.passed_on().iter());
    command.envs(own.get(HOME_VARIABLE).map(|home| (HOME_VARIABLE, home)));
    command.stdin(input);
    ChildSetup::new(Signal::TERM, rustix::process::getrlimit(Resource::Nofile)).apply_to(&mut command);
    signals::hold_back(&mut command, &PASSED_ON);
    Ok(Pid::from_child(&command.spawn()?))
}

/// Runs an app of `clusterd up`: `arguments` are those after the verb. `serve` does the main job.
pub(crate) fn app_main(
    mut arguments: impl Iterator<Item = OsString>,
    serve: impl FnOnce(CommandLine, Given) -> u8,
) -> ExitCode {
    let handed = arguments.next().and_then(|text| serde_json::from_str::<Handed>(text.to_str()?).ok());
    let Some(Handed { folder, settings, label, turns }) = handed else {
        return ExitCode::from(2);
    };
    // It was started as /proc/self/exe: the name is for people who look at a list of processes.
    let _ = rustix::thread::set_name(c"clusterd");
    let turns = turns.map(|turn| duplicate(turn).ok().map(Turn::passed_on));
    let held = folder.as_deref().and_then(AppFolder::at).and_then(|folder| {
        let lock = Lock::passed_on(standard_input().ok()?);
        Some(Held::new(folder, lock, Starter::Foreground))
    });
    let console = Some(Console { label, turns });
    let numbered = i32::try_from(settings).map(CarriedFd::numbered).into_iter().collect();
    let command_line = CommandLine {
        config: Some(path_of_number(settings)),
        is_only_file: true,
        folder: start_folder::of_this_process(),
        ..CommandLine::default()
    };
    serve(command_line, Given { held, console, guardian: None, numbered }).into()
}
