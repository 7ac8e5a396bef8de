//! `clusterd restart`: ends workers and starts them again.

use std::process::ExitCode;

use super::order::{Order, UpdateEnv};
use super::{VerbError, whole};
use crate::ids::Slot;
use crate::supervisor::Command;

/// Stop every worker, or one, and start it again
#[derive(Debug, clap::Args)]
pub(super) struct Restart {
    #[command(flatten)]
    order: Order,

    /// Only this worker
    #[arg(long, short, value_name = "N", conflicts_with = "update_env", value_parser = whole::worker, allow_negative_numbers = true)]
    worker: Option<u32>,

    #[command(flatten)]
    environment: UpdateEnv,
}

impl Restart {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let with = self.environment.given().map(Command::RestartWith);
        self.order.carry_out(with.unwrap_or(Command::Restart(self.worker.map(Slot)))).await
    }
}
