//! The settings that the environment names.
//!
//! It only knows the names of variables; what their values mean, [`super::resolve`] knows.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{Problem, Reason};
use super::origin::{Layer, Origin, Value};
use super::setting::Key;
use super::table;

/// Looks up a variable, as [`std::env::var_os`] does.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What the environment says.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// In clusterd's own variables.
    pub own: Layer,
    /// In those that hosting platforms set.
    pub platform: Layer,
    /// Where the file is.
    pub config: Option<PathBuf>,
    /// What cannot be read.
    pub problems: Vec<Problem>,
}

/// Reads every variable of the table. An empty one counts as unset; a list has commas between its values.
pub(crate) fn read(lookup: Lookup<'_>) -> Environment {
    let mut environment = Environment {
        config: set(lookup, table::CONFIG_VARIABLE).map(PathBuf::from),
        ..Environment::default()
    };
    for key in table::all() {
        let Environment { own, platform, problems, .. } = &mut environment;
        problems.extend(add(own, key, &key.variable(), lookup).err());
        if let Some(variable) = key.platform_variable {
            problems.extend(add(platform, key, variable, lookup).err());
        }
    }
    environment
}

fn add(layer: &mut Layer, key: &Key, variable: &str, lookup: Lookup<'_>) -> Result<(), Problem> {
    let Some(text) = set(lookup, variable) else {
        return Ok(());
    };
    let text = text.into_string().map_err(|_| Problem::at(variable, Reason::new("not valid UTF-8")))?;
    let origin = Origin::Environment(variable.to_owned());
    if key.is_list() {
        for part in text.split(',') {
            layer.add(Value::new(key.name, part.trim(), origin.clone()));
        }
    } else {
        layer.add(Value::new(key.name, text, origin));
    }
    Ok(())
}

fn set(lookup: Lookup<'_>, variable: &str) -> Option<OsString> {
    lookup(variable).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::table::keys;
    use super::*;

    fn with(variables: &[(&str, &[u8])]) -> Environment {
        read(&|wanted| {
            let (_, value) = variables.iter().find(|(name, _)| *name == wanted)?;
            Some(OsString::from_vec(value.to_vec()))
        })
    }

    fn texts(layer: &Layer, key: &Key) -> Vec<String> {
        layer.of(key).iter().map(|value| value.text.clone()).collect()
    }

    #[test]
    fn a_list_has_commas() {
        let environment = with(&[("CLUSTERD_PORT", b"3000, 80:8080"), ("PORT", b"5000")]);
        assert_eq!(texts(&environment.own, &keys::port.key), ["3000", "80:8080"]);
        assert_eq!(texts(&environment.platform, &keys::port.key), ["5000"]);
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let environment = with(&[("CLUSTERD_PORT", b""), ("CLUSTERD_CONFIG", b"")]);
        assert_eq!(environment.own, Layer::default());
        assert_eq!(environment.config, None);
    }

    #[test]
    fn only_a_path_may_be_other_than_utf_8() {
        let environment = with(&[("CLUSTERD_KILL_TIMEOUT", b"\xff"), ("CLUSTERD_CONFIG", b"\xff")]);
        let problems: Vec<_> = environment.problems.iter().map(Problem::to_string).collect();
        assert_eq!(problems, ["CLUSTERD_KILL_TIMEOUT: not valid UTF-8"]);
        assert!(environment.config.is_some());
    }
}
