//! `clusterd start FILE`: the apps of a file, each started, reloaded or left as it is.
//!
//! What the file says of an app is all there is to it: what was removed from the file is removed from the app.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::order::{Order, UpdateEnv};
use super::print::{self, Shape};
use super::side_by_side::{self, State};
use super::{VerbError, interrupt, rest};
use crate::cli::{self, complain};
use crate::home::apps::{self, AppFolder};
use crate::home::definition::{self, NotWritten, Written};
use crate::home::ids::Ids;
use crate::home::record::Wanted;
use crate::settings::Config;
use crate::settings::apps::file::{self, Format};
use crate::settings::apps::launch::is_in;
use crate::settings::apps::{App, Apps, Run, Script, Warning, order, profile};
use crate::settings::error::{Invalid, Problem, Reason};
use crate::settings::load::{CommandLine, cpus};
use crate::settings::origin::{Layer, Value};
use crate::settings::resolve::{Resolved, Sources, no_port, resolve};
use crate::settings::table::keys;
use crate::supervisor::{Command, Environment};

/// Which of the apps, and with what beside the file.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Flags, which go before what the file says.
    pub line: CommandLine,
    /// The names of those that are meant; none for all.
    pub only: Vec<String>,
    /// Whether an app that runs gets the variables of this process.
    pub environment: UpdateEnv,
    /// What becomes of an app that runs.
    pub running: IfItRuns,
    /// How the outcome is printed.
    pub shape: Shape,
}

/// What becomes of an app that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfItRuns {
    /// It is reloaded if it has changed.
    ReloadIfChanged,
    /// It is reloaded.
    Reload,
    /// It is restarted.
    Restart,
}

/// Starts the apps of this file, several at once, each after those that it depends on.
///
/// # Errors
/// The file is wrong; nothing is done then.
pub(super) async fn start(path: &Path, format: Format, chosen: Chosen) -> Result<ExitCode, VerbError> {
    let folder = super::start_folder()?;
    start_all(file::load(path, &folder, format)?, &folder, chosen).await
}

