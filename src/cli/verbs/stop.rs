//! `clusterd stop`: ends the workers; clusterd goes on, and so do its ports.

use std::process::ExitCode;

use super::VerbError;
use super::order::Order;
use crate::ids::Slot;
use crate::supervisor::Command;

/// Stop all workers; clusterd keeps its ports, which refuse clients
#[derive(Debug, clap::Args)]
pub(super) struct Stop {
    #[command(flatten)]
    order: Order,

    /// Only this worker, until it is started again
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    worker: Option<u32>,
}

impl Stop {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        self.order.carry_out(Command::Stop(self.worker.map(Slot))).await
    }
}
