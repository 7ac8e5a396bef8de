//! `clusterd kill`: ends every app that was started in the background.

use std::process::ExitCode;

use super::print::{self, Shape};
use super::{VerbError, ending, interrupt};
use crate::control::client;
use crate::control::home::Home;
use crate::home::apps::Apps;

/// End every app that was started in the background; `resurrect` starts them again
#[derive(Debug, clap::Args)]
pub(super) struct Kill {
    #[command(flatten)]
    shape: Shape,
}

impl Kill {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let apps = Apps::of_this_process()?;
        let found = client::find(&Home::of_this_process()).await;
        let mut code = ExitCode::SUCCESS;
        let meant: Vec<_> = found.apps.iter().filter(|(_, app)| apps.app(&app.name).is_defined()).collect();
        if meant.is_empty() {
            print::done("clusterd", "no app runs in the background", self.shape)?;
        }
        for app in meant {
            if interrupt::is_heard() {
                crate::cli::complain(&format!("{}: not ended", app.1.name));
                continue;
            }
            match ending::end(&app.1).await {
                Ok(()) => print::done(&app.1.name, "ended", self.shape)?,
                Err(failure) => {
                    failure.complaints().iter().for_each(|complaint| crate::cli::complain(complaint));
                    code = ExitCode::FAILURE;
                }
            }
        }
        Ok(code)
    }
}
