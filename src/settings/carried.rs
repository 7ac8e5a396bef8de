//! What was said of each setting, as it is written down for the next image of clusterd, which reads it with its own table.
//!
//! Values are text, as their sources deliver them: what they mean is for whoever reads them. A setting that is not known
//! there is refused, for it may matter.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Invalid;
use super::load::CommandLine;
use super::origin::{Layer, Origin, Value};
use super::resolve::{Sources, resolve};
use super::table;
use super::{Config, diff};
use crate::carry::Raw;

/// Everything that was said, when the configuration in force was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CarriedSettings {
    flags: Vec<CarriedValue>,
    environment: Vec<CarriedValue>,
    platform: Vec<CarriedValue>,
    file: Vec<CarriedValue>,
    fallback: Vec<CarriedValue>,
    command: Option<(Vec<Raw>, CarriedOrigin)>,
    start_folder: Option<Raw>,
    /// How many workers `max` stands for.
    cpus: NonZeroU32,
}

/// What the command line says, by which the configuration is read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CarriedCommandLine {
    flags: Vec<CarriedValue>,
    config: Option<Raw>,
    command: Vec<Raw>,
    folder: Option<Raw>,
    fallback: Vec<CarriedValue>,
    is_only_file: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarriedValue {
    name: String,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    literal: Option<String>,
    origin: CarriedOrigin,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum CarriedOrigin {
    Flag(String),
    CommandLine,
    Environment(String),
    File { path: Raw, line: usize },
    Ecosystem { path: Raw, line: Option<usize>, app: String, key: String },
    Default,
}

/// The settings cannot be read here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRead {
    /// This version has no such setting.
    #[error("clusterd {version} has no setting {0:?}", version = env!("CARGO_PKG_VERSION"))]
    Unknown(String),
    /// This version judges them otherwise.
    #[error("clusterd {version} does not accept the settings in force: {0}", version = env!("CARGO_PKG_VERSION"))]
    Invalid(Box<Invalid>),
}

impl CarriedSettings {
    /// Of what was read. Environment files are not among it: they are read at each start of a worker.
    pub(super) fn of(sources: &Sources, cpus: NonZeroU32) -> Self {
        let command = sources.command.as_ref();
        Self {
            flags: values(&sources.flags),
            environment: values(&sources.environment),
            platform: values(&sources.platform),
            file: values(&sources.file),
            fallback: values(&sources.fallback),
            command: command.map(|(words, origin)| (raw(words), CarriedOrigin::from(origin))),
            start_folder: None,
            cpus,
        }
    }

    /// The same, said in this folder.
    pub(super) fn started_in(mut self, folder: Option<&Path>) -> Self {
        self.start_folder = folder.map(Raw::from);
        self
    }

    /// The configuration that they come to.
    ///
    /// # Errors
    /// A setting is not known here, or not accepted.
    pub(crate) fn read(&self) -> Result<Config, NotRead> {
        let command = self.command.clone();
        let command = command.map(|(words, origin)| Ok((os_strings(words), origin.read()?))).transpose()?;
        let sources = Sources {
            flags: layer(&self.flags)?,
            environment: layer(&self.environment)?,
            platform: layer(&self.platform)?,
            file: layer(&self.file)?,
            fallback: layer(&self.fallback)?,
            command,
            config: None,
            problems: Vec::new(),
        };
        let resolved = resolve(sources, self.cpus).map_err(|invalid| NotRead::Invalid(Box::new(invalid)))?;
        let start_folder = self.start_folder.clone().map(PathBuf::from);
        Ok(Config { start_folder, ..resolved.config })
    }

    /// The configuration in force where this was said first and `last` at the last reload.
    ///
    /// # Errors
    /// A setting is not known here, or not accepted.
    pub(crate) fn in_force_after(&self, last: &Self) -> Result<(Config, Config), NotRead> {
        let (first, last) = (self.read()?, last.read()?);
        let in_force = diff::in_force(&first, &last);
        Ok((first, in_force))
    }
}

impl CarriedCommandLine {
    /// Of this one.
    pub(crate) fn of(command_line: &CommandLine) -> Self {
        Self {
            flags: values(&command_line.flags),
            config: command_line.config.as_ref().map(|path| path.as_path().into()),
            command: raw(&command_line.command),
            folder: command_line.folder.as_ref().map(|path| path.as_path().into()),
            fallback: values(&command_line.fallback),
            is_only_file: command_line.is_only_file,
        }
    }

    /// The same, as it is read again.
    ///
    /// # Errors
    /// A setting is not known here.
    pub(crate) fn read(self) -> Result<CommandLine, NotRead> {
        Ok(CommandLine {
            flags: layer(&self.flags)?,
            config: self.config.map(PathBuf::from),
            command: os_strings(self.command),
            folder: self.folder.map(PathBuf::from),
            fallback: layer(&self.fallback)?,
            is_only_file: self.is_only_file,
        })
    }
}

fn raw(words: &[std::ffi::OsString]) -> Vec<Raw> {
    words.iter().map(|word| word.as_os_str().into()).collect()
}

fn os_strings(words: Vec<Raw>) -> Vec<std::ffi::OsString> {
    words.into_iter().map(Into::into).collect()
}

