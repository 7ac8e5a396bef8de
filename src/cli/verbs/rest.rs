//! Apps of the home folder that do not run: found, and told apart from those that do.
//!
//! To look at them starts nothing.

use std::path::Path;
use std::process::ExitCode;

use super::VerbError;
use super::bring_up::{Way, bring_up};
use super::choose::{Many, NotChosen, Word, choose, choose_word, names};
use super::print::{self, Output, Shape};
use crate::cli::complain;
use crate::control::api::App;
use crate::control::client::{self, Clusterd, Found};
use crate::control::home::Home;
use crate::home::apps::{AppFolder, Apps};
use crate::home::at_rest;
use crate::home::definition::{self, NotWritten};
use crate::home::ids::Ids;
use crate::home::leave;
use crate::home::lock::Lock;
use crate::home::record::{Record, Wanted};
use crate::home::startup::short_lived;
use crate::home::startup::units::{Instance, is_booted};
use crate::ids::Slot;
use crate::logs::plan::LogPlan;
use crate::settings::apps::file;
use crate::settings::resolve::Resolved;
use crate::settings::start_folder;
use crate::supervisor::events::on_one_line;
use crate::supervisor::{Command, Environment};

/// Every app that was started once, and does not run.
pub(super) fn all() -> Vec<AppFolder> {
    all_but(&Found::default())
}

/// The same, for who knows already that these run.
pub(super) fn all_but(found: &Found) -> Vec<AppFolder> {
    at_rest::folders(|name| found.has(name))
}

/// The numbers of workers in this home folder; none without one.
pub(super) fn ids() -> Ids {
    Apps::of_this_process().map(|apps| Ids::of(apps.home())).unwrap_or_default()
}

/// Those that this word means, or no word.
///
/// # Errors
/// The word is a pattern that is none.
pub(super) fn meant(found: &Found, ids: &Ids, wanted: Option<&str>) -> Result<Vec<AppFolder>, NotChosen> {
    let Some(wanted) = wanted else {
        // Without a word it is clear only where there is one.
        let all = if found.apps.is_empty() { all() } else { Vec::new() };
        return Ok(if all.len() == 1 { all } else { Vec::new() });
    };
    let at_rest = all_with_namespaces(found);
    let word = read_among(wanted, found, &at_rest)?;
    Ok(of_word(&word, at_rest, ids))
}

/// Every app that does not run, and the namespace that it is in.
fn all_with_namespaces(found: &Found) -> Vec<(AppFolder, String)> {
    all_but(found)
        .into_iter()
        .map(|app| (definition::namespace(&app), app))
        .map(|(namespace, app)| (app, namespace))
        .collect()
}

fn read_among(wanted: &str, found: &Found, at_rest: &[(AppFolder, String)]) -> Result<Word, NotChosen> {
    let at_rest = at_rest.iter().map(|(app, namespace)| (app.name(), namespace.as_str()));
    Ok(Word::read(wanted)?.among(names(found).chain(at_rest)))
}

fn of_word(word: &Word, at_rest: Vec<(AppFolder, String)>, ids: &Ids) -> Vec<AppFolder> {
    let is_meant =
        |app: &AppFolder, namespace: &str| word.means(app.name(), namespace, ids.of_app(app.name()));
    at_rest.into_iter().filter(|(app, namespace)| is_meant(app, namespace)).map(|(app, _)| app).collect()
}

/// The apps that a word means.
#[derive(Debug)]
struct Meant<'a> {
    /// Those that run.
    running: Vec<&'a (Clusterd, App)>,
    /// Those that do not.
    at_rest: Vec<AppFolder>,
}

/// The apps that run, and those that do not, which this word means together, or no word.
///
/// # Errors
/// It means none, or it is not clear which.
fn meant_of_all<'a>(found: &'a Found, ids: &Ids, word: Option<&str>) -> Result<Meant<'a>, NotChosen> {
    let Some(wanted) = word else {
        let at_rest = meant(found, ids, None)?;
        let running = match choose(found, ids, None, Many::All) {
            Err(NotChosen::Nothing { .. }) if !at_rest.is_empty() => Vec::new(),
            chosen => chosen?,
        };
        return Ok(Meant { running, at_rest });
    };
    let at_rest = all_with_namespaces(found);
    let word = read_among(wanted, found, &at_rest)?;
    let names: Vec<_> = at_rest.iter().map(|(app, _)| app.name().to_owned()).collect();
    let at_rest = of_word(&word, at_rest, ids);
    let running = match choose_word(found, ids, (wanted, &word), Many::All) {
        Err(NotChosen::Nothing { .. } | NotChosen::Unknown { .. }) if !at_rest.is_empty() => Vec::new(),
        chosen => chosen.map_err(|error| error.beside(names.into_iter()))?,
    };
    Ok(Meant { running, at_rest })
}

