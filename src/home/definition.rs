//! The app as it is wanted: `app.toml`, which is a configuration file as any other, and `environment`.
//!
//! What flags, variables and a file said at the start is in it. From then on that file alone counts, for the app is started
//! again by whoever needs it, from anywhere: by its guardian, or at the next boot.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use toml::{Table, Value as TomlValue};

use super::apps::{self, AppFolder};
use super::owner::by_owner;
use super::record::Record;
use crate::settings::WorkerCommand;
use crate::settings::error::Invalid;
use crate::settings::file;
use crate::settings::kind::Arity;
use crate::settings::load::{CommandLine, load};
use crate::settings::origin::{Origin, Value};
use crate::settings::resolve::Resolved;
use crate::settings::setting::{InForce, Key};
use crate::settings::table;
use crate::supervisor::Environment;

/// Why an app cannot be written down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotWritten {
    /// TOML takes no such text.
    #[error("cannot keep the command: {0:?} is not valid UTF-8")]
    NoText(OsString),
    /// The folder cannot be written.
    #[error("cannot write to {folder}: {source}\nhint: name another folder for apps: CLUSTERD_HOME")]
    Folder {
        /// Which.
        folder: String,
        /// What the system said.
        source: io::Error,
    },
}

impl NotWritten {
    /// This folder cannot be written.
    pub(crate) fn at(folder: &Path, source: io::Error) -> Self {
        NotWritten::Folder { folder: folder.display().to_string(), source }
    }
}

/// What writing has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The app was something else before, or nothing.
    pub is_changed: bool,
    /// The settings of which a reload does not put the change in force.
    pub at_next_start: Vec<&'static str>,
}

/// Writes both files, and the record if one is given: all of them, or none. Of the variables, those that were not said to this very process. Relative paths in the settings start from the folder that the variable `PWD` names.
///
/// # Errors
/// The command is no text, or the folder cannot be written.
pub(crate) fn write(
    app: &AppFolder,
    resolved: &Resolved,
    environment: &Environment,
    record: Option<&Record>,
) -> Result<Written, NotWritten> {
    let old = std::fs::read_to_string(app.definition()).ok().and_then(|text| text.parse().ok());
    let old: Table = old.unwrap_or_default();
    let mut new = table_of(resolved)?;
    new.extend(of_others(&old));
    let (text, variables) = (new.to_string(), joined(&environment.passed_on()));
    let write = || {
        app.create()?;
        let record = record.map(Record::text).transpose()?;
        let (environment, definition, state) = (app.environment(), app.definition(), app.record());
        let mut files: Vec<(&Path, &[u8])> = vec![(&environment, &variables), (&definition, text.as_bytes())];
        files.extend(record.iter().map(|record| (state.as_path(), record.as_slice())));
        by_owner(app.home(), || apps::replace_all(&files))
    };
    write().map_err(|source| NotWritten::at(&app.path(), source))?;
    Ok(changes(&old, &new))
}

/// The settings that another version has written, and this one does not know. It keeps them for that version.
fn of_others(file: &Table) -> impl Iterator<Item = (String, TomlValue)> {
    let others = file.iter().filter(|(name, _)| !table::is_known(name));
    others.map(|(name, value)| (name.clone(), value.clone()))
}

fn changes(old: &Table, new: &Table) -> Written {
    let is_of_start =
        |key: &&Key| key.in_force == InForce::AtNextStart && old.get(key.name) != new.get(key.name);
    Written {
        is_changed: old != new,
        at_next_start: table::all().filter(is_of_start).map(|key| key.name).collect(),
    }
}

/// The app as a file has it.
///
/// # Errors
/// The command is no text.
pub(crate) fn text_of(resolved: &Resolved) -> Result<String, NotWritten> {
    Ok(table_of(resolved)?.to_string())
}

/// The variables that the app was started with.
///
/// # Errors
/// Those of reading a file.
pub(crate) fn environment(app: &AppFolder) -> io::Result<Environment> {
    Ok(separated(&std::fs::read(app.environment())?))
}

