//! `clusterd env`: the environment of a worker.

use std::process::ExitCode;

use super::app::NameFlag;
use super::choose::{Many, Word, choose};
use super::print::{self, Output, Shape};
use super::{VerbError, rest};
use crate::cli::complain;
use crate::control::client;
use crate::control::home::Home;

/// Print the environment that a worker was given, which may hold secrets
#[derive(Debug, clap::Args)]
pub(super) struct Env {
    /// Id of a worker; or name of an app, of which the first worker is meant; not needed if only one app is running
    #[arg(value_name = "ID|APP")]
    app: Option<String>,

    #[command(flatten)]
    flag: NameFlag,

    #[command(flatten)]
    shape: Shape,
}

impl Env {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        let ids = rest::ids();
        let wanted = self.app.as_deref().or(self.flag.name.as_deref());
        if let [folder] = &rest::meant(&found, &ids, wanted)?[..] {
            complain(&format!(
                "{}: the app is not running\nhint: what it is started with is in {} and {}",
                folder.name(),
                folder.environment().display(),
                folder.definition().display()
            ));
            return Ok(ExitCode::FAILURE);
        }
        let mut code = ExitCode::SUCCESS;
        for (clusterd, app) in choose(&found, &ids, wanted, Many::One)? {
            let app = clusterd.app_with_environment(&app.name).await?;
            let word = wanted.map(Word::read).transpose()?;
            let worker = word.and_then(|word| word.worker_of(ids.of_app(&app.name)));
            let mut meant = app.workers.iter().filter(|one| worker.is_none_or(|slot| slot.0 == one.worker));
            let Some(variables) = meant.find_map(|worker| worker.environment.as_ref()) else {
                complain(&format!("{}: no worker is running", app.name));
                code = ExitCode::FAILURE;
                continue;
            };
            match self.shape.output {
                Output::Json => print::json(variables)?,
                Output::Text => {
                    let lines = variables.iter().map(|(name, value)| format!("{name}={value}"));
                    let lines: Vec<_> = lines.map(|line| print::escaped(&line)).collect();
                    print::line(&lines.join("\n"))?;
                }
            }
        }
        Ok(code)
    }
}
