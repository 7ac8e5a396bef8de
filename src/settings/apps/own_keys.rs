//! The keys of an app that are no settings of the table: what it is made of, and what nothing honours yet.
//!
//! A row of [`LACKING`] goes when a setting of its name comes into [`table`]. Until then each use of it is named in a warning.

use super::super::error::Reason;
use super::super::kind::Values;
use super::super::parse::FilePath;
use super::super::table;

/// A key that says what the app is made of.
#[derive(Debug)]
pub(crate) struct OwnKey {
    /// In the file.
    pub name: &'static str,
    /// What it is for, in sentences.
    pub doc: &'static str,
    /// Whether it may be a list of texts, a text or either.
    pub form: Form,
}

/// What stands behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A text.
    Text,
    /// A list of texts, or one.
    Texts,
    /// `true` or `false`.
    Truth,
}

/// The file to run.
pub(crate) const SCRIPT: &str = "script";
/// What runs it.
pub(crate) const INTERPRETER: &str = "interpreter";
/// Arguments of the interpreter.
pub(crate) const INTERPRETER_ARGS: &str = "interpreter-args";
/// Arguments of the script.
pub(crate) const ARGS: &str = "args";
/// Apps that have to be ready first.
pub(crate) const DEPENDS_ON: &str = "depends-on";
/// Whether the profile is in the name.
pub(crate) const APPEND_ENV_TO_NAME: &str = "append-env-to-name";

/// Whether it is started with the others of the file.
pub(crate) const AUTOSTART: &str = "autostart";

/// Every one of them, in the order in which they are written.
pub(crate) const OWN: [OwnKey; 7] = [
    OwnKey {
        name: SCRIPT,
        form: Form::Text,
        doc: "What each worker runs, instead of `command`: a file in the app's folder, run by the program of its first line \
              (`#!`) or by the usual one for its extension; a command of PATH; or, with a space in it, a line for a shell.",
    },
    OwnKey {
        name: INTERPRETER,
        form: Form::Text,
        doc: "The program that runs `script`; \"none\" is the script itself.",
    },
    OwnKey { name: INTERPRETER_ARGS, form: Form::Texts, doc: "Arguments of that program." },
    OwnKey { name: ARGS, form: Form::Texts, doc: "Arguments of `script`." },
    OwnKey {
        name: DEPENDS_ON,
        form: Form::Texts,
        doc: "Apps of this file that have to be ready before this one is started.",
    },
    OwnKey {
        name: APPEND_ENV_TO_NAME,
        form: Form::Truth,
        doc: "With `--env production`, append `-production` to the name.",
    },
    OwnKey {
        name: AUTOSTART,
        form: Form::Truth,
        doc: "`false`: `clusterd start FILE` writes down what it is, and `clusterd start NAME` starts it.",
    },
];

/// A setting that is read, kept and written, and that nothing honours.
pub(crate) struct Lacking {
    /// In the file.
    pub name: &'static str,
    /// What it would do.
    pub doc: &'static str,
    /// Which values it may have.
    pub values: &'static dyn Values,
    /// Whether this is one.
    pub read: fn(&str) -> Result<(), Reason>,
    /// What there is instead.
    pub instead: &'static str,
}

impl Lacking {
    /// Reads one value; a refusal says what is accepted.
    ///
    /// # Errors
    /// It is not accepted.
    pub(crate) fn check(&self, text: &str) -> Result<(), Reason> {
        (self.read)(text).map_err(|reason| reason.or_hint(|| format!("use {}", self.values.accepts())))
    }
}

fn any_text(text: &str) -> Result<(), Reason> {
    let is_good = !text.is_empty() && !text.contains('\0');
    if is_good { Ok(()) } else { Err(Reason::new("empty, or with a zero byte")) }
}

/// Every one of them.
pub(crate) static LACKING: &[Lacking] = &[Lacking {
    name: "pid-file",
    doc: "File with the number of the process.",
    values: &FilePath,
    read: any_text,
    instead: "`clusterd list -o json` has the pid of each worker",
}];

/// The row of this name, unless there is a setting of that name by now.
pub(crate) fn lacking(name: &str) -> Option<&'static Lacking> {
    LACKING.iter().find(|lacking| lacking.name == name && table::named(name).is_none())
}

/// The names of all of these keys.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|key| key.name).chain(LACKING.iter().map(|key| key.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_setting_is_no_longer_lacking() {
        for name in names() {
            assert!(table::named(name).is_none(), "{name} is a setting: delete its row");
        }
    }

    #[test]
    fn a_lacking_setting_is_read_all_the_same() {
        let read = |name: &str, text: &str| {
            lacking(name).expect("a row").check(text).map_err(|reason| reason.to_string())
        };
        assert_eq!(read("pid-file", "a.pid"), Ok(()));
        assert!(read("pid-file", "").expect_err("empty").contains("use the path of a file"));
    }
}