/// What the app's settings are. Relative paths in them start from the folder that it was started in, wherever this process is.
///
/// # Errors
/// They cannot be read, or are wrong.
pub(crate) fn settings(app: &AppFolder) -> Result<Resolved, Invalid> {
    let folder = environment(app).ok().and_then(|environment| Some(environment.get("PWD")?.into()));
    load(CommandLine { config: Some(app.definition()), is_only_file: true, folder, ..CommandLine::default() })
}

/// The namespace that the app is in.
pub(crate) fn namespace(app: &AppFolder) -> String {
    let key = &table::keys::namespace.key;
    let file: Option<Table> =
        std::fs::read_to_string(app.definition()).ok().and_then(|text| text.parse().ok());
    match file.as_ref().and_then(|file| file.get(key.name)) {
        Some(TomlValue::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => key.default.unwrap_or_default().to_owned(),
    }
}

/// From now on the app has these variables. Relative paths in its settings start from where they did before.
///
/// # Errors
/// Those of reading and writing a file.
pub(crate) fn set_environment(app: &AppFolder, new: &Environment) -> io::Result<()> {
    let folder = environment(app)?.get("PWD").cloned();
    let new = folder.map_or_else(|| new.clone(), |folder| new.with("PWD", &folder));
    by_owner(app.home(), || apps::replace(&app.environment(), &joined(&new.passed_on())))
}

/// The settings that somebody has named, as a file has them.
fn table_of(resolved: &Resolved) -> Result<Table, NotWritten> {
    let mut file = Table::new();
    for key in table::all() {
        let values = resolved.values.get(key.name).map_or(&[][..], Vec::as_slice);
        if values.iter().any(|value| value.origin != Origin::Default) {
            file.insert(key.name.to_owned(), setting(key, values));
        }
    }
    file.insert(table::keys::name.key.name.to_owned(), resolved.config.name.clone().into());
    if let WorkerCommand::Program { program, arguments } = &resolved.config.command {
        let words = std::iter::once(program).chain(arguments).map(|word| {
            let text = word.to_str().ok_or_else(|| NotWritten::NoText(word.clone()))?;
            Ok(TomlValue::from(text))
        });
        file.insert(table::COMMAND.to_owned(), TomlValue::Array(words.collect::<Result<_, NotWritten>>()?));
    }
    Ok(file)
}

fn setting(key: &'static Key, values: &[Value]) -> TomlValue {
    match key.values.arity() {
        // In a table, they would be taken for settings.
        Arity::Map { .. } if names_a_setting(values) => {
            TomlValue::Array(values.iter().map(|value| TomlValue::from(value.text.clone())).collect())
        }
        Arity::Map { .. } => {
            let named = values.iter().filter_map(|value| value.text.split_once('='));
            TomlValue::Table(named.map(|(name, text)| (name.to_owned(), text.into())).collect())
        }
        Arity::List { .. } => TomlValue::Array(values.iter().map(|value| scalar(key, &value.text)).collect()),
        Arity::One | Arity::Switch => scalar(key, values.last().map_or("", |value| &value.text)),
    }
}

fn names_a_setting(variables: &[Value]) -> bool {
    let mut names = variables.iter().filter_map(|value| value.text.split_once('='));
    names.any(|(name, _)| file::is_setting(name))
}

/// Numbers, `true` and `false` as such, where the setting takes them.
fn scalar(key: &'static Key, text: &str) -> TomlValue {
    if key.values.is_text() {
        return text.into();
    }
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text).map(TomlValue::from);
    let truth = || text.parse::<bool>().ok().map(TomlValue::from);
    number.or_else(truth).unwrap_or_else(|| text.into())
}

/// `NAME=VALUE`, each with a zero byte behind it, as the kernel has it (proc_pid_environ(5)).
fn joined(environment: &Environment) -> Vec<u8> {
    let variables = environment.iter();
    variables.flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat()).collect()
}

