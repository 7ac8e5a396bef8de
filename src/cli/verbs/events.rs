//! `clusterd events`: what happens, as it happens.

use std::process::ExitCode;

use futures_util::{StreamExt, stream};

use super::app::NameFlag;
use super::choose::{Many, choose};
use super::print::{self, Output, Shape};
use super::sentence;
use super::{VerbError, rest};
use crate::control::client;
use crate::control::home::Home;

/// Follow the events of every app, or of one, until interrupted
#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Name of the app, or the pid of its clusterd; without it, follow every app
    #[arg(value_name = "APP")]
    app: Option<String>,

    #[command(flatten)]
    flag: NameFlag,

    #[command(flatten)]
    shape: Shape,
}

impl Events {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        let wanted = self.app.as_deref().or(self.flag.name.as_deref()).unwrap_or("all");
        let mut lines = stream::SelectAll::new();
        for (clusterd, app) in choose(&found, &rest::ids(), Some(wanted), Many::All)? {
            lines.push(clusterd.events(Some(&app.name)).await?);
        }
        // An app whose clusterd has exited, which is an error, is followed no more; the others are.
        while let Some(line) = lines.next().await {
            let Ok(line) = line else { continue };
            match self.shape.output {
                Output::Json => print::json_text(&line)?,
                Output::Text => print::line(&sentence::event(&line))?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
