//! Users, paths, patterns and command lines.
//!
//! What a path or a command line stands for on this machine is not looked up here.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use globset::{Glob, GlobBuilder};
use hyper::Uri;

use super::is_digits;
use crate::settings::Policy;
use crate::settings::error::Reason;
use crate::settings::kind::{Automatic, Kind, Parsed, Values, choice, word};

/// A user or a group, by name or number.
pub(crate) const ACCOUNT: Parsed<String> = Parsed {
    placeholder: "ACCOUNT",
    accepts: "a name or a number, such as www-data or 1000",
    read: account,
    show: String::clone,
};

/// A user, and a group behind a colon where it is not the user's own.
pub(crate) const USER_AND_GROUP: Parsed<String> = Parsed {
    placeholder: "USER",
    accepts: "a user, or USER:GROUP, each a name or a number, such as www-data or 1000:1000",
    read: user_and_group,
    show: String::clone,
};

/// A path, with a query or without, to be asked of a worker by GET.
pub(crate) const HTTP_PATH: Parsed<Uri> = Parsed {
    placeholder: "PATH",
    accepts: "a path that begins with /, such as /healthz",
    read: http_path,
    show: Uri::to_string,
};

/// A pattern in which `*` and `?` do not stand for a slash, and `**` stands for any folders.
pub(crate) const PATTERN: Parsed<Glob> = Parsed {
    placeholder: "PATTERN",
    accepts: "a pattern, such as \"**/*.log\"",
    read: pattern,
    show: Glob::to_string,
};

/// A command line for a shell.
pub(crate) const SHELL_LINE: Parsed<String> = Parsed {
    placeholder: "COMMAND",
    accepts: "a line for a shell, such as \"logger -t clusterd\"",
    read: shell_line,
    show: String::clone,
};

/// A file or a folder.
#[derive(Debug)]
pub(crate) struct FilePath;

impl Values for FilePath {
    fn placeholder(&self) -> String {
        "PATH".to_owned()
    }

    fn accepts(&self) -> String {
        "the path of a file or a folder".to_owned()
    }

    fn is_text(&self) -> bool {
        true
    }
}

impl Kind<PathBuf> for FilePath {
    fn read(&self, text: &str, _: &Automatic) -> Result<PathBuf, Reason> {
        let is_path = !text.is_empty() && !text.contains('\0');
        is_path.then(|| text.into()).ok_or_else(|| Reason::new("not a path"))
    }

    fn show(&self, path: &PathBuf) -> String {
        path.display().to_string()
    }
}

/// The words of [`Policy`].
#[derive(Debug)]
pub(crate) struct PolicyWord;

impl Values for PolicyWord {
    fn placeholder(&self) -> String {
        choice::<Policy>().placeholder()
    }

    fn accepts(&self) -> String {
        choice::<Policy>().accepts()
    }

    fn words(&self) -> Vec<PossibleValue> {
        choice::<Policy>().words()
    }

    fn schema(&self) -> serde_json::Value {
        serde_json::json!({ "anyOf": [choice::<Policy>().schema(), { "const": "rr" }] })
    }
}

impl Kind<Policy> for PolicyWord {
    /// Who accepts is another setting, but Node has one word for both.
    fn read(&self, text: &str, automatic: &Automatic) -> Result<Policy, Reason> {
        match text {
            "rr" => Ok(Policy::RoundRobin),
            "shared" | "none" => {
                let hint = "to let workers accept by themselves, use --accept workers";
                Err(Reason::new("not a policy").hint(hint))
            }
            _ => choice::<Policy>().read(text, automatic),
        }
    }

    fn show(&self, value: &Policy) -> String {
        word(value)
    }
}

fn account(text: &str) -> Result<String, Reason> {
    // (uid_t)-1 stands for none (setuid(2)).
    let is_number = text.parse::<u32>().is_ok_and(|id| id < u32::MAX);
    let is_word =
        !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | ',' | '/'));
    let is_account = if is_digits(text) { is_number } else { is_word && !text.is_empty() };
    is_account.then(|| text.to_owned()).ok_or_else(|| Reason::new("not one user or group"))
}

