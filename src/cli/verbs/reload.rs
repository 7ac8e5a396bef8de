//! `clusterd reload`: new workers in the place of the old ones, without a request lost.

use std::process::ExitCode;

use super::VerbError;
use super::order::{Order, UpdateEnv};
use crate::supervisor::Command;

/// Replace every worker; each new worker is ready before the old one is drained
#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    #[command(flatten)]
    order: Order,

    #[command(flatten)]
    environment: UpdateEnv,
}

impl Reload {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let with = self.environment.given().map(Command::ReloadWith);
        self.order.carry_out(with.unwrap_or(Command::Reload)).await
    }
}
