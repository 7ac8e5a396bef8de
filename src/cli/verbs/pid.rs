//! `clusterd pid`: the processes of workers.

use std::process::ExitCode;

use serde_json::json;

use super::print::{self, Output, Shape};
use super::{VerbError, rest};
use crate::cli::complain;
use crate::control::client;
use crate::control::home::Home;

/// Print the process ids of workers, one a line
#[derive(Debug, clap::Args)]
pub(super) struct Pid {
    /// Names of apps or namespaces, patterns such as `/^web/`, ids of workers, or `all`; without any, every app
    #[arg(value_name = "APP")]
    apps: Vec<String>,

    #[command(flatten)]
    shape: Shape,
}

impl Pid {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let named: Vec<_> = self.apps.iter().map(String::as_str).collect();
        let found = client::find_for(&Home::of_this_process(), &named).await;
        let ids = rest::ids();
        let words = rest::or_all(&self.apps);
        let (running, at_rest) = match rest::targets(&found, &ids, &words) {
            Err(_) if self.apps.is_empty() && found.is_certain() => (Vec::new(), Vec::new()),
            meant => meant?,
        };
        let mut workers = Vec::new();
        for target in &running {
            let meant = target.app.workers.iter().filter(|worker| target.is_meant(worker.worker));
            for worker in meant {
                let Some(pid) = worker.pid else { continue };
                workers.push(json!({
                    "pid": pid,
                    "app": target.app.name,
                    "worker": worker.worker,
                    "id": print::id(&ids, &target.app.name, worker.worker),
                }));
            }
        }
        match self.shape.output {
            Output::Json => print::json(&workers)?,
            Output::Text if workers.is_empty() => {}
            Output::Text => {
                let pids: Vec<_> = workers.iter().map(|worker| worker["pid"].to_string()).collect();
                print::line(&pids.join("\n"))?;
            }
        }
        // Whoever goes on with the pids of an app has none to go on with.
        if workers.is_empty() && !self.apps.is_empty() {
            let resting = at_rest.iter().map(|folder| folder.name());
            let names: Vec<_> =
                running.iter().map(|target| target.app.name.as_str()).chain(resting).collect();
            complain(&format!("{}: no worker is running", names.join(", ")));
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}
