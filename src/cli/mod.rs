//! The command line: what was asked for, done or handed on, with one exit code and one place that prints errors.
//!
//! Arguments are declared in [`arguments`]; what their values mean is known in [`crate::settings`]. `verbs` control a
//! running clusterd. Serving is the caller's: it is passed in.

pub(crate) mod arguments;
mod pm2;
mod verbs;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::controls;
use crate::home::apps::Apps;
use crate::home::lock::{Lock, LockError};
use crate::home::{Given, Held, Starter};
use crate::logs::console::Label;
use crate::logs::look::Look;
use crate::settings::command::{self, CommandError};
use crate::settings::error::Invalid;
use crate::settings::load::{CommandLine, Told};
use crate::settings::origin::Origin;
use crate::settings::resolve::Resolved;
use crate::settings::table::keys;
use crate::settings::workplace::WorkplaceError;
use crate::settings::{Config, load, show, start_folder};
use crate::supervisor::identity::{Account, Identity, IdentityError};
use crate::supervisor::triggers::watch::{self, WatchError};
use arguments::Arguments;

/// What the arguments ask for.
#[derive(Debug)]
enum Action {
    /// Print the help or the version, which clap delivers as an error.
    Explain(clap::Error),
    /// Find errors, print nothing else.
    Check(Config),
    /// Print every value and where it comes from.
    ShowConfig(Resolved),
    /// Control a running clusterd.
    Say(verbs::Asked),
    /// The main job, and what to read the configuration from again.
    Serve(Resolved, CommandLine),
}

