//! The keys of an app that are no settings of the table: what it is made of.
//!
//! How each is read is its reader's affair.

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

/// The names of all of these keys.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|key| key.name)
}

#[cfg(test)]
mod tests {
    use super::super::super::table;
    use super::*;

    #[test]
    fn no_key_is_a_setting_as_well() {
        for name in names() {
            assert!(table::named(name).is_none(), "{name} is a setting: delete its row");
        }
    }
}
