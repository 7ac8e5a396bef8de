//! The configuration: every setting, declared once, and resolved from flags, environment and file.
//!
//! Flags, environment and file meet in [`resolve`] and nowhere else; after that there is only [`Config`].
//! In reading order: [`table`] (every setting), [`setting`] (what is declared of one) and [`kind`] (which values one may
//! have, with [`parse`]), [`environment`] and [`mod@file`] (where values come from), [`resolve`], [`check`] (what values
//! may not do together), [`load`], [`diff`] (what another reading changes),
//! [`show`], [`reference`](mod@reference) and [`schema`] (what people see). [`apps`] are the apps of a file that has several, and
//! of PM2's. [`workplace`], with [`dotenv`] and [`env_file`], is what
//! each launch of a worker looks up anew.

pub(crate) mod apps;
pub(crate) mod carried;
pub(crate) mod check;
pub(crate) mod command;
pub(crate) mod date_format;
pub(crate) mod diff;
pub(crate) mod dotenv;
pub(crate) mod env_file;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod file_server;
pub(crate) mod kind;
mod lines;
pub(crate) mod load;
pub(crate) mod origin;
pub(crate) mod parse;
pub mod reference;
pub(crate) mod resolve;
pub(crate) mod schedule;
pub mod schema;
pub(crate) mod script;
pub(crate) mod setting;
pub(crate) mod show;
pub(crate) mod start_folder;
pub(crate) mod stop_signal;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod workplace;

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

use crate::ids::WorkerPort;
pub(crate) use table::Config;

/// What the workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WorkerCommand {
    /// The built-in hello server.
    Demo,
    /// A program, looked up in PATH as execvp(3) does, and its arguments.
    Program {
        /// The program.
        program: OsString,
        /// Its arguments, without its own name.
        arguments: Vec<OsString>,
    },
}

impl WorkerCommand {
    /// Whether it is the file server, which is a part of the clusterd that runs the app: also where another version has taken
    /// the place of its file.
    pub(crate) fn is_file_server(&self) -> bool {
        match self {
            WorkerCommand::Demo => false,
            WorkerCommand::Program { program, arguments } => {
                program == file_server::PROGRAM
                    && arguments.first().is_some_and(|first| first == file_server::VERB)
            }
        }
    }
}

/// A public address, and the port that workers ask for to be served from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// Where clients connect to.
    pub bind: Bind,
    /// The port that the workers ask for.
    pub worker_port: WorkerPort,
}

impl Listen {
    /// Whether clients connect to the number that workers ask for.
    pub(crate) fn has_one_number(&self) -> bool {
        self.bind.address().port() == self.worker_port.0
    }
}

/// As `--port` or `--bind` takes it.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = match self.bind {
            Bind::Everywhere { port } => {
                write!(f, "{port}")?;
                port
            }
            Bind::Address(address) => {
                write!(f, "{address}")?;
                address.port()
            }
        };
        if self.worker_port.0 == public { Ok(()) } else { write!(f, ":{}", self.worker_port) }
    }
}

/// A public address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    /// `--port`: every address of the machine; `[::]` for both families, or 0.0.0.0 where there is no IPv6.
    Everywhere {
        /// The port; 0 asks the kernel for a free one.
        port: u16,
    },
    /// `--bind`: just this address.
    Address(SocketAddr),
}

impl Bind {
    /// The address as it was asked for, with `[::]` for everywhere.
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Bind::Everywhere { port } => SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into(),
            Bind::Address(address) => address,
        }
    }
}

/// Which worker gets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// The worker that has been idle longest, as Node's SCHED_RR.
    RoundRobin,
    /// The worker with the fewest open connections; of several, the one that has been idle longest.
    LeastConnections,
    /// The same worker for the same client address, or IPv6 network (/64), as long as that worker serves.
    SourceIp,
    /// Of two workers, picked at random, the one with fewer open connections.
    RandomTwo,
}

/// Who accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accept {
    /// clusterd, where it can hand connections over: everywhere but to Go and static programs.
    Auto,
    /// clusterd, which gives each connection to a worker by its `policy`.
    #[value(alias = "rr")]
    Primary,
    /// The workers, each from a listening socket of its own (Node's SCHED_NONE).
    #[value(alias = "none")]
    Workers,
}

/// When a worker that is to end gets the stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StopSignalAt {
    /// Once it has no open connection, or the drain is over.
    Drained,
    /// When the drain begins, for servers that know how to send their clients away.
    Drain,
}

/// By which policy the kernel schedules workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CpuScheduling {
    /// SCHED_BATCH instead of SCHED_OTHER: a worker that wakes up does not interrupt what runs, such as another worker.
    // Another policy than SCHED_OTHER was chosen by whoever started clusterd, and stays.
    Batch,
    /// clusterd's own policy.
    Inherit,
}

/// Whether clients of HTTP are asked to leave a worker that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DrainHttp {
    /// Each response that begins says `Connection: close`, where the worker has the preloaded shim.
    Auto,
    /// Nobody is asked; responses go out as the worker sends them.
    Off,
}

/// What workers read from their standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stdin {
    /// /dev/null: it ends at once.
    Null,
    /// Nothing, and it never ends: for servers that stop when it does.
    Open,
}

/// The format of clusterd's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line a message, for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the lines of workers are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogType {
    /// As they come.
    Raw,
    /// One JSON object a line.
    Json,
}

/// The least level of clusterd's own messages that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only what keeps clusterd from doing its work.
    Error,
    /// Also what should be looked at.
    Warn,
    /// Also what happens to workers.
    Info,
    /// Also what helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}

/// How workers are given their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attach {
    /// Whatever fits: the preloaded shim or the library; Node is also given its cluster channel.
    Auto,
    /// The preloaded shim or the library, and nothing else.
    Preload,
    /// Node's cluster channel or the library, and nothing else.
    Node,
    /// Listening sockets that the server inherits, as from systemd (LISTEN_FDS); implies `--accept workers`.
    ListenFds,
    /// Intercepted calls of bind and listen, for Go, static programs and others that bypass the C library; implies
    /// `--accept workers`.
    Seccomp,
}

impl Attach {
    /// Whether the shim is preloaded into workers.
    pub(crate) fn has_shim(self) -> bool {
        matches!(self, Attach::Auto | Attach::Preload)
    }

    /// Whether workers get a channel on which Node's cluster module speaks with its primary.
    pub(crate) fn has_node_channel(self) -> bool {
        matches!(self, Attach::Auto | Attach::Node)
    }

    /// Whether workers can only accept by themselves.
    pub(crate) fn needs_workers_to_accept(self) -> bool {
        matches!(self, Attach::ListenFds | Attach::Seccomp)
    }
}