/// An app that runs, and its worker if that is meant alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Who runs it.
    pub clusterd: &'a Clusterd,
    /// The app.
    pub app: &'a App,
    /// The worker whose number was said.
    pub worker: Option<Slot>,
}

impl Target<'_> {
    /// Whether the worker of this number is meant, alone or with the others.
    pub(super) fn is_meant(&self, worker: u32) -> bool {
        self.worker.is_none_or(|slot| slot.0 == worker)
    }
}

/// These words; where there are none, all apps are meant.
pub(super) fn or_all(words: &[String]) -> Vec<String> {
    if words.is_empty() { vec!["all".to_owned()] } else { words.to_vec() }
}

/// These words, with the apps of a file in the place of the file. Those that were never started are left out, unless all are.
///
/// # Errors
/// A file cannot be read.
pub(super) async fn or_apps_of_files(words: Vec<String>) -> Result<Vec<String>, VerbError> {
    let folder = start_folder::of_this_process().unwrap_or_default();
    let format = |word: &String| file::format(Path::new(word)).filter(|_| folder.join(word).is_file());
    if !words.iter().any(|word| format(word).is_some()) {
        return Ok(words);
    }
    let found = client::find(&Home::of_this_process()).await;
    let is_known = |name: &str| found.has(name) || all().iter().any(|app| app.name() == name);
    let mut named = Vec::new();
    for word in words {
        let Some(format) = format(&word).filter(|_| !is_known(&word)) else {
            named.push(word);
            continue;
        };
        let apps = file::load(Path::new(&word), &folder, format)?.apps;
        let (known, others): (Vec<_>, Vec<_>) =
            apps.into_iter().map(|app| app.name.text).partition(|name| is_known(name));
        named.extend(if known.is_empty() { others } else { known });
    }
    Ok(named)
}

