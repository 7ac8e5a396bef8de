//! `clusterd id`: the numbers of workers, as `list` shows them.

use std::process::ExitCode;

use super::print::{self, Output, Shape};
use super::{VerbError, rest};
use crate::cli::complain;
use crate::control::client;
use crate::control::home::Home;

/// Print the ids of an app's workers, one a line
#[derive(Debug, clap::Args)]
pub(super) struct Id {
    /// Names of apps or namespaces, patterns such as `/^web/`, or `all`
    #[arg(value_name = "APP", required = true)]
    apps: Vec<String>,

    #[command(flatten)]
    shape: Shape,
}

impl Id {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        let ids = rest::ids();
        let (running, at_rest) = rest::targets(&found, &ids, &self.apps)?;
        let of_running = running.iter().flat_map(|target| {
            let numbers = ids.of_app(&target.app.name).iter().copied();
            (1..).zip(numbers).filter(|(worker, _)| target.is_meant(*worker)).map(|(_, id)| id)
        });
        let of_resting = at_rest.iter().flat_map(|folder| ids.of_app(folder.name())).copied();
        let meant: Vec<u32> = of_running.chain(of_resting).collect();
        match self.shape.output {
            Output::Json => print::json(&meant)?,
            Output::Text => meant.iter().try_for_each(|id| print::line(&id.to_string()))?,
        }
        if meant.is_empty() {
            complain(&format!(
                "{}: its workers have no ids\nhint: apps have them that were given a name or are in the background",
                self.apps.join(", ")
            ));
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}
