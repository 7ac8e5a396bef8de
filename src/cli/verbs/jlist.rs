//! `clusterd jlist` and `prettylist`: every worker as PM2 has it, for scripts that read that.

use std::process::ExitCode;

use serde_json::Value;

use super::{VerbError, print, rest};
use crate::cli::complain;
use crate::cli::pm2::inspect::inspect;
use crate::cli::pm2::record::{Known, of_resting, of_running};
use crate::control::client::{self, Clusterd};
use crate::control::home::Home;
use crate::home::apps::{AppFolder, Apps};
use crate::home::definition;
use crate::settings::{Config, WorkerCommand};

/// Print every worker as JSON, with the names of PM2; environments may hold secrets
#[derive(Debug, clap::Args)]
#[command(name = "jlist")]
pub(super) struct Jlist {}

/// Print the same as text, as Node's util.inspect
#[derive(Debug, clap::Args)]
#[command(name = "prettylist")]
pub(super) struct Prettylist {}

impl Jlist {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let (records, code) = records().await;
        print::json_line(&records)?;
        Ok(code)
    }
}

impl Prettylist {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let (records, code) = records().await;
        print::line(&inspect(&Value::Array(records)))?;
        Ok(code)
    }
}

/// By number, as PM2 lists them.
pub(super) async fn records() -> (Vec<Value>, ExitCode) {
    let found = client::find(&Home::of_this_process()).await;
    found.errors.iter().for_each(|error| complain(&error.to_string()));
    let ids = rest::ids();
    let mut records = Vec::new();
    for (clusterd, app) in &found.apps {
        // Its workers' environments are told one app at a time; one that has just ended is told without.
        let app = Clusterd::app_with_environment(clusterd, &app.name).await.unwrap_or_else(|_| app.clone());
        let folder = Apps::of_this_process().ok().map(|apps| apps.app(&app.name));
        let folder = folder.filter(|_| !ids.of_app(&app.name).is_empty());
        let config = folder.as_ref().filter(|folder| folder.is_defined()).and_then(settings);
        let known = Known {
            folder: folder.as_ref(),
            config: config.as_ref(),
            command: &app.command,
            namespace: &app.namespace,
            ids: &ids,
        };
        records.extend(of_running(&app, known));
    }
    for folder in &rest::all_but(&found) {
        let config = settings(folder);
        let command = config.as_ref().map(words).unwrap_or_default();
        let namespace = definition::namespace(folder);
        let known = Known {
            folder: Some(folder),
            config: config.as_ref(),
            command: &command,
            namespace: &namespace,
            ids: &ids,
        };
        records.extend(of_resting(folder, known));
    }
    records.sort_by_key(|record| record["pm_id"].as_u64().unwrap_or(u64::MAX));
    (records, if found.is_certain() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(folder: &AppFolder) -> Option<Config> {
    definition::settings(folder).ok().map(|resolved| resolved.config)
}

fn words(config: &Config) -> Vec<String> {
    match &config.command {
        WorkerCommand::Demo => Vec::new(),
        WorkerCommand::Program { program, arguments } => {
            let words = std::iter::once(program).chain(arguments);
            words.map(|word| word.to_string_lossy().into_owned()).collect()
        }
    }
}
