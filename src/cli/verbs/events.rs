//! `clusterd events`: what happens, as it happens.

use std::process::ExitCode;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Failure;
use super::choose::{Many, choose};
use super::print::{self, Output, Shape};
use super::sentence;
use crate::control::client::{self, Lines};
use crate::control::home::Home;

/// How many lines may wait to be printed.
const WAITING: usize = 64;

/// Follow what happens, of every app or of one, until it is interrupted
#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// The app's name, or the pid of its clusterd; without it, every app is followed
    app: Option<String>,

    #[command(flatten)]
    shape: Shape,
}

impl Events {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let found = client::find(&Home::of_this_process()).await;
        let wanted = self.app.as_deref().unwrap_or("all");
        let (sender, mut lines) = mpsc::channel(WAITING);
        let mut followed = JoinSet::new();
        for (clusterd, app) in choose(&found, Some(wanted), Many::All)? {
            let events = clusterd.events(Some(&app.name)).await?;
            followed.spawn(pass_on(events, sender.clone()));
        }
        drop(sender);
        while let Some(line) = lines.recv().await {
            match self.shape.output {
                Output::Json => print::line(&line)?,
                Output::Text => print::line(&sentence::event(&line))?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Until there is no more, or nobody takes it.
async fn pass_on(mut events: Lines, sender: mpsc::Sender<String>) {
    while let Ok(Some(line)) = events.next().await {
        if sender.send(line).await.is_err() {
            return;
        }
    }
}
