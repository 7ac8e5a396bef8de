//! `clusterd scale`: more or fewer workers.

use std::process::ExitCode;

use super::VerbError;
use super::app::one_app;
use super::order::Order;
use super::print::Shape;
use crate::control::api::Workers;
use crate::supervisor::Command;

/// Set the number of workers, or add or remove some
#[derive(Debug, clap::Args)]
#[command(override_usage = "clusterd scale [OPTIONS] [APP] N|+N|-N")]
pub(super) struct Scale {
    /// Name of the app, the pid of its clusterd, or `all` (not needed if only one app is running), and the number of
    /// workers
    #[arg(value_names = ["APP", "N"], num_args = 0..=2, allow_negative_numbers = true)]
    words: Vec<String>,

    /// The same as APP
    #[arg(long, value_name = "APP")]
    name: Option<String>,

    #[command(flatten)]
    shape: Shape,
}

impl Scale {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let Some((workers, app)) = self.words.split_last() else {
            return Err(VerbError::Usage(
                "no number of workers given\nhint: use 4 for four, +1 for one more, -1 for one fewer"
                    .to_owned(),
            ));
        };
        let app = one_app(app.first(), self.name.as_ref())?;
        let Workers(scale) = workers.parse().map_err(|error| VerbError::Usage(format!("{error}")))?;
        Order::of(app, self.shape).carry_out(Command::Scale(scale)).await
    }
}
