//! `clusterd reload`: new workers in the place of the old ones, without a request lost.

use std::process::ExitCode;

use super::Failure;
use super::order::Order;
use crate::supervisor::Command;

/// Replace every worker by a new one, which is ready first
#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    #[command(flatten)]
    order: Order,
}

impl Reload {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        self.order.carry_out(Command::Reload).await
    }
}
