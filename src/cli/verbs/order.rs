//! A command to an app: given, followed to its end, and reported.
//!
//! It goes on if whoever follows it is interrupted: it is clusterd that carries it out.

use std::process::ExitCode;

use futures_util::TryStreamExt;

use super::VerbError;
use super::app::NameFlag;
use super::choose::{Many, NotChosen, choose};
use super::print::{self, Output, Shape};
use super::{rest, sentence};
use crate::cli::complain;
use crate::control::api::{App, Code, Outcome, Problem};
use crate::control::client::{self, Clusterd};
use crate::control::home::Home;
use crate::supervisor::{Command, Environment};

/// To which app it is given, and how its course is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// Name of the app, the pid of its clusterd, or `all`; not needed if only one app is running
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,

    #[command(flatten)]
    pub(super) flag: NameFlag,

    #[command(flatten)]
    pub(super) shape: Shape,
}

/// Whether workers get another environment.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct UpdateEnv {
    /// Have workers inherit the environment of this command from now on; what it does not have, they lose
    #[arg(long)]
    update_env: bool,
}

impl UpdateEnv {
    /// The environment, if it is to be given.
    pub(super) fn given(self) -> Option<Environment> {
        self.update_env.then(Environment::of_this_process)
    }
}

impl Order {
    /// To this app, or to the only one.
    pub(super) fn of(app: Option<String>, shape: Shape) -> Self {
        Self { app, flag: NameFlag::default(), shape }
    }

    /// Gives the command to each app that is meant, one after the other. Fails if one of them does.
    pub(super) async fn carry_out(self, command: Command) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        let mut code = ExitCode::SUCCESS;
        let wanted = self.app.as_deref().or(self.flag.name.as_deref());
        let resting = rest::meant(&found, wanted);
        let running = match choose(&found, wanted, Many::All) {
            Err(NotChosen::Nothing { .. } | NotChosen::Unknown { .. }) if !resting.is_empty() => Vec::new(),
            chosen => chosen?,
        };
        for (clusterd, app) in running {
            let outcome = self.follow(clusterd, app, &command).await?;
            if matches!(outcome, Outcome::Error(_)) {
                code = ExitCode::FAILURE;
            }
            self.conclude(app, &outcome)?;
        }
        for folder in resting {
            if rest::obey(&folder, &command, self.shape).await? != ExitCode::SUCCESS {
                code = ExitCode::FAILURE;
            }
        }
        Ok(code)
    }

    async fn follow(&self, clusterd: &Clusterd, app: &App, command: &Command) -> Result<Outcome, VerbError> {
        let mut lines = match clusterd.command(&app.name, command).await {
            Ok(lines) => lines,
            Err(client::Error::Refused(problem)) => return Ok(Outcome::Error(problem)),
            Err(error) => return Err(error.into()),
        };
        loop {
            match lines.try_next().await {
                Ok(Some(line)) => match serde_json::from_str(&line) {
                    Ok(outcome) => return Ok(outcome),
                    Err(_) => self.tell(&line)?,
                },
                Ok(None) => return Ok(ended()),
                Err(client::Error::Ended { .. }) => return Ok(ended()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn tell(&self, line: &str) -> Result<(), VerbError> {
        match self.shape.output {
            Output::Json => print::json_text(line)?,
            Output::Text if print::is_watched() => {
                if let Some(sentence) = sentence::progress(line) {
                    print::line(&sentence)?;
                }
            }
            Output::Text => {}
        }
        Ok(())
    }

    fn conclude(&self, app: &App, outcome: &Outcome) -> Result<(), VerbError> {
        match (self.shape.output, outcome) {
            (Output::Json, _) => print::json_line(outcome)?,
            (Output::Text, Outcome::Done(done)) => print::done(&app.name, done, self.shape)?,
            (Output::Text, Outcome::Error(problem)) => {
                complain(&format!("{}: {}", app.name, print::problem(problem)));
            }
        }
        Ok(())
    }
}

fn ended() -> Outcome {
    Outcome::Error(Problem::new(Code::Stopping, "clusterd exited before the command was done"))
}
