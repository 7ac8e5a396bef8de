//! `clusterd ping`: whether any clusterd of this user answers.

use std::process::ExitCode;

use serde_json::json;

use super::VerbError;
use super::print::{self, Output, Shape};
use crate::cli::complain;
use crate::control::client;
use crate::control::home::Home;

/// Tell how many clusterds of this user answer; fails if none does
#[derive(Debug, clap::Args)]
pub(super) struct Ping {
    #[command(flatten)]
    shape: Shape,
}

impl Ping {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        found.errors.iter().for_each(|error| complain(&error.to_string()));
        let answering = found.apps.len();
        match self.shape.output {
            Output::Json => print::json(&json!({ "clusterds": answering }))?,
            Output::Text if answering == 1 => print::line("1 clusterd answers")?,
            Output::Text => print::line(&format!("{answering} clusterds answer"))?,
        }
        Ok(if answering > 0 && found.is_certain() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
