//! Apps as a file describes them: what each runs, its settings and its variables, before any of it is judged or started.
//!
//! It starts nothing. In reading order: [`App`]; [`mod@file`] (which file is read how) with [`toml`] (ours, read and
//! written), [`tree`] and [`evaluate`] (JSON, YAML and JavaScript as one tree) and [`pm2`] (what PM2's keys are here);
//! [`profile`] (`--env production`), [`order`] (`depends-on`) and [`launch`] (which words run a script). [`own_keys`] has the
//! keys of an app that are no settings of the table.

pub(crate) mod evaluate;
pub(crate) mod file;
pub(crate) mod launch;
pub(crate) mod order;
pub(crate) mod own_keys;
pub(crate) mod pm2;
pub(crate) mod profile;
pub(crate) mod toml;
mod tree;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::error::Problem;
use super::origin::{Layer, Origin, Value};
use super::resolve::{Sources, no_port, resolve};
use super::table::keys;

/// An app as it is wanted: strings that know where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct App {
    /// What it is called.
    pub name: Value,
    /// What its workers run.
    pub run: Run,
    /// The settings of the table, `cwd` and `env` among them.
    pub settings: Layer,
    /// Variables that are in force with `--env NAME` only, as values of `env`.
    pub profiles: BTreeMap<String, Vec<Value>>,
    /// Whether `start FILE` starts it; otherwise that only writes down what it is.
    pub autostart: bool,
    /// Whether `--env NAME` is also appended to the name.
    pub appends_profile: bool,
    /// The apps of the same file that have to be ready first.
    pub depends_on: Vec<Value>,
}

/// What workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// The program and its arguments, as they are.
    Command {
        /// At least the program.
        words: Vec<String>,
        /// Where they stand.
        origin: Origin,
    },
    /// A file, or a line for a shell: how it is run, its first bytes and its name say (see [`launch`]).
    Script(Script),
}

/// A script, with what was said about running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    /// A file, relative to the app's folder; a command of `PATH`; or, with a space in it, a line for a shell.
    pub script: Value,
    /// What runs it; `none` is the script itself.
    pub interpreter: Option<String>,
    /// Arguments of the interpreter.
    pub interpreter_args: Vec<String>,
    /// Arguments of the script.
    pub args: Vec<String>,
}

/// What a file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Apps {
    /// In the order of the file.
    pub apps: Vec<App>,
    /// What is not as it was where the file comes from.
    pub warnings: Vec<Warning>,
}

/// Something that the file's author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// The app that it is about; `None` for the file.
    pub app: Option<String>,
    /// What it is.
    pub problem: Problem,
}

impl Run {
    /// Where it stands.
    pub(crate) fn origin(&self) -> &Origin {
        match self {
            Run::Command { origin, .. } => origin,
            Run::Script(script) => &script.script.origin,
        }
    }
}

impl App {
    /// What the table's settings are read from: all that the file says of them, the name too.
    pub(crate) fn layer(&self) -> Layer {
        let mut layer = self.settings.clone();
        layer.add(Value { name: keys::name.key.name, ..self.name.clone() });
        if let Run::Script(script) = &self.run {
            let said = |name: &str| {
                layer
                    .of(&keys::env.key)
                    .iter()
                    .any(|value| value.text.split_once('=').is_some_and(|(variable, _)| variable == name))
            };
            let own = script.variables().filter(|(name, _)| !said(name)).collect::<Vec<_>>();
            for (name, text) in own {
                let text = format!("{name}={text}");
                layer.add(Value { text, name: keys::env.key.name, ..script.script.clone() });
            }
        }
        layer
    }

    /// The folder that its workers run in; a relative one starts from `start`.
    pub(crate) fn folder(&self, start: &Path) -> PathBuf {
        let cwd = self.settings.of(&keys::cwd.key).last().filter(|cwd| cwd.text != "off");
        cwd.map_or_else(|| start.to_owned(), |cwd| start.join(&cwd.text))
    }

    /// Everything that is wrong with its settings: with each of them, and with all together. `cpus` is how many workers
    /// `max` stands for.
    pub(crate) fn check(&self, cpus: NonZeroU32) -> Vec<Problem> {
        let command = match &self.run {
            Run::Command { words, .. } => words.iter().map(OsString::from).collect(),
            Run::Script(script) => vec![OsString::from(&script.script.text)],
        };
        let command = (command, self.run.origin().clone());
        let sources =
            Sources { file: self.layer(), fallback: no_port(), command: Some(command), ..Sources::default() };
        match resolve(sources, cpus) {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.into_problems(),
        }
    }
}