/// What these words mean, each once, or the only app if there are no words: what runs, and the apps that do not.
///
/// # Errors
/// One of them means none, or it is not clear which.
pub(super) fn targets<'a>(
    found: &'a Found,
    ids: &Ids,
    words: &[String],
) -> Result<(Vec<Target<'a>>, Vec<AppFolder>), NotChosen> {
    let words =
        if words.is_empty() { vec![None] } else { words.iter().map(|word| Some(word.as_str())).collect() };
    let (mut running, mut at_rest): (Vec<Target<'a>>, Vec<AppFolder>) = (Vec::new(), Vec::new());
    for word in words {
        let meant = meant_of_all(found, ids, word)?;
        for (clusterd, app) in meant.running {
            let worker = word.and_then(|word| Word::read(word).ok()?.worker_of(ids.of_app(&app.name)));
            if !running.iter().any(|other| other.app.pid == app.pid && other.worker == worker) {
                running.push(Target { clusterd, app, worker });
            }
        }
        for folder in meant.at_rest {
            if !at_rest.contains(&folder) {
                at_rest.push(folder);
            }
        }
    }
    Ok((running, at_rest))
}

/// Writes down what an app is that does not run: nothing of what it was before stays. Whoever has its lock alone does so.
///
/// # Errors
/// It runs, or its folder cannot be written.
pub(super) fn define(
    app: &AppFolder,
    (resolved, wanted): (&Resolved, Wanted),
    start: &Path,
    environment: Environment,
) -> Result<(), VerbError> {
    tell_of_log_folders(app, resolved);
    let lock = Lock::take(app)?;
    app.remove_unfinished();
    let environment = environment.with("PWD", start.as_os_str());
    let record = Record { wanted, ..Record::default() };
    match definition::write(app, resolved, &environment, Some(&record)) {
        Ok(_) => Ok(()),
        Err(error) => {
            // What was not defined before leaves nothing.
            leave(app, &lock);
            Err(error.into())
        }
    }
}

/// Says which folders are made for logs: a name may be mistyped.
fn tell_of_log_folders(app: &AppFolder, resolved: &Resolved) {
    for folder in LogPlan::of(&resolved.config, Some(&app.logs())).folders() {
        if !folder.starts_with(app.home()) && !folder.exists() {
            complain(&format!("{}: the folder {} is made for logs", app.name(), folder.display()));
        }
    }
}

/// Carries out what can be done for an app that does not run.
pub(super) async fn obey(folder: &AppFolder, command: &Command, shape: Shape) -> Result<ExitCode, VerbError> {
    let name = folder.name();
    match command {
        Command::Stop(_) => {
            let stop = |record: &mut Record| {
                record.wanted = Wanted::Stopped;
                record.held.clear();
            };
            Record::change(folder, stop).map_err(|source| NotWritten::at(&folder.path(), source))?;
            print::done(name, "it was not running, and is not started at the next boot", shape)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Reset(_) => {
            print::done(
                name,
                "it is not running, and restarts are counted from 0 when it is started",
                shape,
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Signal(..) => {
            complain(&format!("{name}: no worker is running"));
            Ok(ExitCode::FAILURE)
        }
        Command::Upgrade(_) => {
            print::done(name, "it is not running, and runs the clusterd that starts it next", shape)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Hold | Command::Scale(_) => {
            complain(&format!("{name}: the app is not running\nhint: start it first: clusterd start {name}"));
            Ok(ExitCode::FAILURE)
        }
        Command::ReloadWith(environment)
        | Command::RestartWith(environment)
        | Command::StartWith(environment) => {
            definition::set_environment(folder, environment)
                .map_err(|source| NotWritten::at(&folder.path(), source))?;
            start(folder, shape).await
        }
        Command::Reload | Command::Restart(_) | Command::Start(_) => start(folder, shape).await,
    }
}

/// Starts the app and says what came of it.
pub(super) async fn start(folder: &AppFolder, shape: Shape) -> Result<ExitCode, VerbError> {
    let app = match bring_up(folder, way(folder)?).await {
        Ok(app) => app,
        Err(failure) => {
            failure.complaints().iter().for_each(|complaint| complain(complaint));
            return Ok(ExitCode::FAILURE);
        }
    };
    if shape.output == Output::Json {
        print::json(&app)?;
        return Ok(ExitCode::SUCCESS);
    }
    let workers = match app.wanted {
        1 => "1 worker".to_owned(),
        many => format!("{many} workers"),
    };
    let addresses: Vec<_> = app.addresses.iter().map(|address| address.address.to_string()).collect();
    let on = if addresses.is_empty() { String::new() } else { format!(" on {}", addresses.join(", ")) };
    print::done(&app.name, &format!("started with {workers}{on} (pid {})", app.pid), shape)?;
    Ok(ExitCode::SUCCESS)
}

/// Who starts the app: systemd, if it does so at boot.
fn way(folder: &AppFolder) -> Result<Way, VerbError> {
    // Whoever has the lock runs it.
    let lock = Lock::take(folder)?;
    if let Some(unit) = Instance::of(folder).filter(|_| is_booted()) {
        return Ok(Way::Unit(unit));
    }
    warn_of_an_early_end();
    Ok(Way::Detached(lock))
}

/// Says so if the app will end with what runs this command.
fn warn_of_an_early_end() {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let job = short_lived::job(|name| std::env::var(name).ok());
    let job = job.map(|job| format!("with this job: {job} ends what a job has left running"));
    let service = || Some(format!("with {}, in which this command runs", short_lived::service(&cgroup)?));
    if let Some(when) = job.or_else(service) {
        complain(&format!(
            "warning: the app will end {when}\n\
             hint: `clusterd startup` has systemd run apps on their own; in a container, `clusterd up` is what runs them"
        ));
    }
}

/// What programs see of an app that does not run.
pub(super) fn shown(folder: &AppFolder) -> serde_json::Value {
    let record = Record::of(folder);
    serde_json::json!({
        "name": folder.name(),
        "namespace": definition::namespace(folder),
        "state": record.state(),
        "ended": record.ended,
        "problem": problem(folder),
        "workers": [],
    })
}

/// What is wrong with the settings of an app, so that it cannot be started.
pub(super) fn problem(folder: &AppFolder) -> Option<String> {
    let invalid = definition::settings(folder).err()?;
    let problems: Vec<_> =
        invalid.problems().iter().map(|problem| on_one_line(&problem.to_string())).collect();
    Some(problems.join("; "))
}
