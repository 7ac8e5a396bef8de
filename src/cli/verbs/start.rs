//! `clusterd start`: starts an app that goes on by itself, or workers that were stopped.
//!
//! A word is the name of an app before it is anything else, as PM2 has it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command as Declaration, FromArgMatches};

use super::choose::NotChosen;
use super::order::{Order, UpdateEnv};
use super::print::Shape;
use super::start_file::IfItRuns;
use super::{VerbError, rest, start_file};
use crate::cli::{arguments, complain, find_program};
use crate::control::client;
use crate::control::home::Home;
use crate::home::apps::Apps;
use crate::home::definition::NotWritten;
use crate::home::record::Wanted;
use crate::settings::apps::Script;
use crate::settings::apps::file;
use crate::settings::apps::launch::{is_in, look};
use crate::settings::apps::own_keys::SCRIPT;
use crate::settings::load::{CommandLine, load};
use crate::settings::origin::{Origin, Value};
use crate::settings::resolve::no_port;
use crate::settings::table::keys;
use crate::settings::{script, start_folder};
use crate::supervisor::{Command, Environment};

/// Start an app in the background, or one that was stopped
///
/// `clusterd start app.js` and `clusterd start -- ./my-server` start a new app, which goes on when the terminal is
/// closed. It is called as its script or program, or by --name. `clusterd start NAME` starts one that was stopped or has ended.
/// Every setting of clusterd can be given here (`clusterd --help` has them).
#[derive(Debug, clap::Args)]
#[command(override_usage = "clusterd start [OPTIONS] [SETTINGS] [APP|SCRIPT|FILE]... [-- COMMAND...]")]
pub(super) struct Start {
    /// Names of apps, or a script, or a file of apps
    #[arg(value_name = "APP|SCRIPT|FILE")]
    words: Vec<OsString>,

    /// The command of a new app, or arguments of the script
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,

    /// Only this app of a file; repeatable
    #[arg(long, value_name = "APP", value_delimiter = ',')]
    only: Vec<String>,

    /// What runs the script; `none` is the script itself
    #[arg(long, value_name = "PROGRAM")]
    interpreter: Option<String>,

    #[command(flatten)]
    environment: UpdateEnv,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    shape: Shape,
}

/// The flags of all settings.
#[derive(Debug)]
pub(super) struct Settings(pub(super) CommandLine);

impl clap::Args for Settings {
    fn augment_args(command: Declaration) -> Declaration {
        // Their help is that of the whole. They are two hundred, and most verbs have none of them.
        command.defer(|command| command.args(arguments::settings().map(|flag| flag.hide(true))))
    }

