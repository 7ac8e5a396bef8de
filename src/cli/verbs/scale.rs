//! `clusterd scale`: more or fewer workers.

use std::process::ExitCode;

use super::Failure;
use super::order::Order;
use super::print::Shape;
use crate::control::api::Workers;
use crate::supervisor::Command;

/// Have N workers, or N more or fewer
#[derive(Debug, clap::Args)]
#[command(override_usage = "clusterd scale [OPTIONS] [APP] N|+N|-N")]
pub(super) struct Scale {
    /// The app's name, the pid of its clusterd, or all; not needed where only one runs. Then how many workers
    #[arg(value_names = ["APP", "N"], num_args = 0..=2, allow_negative_numbers = true)]
    words: Vec<String>,

    #[command(flatten)]
    shape: Shape,
}

impl Scale {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let Some((workers, app)) = self.words.split_last() else {
            return Err(Failure::Usage(
                "scale to how many workers? 4 for four, +1 for one more, -1 for one fewer".to_owned(),
            ));
        };
        let Workers(scale) = workers.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
        let order = Order { app: app.first().cloned(), shape: self.shape };
        order.carry_out(Command::Scale(scale)).await
    }
}
