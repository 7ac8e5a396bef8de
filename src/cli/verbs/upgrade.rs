//! `clusterd upgrade`: another version of clusterd in the place of the one that runs an app, while that serves.
//!
//! The process stays, and its workers and connections with it: it executes the new program. What has asked for it loses its
//! connection at that moment, and asks again what became of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::VerbError;
use super::order::Order;
use crate::control::api::{self, App, Code, Outcome, Problem};
use crate::control::client::Clusterd;
use crate::supervisor::Command;
use crate::sys::process;

/// How long it may take until the new clusterd answers: something may have begun meanwhile, and be waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// Replace the clusterd that runs an app, while it serves [alias: update]
#[derive(Debug, clap::Args)]
#[command(alias = "update")]
pub(super) struct Upgrade {
    #[command(flatten)]
    order: Order,

    /// The program to run from now on; without it, this one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,

    /// All apps of this user
    #[arg(long)]
    all: bool,
}

impl Upgrade {
    pub(super) async fn run(mut self) -> Result<ExitCode, VerbError> {
        let program = match &self.binary {
            Some(path) => absolute(path)?,
            None => process::path_of_program(),
        };
        if self.all {
            self.order.apps = vec!["all".to_owned()];
        }
        self.order.carry_out(Command::Upgrade(Some(program))).await
    }
}

fn absolute(path: &Path) -> Result<PathBuf, VerbError> {
    let found = path.canonicalize();
    found.map_err(|error| VerbError::Usage(format!("--binary {}: {error}", path.display())))
}

/// What became of the upgrade of this app, whose clusterd has said that the next one takes over.
pub(super) async fn outcome(clusterd: &Clusterd, before: &App) -> Outcome {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        // The clusterd before would only be held up; between the two nobody answers.
        sleep(PAUSE).await;
        match clusterd.app(&before.name).await.map(|app| app.upgrade) {
            Ok(Some(upgrade)) if Some(&upgrade) != before.upgrade.as_ref() => return told(&upgrade),
            Err(_) if process::has_ended(before.pid) => return ended(before),
            Ok(_) | Err(_) => {}
        }
    }
    let message = format!("the new clusterd did not answer within {PATIENCE:?}");
    Outcome::Error(
        Problem::new(Code::Failed, message)
            .help(format!("see its log, and `clusterd describe {}`", before.name)),
    )
}

/// Neither clusterd goes on; the guardian starts an app in the background afresh.
fn ended(App { name, pid, .. }: &App) -> Outcome {
    let message = format!("the clusterd of process {pid} has ended, which was to be replaced by another");
    Outcome::Error(
        Problem::new(Code::Failed, message).help(format!("see its log, and `clusterd describe {name}`")),
    )
}

fn told(api::Upgrade { from, to, pause_ms, failed, .. }: &api::Upgrade) -> Outcome {
    let to = to.as_deref().unwrap_or_default();
    match (failed, pause_ms) {
        (Some(reason), _) => Outcome::Error(Problem::new(Code::Failed, reason.clone())),
        (None, Some(pause)) => Outcome::Done(format!(
            "upgraded from clusterd {from} to {to}; new connections waited {pause:.1} ms"
        )),
        (None, None) => Outcome::Done(format!("upgraded from clusterd {from} to {to}")),
    }
}
