//! `clusterd stop`: ends the workers; clusterd goes on, and so do its ports.

use std::process::ExitCode;

use super::Failure;
use super::order::Order;
use crate::supervisor::Command;

/// End all workers; clusterd runs on, and clients wait
#[derive(Debug, clap::Args)]
pub(super) struct Stop {
    #[command(flatten)]
    order: Order,
}

impl Stop {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        self.order.carry_out(Command::Stop).await
    }
}
