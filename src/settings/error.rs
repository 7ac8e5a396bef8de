//! What may be wrong with a configuration, in words that say what would help.
//!
//! It prints nothing: the command line does.

use std::fmt;
use std::io;

use super::origin::{Origin, Value};
use super::parse;

/// Why a value, or a file, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Of `workers`.
    #[error("not a number of workers: use a number from 1 to {max}, or \"max\"", max = parse::MAX_WORKERS)]
    Workers,
    /// Of `backlog` and `queue`.
    #[error("not a number of connections: use a number from 1 to {max}")]
    Connections {
        /// The greatest that will do.
        max: u32,
    },
    /// A bare number.
    #[error("a duration needs a unit: use {0}s for seconds, {0}ms for milliseconds")]
    Unitless(String),
    /// Of every duration.
    #[error("not a duration: use a number and its unit, such as 500ms, 8s or 2m")]
    Duration,
    /// Of every duration.
    #[error("too short or too long: use a duration from {min} to {max}")]
    DurationBounds {
        /// The shortest that will do.
        min: &'static str,
        /// The longest.
        max: &'static str,
    },
    /// Of plain numbers.
    #[error("not a number that will do: use one from {min} to {max}")]
    Number {
        /// The least that will do.
        min: String,
        /// The greatest.
        max: String,
    },
    /// Of sizes.
    #[error("not a size: use a number and its unit, such as 512M or 1.5G")]
    Size,
    /// Of sizes.
    #[error("too small or too large: use a size from 1M to 1024T")]
    SizeBounds,
    /// Of `port`.
    #[error("not a port: use a number from 1 to 65535, or PUBLIC:WORKER, such as 80:8080")]
    Port,
    /// Of `port`: what Kubernetes sets for a service that is called as clusterd or nothing is.
    #[error(
        "an address that Kubernetes set for a service of that name, not a port: rename the service, or set \
         enableServiceLinks: false in the pod"
    )]
    ServiceLink,
    /// Of `bind`.
    #[error(
        "not an address: use a numeric ADDR:PORT, or ADDR:PORT:WORKER, such as 127.0.0.1:3000 or [::1]:80:8080"
    )]
    Bind,
    /// Of `port` and `bind`: the public port is 0 and no worker port is named.
    #[error("port 0 stands for any free port, so the workers' port must be named: use {0}")]
    FreePortUnmapped(String),
    /// Of `port` and `bind`: the worker port is 0.
    #[error("workers cannot be asked for on port 0: name the port that they listen on")]
    WorkerPortZero,
    /// Of `metrics`.
    #[error("not an address: use a port, a numeric ADDR:PORT, such as 0.0.0.0:9090 or [::]:9090, or \"off\"")]
    Metrics,
    /// Of settings with a few possible values.
    #[error("not one of its values: use {0}")]
    Choice(&'static str),
    /// Of `stop-signal`.
    #[error(
        "not a signal that stops a server: use HUP, INT, QUIT, ABRT, KILL, USR1, USR2, ALRM, TERM, WINCH, PWR, or the \
         number of one of them"
    )]
    StopSignal,
    /// Of `name`.
    #[error(
        "not a name: use 1 to 64 letters, digits, dots, dashes or underlines; not digits alone, not \"all\", no dot \
         or dash to begin with"
    )]
    Name,
    /// Of `user` and `group`.
    #[error("not one user or group: use a name or a number, such as www-data or 1000")]
    Account,
    /// Of paths that a worker is asked for.
    #[error("not a path: use one that begins with /, such as /healthz")]
    HttpPath,
    /// Of `cron`.
    #[error(
        "not times: use minute, hour, day of the month, month and day of the week, such as \"0 3 * * *\""
    )]
    Cron,
    /// Of `watch`.
    #[error("not a path: use that of a file or a folder")]
    Path,
    /// Of `ignore`.
    #[error("not a pattern: {0}: use one such as \"**/*.log\"")]
    Pattern(String),
    /// Of `on-event`.
    #[error("not a command: use a line for a shell, such as \"logger -t clusterd\"")]
    ShellLine,
    /// Of a setting that can be switched off.
    #[error("{0}, or \"off\"")]
    OrOff(#[source] Box<Reason>),
    /// Of `ignore` without `watch`.
    #[error("nothing is watched, so there is nothing to ignore: name what is to be watched with --watch")]
    NothingWatched,
    /// Of `stuck-timeout`: a connection is taken back first.
    #[error("shorter than the hand-off timeout, after which a worker is first late: use {0} or longer")]
    StuckTooSoon(String),
    /// Of `scrape` without `metrics`.
    #[error("nothing shows what is scraped: say with --metrics where /metrics is served")]
    ScrapeUnseen,
    /// Of `policy` with the built-in demo, or `attach` with `policy`.
    #[error("only Node's cluster workers can share a port: use --policy round-robin, or {0}")]
    SharedWithoutNode(&'static str),
    /// Of `port` and `bind` with `policy`.
    #[error(
        "workers share the public socket itself, one for each port: with --policy shared, use one address for a port, \
         and the same number for clients and workers"
    )]
    SharedAddress,
    /// Of what needs connections to pass through clusterd.
    #[error(
        "with --policy shared workers accept by themselves, and clusterd neither counts nor chooses: leave this out, or \
         use --policy round-robin"
    )]
    SharedUnseen,
    /// Of two public addresses, or one and that of the metrics.
    #[error("the same address as {0}: name each address once")]
    SameAddress(String),
    /// An environment variable's bytes.
    #[error("not valid UTF-8")]
    NotUnicode,
    /// A key in the file, with the nearest that there is.
    #[error("no such key{}", .nearest.map(|key| format!(": did you mean {key}?")).unwrap_or_default())]
    UnknownKey {
        /// The nearest, if one is near.
        nearest: Option<&'static str>,
    },
    /// A list or table in the file where one value is needed.
    #[error("one value is needed here, such as {0:?}")]
    OneValue(&'static str),
    /// A table, or a list in a list, in the file.
    #[error("a value or a list of values is needed here, such as {0}")]
    ListOfValues(&'static str),
    /// Of `command`.
    #[error(
        "not a command: use a list of the program and its arguments, such as [\"./my-server\", \"--verbose\"]"
    )]
    Command,
    /// Of `command`: execve(2) ends an argument at a zero byte.
    #[error("a program or an argument cannot hold a zero byte")]
    ZeroByte,
    /// The file is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// The file cannot be read.
    #[error("cannot read the configuration file: {0}")]
    Unreadable(#[source] io::Error),
    /// The file does not end.
    #[error("the configuration file is longer than {max} bytes", max = super::file::MAX_LEN)]
    TooLong,
}

