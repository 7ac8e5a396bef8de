//! `clusterd start`: starts the workers that were stopped or given up.

use std::process::ExitCode;

use super::VerbError;
use super::order::Order;
use crate::supervisor::Command;

/// Start workers that were stopped or given up
#[derive(Debug, clap::Args)]
pub(super) struct Start {
    #[command(flatten)]
    order: Order,
}

impl Start {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        self.order.carry_out(Command::Start).await
    }
}
