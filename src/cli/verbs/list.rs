//! `clusterd list`: every app that this user's clusterds run, with its workers.

use std::process::ExitCode;

use super::print::{self, Output, Shape};
use super::{VerbError, choose};
use crate::cli::complain;
use crate::control::api::App;
use crate::control::client;
use crate::control::home::Home;

/// Show every app and its workers [aliases: ls, status]
#[derive(Debug, clap::Args)]
#[command(aliases = ["ls", "status"])]
pub(super) struct List {
    #[command(flatten)]
    shape: Shape,
}

impl List {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        found.errors.iter().for_each(|error| complain(&error.to_string()));
        if self.shape.output == Output::Json {
            let apps: Vec<&App> = found.apps.iter().map(|(_, app)| app).collect();
            print::json(&apps)?;
        } else if found.apps.is_empty() && found.is_certain() {
            print::line("no running clusterd found for this user")?;
        } else if !found.apps.is_empty() {
            let labels = choose::labels(&found.apps).into_iter();
            print::line(&print::workers(labels.zip(found.apps.iter().map(|(_, app)| app))))?;
        }
        Ok(if found.is_certain() || !found.apps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