    fn augment_args_for_update(command: Declaration) -> Declaration {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(arguments::read_settings(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Start {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let Self { words, command, only, interpreter, environment, settings: Settings(line), shape } = self;
        let start = environment.given().map_or(Command::Start(None), Command::StartWith);
        let name = line.flags.of(&keys::name.key).first().map(|name| name.text.clone());
        let has_script = match &words[..] {
            [_] => !command.is_empty() || is_script(&words[0]).await,
            _ => false,
        };
        let is_file = matches!(&words[..], [word] if has_script && file::format(Path::new(word)).is_some());
        if !only.is_empty() && !is_file {
            return Err(VerbError::Usage(
                "--only chooses among the apps of a file, and there is none".to_owned(),
            ));
        }
        match (&words[..], has_script) {
            ([], _) if command.is_empty() && line.config.is_none() => {
                check_for_known(&line)?;
                start_known(name.into_iter().collect(), start, shape).await
            }
            ([], _) => {
                start_new(CommandLine { command, ..line }, Environment::of_this_process(), shape).await
            }
            ([script], true) => match file::format(Path::new(script)).filter(|_| interpreter.is_none()) {
                Some(format) => {
                    let chosen = start_file::Chosen {
                        line,
                        only,
                        environment,
                        running: IfItRuns::ReloadIfChanged,
                        shape,
                    };
                    start_file::start(Path::new(script), format, chosen).await
                }
                None => start_script(script, (interpreter, command), line, shape).await,
            },
            (names, _) if command.is_empty() => {
                check_for_known(&line)?;
                let names = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                start_known(names, start, shape).await
            }
            _ => Err(VerbError::Usage(
                "the whole command stands behind `--`, as in clusterd start --name web -- node app.js"
                    .to_owned(),
            )),
        }
    }
}

/// Whether the only word is a file, and no app.
async fn is_script(word: &OsStr) -> bool {
    let is_file = start_folder::of_this_process().is_some_and(|folder| folder.join(word).is_file());
    let Some(name) = word.to_str().filter(|_| is_file) else { return is_file };
    let is_app = rest::all().iter().any(|app| app.name() == name);
    !is_app && !client::find(&Home::of_this_process()).await.has(name)
}

/// An app that is there keeps its settings.
fn check_for_known(line: &CommandLine) -> Result<(), VerbError> {
    let Some(other) = line.flags.values().find(|value| value.name != keys::name.key.name) else {
        return Ok(());
    };
    let hint = match other.name == keys::workers.key.name {
        true => "clusterd scale APP N changes how many workers it has",
        false => "start it anew by its script or command, after clusterd delete APP",
    };
    let what = "is for a new app: one that is there keeps its settings";
    Err(VerbError::Usage(format!("{} {what}\nhint: {hint}", other.origin)))
}

/// Starts what is there already: workers of apps that run, and apps that do not.
async fn start_known(names: Vec<String>, start: Command, shape: Shape) -> Result<ExitCode, VerbError> {
    let path = names.iter().find(|name| name.contains(['.', '/'])).cloned();
    let named: String = names.iter().map(|name| format!(" {name}")).collect();
    let folder = start_folder::of_this_process();
    let is_script = |name: &String| folder.as_ref().is_some_and(|folder| folder.join(name).is_file());
    let is_one_of_several = names.len() > 1 && path.as_ref().is_some_and(is_script);
    let started = Order::of_all(names, shape).carry_out(start).await;
    let no_app = |path: String| match super::check_start_folder() {
        Err(gone) if Path::new(&path).is_relative() => gone,
        _ => VerbError::NoApp(path),
    };
    started.map_err(|error| match (error, path) {
        (VerbError::NotChosen(NotChosen::Nothing { .. } | NotChosen::Unknown { .. }), Some(path))
            if is_one_of_several =>
        {
            VerbError::Usage(format!("{path} is no app; scripts are started one at a time"))
        }
        (VerbError::NotChosen(NotChosen::Nothing { .. }), Some(path)) => no_app(path),
        (VerbError::NotChosen(NotChosen::Unknown { wanted, .. }), Some(path)) if wanted == path => {
            no_app(path)
        }
        (VerbError::NotChosen(NotChosen::Nothing { .. }), None) => VerbError::NothingToStart(named),
        (error, _) => error,
    })
}

/// Starts a new app from a script, called as the script.
async fn start_script(
    script: &OsStr,
    (interpreter, arguments): (Option<String>, Vec<OsString>),
    mut line: CommandLine,
    shape: Shape,
) -> Result<ExitCode, VerbError> {
    if line.flags.of(&keys::name.key).is_empty() {
        let name = script::name_of(script);
        line.flags.add(Value::new(keys::name.key.name, name, Origin::CommandLine));
    }
    let text = script.to_str().ok_or_else(|| NotWritten::NoText(script.to_owned()))?;
    let run = Script {
        script: Value::new(SCRIPT, text, Origin::CommandLine),
        interpreter,
        interpreter_args: Vec::new(),
        args: Vec::new(),
    };
    let (path, folder) = (std::env::var_os("PATH"), start_folder::of_this_process());
    let seen = look(&folder.unwrap_or_default().join(script));
    let words = run.words(&seen, &|name| is_in(path.as_deref(), name));
    let command = words.into_iter().map(OsString::from).chain(arguments).collect();
    start_new(CommandLine { command, ..line }, Environment::of_this_process(), shape).await
}

/// Starts a new app with this environment, which goes on when this process has ended.
pub(super) async fn start_new(
    line: CommandLine,
    environment: Environment,
    shape: Shape,
) -> Result<ExitCode, VerbError> {
    let folder = super::start_folder()?;
    let line = CommandLine { folder: Some(folder.clone()), fallback: no_port(), ..line };
    let resolved = load(line)?;
    resolved.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    find_program(&resolved.config)?;
    let app = Apps::of_this_process()?.app(&resolved.config.name);
    rest::define(&app, (&resolved, Wanted::Running), &folder, environment)?;
    rest::start(&app, shape).await
}
