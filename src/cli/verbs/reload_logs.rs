//! `clusterd reloadLogs`: has log files opened again, after logrotate(8) or a person has moved them.
//!
//! It is the signal USR1 in words.

use std::collections::BTreeMap;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, kill_process};

use super::choose::{Many, choose};
use super::print::{self, Shape};
use super::{VerbError, rest};
use crate::control::client;
use crate::control::home::Home;

/// Have the log files of every running app, or of some, opened again
#[derive(Debug, clap::Args)]
#[command(name = "reloadLogs", alias = "reload-logs")]
pub(super) struct ReloadLogs {
    /// Names of apps or namespaces, patterns such as `/^web/`, ids of workers, or `all`; without any, every app
    #[arg(value_name = "APP")]
    apps: Vec<String>,

    #[command(flatten)]
    shape: Shape,
}

impl ReloadLogs {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        let ids = rest::ids();
        let all = ["all".to_owned()];
        let words = if self.apps.is_empty() { &all[..] } else { &self.apps };
        let mut apps = BTreeMap::new();
        for word in words {
            let meant = choose(&found, &ids, Some(word), Many::All)?;
            apps.extend(meant.into_iter().map(|(_, app)| (app.pid, app)));
        }
        for app in apps.into_values() {
            let pid = i32::try_from(app.pid).ok().and_then(Pid::from_raw);
            pid.map_or(Ok(()), |pid| kill_process(pid, Signal::USR1)).map_err(std::io::Error::from)?;
            print::done(&app.name, "told to open its log files again", self.shape)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