fn values(layer: &Layer) -> Vec<CarriedValue> {
    let carried = |value: &Value| CarriedValue {
        name: value.name.to_owned(),
        text: value.text.clone(),
        literal: value.literal.clone(),
        origin: CarriedOrigin::from(&value.origin),
    };
    layer.values().map(carried).collect()
}

fn layer(values: &[CarriedValue]) -> Result<Layer, NotRead> {
    let mut layer = Layer::default();
    for CarriedValue { name, text, literal, origin } in values {
        let (text, literal) = (text.clone(), literal.clone());
        layer.add(Value { name: known(name)?, text, literal, origin: origin.clone().read()? });
    }
    Ok(layer)
}

fn known(name: &str) -> Result<&'static str, NotRead> {
    table::named(name).map(|key| key.name).ok_or_else(|| NotRead::Unknown(name.to_owned()))
}

fn known_flag(name: &str) -> Result<&'static str, NotRead> {
    let negation = || table::all().filter_map(|key| key.negation).find(|negation| *negation == name);
    known(name).or_else(|unknown| negation().ok_or(unknown))
}

impl From<&Origin> for CarriedOrigin {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Flag(name) => Self::Flag((*name).to_owned()),
            Origin::CommandLine => Self::CommandLine,
            Origin::Environment(name) => Self::Environment(name.clone()),
            Origin::File { path, line } => Self::File { path: path.as_path().into(), line: *line },
            Origin::Ecosystem { path, line, app, key } => Self::Ecosystem {
                path: path.as_path().into(),
                line: *line,
                app: app.clone(),
                key: key.clone(),
            },
            Origin::Default => Self::Default,
        }
    }
}

impl CarriedOrigin {
    fn read(self) -> Result<Origin, NotRead> {
        Ok(match self {
            Self::Flag(name) => Origin::Flag(known_flag(&name)?),
            Self::CommandLine => Origin::CommandLine,
            Self::Environment(name) => Origin::Environment(name),
            Self::File { path, line } => Origin::File { path: path.into(), line },
            Self::Ecosystem { path, line, app, key } => {
                Origin::Ecosystem { path: path.into(), line, app, key }
            }
            Self::Default => Origin::Default,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::super::table::keys;
    use super::*;
    use crate::carry::testing::carried;

    fn sources() -> Sources {
        let mut sources = Sources::default();
        let flag = |key: &'static str, text: &str, flag| Value::new(key, text, Origin::Flag(flag));
        sources.flags.add(flag(keys::workers.key.name, "max", "workers"));
        sources.flags.add(flag(keys::env.key.name, "A=1", "env"));
        sources.flags.add(flag(keys::env.key.name, "B= 2", "env"));
        let negation = keys::autorestart.key.negation.expect("there is one");
        sources.flags.add(flag(keys::autorestart.key.name, "false", negation));
        let file = Origin::File { path: OsStr::from_bytes(b"/srv/\xff.toml").into(), line: 3 };
        sources.file.add(Value::new(keys::port.key.name, "8080", file.clone()));
        sources.platform.add(Value::new(keys::port.key.name, "9", Origin::Environment("PORT".into())));
        sources.command = Some((vec!["./server".into(), OsStr::from_bytes(b"\xfe").into()], file));
        sources
    }

    #[test]
    fn the_next_image_reads_the_same_configuration_whatever_the_machine_has_then() {
        let cpus = NonZeroU32::new(7).unwrap();
        let resolved = resolve(sources(), cpus).unwrap();
        let told = resolved.carried.started_in(Some(Path::new("/srv/app")));
        let (told, _) = carried(&told);
        let read = told.read().unwrap();
        assert_eq!(read, Config { start_folder: Some("/srv/app".into()), ..resolved.config });
        assert_eq!((read.workers, read.autorestart, read.env.len()), (cpus, false, 2));
    }

    #[test]
    fn a_setting_of_another_version_is_refused_by_its_name() {
        let told = resolve(sources(), NonZeroU32::MIN).unwrap().carried;
        let written = serde_json::to_string(&told).unwrap();
        let unknown: CarriedSettings =
            serde_json::from_str(&written.replace("\"workers\"", "\"wrokers\"")).unwrap();
        let refused = unknown.read().unwrap_err().to_string();
        assert!(refused.ends_with("has no setting \"wrokers\""), "{refused}");
        let invalid: CarriedSettings = serde_json::from_str(&written.replace("\"8080\"", "\"no\"")).unwrap();
        assert!(invalid.read().unwrap_err().to_string().contains("port"));
    }

    #[test]
    fn a_command_line_is_read_again_as_it_was() {
        let mut flags = Layer::default();
        flags.add(Value::new(keys::port.key.name, "80", Origin::Flag("port")));
        let command_line = CommandLine {
            flags,
            config: Some("clusterd.toml".into()),
            command: vec!["node".into()],
            folder: Some("/srv".into()),
            is_only_file: true,
            ..CommandLine::default()
        };
        let (same, _) = carried(&CarriedCommandLine::of(&command_line));
        assert_eq!(same.read().unwrap(), command_line);
    }
}
