//! The `clusterd` command: what runs, and what it exits with.

use std::process::ExitCode;

use clusterd::config::Config;
use clusterd::supervisor::spawn::DEMO_VERB;
use clusterd::{cli, demo, primary};

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == DEMO_VERB) {
        return demo::demo_main();
    }
    cli::run(std::env::args_os(), serve)
}

fn serve(config: Config) -> ExitCode {
    match primary::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::complain(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}
