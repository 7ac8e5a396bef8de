//! Starts the primary of an app, detached from whoever starts it or as a service; and what that process does first.
//!
//! A detached one has a session of its own, the app's variables and none of the starter's, and the app's logs as its output. A
//! service has the app's variables before those of the service manager, and that manager's output. The lock comes with its
//! standard input.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use super::apps::{AppFolder, Apps, NoHome};
use super::lock::{Lock, LockError};
use super::record::Record;
use super::{Given, Held, Starter, definition};
use crate::cli::complain;
use crate::control::home::HOME_VARIABLE;
use crate::logs::plan::OWN;
use crate::settings::load::CommandLine;
use crate::settings::origin::{Layer, Origin, Value};
use crate::settings::parse::is_name;
use crate::settings::start_folder;
use crate::settings::table::keys;
use crate::supervisor::Environment;
use crate::supervisor::guardian::{Forked, Waiting};
use crate::sys::process::{duplicate, own_program};

/// The hidden verb with which clusterd runs an app of its home folder: `primary NAME` as a service, and `primary FOLDER` with
/// the lock.
pub(crate) const VERB: &str = "primary";

/// What stands behind the folder of a service.
const SERVICE: &str = "service";

/// How long a process that was killed may take to close what it had.
const CLOSING: Duration = Duration::from_secs(1);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Starts the primary. The lock goes with it.
///
/// # Errors
/// Its files cannot be read or written, the folder that it is to run in is gone, or there is no room for a process.
pub(crate) fn spawn(app: &AppFolder, lock: Lock) -> io::Result<Child> {
    let environment = definition::environment(app)?;
    let mut command = command(app, lock, &environment);
    command.env_clear().envs(environment.iter()).env(HOME_VARIABLE, app.home());
    command.stdout(app.log(OWN)?).stderr(app.log(OWN)?);
    command.spawn().map_err(|error| or_no_folder(error, &command))
}

/// Becomes the primary of an app that a service manager has started: it keeps its process, and what it was told.
fn become_service(app: &AppFolder) -> Result<Infallible, NotRun> {
    if !app.is_defined() {
        return Err(NotRun::NoApp { app: app.name().to_owned(), home: app.home().to_owned() });
    }
    let lock = Lock::take(app)?;
    let cannot = |source| NotRun::NotStarted { app: app.name().to_owned(), source };
    let environment = definition::environment(app).map_err(cannot)?;
    let mut command = command(app, lock, &environment);
    command.arg(SERVICE).envs(environment.iter()).env(HOME_VARIABLE, app.home());
    let error = command.exec();
    Err(cannot(or_no_folder(error, &command)))
}

fn command(app: &AppFolder, lock: Lock, environment: &Environment) -> Command {
    let folder = environment.get("PWD").cloned().unwrap_or_else(|| "/".into());
    let mut command = Command::new(own_program());
    command.arg0("clusterd").arg(VERB).arg(app.path());
    command.current_dir(folder).stdin(lock.into_descriptor());
    command
}

fn or_no_folder(error: io::Error, command: &Command) -> io::Error {
    match command.get_current_dir() {
        Some(folder) if !folder.is_dir() => {
            io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
        }
        _ => error,
    }
}

/// Why the app of a service is not run.
#[derive(Debug, thiserror::Error)]
enum NotRun {
    #[error("there is no app {app} in {}\nhint: it was deleted, or belongs to another user or folder (CLUSTERD_HOME)", .home.display())]
    NoApp { app: String, home: PathBuf },
    #[error("no app can be called {0:?}")]
    NoName(String),
    #[error(transparent)]
    NoHome(#[from] NoHome),
    #[error(transparent)]
    Locked(#[from] LockError),
    #[error("cannot start app {app}: {source}")]
    NotStarted { app: String, source: io::Error },
}

impl NotRun {
    /// That of a wrong configuration where it is useless to try again.
    fn exit_code(&self) -> u8 {
        match self {
            NotRun::NoApp { .. } | NotRun::NoName(_) | NotRun::NoHome(_) => 78,
            NotRun::Locked(_) | NotRun::NotStarted { .. } => 1,
        }
    }
}

/// Runs an app of its home folder: `arguments` are those after the verb, the app's name, or its folder with the lock as standard
/// input. `serve` does the main job.
pub(crate) fn primary_main(
    mut arguments: impl Iterator<Item = OsString>,
    serve: impl FnOnce(CommandLine, Given) -> u8,
) -> ExitCode {
    let Some(app) = arguments.next() else { return ExitCode::from(2) };
    let Some(folder) = AppFolder::at(Path::new(&app)) else {
        let Err(failure) = of_name(&app).and_then(|app| become_service(&app));
        complain(&failure.to_string());
        return failure.exit_code().into();
    };
    let starter = match arguments.next() {
        Some(word) if word == SERVICE => Starter::Service,
        _ => Starter::Detached,
    };
    // It was started as /proc/self/exe: the name is for people who look at a list of processes.
    let _ = rustix::thread::set_name(c"clusterd");
    if starter == Starter::Detached {
        // A terminal that is closed, and Ctrl-C in it, are nothing to this process. It fails only if that is so already.
        let _ = rustix::process::setsid();
    }
    let guardian = match Waiting::fork(start_again) {
        Ok(Forked::There(code)) => return code,
        Ok(Forked::Here(guardian)) => Some(guardian),
        // One is executed later.
        Err(_) => None,
    };
    let lock = match standard_input() {
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
    let held = Some(Held::new(folder, lock, starter));
    serve(command_line, Given { held, guardian, ..Given::default() }).into()
}

fn of_name(name: &OsStr) -> Result<AppFolder, NotRun> {
    match name.to_str().filter(|name| is_name(name)) {
        Some(name) => Ok(Apps::of_this_process()?.app(name)),
        None => Err(NotRun::NoName(name.to_string_lossy().into_owned())),
    }
}

/// Starts the primary of the app in this folder again: the one before has crashed. Its guardian does so.
pub(crate) fn start_again(folder: &Path) {
    let Some(app) = AppFolder::at(folder) else { return };
    let mut is_mended = false;
    let noted = Record::change(&app, |record| is_mended = record.crashed(SystemTime::now()));
    if let (Ok(()), true, Some(lock)) = (noted, is_mended, lock_of_dead(&app)) {
        let _ = spawn(&app, lock);
    }
}

/// The lock that a process had which is dead: the kernel closes what it had one by one, and some of it is told of before. Whoever
/// has the lock by then has started the app, or does.
fn lock_of_dead(app: &AppFolder) -> Option<Lock> {
    let until = Instant::now() + CLOSING;
    loop {
        match Lock::take(app) {
            Ok(lock) => return Some(lock),
            Err(LockError::Held { .. }) if Instant::now() < until => std::thread::sleep(LOOK),
            Err(_) => return None,
        }
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