/// Why nothing was served.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The arguments are wrong.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The workers' program is, or what leads to it.
    #[error(transparent)]
    Workplace(#[from] WorkplaceError),
    /// The workers' program is; it may have been meant for a verb.
    #[error("cannot start {word}: not found in PATH\nhint: {}", verbs::words::advice(word))]
    Mistyped {
        /// What is not found.
        word: String,
    },
    /// It is what another tool calls a verb.
    #[error(
        "clusterd has no command {word}\nhint: {} A program of this name is run with `clusterd -- {word}`",
        verbs::words::advice(word)
    )]
    OfOthers {
        /// What was asked for.
        word: String,
    },
    /// An app of a home folder that is not whole.
    #[error("{}: {what}\nhint: start the app anew with its script or command, or put right what is missing", .file.display())]
    NotDefined {
        /// Its settings.
        file: std::path::PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Nobody here is whom workers, or clusterd, are to run as.
    #[error(transparent)]
    Users(#[from] IdentityError),
    /// What is to be watched is not there.
    #[error(transparent)]
    Watched(#[from] WatchError),
    /// The app runs already.
    #[error("{0}\nhint: another name makes it another app: --name NAME")]
    Held(#[from] LockError),
    /// A verb was not carried out.
    #[error(transparent)]
    Verb(#[from] verbs::VerbError),
    /// The terminal, pipe or file is gone or full.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// A program that is not found, and was the first argument, may have been meant for a verb; a name with a dot or a
    /// slash was not.
    fn or_mistyped(self, first: Option<&OsStr>) -> Self {
        match &self {
            CliError::Workplace(WorkplaceError::Command(CommandError::NotInPath { program, .. }))
                if first == Some(program.as_os_str()) && !program.as_encoded_bytes().contains(&b'.') =>
            {
                program.to_str().map(|word| CliError::Mistyped { word: word.to_owned() }).unwrap_or(self)
            }
            _ => self,
        }
    }
}

/// Does what the arguments (the first is the program's name) ask for; `serve` does the main job.
///
/// Exits with 0; with 2 for wrong arguments, 78 for a wrong environment or file, or settings that do not go together; 126 and 127 for a command that
/// cannot be executed or found, 1 for anything else; or as `serve` says.
pub(crate) fn run(
    arguments: impl Iterator<Item = OsString>,
    serve: impl FnOnce(Told, Given) -> u8,
) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    let first = arguments.get(1).cloned();
    let done = asked(arguments).and_then(|action| act(action, serve));
    done.unwrap_or_else(|failure| ExitCode::from(report(&failure.or_mistyped(first.as_deref()), &complain)))
}

/// Runs one app from this command line, for another clusterd that has started this one; `serve` does the main job.
pub(crate) fn run_app(command_line: CommandLine, given: Given, serve: impl FnOnce(Told, Given) -> u8) -> u8 {
    let again = command_line.clone();
    let loaded = load::load(command_line).map_err(CliError::from).and_then(|resolved| {
        for warning in &resolved.warnings {
            let label = given.console.as_ref().map(|console| &console.label);
            complain_as(label, &format!("warning: {warning}"));
        }
        given
            .held
            .iter()
            .filter(|held| held.starter.keeps_app())
            .try_for_each(|held| check(&resolved, held))?;
        find_program(&resolved.config)?;
        let Resolved { config, carried: settings, .. } = resolved;
        Ok(Told { config, settings, command_line: again })
    });
    match loaded {
        Ok(told) => serve(told, given),
        Err(failure) => {
            let label = given.console.map(|console| console.label);
            let code = report(&failure, &|message| complain_as(label.as_ref(), message));
            given.held.iter().for_each(|held| held.ends(code));
            code
        }
    }
}

/// Who has edited an app's file, or lost it, is not to get another app on a port of its own.
fn check(resolved: &Resolved, held: &Held) -> Result<(), CliError> {
    let what = match resolved.command {
        Origin::Default => "names no command",
        _ if resolved.config.name != held.folder.name() => "has the name of another app",
        _ => return Ok(()),
    };
    Err(CliError::NotDefined { file: held.folder.definition(), what })
}

fn asked(arguments: Vec<OsString>) -> Result<Action, CliError> {
    if arguments.first().is_some_and(|program| is_called_pm2(program)) {
        return Ok(Action::Say(verbs::of_pm2(&arguments)));
    }
    let arguments = as_flags(arguments);
    let explain =
        |asked: clap::Error| if asked.use_stderr() { Err(asked.into()) } else { Ok(Action::Explain(asked)) };
    if arguments.get(1).is_some_and(|first| verbs::is_verb(first)) {
        return verbs::parse(arguments.into_iter()).map_or_else(explain, |verb| Ok(Action::Say(verb)));
    }
    let first = arguments.get(1).and_then(|first| first.to_str());
    if let Some(word) = first.filter(|first| verbs::words::is_of_others(first)) {
        return Err(CliError::OfOthers { word: word.to_owned() });
    }
    let arguments = match Arguments::parse(arguments.into_iter()) {
        Ok(arguments) => arguments,
        Err(asked) => return explain(asked),
    };
    let command_line = CommandLine { folder: start_folder::of_this_process(), ..arguments.command_line };
    let resolved = load::load(command_line.clone())?;
    resolved.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    Ok(if arguments.check {
        Action::Check(resolved.config)
    } else if arguments.show_config {
        Action::ShowConfig(resolved)
    } else {
        Action::Serve(resolved, command_line)
    })
}

/// A link of this name has clusterd speak PM2's dialect.
fn is_called_pm2(program: &OsStr) -> bool {
    std::path::Path::new(program).file_name() == Some(OsStr::new("pm2"))
}

/// `clusterd help`, `clusterd help VERB` and `clusterd version` are what most tools have.
fn as_flags(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let words: Vec<_> = arguments.iter().skip(1).map(|word| word.to_str().unwrap_or_default()).collect();
    match words[..] {
        ["help"] => arguments[1] = "--help".into(),
        ["version"] => arguments[1] = "--version".into(),
        ["help", verb] if verbs::is_verb(verb.as_ref()) => {
            arguments.swap(1, 2);
            arguments[2] = "--help".into();
        }
        _ => {}
    }
    arguments
}

fn act(action: Action, serve: impl FnOnce(Told, Given) -> u8) -> Result<ExitCode, CliError> {
    match action {
        Action::Explain(text) => {
            text.print()?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Check(config) => {
            let first = look_for_errors(&config, &complain);
            Ok(first.map_or(ExitCode::SUCCESS, ExitCode::from))
        }
        Action::ShowConfig(resolved) => {
            io::stdout().write_all(controls::blanked_lines(&show::table(&resolved)).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Say(verb) => Ok(verbs::run(verb)?),
        Action::Serve(resolved, command_line) => {
            find_program(&resolved.config)?;
            let held = hold(&resolved)?;
            let Resolved { config, carried: settings, .. } = resolved;
            let told = Told { config, settings, command_line };
            Ok(serve(told, Given { held, ..Given::default() }).into())
        }
    }
}

/// An app that was given a name runs once in a home folder. Without one, or where the folder cannot be written, several may.
fn hold(resolved: &Resolved) -> Result<Option<Held>, LockError> {
    let named = resolved.values.get(keys::name.key.name).into_iter().flatten();
    if named.filter(|value| value.origin != Origin::Default && value.text != "auto").count() == 0 {
        return Ok(None);
    }
    let Ok(apps) = Apps::of_this_process() else { return Ok(None) };
    let folder = apps.app(&resolved.config.name);
    match Lock::take(&folder) {
        Ok(lock) => Ok(Some(Held::new(folder, lock, Starter::Foreground))),
        Err(LockError::Unusable { .. }) => Ok(None),
        Err(held) => Err(held),
    }
}

/// Tells what `--check` finds beside what is read. What to exit with, if there is something.
fn look_for_errors(config: &Config, complain: &dyn Fn(&str)) -> Option<u8> {
    let looked = [
        find_program(config).map_err(CliError::from),
        find_users(config).map_err(CliError::from),
        find_watched(config).map_err(CliError::from),
    ];
    // All of it is told.
    let codes = looked.into_iter().filter_map(Result::err).map(|failure| report(&failure, complain));
    codes.reduce(|first, _| first)
}

/// What can be looked for is looked for before anything is started.
fn find_program(config: &Config) -> Result<(), WorkplaceError> {
    config.workplace().find(&config.command, std::env::var_os("PATH")).map(drop)
}

/// Whether clusterd may start workers as these is for the start to say: who checks may be somebody else.
fn find_users(config: &Config) -> Result<(), IdentityError> {
    Identity::beside(Account::of_this_process(), config.user.as_deref(), config.group.as_deref())?;
    config.primary_user.as_deref().map(Identity::of_primary).transpose()?;
    Ok(())
}

fn find_watched(config: &Config) -> Result<(), WatchError> {
    watch::check_patterns(&config.ignore)?;
    config.watch.iter().map(|path| config.in_start_folder(path)).try_for_each(|path| {
        fs::metadata(&path).map(drop).map_err(|source| WatchError::Path { path, source })
    })
}

/// Prints what is wrong, each problem as `clusterd: ...`, and says what to exit with.
fn report(failure: &CliError, complain: &dyn Fn(&str)) -> u8 {
    match failure {
        CliError::Arguments(error) => {
            let text = error.to_string();
            complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            2
        }
        CliError::Invalid(invalid) => {
            for problem in invalid.problems() {
                complain(&problem.to_string());
            }
            invalid.exit_code()
        }
        CliError::Workplace(error) => {
            complain(&error.to_string());
            error.exit_code()
        }
        CliError::Mistyped { .. } => {
            complain(&failure.to_string());
            command::NOT_FOUND
        }
        CliError::OfOthers { .. } => {
            complain(&failure.to_string());
            2
        }
        CliError::NotDefined { .. } => {
            complain(&failure.to_string());
            78
        }
        CliError::Verb(failure) => {
            failure.complaints().iter().for_each(|complaint| complain(complaint));
            failure.exit_code()
        }
        // Whoever read it has read enough: `clusterd --help | head`.
        CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        CliError::Held(_) | CliError::Users(_) | CliError::Watched(_) | CliError::Output(_) => {
            complain(&failure.to_string());
            1
        }
    }
}

/// Prints what is wrong to standard error; with that gone there is nobody left to tell.
pub(crate) fn complain(message: &str) {
    complain_as(None, message);
}

/// The same, with a label before each line where others write to standard error, too.
pub(crate) fn complain_as(label: Option<&Label>, message: &str) {
    let prefix = label.map(|label| label.prefix(Look::of(io::stderr()), None)).unwrap_or_default();
    let message = format!("clusterd: {}", controls::blanked_lines(message));
    let lines: String = message.lines().map(|line| format!("{prefix}{line}\n")).collect();
    // At once: a line of another app does not come between.
    let _ = io::stderr().write_all(lines.as_bytes());
}
