//! `clusterd up`: the apps of a file in the foreground.
//!
//! The file is read here, as `clusterd start FILE` reads it; the apps are run by [`crate::up`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::VerbError;
use super::start::Settings;
use super::start_file::{self, AppToRun, Loaded};
use crate::cli::{self, complain};
use crate::home::definition;
use crate::home::record::Wanted;
use crate::settings::apps::file::{self, Format};
use crate::settings::load::CommandLine;
use crate::up::{self, App, Read};

/// Run the apps of a file in the foreground, until all have ended
///
/// The file is clusterd.toml with tables [app.NAME], an ecosystem file of PM2, or package.json; without one it is clusterd.toml
/// or the ecosystem file of this folder. Each line of output begins with the name of its app. TERM and Ctrl-C end all apps, and
/// other signals are passed on to each. Every setting of clusterd can be given here
/// (`clusterd --help` has them), for all apps.
#[derive(Debug, clap::Args)]
#[command(override_usage = "clusterd up [OPTIONS] [SETTINGS] [FILE]")]
pub(super) struct Up {
    /// The file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Only this app of the file; repeatable
    #[arg(long, value_name = "APP", value_delimiter = ',')]
    only: Vec<String>,

    /// Only look for errors, also in apps that are not to run
    #[arg(long, conflicts_with = "exit_on_failure")]
    check: bool,

    /// End all apps when the first has failed
    #[arg(long)]
    exit_on_failure: bool,

    #[command(flatten)]
    settings: Settings,
}

impl Up {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let Self { file, only, check, exit_on_failure, settings: Settings(mut line) } = self;
        let folder = super::start_folder()?;
        let file = match (file, line.config.take()) {
            (Some(_), Some(_)) => {
                return Err(VerbError::Usage("--config names another file: name one of them".to_owned()));
            }
            (named, config) => named.or(config).or_else(|| usual(&folder)).ok_or(VerbError::NoFile)?,
        };
        let format = format(&file)?;
        let asked = Asked { file, format, folder, line, only };
        let loaded = asked.load()?;
        start_file::tell(&loaded.warnings);
        if check {
            return look_for_errors(loaded.apps);
        }
        loaded.find_programs()?;
        let apps = loaded.apps;
        for name in apps.iter().filter(|app| !is_wanted(app)).map(|app| &app.resolved.config.name) {
            complain(&format!("{name} is left out: its autostart is off\nhint: --only {name} runs it"));
        }
        let reread = move || asked.read().map_err(|error| error.complaints().join("; "));
        let code = up::run(apps_of(apps)?, exit_on_failure, Arc::new(reread)).await?;
        Ok(code.into())
    }
}

/// Looks for what is wrong with each beside what is read, and tells all of it.
fn look_for_errors(apps: Vec<AppToRun>) -> Result<ExitCode, VerbError> {
    let codes = apps.iter().filter_map(|app| {
        let config = &app.resolved.config;
        cli::look_for_errors(config, &|message| complain(&format!("{}: {message}", config.name)))
    });
    // All are looked at.
    let first = codes.reduce(|first, _| first);
    apps_of(apps)?;
    Ok(first.map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// What is read, now and again.
#[derive(Debug)]
struct Asked {
    file: PathBuf,
    format: Format,
    folder: PathBuf,
    line: CommandLine,
    only: Vec<String>,
}

impl Asked {
    fn load(&self) -> Result<Loaded, VerbError> {
        start_file::load((&self.file, self.format), &self.folder, self.line.clone(), &self.only)
    }

    fn read(&self) -> Result<Read, VerbError> {
        let loaded = self.load()?;
        loaded.find_programs()?;
        let Loaded { apps, warnings } = loaded;
        Ok(Read { apps: apps_of(apps)?, warnings: warnings.iter().map(ToString::to_string).collect() })
    }
}

fn is_wanted(app: &AppToRun) -> bool {
    app.wanted == Wanted::Running
}

/// The file that is meant where none is named: ours, or else PM2's.
fn usual(folder: &Path) -> Option<PathBuf> {
    let own = Path::new(file::OWN);
    folder.join(own).is_file().then(|| own.to_owned()).or_else(|| file::usual_ecosystem(folder))
}

fn format(path: &Path) -> Result<Format, VerbError> {
    file::format(path).ok_or_else(|| {
        let path = path.display();
        VerbError::Usage(format!(
            "{path} is no file of apps: those are TOML, JSON, YAML, and JavaScript that is called *.config.js\n\
             hint: a single app runs in the foreground without `up`: clusterd -- COMMAND"
        ))
    })
}

/// Those that are to run, in the same order. What is needed and not meant is not waited for.
fn apps_of(mut apps: Vec<AppToRun>) -> Result<Vec<App>, VerbError> {
    apps.retain(is_wanted);
    let all = &apps;
    let place = |name: &String| all.iter().position(|app| app.resolved.config.name == *name);
    let app = |AppToRun { resolved, needs, .. }: &AppToRun| {
        let config = &resolved.config;
        Ok(App {
            name: config.name.clone(),
            settings: definition::text_of(resolved)?,
            workers: config.workers.get(),
            ready_timeout: config.ready_timeout,
            log_format: config.log_format,
            log_level: config.log_level,
            needs: needs.iter().filter_map(place).collect(),
        })
    };
    all.iter().map(app).collect()
}