/// Whose fault a problem is, as far as the exit code goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The flags'.
    Usage,
    /// The environment's or the file's.
    Configuration,
}

/// One thing that is wrong, and where: `clusterd.toml:4: workers = "fuor": not a number of ...`.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Problem {
    place: String,
    fault: Fault,
    #[source]
    reason: Reason,
}

impl Problem {
    /// A problem with a value.
    pub fn with(value: &Value, reason: Reason) -> Self {
        Self {
            place: value.to_string(),
            fault: match value.origin {
                Origin::Flag(_) | Origin::CommandLine => Fault::Usage,
                Origin::Environment(_) | Origin::File { .. } | Origin::Default => Fault::Configuration,
            },
            reason,
        }
    }

    /// A problem of the environment or the file that is not one value's.
    pub fn at(place: impl fmt::Display, reason: Reason) -> Self {
        Self { place: place.to_string(), fault: Fault::Configuration, reason }
    }
}

/// A configuration that cannot be used: everything that is wrong with it.
#[derive(Debug)]
pub struct Invalid {
    problems: Vec<Problem>,
}

impl Invalid {
    /// A configuration with these problems.
    pub fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// What is wrong, in the order in which people see the settings.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// 2 if a flag is wrong (as clap has it), or else 78 (EX_CONFIG of sysexits.h).
    pub fn exit_code(&self) -> u8 {
        if self.problems.iter().any(|problem| problem.fault == Fault::Usage) { 2 } else { 78 }
    }
}

/// One line a problem.
impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
