//! `clusterd stop`: ends the workers; clusterd goes on, and so do its ports.

use std::process::ExitCode;

use super::VerbError;
use super::order::Order;
use crate::supervisor::Command;

/// Stop all workers; clusterd keeps its ports, which refuse clients
#[derive(Debug, clap::Args)]
pub(super) struct Stop {
    #[command(flatten)]
    order: Order,
}

impl Stop {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        self.order.carry_out(Command::Stop).await
    }
}