fn user_and_group(text: &str) -> Result<String, Reason> {
    let (user, group) = split_user(text);
    let is_account = |text: &str| account(text).is_ok();
    match is_account(user) && group.is_none_or(is_account) {
        true => Ok(text.to_owned()),
        false => Err(Reason::new("not one user, or one and a group")),
    }
}

/// The user, and the group if one is named.
pub(crate) fn split_user(text: &str) -> (&str, Option<&str>) {
    text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)))
}

fn http_path(text: &str) -> Result<Uri, Reason> {
    // Clients never send a fragment.
    let is_path = text.starts_with('/') && text.is_ascii() && !text.contains('#');
    text.parse().ok().filter(|_| is_path).ok_or_else(|| Reason::new("not a path"))
}

fn pattern(text: &str) -> Result<Glob, Reason> {
    if text.is_empty() || text.contains('\0') {
        return Err(Reason::new("not a pattern: it is empty, or holds a zero byte"));
    }
    let pattern = GlobBuilder::new(text).literal_separator(true).build();
    pattern.map_err(|error| Reason::new(format!("not a pattern: {}", error.kind())))
}

fn shell_line(text: &str) -> Result<String, Reason> {
    let is_line = !text.trim().is_empty() && !text.contains('\0');
    is_line.then(|| text.to_owned()).ok_or_else(|| Reason::new("not a command"))
}

#[cfg(test)]
mod tests {
    use super::super::outcome;
    use super::*;

    #[test]
    fn users_and_groups() {
        const NOT: &str = "not one user or group";
        let cases = [
            ("www-data", "www-data"),
            ("1000", "1000"),
            ("0", "0"),
            ("DOMAIN\\user", "DOMAIN\\user"),
            ("4294967295", NOT),
            ("99999999999", NOT),
            ("user:group", NOT),
            ("a b", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&ACCOUNT, text), expected, "{text}");
        }
    }

    #[test]
    fn a_user_and_a_group_behind_a_colon() {
        const NOT: &str = "not one user, or one and a group";
        for text in ["www-data", "1000", "1000:1000", "www-data:adm"] {
            assert_eq!(outcome(&USER_AND_GROUP, text), text);
        }
        for text in ["", ":", "www-data:", ":adm", "a:b:c", "a b", "4294967295", "0:4294967295"] {
            assert_eq!(outcome(&USER_AND_GROUP, text), NOT, "{text}");
        }
        assert_eq!(split_user("www-data:adm"), ("www-data", Some("adm")));
        assert_eq!(split_user("www-data"), ("www-data", None));
    }

    #[test]
    fn paths_of_requests() {
        const NOT: &str = "not a path";
        let cases = [
            ("/healthz", "/healthz"),
            ("/", "/"),
            ("/a/b?c=d", "/a/b?c=d"),
            ("healthz", NOT),
            ("http://localhost/healthz", NOT),
            ("/a b", NOT),
            ("/a\r\nb", NOT),
            ("/ä", NOT),
            ("/a#b", NOT),
            ("*", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&HTTP_PATH, text), expected, "{text}");
        }
    }

    #[test]
    fn patterns_of_files() {
        let matches =
            |text: &str, file: &str| pattern(text).expect("a pattern").compile_matcher().is_match(file);
        assert!(matches("*.log", "a.log"));
        assert!(!matches("*.log", "a/b.log"));
        assert!(matches("**/*.log", "a/b.log"));
        assert!(matches("*.{log,tmp}", "a.tmp"));
        for text in ["[", "*.{log", "", "a\0b"] {
            assert!(outcome(&PATTERN, text).starts_with("not a pattern: "), "{text:?}");
        }
    }

    #[test]
    fn what_is_looked_up_later_must_be_something() {
        assert_eq!(outcome(&FilePath, "src"), "src");
        assert_eq!(outcome(&SHELL_LINE, "logger -t clusterd"), "logger -t clusterd");
        for text in ["", "\0"] {
            assert_eq!(outcome(&FilePath, text), "not a path");
            assert_eq!(outcome(&SHELL_LINE, text), "not a command");
        }
        assert_eq!(outcome(&SHELL_LINE, " "), "not a command");
    }
}
