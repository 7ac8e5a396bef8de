//! `clusterd stop`: ends the workers; clusterd goes on, and so do its ports.

use std::process::ExitCode;

use super::order::Order;
use super::{VerbError, rest, whole};
use crate::ids::Slot;
use crate::supervisor::Command;

/// Stop all workers; clusterd keeps its ports, which refuse clients
///
/// Workers serve first whoever has come before. With --hold clients may still come, and wait as they do through a restart.
#[derive(Debug, clap::Args)]
pub(super) struct Stop {
    #[command(flatten)]
    order: Order,

    /// Let clients wait at the ports until the app is started again, instead of refusing them
    #[arg(long, conflicts_with = "worker")]
    hold: bool,

    /// Only this worker, until it is started again
    #[arg(long, short, value_name = "N", value_parser = whole::worker, allow_negative_numbers = true)]
    worker: Option<u32>,
}

impl Stop {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let command = match self.hold {
            true => Command::Hold,
            false => Command::Stop(self.worker.map(Slot)),
        };
        let apps = rest::or_apps_of_files(self.order.apps).await?;
        Order { apps, ..self.order }.carry_out(command).await
    }
}
