//! Starts the primary of an app, detached from whoever starts it; and what that process does first.
//!
//! It has a session of its own, the app's variables and none of the starter's, and the app's logs as its output. The lock comes
//! with its standard input.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::SystemTime;

use super::apps::AppFolder;
use super::lock::Lock;
use super::record::Record;
use super::{Given, Held, definition};
use crate::cli::complain;
use crate::control::home::HOME_VARIABLE;
use crate::logs::plan::OWN;
use crate::settings::load::CommandLine;
use crate::settings::origin::{Layer, Origin, Value};
use crate::settings::start_folder;
use crate::settings::table::keys;
use crate::supervisor::guardian::{Forked, Waiting};
use crate::sys::process::{duplicate, own_program};

/// The hidden verb with which clusterd runs an app of its home folder.
pub(crate) const VERB: &str = "primary";

/// Starts the primary. The lock goes with it.
///
/// # Errors
/// Its files cannot be read or written, the folder that it is to run in is gone, or there is no room for a process.
pub(crate) fn spawn(app: &AppFolder, lock: Lock) -> io::Result<Child> {
    let environment = definition::environment(app)?;
    let folder = environment.get("PWD").cloned().unwrap_or_else(|| "/".into());
    let mut command = Command::new(own_program());
    command.arg0("clusterd").arg(VERB).arg(app.path());
    command.env_clear().envs(environment.iter()).env(HOME_VARIABLE, app.home()).current_dir(&folder);
    command.stdin(lock.into_descriptor()).stdout(app.log(OWN)?).stderr(app.log(OWN)?);
    command.spawn().map_err(|error| match Path::new(&folder).is_dir() {
        true => error,
        false => io::Error::new(error.kind(), format!("{}: {error}", folder.display())),
    })
}

/// Runs an app of its home folder: `arguments` are those after the verb, the app's folder. `serve` does the main job.
pub(crate) fn primary_main(
    mut arguments: impl Iterator<Item = OsString>,
    serve: impl FnOnce(CommandLine, Given) -> u8,
) -> ExitCode {
    let Some(folder) = arguments.next().and_then(|path| AppFolder::at(Path::new(&path))) else {
        return ExitCode::from(2);
    };
    // It was started as /proc/self/exe: the name is for people who look at a list of processes.
    let _ = rustix::thread::set_name(c"clusterd");
    // A terminal that is closed, and Ctrl-C in it, are nothing to this process.
    let in_session = rustix::process::setsid().map_err(io::Error::from);
    let guardian = match Waiting::fork(start_again) {
        Ok(Forked::There(code)) => return code,
        Ok(Forked::Here(guardian)) => Some(guardian),
        // One is executed later.
        Err(_) => None,
    };
    let detached = in_session.and_then(|_| standard_input());
    let lock = match detached {
        Ok(descriptor) => Lock::passed_on(descriptor),
        Err(error) => {
            complain(&format!("cannot run app {}: {error}", folder.name()));
            return ExitCode::FAILURE;
        }
    };
    let _ = Record::change(&folder, |record| record.ended = None);
    let mut flags = Layer::default();
    if let Some(workers) = Record::of(&folder).workers {
        let key = keys::workers.key.name;
        flags.add(Value::new(key, workers.to_string(), Origin::Flag(key)));
    }
    let command_line = CommandLine {
        flags,
        config: Some(folder.definition()),
        is_only_file: true,
        folder: start_folder::of_this_process(),
        ..CommandLine::default()
    };
    serve(command_line, Given { held: Some(Held::new(folder, lock, true)), guardian, ..Given::default() })
        .into()
}

/// Starts the primary of the app in this folder again: the one before has crashed. Its guardian does so.
pub(crate) fn start_again(folder: &Path) {
    let Some(app) = AppFolder::at(folder) else { return };
    let mut is_mended = false;
    let noted = Record::change(&app, |record| is_mended = record.crashed(SystemTime::now()));
    // Whoever has the lock by now has started it, or does.
    if let (Ok(()), true, Ok(lock)) = (noted, is_mended, Lock::take(&app)) {
        let _ = spawn(&app, lock);
    }
}

/// What came as standard input, which then is /dev/null.
///
/// # Errors
/// Those of fcntl(2), open(2) and dup2(2).
pub(crate) fn standard_input() -> io::Result<OwnedFd> {
    let given = duplicate(0)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(given)
}
