//! The `clusterd` command: what runs, and what it exits with.

use std::process::ExitCode;

use clusterd::settings::Config;
use clusterd::settings::load::CommandLine;
use clusterd::supervisor::{guardian, spawn};
use clusterd::{cli, demo, primary};

fn main() -> ExitCode {
    let verb = std::env::args_os().nth(1);
    match verb.as_deref().and_then(|verb| verb.to_str()) {
        Some(spawn::DEMO_VERB) => demo::demo_main(),
        Some(guardian::VERB) => guardian::guardian_main(std::env::args_os().skip(2)),
        _ => cli::run(std::env::args_os(), serve),
    }
}

fn serve(config: Config, command_line: CommandLine) -> ExitCode {
    match primary::run(config, command_line) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            cli::complain(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}
