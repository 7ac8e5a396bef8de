//! A command to an app: given, followed to its end, and reported.
//!
//! It goes on if whoever follows it is interrupted: it is clusterd that carries it out.

use std::process::ExitCode;

use futures_util::TryStreamExt;

use super::VerbError;
use super::app::NameFlag;
use super::print::{self, Output, Shape};
use super::rest::Target;
use super::{interrupt, rest, sentence, upgrade};
use crate::cli::complain;
use crate::control::api::{App, Code, Outcome, Problem};
use crate::control::client::{self, Clusterd};
use crate::control::home::Home;
use crate::ids::Slot;
use crate::supervisor::{Command, Environment};

/// To which app it is given, and how its course is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// Names of apps or namespaces, `all`, /PATTERN/, numbers of workers, or pids of clusterds; not needed if only one app is running
    #[arg(id = "app", value_name = "APP")]
    pub(super) apps: Vec<String>,

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
    /// As somebody has said.
    pub(super) fn of(update_env: bool) -> Self {
        Self { update_env }
    }

    /// The environment, if it is to be given.
    pub(super) fn given(self) -> Option<Environment> {
        self.update_env.then(Environment::of_this_process)
    }
}

impl Order {
    /// To this app, or to the only one.
    pub(super) fn of(app: Option<String>, shape: Shape) -> Self {
        Self::of_all(app.into_iter().collect(), shape)
    }

    /// To these apps, or to the only one if none is named.
    pub(super) fn of_all(apps: Vec<String>, shape: Shape) -> Self {
        Self { apps, flag: NameFlag::default(), shape }
    }

    /// Gives the command to each app that is meant, one after the other. Fails if one of them does. It is clear for all what is
    /// meant before anything is done.
    pub(super) async fn carry_out(self, command: Command) -> Result<ExitCode, VerbError> {
        let words: Vec<_> = self.apps.iter().chain(&self.flag.name).cloned().collect();
        let named: Vec<_> = words.iter().map(String::as_str).collect();
        let found = client::find_for(&Home::of_this_process(), &named).await;
        let (running, resting) = rest::targets(&found, &rest::ids(), &words)?;
        if running.iter().any(|target| target.worker.is_some()) {
            check_for_one(&command)?;
        }
        let mut code = ExitCode::SUCCESS;
        for Target { clusterd, app, worker } in running {
            let command = of_worker(&or_start(&command, app), worker);
            let mut outcome = self.follow(clusterd, app, &command).await?;
            if let (Command::Upgrade(_), Outcome::Done(_)) = (&command, &outcome) {
                outcome = upgrade::outcome(clusterd, app).await;
            }
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
        // Before it is carried out.
        interrupt::listen();
        let mut lines = match clusterd.command(&app.name, command).await {
            Ok(lines) => lines,
            Err(client::Error::Refused(problem)) => return Ok(Outcome::Error(problem)),
            Err(error) => return Err(error.into()),
        };
        loop {
            let Some(next) = interrupt::or(lines.try_next()).await else {
                let name = &app.name;
                return Err(VerbError::Interrupted(format!(
                    "{name}: clusterd goes on with it; `clusterd describe {name}` shows how it stands"
                )));
            };
            match next {
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

/// What is stopped has nothing to replace: it is started, as an app is that does not run at all.
fn or_start(command: &Command, app: &App) -> Command {
    match command {
        Command::Reload | Command::Restart(None) if app.stopped => Command::Start(None),
        Command::ReloadWith(environment) | Command::RestartWith(environment) if app.stopped => {
            Command::StartWith(environment.clone())
        }
        command => command.clone(),
    }
}

/// The same for one worker, where there is such a command.
fn of_worker(command: &Command, worker: Option<Slot>) -> Command {
    match command {
        Command::Stop(None) => Command::Stop(worker),
        Command::Start(None) => Command::Start(worker),
        Command::Restart(None) => Command::Restart(worker),
        Command::Signal(None, signal) => Command::Signal(worker, *signal),
        Command::Reset(None) => Command::Reset(worker),
        command => command.clone(),
    }
}

/// Some commands are for all workers of an app.
fn check_for_one(command: &Command) -> Result<(), VerbError> {
    let what = match command {
        Command::Hold => "clients wait for an app, not for one of its workers",
        Command::Upgrade(_) => "clusterd runs all workers of an app",
        Command::RestartWith(_) | Command::StartWith(_) => {
            "all workers of an app inherit the same environment, not one alone"
        }
        _ => return Ok(()),
    };
    Err(VerbError::Usage(format!("{what}\nhint: say the name of the app instead of a number")))
}

fn ended() -> Outcome {
    Outcome::Error(Problem::new(Code::Stopping, "clusterd exited before the command was done"))
}
