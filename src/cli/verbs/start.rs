//! `clusterd start`: starts the workers that were stopped or given up.

use std::process::ExitCode;

use super::Failure;
use super::order::Order;
use crate::supervisor::Command;

/// Start workers that were stopped, or given up
#[derive(Debug, clap::Args)]
pub(super) struct Start {
    #[command(flatten)]
    order: Order,
}

impl Start {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        self.order.carry_out(Command::Start).await
    }
}