/// The same for apps that are read already.
///
/// # Errors
/// Something is wrong with one of them; nothing is done then.
pub(super) async fn start_all(apps: Apps, folder: &Path, chosen: Chosen) -> Result<ExitCode, VerbError> {
    let Chosen { line, only, environment, running, shape } = chosen;
    let loaded = ready(apps, folder, line, &only)?;
    loaded.find_programs()?;
    let Loaded { apps, warnings } = loaded;
    tell(&warnings);
    number(&apps)?;
    let name = |place: usize| apps[place].resolved.config.name.as_str();
    // One that is not meant is as it is.
    let place_of = |need: &String| (0..apps.len()).find(|&place| name(place) == need);
    let needs: Vec<Vec<_>> = apps.iter().map(|app| app.needs.iter().filter_map(place_of).collect()).collect();
    let start = async |place: usize| {
        if interrupt::is_heard() {
            complain(&format!("{}: not started", name(place)));
            return Ok(false);
        }
        let AppToRun { resolved, wanted, .. } = &apps[place];
        let started = start_one((resolved, *wanted), folder, (environment, running), shape).await?;
        Ok::<_, VerbError>(started == ExitCode::SUCCESS)
    };
    let states = side_by_side::start_all(&needs, start).await?;
    for (place, state) in states.iter().enumerate() {
        if let State::Skipped(need) = state {
            complain(&format!(
                "{}: not started: {}, which it needs, has not come up",
                name(place),
                name(*need)
            ));
        }
    }
    let all_up = states.iter().all(|state| *state == State::Up);
    Ok(if all_up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Workers are numbered in the order of the apps, whichever comes up first.
fn number(meant: &[AppToRun]) -> Result<(), VerbError> {
    let home = apps::Apps::of_this_process()?;
    for AppToRun { resolved, .. } in meant.iter().filter(|app| app.wanted == Wanted::Running) {
        let Config { name, workers, .. } = &resolved.config;
        let give = || home.app(name).create().and_then(|()| Ids::give(home.home(), name, workers.get()));
        give().map_err(|source| NotWritten::at(home.home(), source))?;
    }
    Ok(())
}

/// Says what a file warns of.
pub(super) fn tell(warnings: &[Problem]) {
    warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
}

/// What a file says.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The apps that are meant, each after those that it depends on.
    pub apps: Vec<AppToRun>,
    /// What is to be looked at.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// Whether the programs of all are there, before any of them is started.
    ///
    /// # Errors
    /// Of the first that cannot be run.
    pub(super) fn find_programs(&self) -> Result<(), VerbError> {
        self.apps.iter().map(|app| &app.resolved.config).try_for_each(|config| {
            let found = cli::find_program(config);
            found.map_err(|source| VerbError::WorkplaceOf { app: config.name.clone(), source })
        })
    }
}

/// An app of a file, ready to be started.
#[derive(Debug)]
pub(super) struct AppToRun {
    /// Everything that is said of it.
    pub resolved: Resolved,
    /// Whether it is to run: one without `autostart` only if it was named.
    pub wanted: Wanted,
    /// The names of the apps that have to be ready first, whether they are meant or not.
    pub needs: Vec<String>,
}

/// Reads the apps of this file that are meant; flags go before what the file says.
///
/// # Errors
/// All that is wrong with the file, or with what the apps that are meant run.
pub(super) fn load(
    (path, format): (&Path, Format),
    folder: &Path,
    line: CommandLine,
    only: &[String],
) -> Result<Loaded, VerbError> {
    ready(file::load(path, folder, format)?, folder, line, only)
}

fn ready(mut apps: Apps, folder: &Path, mut line: CommandLine, only: &[String]) -> Result<Loaded, VerbError> {
    let profile = take_profile(&mut line.flags);
    apps.apps = profile::chosen(apps.apps, profile.as_deref()).map_err(one)?;
    apps.warnings.extend(file::shared_ports(&apps));
    file::check(&apps, cpus())?;
    if let Some(unknown) = only.iter().find(|name| apps.apps.iter().all(|app| app.name.text != **name)) {
        let names: Vec<_> = apps.apps.iter().map(|app| app.name.text.as_str()).collect();
        let reason =
            Reason::new("no such app in this file").hint(format!("its apps are {}", names.join(", ")));
        return Err(one(Problem::at(format!("--only {unknown}"), reason)).into());
    }
    let is_meant = |app: &App| only.is_empty() || only.contains(&app.name.text);
    let order = order::order(&apps.apps).map_err(Invalid::new)?;
    let meant: Vec<_> =
        order.into_iter().map(|place| &apps.apps[place]).filter(|app| is_meant(app)).collect();
    // All that is wrong is known before anything is started.
    let ready = |app: &&App| {
        let wanted = if app.autostart || !only.is_empty() { Wanted::Running } else { Wanted::Stopped };
        let needs = app.depends_on.iter().map(|name| name.text.clone()).collect();
        Ok(AppToRun { resolved: resolved(app, &line.flags, folder)?, wanted, needs })
    };
    let ready = all_or_what_is_wrong(meant.iter().map(ready))?;
    let name = |app: &AppToRun| app.resolved.config.name.clone();
    if let Some(twice) = (1..ready.len()).map(|place| name(&ready[place])).find(|own| *own == name(&ready[0]))
    {
        // Names in the file differ: a flag has named them all.
        let reason = Reason::new("several apps of this file would have this name");
        return Err(one(Problem::at(
            format!("--name {twice}"),
            reason.hint("choose one of them: --only APP"),
        ))
        .into());
    }
    let warnings = apps.warnings.into_iter().map(|Warning { problem, .. }| problem).collect();
    Ok(Loaded { apps: ready, warnings })
}

/// Every app, or what is wrong with any of them.
fn all_or_what_is_wrong(
    apps: impl Iterator<Item = Result<AppToRun, Invalid>>,
) -> Result<Vec<AppToRun>, Invalid> {
    let (mut ready, mut problems) = (Vec::new(), Vec::new());
    for app in apps {
        match app {
            Ok(app) => ready.push(app),
            Err(invalid) => problems.extend(invalid.into_problems()),
        }
    }
    if problems.is_empty() { Ok(ready) } else { Err(Invalid::new(problems)) }
}

fn one(problem: Problem) -> Invalid {
    Invalid::new(vec![problem])
}

/// `--env production` is a profile, and `--env NAME=VALUE` a variable.
fn take_profile(flags: &mut Layer) -> Option<String> {
    let is_variable = |value: &Value| value.text.contains('=');
    let profile = flags.of(&keys::env.key).iter().rfind(|value| !is_variable(value))?.text.clone();
    flags.retain(keys::env.key.name, is_variable);
    Some(profile)
}

fn resolved(app: &App, flags: &Layer, start: &Path) -> Result<Resolved, Invalid> {
    let path = std::env::var_os("PATH");
    let is_command = |name: &str| is_in(path.as_deref(), name);
    check_script(app, start, &is_command)?;
    let words = app.run.words(&app.folder(start), &is_command);
    let command = words.into_iter().map(OsString::from).collect();
    let sources = Sources {
        flags: flags.clone(),
        file: app.layer(),
        fallback: no_port(),
        command: Some((command, app.run.origin().clone())),
        ..Sources::default()
    };
    let mut resolved = resolve(sources, cpus())?;
    resolved.config.start_folder = Some(start.to_owned());
    Ok(resolved)
}

/// An interpreter would look for a script that is missing again and again. With one of its own, the script may be anything,
/// such as a module.
fn check_script(app: &App, start: &Path, is_command: &dyn Fn(&str) -> bool) -> Result<(), Invalid> {
    let Run::Script(Script { script, interpreter: None, .. }) = &app.run else { return Ok(()) };
    let is_path = script.text.contains(['.', '/']) && !script.text.contains(' ');
    let folder = app.folder(start);
    if !folder.is_dir() {
        // What is wrong is the folder, which is looked for later.
        return Ok(());
    }
    if !is_path || is_command(&script.text) || folder.join(&script.text).exists() {
        return Ok(());
    }
    Err(one(Problem::with(script, Reason::new(format!("no such file in {}", folder.display())))))
}

/// Starts the app, if it is wanted to run; or reloads it if it runs and has changed.
pub(super) async fn start_one(
    (resolved, wanted): (&Resolved, Wanted),
    folder: &Path,
    (environment, running): (UpdateEnv, IfItRuns),
    shape: Shape,
) -> Result<ExitCode, VerbError> {
    let app = apps::Apps::of_this_process()?.app(&resolved.config.name);
    match rest::define(&app, (resolved, wanted), folder, Environment::of_this_process()) {
        Err(VerbError::Locked(_)) if app.is_defined() => {
            change(&app, resolved, (environment, running), shape).await
        }
        Err(error) => Err(error),
        Ok(()) if wanted == Wanted::Stopped => {
            print::done(app.name(), "not started (autostart = false)", shape)?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(()) => rest::start(&app, shape).await,
    }
}

/// The app runs: what has changed is put in force. Its variables stay those of the shell that has started it, unless
/// it is said that they are not to.
async fn change(
    app: &AppFolder,
    resolved: &Resolved,
    (environment, running): (UpdateEnv, IfItRuns),
    shape: Shape,
) -> Result<ExitCode, VerbError> {
    let kept = definition::environment(app)?;
    let new = environment.given();
    let command = match (running, new) {
        (IfItRuns::Restart, None) => Command::Restart(None),
        (IfItRuns::Restart, Some(new)) => Command::RestartWith(new),
        (_, None) => Command::Reload,
        (_, Some(new)) => Command::ReloadWith(new),
    };
    let Written { is_changed, at_next_start } = definition::write(app, resolved, &kept, None)?;
    if !is_changed && (running, &command) == (IfItRuns::ReloadIfChanged, &Command::Reload) {
        print::done(app.name(), "it runs, and nothing has changed", shape)?;
        return Ok(ExitCode::SUCCESS);
    }
    let code = Order::of(Some(app.name().to_owned()), shape).carry_out(command).await?;
    if !at_next_start.is_empty() {
        let (name, changed) = (app.name(), at_next_start.join(", "));
        complain(&format!(
            "{name}: not in force before the app is ended and started again: {changed}\nhint: clusterd delete {name}, then start it"
        ));
    }
    Ok(code)
}
