//! `clusterd sendSignal`: a signal to the processes of workers.

use std::process::ExitCode;

use super::VerbError;
use super::order::Order;
use crate::supervisor::Command;
use crate::supervisor::signal_name::{NamedSignal, NoSignal};

/// Send a signal to the process of each worker [aliases: signal, send-signal]
#[derive(Debug, clap::Args)]
#[command(name = "sendSignal", aliases = ["signal", "send-signal"])]
pub(super) struct SendSignal {
    /// Name of a signal, with or without SIG, or its number
    #[arg(value_name = "SIGNAL")]
    signal: String,

    #[command(flatten)]
    order: Order,
}

impl SendSignal {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let signal: NamedSignal =
            self.signal.parse().map_err(|error: NoSignal| VerbError::Usage(error.to_string()))?;
        self.order.carry_out(Command::Signal(None, signal)).await
    }
}
