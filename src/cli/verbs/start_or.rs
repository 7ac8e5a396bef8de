//! `clusterd startOrRestart` and `startOrReload`: the apps of a file, started, or begun anew whether they have changed or not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::VerbError;
use super::order::UpdateEnv;
use super::print::Shape;
use super::start::Settings;
use super::start_file::{self, Chosen, IfItRuns};
use crate::settings::apps::file;

/// Start the apps of a file, and restart those that run
#[derive(Debug, clap::Args)]
#[command(name = "startOrRestart")]
pub(super) struct StartOrRestart {
    #[command(flatten)]
    file: OfFile,
}

/// Start the apps of a file, and reload those that run [alias: startOrGracefulReload]
#[derive(Debug, clap::Args)]
#[command(name = "startOrReload", alias = "startOrGracefulReload")]
pub(super) struct StartOrReload {
    #[command(flatten)]
    file: OfFile,
}

#[derive(Debug, clap::Args)]
struct OfFile {
    /// clusterd.toml with tables [app.NAME], an ecosystem file of PM2, or package.json
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Only this app of the file; repeatable
    #[arg(long, value_name = "APP", value_delimiter = ',')]
    only: Vec<String>,

    #[command(flatten)]
    environment: UpdateEnv,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    shape: Shape,
}

impl StartOrRestart {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        self.file.start(IfItRuns::Restart).await
    }
}

impl StartOrReload {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        self.file.start(IfItRuns::Reload).await
    }
}

impl OfFile {
    async fn start(self, running: IfItRuns) -> Result<ExitCode, VerbError> {
        let Self { file, only, environment, settings: Settings(line), shape } = self;
        let format = file::format(&file).ok_or_else(|| no_file_of_apps(&file))?;
        start_file::start(&file, format, Chosen { line, only, environment, running, shape }).await
    }
}

fn no_file_of_apps(file: &Path) -> VerbError {
    let file = file.display();
    VerbError::Usage(format!(
        "{file} is no file of apps: those are TOML, JSON, YAML, and JavaScript that is called *.config.js\n\
         hint: an app is restarted by its name: clusterd restart NAME"
    ))
}
