//! Choices, names, paths and expressions.
//!
//! What a name, a path or a command line stands for on this machine is not looked up here.

use std::ffi::OsStr;
use std::path::PathBuf;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use globset::{Glob, GlobBuilder};
use hyper::Uri;
use tracing::level_filters::LevelFilter;

use super::{is_digits, or_off};
use crate::settings::error::Reason;
use crate::settings::stop_signal::StopSignal;
use crate::settings::{Attach, CpuScheduling, LogFormat, Policy};

/// The longest name of an application, in bytes.
const MAX_NAME: usize = 64;

/// `text` or `json`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn log_format(text: &str) -> Result<LogFormat, Reason> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Reason::Choice("text or json")),
    }
}

/// A level of `tracing`, from `error` to `trace`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn log_level(text: &str) -> Result<LevelFilter, Reason> {
    match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(Reason::Choice("error, warn, info, debug or trace")),
    }
}

/// `auto`, `preload` or `node`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn attach(text: &str) -> Result<Attach, Reason> {
    match text {
        "auto" => Ok(Attach::Auto),
        "preload" => Ok(Attach::Preload),
        "node" => Ok(Attach::Node),
        _ => Err(Reason::Choice("auto, preload or node")),
    }
}

/// `round-robin` or `shared`, or what Node has for them in NODE_CLUSTER_SCHED_POLICY: `rr` and `none`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn policy(text: &str) -> Result<Policy, Reason> {
    match text {
        "round-robin" | "rr" => Ok(Policy::RoundRobin),
        "shared" | "none" => Ok(Policy::Shared),
        _ => Err(Reason::Choice("round-robin or shared (Node's words for them are rr and none)")),
    }
}

/// `batch` or `inherit`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn cpu_scheduling(text: &str) -> Result<CpuScheduling, Reason> {
    match text {
        "batch" => Ok(CpuScheduling::Batch),
        "inherit" => Ok(CpuScheduling::Inherit),
        _ => Err(Reason::Choice("batch or inherit")),
    }
}

/// `true` or `false`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn truth(text: &str) -> Result<bool, Reason> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Reason::Choice("true or false")),
    }
}

/// A signal, by name or number.
///
/// # Errors
/// [`Reason::StopSignal`]
pub fn stop_signal(text: &str) -> Result<StopSignal, Reason> {
    StopSignal::named(text).ok_or(Reason::StopSignal)
}

/// The name of an application, or `auto`. Numbers and `all` are what verbs of the command line take for others.
///
/// # Errors
/// [`Reason::Name`]
pub fn name(text: &str) -> Result<Option<String>, Reason> {
    match text {
        "auto" => Ok(None),
        name if is_name(name) => Ok(Some(name.to_owned())),
        _ => Err(Reason::Name),
    }
}

fn is_name(text: &str) -> bool {
    // A verb takes a leading dash for a flag, and a file of this name would be hidden by a leading dot.
    let begins_well = !text.starts_with(['.', '-']);
    (1..=MAX_NAME).contains(&text.len())
        && begins_well
        && text.chars().all(is_of_name)
        && !is_digits(text)
        && text != "all"
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

/// A name that will do, for an application whose program is this: the file's own name, each character that no name
/// may have replaced by `-`; `app` where that is none.
pub fn name_of(program: &OsStr) -> String {
    let file = std::path::Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let name: String = file.chars().map(|c| if is_of_name(c) { c } else { '-' }).take(MAX_NAME).collect();
    let will_do = is_name(&name) && name != "auto";
    if will_do { name } else { "app".to_owned() }
}

/// A user or a group, by name or number, or `off`. (uid_t)-1 stands for none (setuid(2)).
///
/// # Errors
/// [`Reason::Account`]
pub fn account(text: &str) -> Result<Option<String>, Reason> {
    or_off(text, |text| {
        let is_number = text.parse::<u32>().is_ok_and(|id| id < u32::MAX);
        let is_word =
            !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | ',' | '/'));
        let will_do = if is_digits(text) { is_number } else { is_word && !text.is_empty() };
        will_do.then(|| text.to_owned()).ok_or(Reason::Account)
    })
}

/// A path, with a query or without, to be asked of a worker by GET; or `off`.
///
/// # Errors
/// [`Reason::HttpPath`]
pub fn http_path(text: &str) -> Result<Option<Uri>, Reason> {
    or_off(text, |text| {
        // Of a fragment, clients tell no server.
        let is_path = text.starts_with('/') && text.is_ascii() && !text.contains('#');
        text.parse().ok().filter(|_| is_path).ok_or(Reason::HttpPath)
    })
}

/// Five fields, as crontab(5) has them, with one for the second before them if there are six, as PM2's `cron_restart` has
/// it; or a nickname of crontab(5), such as `@daily`; or `off`.
///
/// # Errors
/// [`Reason::Cron`]
pub fn cron(text: &str) -> Result<Option<Cron>, Reason> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    or_off(text, |text| parser.parse(text).map_err(|_| Reason::Cron))
}

