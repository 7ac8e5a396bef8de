//! `clusterd reset`: counts restarts from 0.

use std::process::ExitCode;

use super::VerbError;
use super::order::Order;
use crate::supervisor::Command;

/// Count the restarts of workers from 0 again; metrics count on
#[derive(Debug, clap::Args)]
pub(super) struct Reset {
    #[command(flatten)]
    order: Order,
}

impl Reset {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        self.order.carry_out(Command::Reset(None)).await
    }
}
