//! The settings whose default is found out: how many workers, and the name of the app; and the name of several.
//!
//! They do not find it out: they are given it.

use std::ffi::OsStr;
use std::num::NonZeroU32;

use super::is_digits;
use crate::controls;
use crate::settings::error::Reason;
use crate::settings::kind::{Automatic, Kind, Number, Parsed, Values, number};

/// The most workers that can be asked for.
pub(crate) const MAX_WORKERS: u32 = 1024;

/// As many as there are CPUs.
const MAX: &str = "max";

const NUMBER: Number = number(1, MAX_WORKERS as i64);

/// The longest name of an app, in bytes.
const MAX_NAME: usize = 64;

/// A number of workers, or `max`, as PM2's `-i max`; `max-1` is one fewer, as its `-i -1`.
#[derive(Debug)]
pub(crate) struct Workers;

impl Values for Workers {
    fn placeholder(&self) -> String {
        "N|max".to_owned()
    }

    fn accepts(&self) -> String {
        format!("{}, or \"max\"", NUMBER.accepts())
    }

    fn range(&self) -> Option<String> {
        NUMBER.range()
    }

    fn schema(&self) -> serde_json::Value {
        serde_json::json!({ "anyOf": [NUMBER.schema(), { "type": "string", "pattern": "^max(-[0-9]+)?$" }] })
    }
}

impl Kind<NonZeroU32> for Workers {
    fn read(&self, text: &str, automatic: &Automatic) -> Result<NonZeroU32, Reason> {
        if let Some(fewer) = text.strip_prefix(MAX) {
            let fewer = match fewer.strip_prefix('-') {
                None if fewer.is_empty() => 0,
                Some(digits) if is_digits(digits) => {
                    digits.parse().map_err(|_| Reason::new("out of range"))?
                }
                _ => return Err(Reason::new("not a whole number")),
            };
            let workers = automatic.workers.get().min(MAX_WORKERS).saturating_sub(fewer);
            return Ok(NonZeroU32::new(workers).unwrap_or(NonZeroU32::MIN));
        }
        NUMBER.read(text, automatic)
    }

    fn show(&self, value: &NonZeroU32) -> String {
        value.to_string()
    }
}

/// The name of an app, or `auto`. Numbers and `all` are what verbs of the command line take for others.
#[derive(Debug)]
pub(crate) struct AppName;

impl Values for AppName {
    fn placeholder(&self) -> String {
        "NAME".to_owned()
    }

    fn accepts(&self) -> String {
        "1 to 64 bytes of text; not digits alone, not \"all\", no leading dot, dash or slash, no space at an end"
            .to_owned()
    }
}

impl Kind<String> for AppName {
    fn read(&self, text: &str, automatic: &Automatic) -> Result<String, Reason> {
        match text {
            "auto" => Ok(automatic.name.clone()),
            name if is_name(name) => Ok(name.to_owned()),
            _ => Err(Reason::new("not a valid name")),
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// A namespace. What verbs take for something else is none.
pub(crate) const NAMESPACE: Parsed<String> = Parsed {
    placeholder: "NAME",
    accepts: "1 to 64 characters; not digits alone, not \"all\", no slash, no leading dash",
    read: namespace,
    show: String::clone,
};

fn namespace(text: &str) -> Result<String, Reason> {
    let is_namespace = (1..=MAX_NAME).contains(&text.chars().count())
        && !text.starts_with('-')
        && !text.contains(|character: char| character.is_control() || character == '/')
        && !is_digits(text)
        && text != "all";
    is_namespace.then(|| text.to_owned()).ok_or_else(|| Reason::new("not a valid namespace"))
}

/// Whether an app may be called so.
pub(crate) fn is_name(text: &str) -> bool {
    // A verb takes a leading dash for a flag and a leading slash for a pattern, and a file of this name would be hidden by a
    // leading dot.
    let begins_well = !text.starts_with(['.', '-', '/']);
    (1..=MAX_NAME).contains(&text.len())
        && begins_well
        && text.trim() == text
        && !text.contains(controls::is_control)
        && !is_digits(text)
        && text != "all"
}

/// Whether a name is one that units of systemd may have, too: of ASCII letters, digits, dots, dashes and underscores.
pub(crate) fn is_plain_name(text: &str) -> bool {
    is_name(text) && text.chars().all(is_of_name)
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

/// A valid name for an app whose program is this: the file's own name, each character that no name may have replaced
/// by `-`; `app` where that is none.
pub(crate) fn name_of(program: &OsStr) -> String {
    let file = std::path::Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let name: String = file.chars().map(|c| if is_of_name(c) { c } else { '-' }).take(MAX_NAME).collect();
    let is_valid = is_name(&name) && name != "auto";
    if is_valid { name } else { "app".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::outcome;
    use super::*;

    #[test]
    fn numbers_of_workers() {
        let cases = [
            ("1", "1"),
            ("1024", "1024"),
            ("max", "1"),
            ("max-1", "1"),
            ("max-", "not a whole number"),
            ("max+1", "not a whole number"),
            ("maximum", "not a whole number"),
            ("max-99999999999", "out of range"),
            ("0", "out of range"),
            ("1025", "out of range"),
            ("-1", "out of range"),
            ("+1", "not a whole number"),
            ("1.5", "not a whole number"),
            ("MAX", "not a whole number"),
            ("", "not a whole number"),
            ("99999999999999999999", "out of range"),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&Workers, text), expected, "{text}");
        }
    }

    #[test]
    fn max_workers_is_the_number_of_cpus_within_bounds() {
        for (cpus, expected) in [(3, 3), (4096, MAX_WORKERS)] {
            let automatic = Automatic { workers: NonZeroU32::new(cpus).unwrap(), name: String::new() };
            assert_eq!(Workers.read("max", &automatic).unwrap().get(), expected);
            assert_eq!(Workers.read("max-1", &automatic).unwrap().get(), expected - 1);
            assert_eq!(Workers.read("max-9999", &automatic).unwrap().get(), 1);
            assert_eq!(Workers.read("5", &automatic).unwrap().get(), 5);
        }
    }

    #[test]
    fn names_of_applications() {
        const NOT: &str = "not a valid name";
        let long = "x".repeat(64);
        let too_long = "x".repeat(65);
        let cases = [
            ("web", "web"),
            ("my-app_1.2", "my-app_1.2"),
            ("1a", "1a"),
            (long.as_str(), long.as_str()),
            (too_long.as_str(), NOT),
            ("auto", "the-program"),
            ("all", NOT),
            ("12", NOT),
            ("a b", "a b"),
            ("a/b:%41", "a/b:%41"),
            ("\u{e4}", "\u{e4}"),
            (" a", NOT),
            ("a\n", NOT),
            ("a\u{202e}b", NOT),
            ("/a/", NOT),
            ("-a", NOT),
            ("..", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&AppName, text), expected, "{text}");
        }
    }

    #[test]
    fn an_application_is_called_as_its_program() {
        let cases = [
            ("node", "node"),
            ("./my-server", "my-server"),
            ("/usr/bin/python3.11", "python3.11"),
            ("my server", "my-server"),
            ("7", "app"),
            ("./all", "app"),
            ("auto", "app"),
            ("/", "app"),
            ("..", "app"),
            ("", "app"),
        ];
        for (program, expected) in cases {
            assert_eq!(name_of(program.as_ref()), expected, "{program}");
        }
        assert_eq!(name_of("x".repeat(100).as_ref()).len(), 64);
    }
}