/// A file or a folder.
///
/// # Errors
/// [`Reason::Path`]
pub fn path(text: &str) -> Result<PathBuf, Reason> {
    let will_do = !text.is_empty() && !text.contains('\0');
    will_do.then(|| text.into()).ok_or(Reason::Path)
}

/// A pattern in which `*` and `?` do not stand for a slash, and `**` stands for any folders.
///
/// # Errors
/// [`Reason::Pattern`]
pub fn pattern(text: &str) -> Result<Glob, Reason> {
    if text.is_empty() || text.contains('\0') {
        return Err(Reason::Pattern("it is empty, or holds a zero byte".to_owned()));
    }
    let pattern = GlobBuilder::new(text).literal_separator(true).build();
    pattern.map_err(|error| Reason::Pattern(error.kind().to_string()))
}

/// A command line for a shell, or `off`.
///
/// # Errors
/// [`Reason::ShellLine`]
pub fn shell_line(text: &str) -> Result<Option<String>, Reason> {
    or_off(text, |text| {
        let will_do = !text.trim().is_empty() && !text.contains('\0');
        will_do.then(|| text.to_owned()).ok_or(Reason::ShellLine)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{outcome, outcome_or_off};
    use super::*;

    #[test]
    fn choices() {
        assert_eq!(log_format("json").ok(), Some(LogFormat::Json));
        assert_eq!(log_format("JSON").ok(), None);
        assert_eq!(attach("").ok(), None);
        for mode in ["auto", "preload", "node"] {
            assert_eq!(outcome(attach(mode)), mode);
        }
        for level in ["error", "warn", "info", "debug", "trace"] {
            assert_eq!(outcome(log_level(level)), level);
        }
        assert_eq!(log_level("off").ok(), None);
    }

    #[test]
    fn policies_have_nodes_words_too() {
        for (text, expected) in [("round-robin", "round-robin"), ("rr", "round-robin")] {
            assert_eq!(outcome(policy(text)), expected);
        }
        for (text, expected) in [("shared", "shared"), ("none", "shared"), ("RR", "not one of its values")] {
            assert_eq!(outcome(policy(text)), expected);
        }
    }

    #[test]
    fn names_of_applications() {
        const NOT: &str = "not a name";
        let long = "x".repeat(64);
        let too_long = "x".repeat(65);
        let cases = [
            ("web", "web"),
            ("my-app_1.2", "my-app_1.2"),
            ("1a", "1a"),
            (long.as_str(), long.as_str()),
            (too_long.as_str(), NOT),
            ("auto", "auto"),
            ("all", NOT),
            ("12", NOT),
            ("a b", NOT),
            ("a/b", NOT),
            ("-a", NOT),
            ("..", NOT),
            ("ä", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            let shown = name(text).map(|name| name.unwrap_or_else(|| "auto".to_owned()));
            assert_eq!(outcome(shown), expected, "{text}");
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

    #[test]
    fn users_and_groups() {
        const NOT: &str = "not one user or group";
        let cases = [
            ("www-data", "www-data"),
            ("1000", "1000"),
            ("0", "0"),
            ("off", "off"),
            ("DOMAIN\\user", "DOMAIN\\user"),
            ("4294967295", NOT),
            ("99999999999", NOT),
            ("user:group", NOT),
            ("a b", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome_or_off(account(text)), expected, "{text}");
        }
    }

    #[test]
    fn paths_of_requests() {
        const NOT: &str = "not a path";
        let cases = [
            ("/healthz", "/healthz"),
            ("/", "/"),
            ("/a/b?c=d", "/a/b?c=d"),
            ("off", "off"),
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
            assert_eq!(outcome_or_off(http_path(text)), expected, "{text}");
        }
    }

    #[test]
    fn times_of_reloads() {
        const NOT: &str = "not times";
        let cases = [
            ("0 3 * * *", "0 3 * * *"),
            ("*/15 8-18 * * MON-FRI", "*/15 8-18 * * 1-5"),
            ("@daily", "0 0 * * *"),
            ("off", "off"),
            ("*/20 0 3 * * *", "*/20 0 3 * * *"),
            ("0 0 3 * * * 2030", NOT),
            ("0 25 * * *", NOT),
            ("daily", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome_or_off(cron(text)), expected, "{text}");
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
            assert_eq!(outcome(pattern(text)), "not a pattern", "{text:?}");
        }
    }

    #[test]
    fn what_is_looked_up_later_must_be_something() {
        assert_eq!(outcome(path("src").map(|path| path.display().to_string())), "src");
        assert_eq!(outcome_or_off(shell_line("logger -t clusterd")), "logger -t clusterd");
        assert_eq!(outcome_or_off(shell_line("off")), "off");
        for text in ["", "\0"] {
            assert_eq!(path(text).ok(), None);
            assert_eq!(shell_line(text).ok(), None);
        }
        assert_eq!(shell_line(" ").ok(), None);
    }
}
