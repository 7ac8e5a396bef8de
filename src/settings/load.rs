//! Reads this process's environment, the file that flags or environment name, and the machine's CPUs.
//!
//! The edge: what is read here is judged in [`super::resolve`].

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::Config;
use super::carried::CarriedSettings;
use super::dotenv::Assignment;
use super::error::{Invalid, Problem, Reason};
use super::origin::{Layer, Origin};
use super::resolve::{Resolved, Sources, resolve};
use super::table::{self, keys};
use super::{apps, env_file, environment, file};

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The settings.
    pub flags: Layer,
    /// Where the file is.
    pub config: Option<PathBuf>,
    /// The program and its arguments; empty if none is named.
    pub command: Vec<OsString>,
    /// Where it was said, if a name leads there: relative paths start there.
    pub folder: Option<PathBuf>,
    /// What goes before the defaults.
    pub fallback: Layer,
    /// Neither flags nor variables count, as for an app of the home folder.
    pub is_only_file: bool,
}

impl CommandLine {
    /// Where the file is, said here or by a variable.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        let by_variable = || environment::read(&|variable| std::env::var_os(variable)).config;
        self.config.clone().or_else(|| if self.is_only_file { None } else { by_variable() })
    }
}

/// The configuration that clusterd runs with.
#[derive(Debug)]
pub(crate) struct Told {
    /// What counts.
    pub config: Config,
    /// All that was said, for another image of clusterd.
    pub settings: CarriedSettings,
    /// By which it is read again.
    pub command_line: CommandLine,
}

/// The whole configuration. A file is read only if `--config` or `CLUSTERD_CONFIG` names one, and environment files only if
/// all else is right.
///
/// # Errors
/// Everything that is wrong, in one.
pub(crate) fn load(command_line: CommandLine) -> Result<Resolved, Invalid> {
    let is_only_file = command_line.is_only_file;
    let environment =
        environment::read(&|variable| if is_only_file { None } else { std::env::var_os(variable) });
    let by_flag = command_line.config.map(|path| (path, Origin::Flag("config")));
    let by_environment =
        environment.config.map(|path| (path, Origin::Environment(table::CONFIG_VARIABLE.to_owned())));
    let config = by_flag.or(by_environment);
    let mut warnings = Vec::new();
    let file = match &config {
        Some((path, _)) => match file::load(path, command_line.folder.as_deref()) {
            Ok(text) if apps::toml::has_apps(&text) => {
                let folder = command_line.folder.as_deref().unwrap_or(Path::new("."));
                the_app(path, &text, folder, &mut warnings).unwrap_or_else(not_read)
            }
            Ok(text) if is_only_file => file::read(path, &without_others(path, &text, &mut warnings)),
            Ok(text) => file::read(path, &text),
            Err(problem) => not_read(Invalid::new(vec![problem])),
        },
        None => file::Contents::default(),
    };
    let given = (!command_line.command.is_empty()).then_some((command_line.command, Origin::CommandLine));
    let mut problems = environment.problems;
    problems.extend(file.problems);
    let sources = Sources {
        flags: command_line.flags,
        environment: environment.own,
        platform: environment.platform,
        file: file.layer,
        fallback: command_line.fallback,
        command: given.or(file.command),
        config,
        problems,
    };
    let mut resolved = resolve(sources, cpus())?;
    resolved.carried = resolved.carried.started_in(command_line.folder.as_deref());
    resolved.config.start_folder = command_line.folder;
    resolved.env_files = env_files(&resolved)?;
    resolved.warnings = warnings;
    Ok(resolved)
}

fn not_read(invalid: Invalid) -> file::Contents {
    file::Contents { problems: invalid.into_problems(), ..file::Contents::default() }
}

/// What a file with tables of apps says, if it has one: this clusterd runs one app.
fn the_app(
    path: &Path,
    text: &str,
    folder: &Path,
    warnings: &mut Vec<Problem>,
) -> Result<file::Contents, Invalid> {
    let apps = apps::toml::read(path, text)?;
    warnings.extend(apps.warnings.into_iter().map(|warning| warning.problem));
    let apps = apps::profile::chosen(apps.apps, None).map_err(|problem| Invalid::new(vec![problem]))?;
    let names: Vec<_> = apps.iter().map(|app| app.name.text.clone()).collect();
    let [app] = apps.as_slice() else {
        let reason =
            Reason::new(format!("has {} apps, {}, and one clusterd runs one", names.len(), names.join(", ")));
        let hint = format!(
            "run them all with `clusterd up {}`, or give each a file of its own, without [app.NAME]",
            path.display()
        );
        return Err(Invalid::new(vec![Problem::at(path.display(), reason.hint(hint))]));
    };
    let path_variable = std::env::var_os("PATH");
    let is_command = |name: &str| apps::launch::is_in(path_variable.as_deref(), name);
    let words = app.run.words(&app.folder(folder), &is_command);
    let command = words.into_iter().map(OsString::from).collect();
    Ok(file::Contents {
        layer: app.layer(),
        command: Some((command, app.run.origin().clone())),
        problems: Vec::new(),
    })
}

/// The file of an app of the home folder without the keys that this version does not know: another version has written them, and a
/// person is told of them.
fn without_others(path: &Path, text: &str, warnings: &mut Vec<Problem>) -> String {
    let Ok(mut keys) = text.parse::<toml::Table>() else { return text.to_owned() };
    let others: Vec<_> = keys.keys().filter(|name| !table::is_known(name)).cloned().collect();
    if others.is_empty() {
        return text.to_owned();
    }
    for name in others {
        keys.remove(&name);
        let reason =
            Reason::new(concat!("clusterd ", env!("CARGO_PKG_VERSION"), " does not know this setting"));
        let hint = "another version of clusterd has written it: it is kept, and has no effect with this one";
        warnings.push(Problem::at(format!("{}: {name}", path.display()), reason.hint(hint)));
    }
    keys.to_string()
}

/// What the environment files say. Each keeps the name that it was given.
fn env_files(resolved: &Resolved) -> Result<Vec<(Assignment, Origin)>, Invalid> {
    let (mut said, mut problems) = (Vec::new(), Vec::new());
    let files = resolved.config.workplace().env_files;
    let named = resolved.values.get(keys::env_file.key.name).into_iter().flatten();
    for (value, path) in named.zip(files) {
        match env_file::read(&path) {
            Ok(assignments) => said.extend(assignments.into_iter().map(|assignment| {
                let (path, line) = (PathBuf::from(&value.text), assignment.line);
                (assignment, Origin::File { path, line })
            })),
            Err(error) => problems.push(Problem::together(value, Reason::new(error.to_string()))),
        }
    }
    if problems.is_empty() { Ok(said) } else { Err(Invalid::new(problems)) }
}

/// How many CPUs this process may use: the smallest of the machine's, its affinity's (sched_getaffinity(2)) and its
/// cgroup's quota (versions 1 and 2), rounded down; 1 where that cannot be told.
pub(crate) fn cpus() -> NonZeroU32 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|cpus| NonZeroU32::try_from(cpus).ok())
        .unwrap_or(NonZeroU32::MIN)
}
