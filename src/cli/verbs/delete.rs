//! `clusterd delete`: ends an app and forgets it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::print::{self, Shape};
use super::{VerbError, ending, rest};
use crate::control::client;
use crate::control::home::Home;
use crate::home::apps::{AppFolder, Apps};
use crate::home::definition::NotWritten;
use crate::home::ids::Ids;
use crate::home::lock::Lock;
use crate::home::startup::units::Instance;

/// End apps and forget them; their logs stay [alias: del]
#[derive(Debug, clap::Args)]
#[command(aliases = ["del"])]
pub(super) struct Delete {
    /// Names of apps or namespaces, patterns such as `/^web/`, or `all`
    #[arg(value_name = "APP", required = true)]
    apps: Vec<String>,

    /// Remove their logs, too
    #[arg(long)]
    logs: bool,

    #[command(flatten)]
    shape: Shape,
}

impl Delete {
    pub(super) async fn run(mut self) -> Result<ExitCode, VerbError> {
        self.apps = rest::or_apps_of_files(self.apps).await?;
        let named: Vec<_> = self.apps.iter().map(String::as_str).collect();
        let found = client::find_for(&Home::of_this_process(), &named).await;
        let (running, at_rest) = rest::targets(&found, &rest::ids(), &self.apps)?;
        let running: BTreeMap<_, _> = running.iter().map(|target| (target.app.pid, target.app)).collect();
        for app in running.into_values() {
            let folder = Apps::of_this_process()?.app(&app.name);
            let is_ended = disable(&folder)? && !Lock::is_held(&folder);
            if !is_ended {
                ending::end(app).await?;
            }
            self.forget(folder)?;
        }
        for folder in at_rest {
            disable(&folder)?;
            self.forget(folder)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn forget(&self, folder: AppFolder) -> Result<(), VerbError> {
        let remove = || {
            folder.remove(self.logs)?;
            Ids::forget(folder.home(), folder.name())
        };
        remove().map_err(|source| NotWritten::at(&folder.path(), source))?;
        let logs = if self.logs { "" } else { "; its logs stay" };
        Ok(print::done(folder.name(), &format!("deleted{logs}"), self.shape)?)
    }
}

/// Has systemd end the app, and start it at boot no more. Whether it did so before.
fn disable(folder: &AppFolder) -> Result<bool, VerbError> {
    let unit = Instance::of(folder);
    unit.iter().try_for_each(Instance::disable)?;
    Ok(unit.is_some())
}