fn separated(bytes: &[u8]) -> Environment {
    let variables = bytes.split(|&byte| byte == 0).filter_map(|variable| {
        // A name may begin with `=`, as environ(7) of some shells has it.
        let end = variable.iter().skip(1).position(|&byte| byte == b'=')? + 1;
        let (name, value) = (&variable[..end], &variable[end + 1..]);
        Some((OsStr::from_bytes(name).to_owned(), OsString::from_vec(value.to_vec())))
    });
    variables.collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::settings::origin::Layer;
    use crate::settings::resolve::{Sources, resolve};

    fn resolved(flags: &[(&'static str, &str)], command: &[&str], file: &str) -> Resolved {
        let mut layer = Layer::default();
        flags.iter().for_each(|(name, text)| layer.add(Value::new(name, *text, Origin::Flag(name))));
        let file = file::read(Path::new("app.toml"), file);
        assert!(file.problems.is_empty(), "{:?}", file.problems);
        let given = (!command.is_empty()).then(|| command.iter().map(OsString::from).collect());
        let sources = Sources {
            flags: layer,
            file: file.layer,
            command: given.map(|command| (command, Origin::CommandLine)).or(file.command),
            ..Sources::default()
        };
        resolve(sources, NonZeroU32::new(4).unwrap()).unwrap()
    }

    #[test]
    fn what_was_said_is_what_is_kept() {
        let flags = [
            ("port", "80:8080"),
            ("port", "9000"),
            ("workers", "3"),
            ("autorestart", "false"),
            ("kill-timeout", "3s"),
            ("user", "0"),
            ("group", "0"),
            ("env", "A=1"),
            ("env", "B=x=y"),
        ];
        let said = resolved(&flags, &["node", "my app.js"], "");
        let text = table_of(&said).unwrap().to_string();
        insta::assert_snapshot!(text, @r#"
        autorestart = false
        command = ["node", "my app.js"]
        group = 0
        kill-timeout = "3s"
        name = "node"
        port = ["80:8080", 9000]
        user = 0
        workers = 3

        [env]
        A = "1"
        B = "x=y"
        "#);
        let kept = resolved(&[], &[], &text);
        assert_eq!(kept.config, said.config);
    }

    #[test]
    fn a_variable_may_be_called_as_a_setting() {
        let said = resolved(&[("env", "user=joe"), ("env", "A=1"), ("env", "A=2")], &["x"], "");
        let text = table_of(&said).unwrap().to_string();
        assert!(text.contains(r#"env = ["user=joe", "A=1", "A=2"]"#), "{text}");
        assert_eq!(resolved(&[], &[], &text).config, said.config);
    }

    #[test]
    fn every_setting_can_be_kept_with_its_default() {
        for key in table::all().filter(|key| key.default.is_some()) {
            let default = key.default.unwrap_or_default();
            let said = resolved(&[(key.name, default)], &["x"], "");
            assert_eq!(
                resolved(&[], &[], &table_of(&said).unwrap().to_string()).config,
                said.config,
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn a_command_that_is_no_text_is_refused() {
        let mut said = resolved(&[], &["x"], "");
        let odd = OsString::from_vec(vec![b'a', 0xff]);
        said.config.command = WorkerCommand::Program { program: odd, arguments: Vec::new() };
        assert!(table_of(&said).unwrap_err().to_string().contains(r#""a\xFF" is not valid UTF-8"#));
    }

    #[test]
    fn what_has_changed_is_told_and_what_waits_for_the_next_start() {
        let table = |flags: &[(&'static str, &str)]| table_of(&resolved(flags, &["x"], "")).unwrap();
        let before = table(&[("port", "1"), ("workers", "2")]);
        let cases: [(&[_], bool, &[&str]); 3] = [
            (&[("port", "1"), ("workers", "2")], false, &[]),
            (&[("port", "1"), ("workers", "3")], true, &[]),
            (&[("workers", "2"), ("queue", "7")], true, &["port", "queue"]),
        ];
        for (flags, is_changed, waiting) in cases {
            let expected = Written { is_changed, at_next_start: waiting.to_vec() };
            assert_eq!(changes(&before, &table(flags)), expected, "{flags:?}");
        }
    }

    proptest! {
        #[test]
        fn variables_are_kept_byte_by_byte(
            variables in prop::collection::btree_map(
                prop::collection::vec(1..=255u8, 1..9).prop_filter("a name", |name| !name[1..].contains(&b'=')),
                prop::collection::vec(1..=255u8, 0..9),
                0..9,
            )
        ) {
            let environment: Environment = variables
                .into_iter()
                .map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)))
                .collect();
            prop_assert_eq!(separated(&joined(&environment)), environment);
        }
    }
}
