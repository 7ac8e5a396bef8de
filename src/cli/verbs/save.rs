//! `clusterd save`, `resurrect` and `cleardump`: which apps are started at the next boot.

use std::process::ExitCode;

use super::print::{self, Output, Shape};
use super::side_by_side::{self, State};
use super::{VerbError, interrupt, rest, startup};
use crate::cli::complain;
use crate::home::apps::Apps;
use crate::home::definition::NotWritten;
use crate::home::record::{Record, Wanted};
use crate::home::saved;

/// Keep which apps run, and with how many workers, for `resurrect` [alias: dump]
#[derive(Debug, clap::Args)]
#[command(aliases = ["dump"])]
pub(super) struct Save {
    #[command(flatten)]
    shape: Shape,
}

/// Start the apps that `save` has kept, or else all that were not stopped
#[derive(Debug, clap::Args)]
pub(super) struct Resurrect {
    #[command(flatten)]
    shape: Shape,
}

/// Forget what `save` has kept
#[derive(Debug, clap::Args)]
#[command(name = "cleardump")]
pub(super) struct ClearDump {
    #[command(flatten)]
    shape: Shape,
}

impl Save {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        let apps = Apps::of_this_process()?;
        let saved = saved::save(&apps).map_err(|source| NotWritten::at(apps.home(), source))?;
        match self.shape.output {
            Output::Json => print::json(&saved)?,
            Output::Text => {
                let running = saved.iter().filter(|app| app.wanted == Wanted::Running).count();
                let file = apps.saved();
                let apps =
                    if saved.len() == 1 { "1 app".to_owned() } else { format!("{} apps", saved.len()) };
                print::line(&format!("saved {apps}, {running} to run, in {}", file.display()))?;
            }
        }
        startup::follow_saved(&apps, self.shape)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Resurrect {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let apps = Apps::of_this_process()?;
        let at_rest = rest::all();
        let mut code = ExitCode::SUCCESS;
        let mut meant = Vec::new();
        for saved in saved::saved(&apps).map_err(|error| VerbError::NotRead(apps.saved(), error))? {
            let folder = apps.app(&saved.name);
            if !folder.is_defined() {
                complain(&format!("{}: the app was deleted since it was saved", saved.name));
                code = ExitCode::FAILURE;
            } else if saved.wanted == Wanted::Running && at_rest.contains(&folder) {
                Record::change(&folder, |record| record.workers = saved.workers)
                    .map_err(|source| NotWritten::at(&folder.path(), source))?;
                meant.push(folder);
            }
        }
        if meant.is_empty() && code == ExitCode::SUCCESS {
            print::done("clusterd", "nothing to start: every app that is wanted runs", self.shape)?;
        }
        let needs = vec![Vec::new(); meant.len()];
        let start = async |place: usize| {
            if interrupt::is_heard() {
                complain(&format!("{}: not started", meant[place].name()));
                return Ok(false);
            }
            let started = rest::start(&meant[place], self.shape).await?;
            Ok::<_, VerbError>(started == ExitCode::SUCCESS)
        };
        let states = side_by_side::start_all(&needs, start).await?;
        let all_up = states.iter().all(|state| *state == State::Up);
        Ok(if all_up { code } else { ExitCode::FAILURE })
    }
}

impl ClearDump {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        let apps = Apps::of_this_process()?;
        saved::clear(&apps).map_err(|source| NotWritten::at(apps.home(), source))?;
        if self.shape.output == Output::Text {
            print::line("nothing is saved any more")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
