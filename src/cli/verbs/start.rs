//! `clusterd start`: starts the workers that were stopped or given up.

use std::process::ExitCode;

use super::VerbError;
use super::choose::NotChosen;
use super::order::Order;
use crate::settings::script;
use crate::supervisor::Command;

/// Start workers that were stopped or given up
#[derive(Debug, clap::Args)]
pub(super) struct Start {
    #[command(flatten)]
    order: Order,
}

impl Start {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let script = self.order.app.clone();
        self.order.carry_out(Command::Start).await.map_err(|error| or_script(error, script))
    }
}

/// `pm2 start app.js` starts a new app.
fn or_script(error: VerbError, app: Option<String>) -> VerbError {
    let is_no_app =
        matches!(error, VerbError::NotChosen(NotChosen::Nothing { .. } | NotChosen::Unknown { .. }));
    let command = app.as_deref().and_then(|app| script::command_for(app.as_ref()));
    match (is_no_app, app, command) {
        (true, Some(script), Some(command)) => VerbError::NoApp { script, command },
        _ => error,
    }
}
