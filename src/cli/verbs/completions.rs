//! `clusterd completions`: a script that makes a shell complete flags and verbs.
//!
//! It needs no running clusterd.

use std::process::ExitCode;

use clap_complete::Shell;

use super::VerbError;
use super::print;
use crate::cli::arguments;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell that reads the script
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut arguments::everything(), "clusterd", &mut script);
        print::bytes(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
