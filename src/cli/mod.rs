//! The command line: what was asked for, done or handed on, with one exit code and one place that prints errors.
//!
//! Arguments are declared in [`arguments`]; what their values mean is known in [`crate::config`]. Serving is the
//! caller's: it is passed in.

pub mod arguments;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::command::{self, CommandError};
use crate::config::error::Invalid;
use crate::config::load::CommandLine;
use crate::config::resolve::Resolved;
use crate::config::{Config, load, show};
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
    /// The main job, and what to read the configuration from again.
    Serve(Config, CommandLine),
}

/// Why nothing was served.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The arguments are wrong.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The workers' program is.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The terminal, pipe or file is gone or full.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Does what the arguments (the first is the program's name) ask for; `serve` does the main job.
///
/// Exits with 0; with 2 for wrong arguments, 78 for a wrong environment or file, 126 and 127 for a command that
/// cannot be executed or found, 1 for anything else; or as `serve` says.
pub fn run(
    arguments: impl Iterator<Item = OsString>,
    serve: impl FnOnce(Config, CommandLine) -> ExitCode,
) -> ExitCode {
    let done = asked(arguments).and_then(|action| act(action, serve));
    done.unwrap_or_else(|failure| report(&failure))
}

fn asked(arguments: impl Iterator<Item = OsString>) -> Result<Action, Failure> {
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(asked) if !asked.use_stderr() => return Ok(Action::Explain(asked)),
        Err(error) => return Err(error.into()),
    };
    let resolved = load::load(arguments.command_line.clone())?;
    Ok(if arguments.check {
        Action::Check(resolved.config)
    } else if arguments.show_config {
        Action::ShowConfig(resolved)
    } else {
        Action::Serve(resolved.config, arguments.command_line)
    })
}

fn act(action: Action, serve: impl FnOnce(Config, CommandLine) -> ExitCode) -> Result<ExitCode, Failure> {
    match action {
        Action::Explain(text) => {
            text.print()?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Check(config) => {
            command::find_for(&config.command)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::ShowConfig(resolved) => {
            io::stdout().write_all(show::table(&resolved).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Serve(config, command_line) => {
            command::find_for(&config.command)?;
            Ok(serve(config, command_line))
        }
    }
}

/// Prints what is wrong, each problem as `clusterd: ...`, and says what to exit with.
fn report(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Arguments(error) => {
            let text = error.to_string();
            complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            ExitCode::from(2)
        }
        Failure::Invalid(invalid) => {
            for problem in invalid.problems() {
                complain(&problem.to_string());
            }
            ExitCode::from(invalid.exit_code())
        }
        Failure::Command(error) => {
            complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
        Failure::Output(_) => {
            complain(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Prints what is wrong to standard error; with that gone there is nobody left to tell.
pub fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "clusterd: {message}");
}
