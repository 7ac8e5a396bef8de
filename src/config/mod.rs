//! What clusterd was told to do: every setting, resolved.
//!
//! Flags, environment and file meet in [`resolve`] and nowhere else; after that there is only [`Config`].
//! In reading order: [`keys`] (the table of settings), [`parse`] (what a value may look like), [`environment`] and
//! [`mod@file`] (where values come from), [`resolve`], [`check`] (what values may not do together), [`load`].

pub mod check;
pub mod command;
pub mod environment;
pub mod error;
pub mod file;
pub mod keys;
pub mod load;
pub mod origin;
pub mod parse;
pub mod resolve;
pub mod show;

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::ids::WorkerPort;

/// Every setting, checked and with its default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the workers run.
    pub command: WorkerCommand,
    /// How many workers there are; `max` is already a number.
    pub workers: NonZeroU32,
    /// Where the primary listens: at least one place, none twice.
    pub listen: Vec<Listen>,
    /// The backlog of each public listening socket, in connections (listen(2)).
    pub backlog: NonZeroU32,
    /// How many accepted connections may wait for an idle worker, for each worker port.
    pub queue: NonZeroUsize,
    /// How long a connection may wait for a worker before it is closed.
    pub queue_timeout: Duration,
    /// How long a worker may leave a connection untaken before it is given to another.
    pub handoff_timeout: Duration,
    /// How long a graceful stop may take, from the signal to the last SIGKILL.
    pub grace: Duration,
    /// Where /metrics, /livez and /readyz are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The shape of clusterd's own messages.
    pub log_format: LogFormat,
    /// Which of clusterd's own messages are written.
    pub log_level: tracing::level_filters::LevelFilter,
    /// How workers are given their connections.
    pub attach: Attach,
    /// Whether a worker gets no connections before it says that it is ready.
    pub wait_ready: bool,
}

/// What the workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerCommand {
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

/// A public address, and the port that workers ask for to be served from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where clients connect to.
    pub bind: Bind,
    /// The port that the workers ask for.
    pub worker_port: WorkerPort,
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
pub enum Bind {
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
    pub fn address(self) -> SocketAddr {
        match self {
            Bind::Everywhere { port } => SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into(),
            Bind::Address(address) => address,
        }
    }
}

/// The shape of clusterd's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line a message, for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// How workers are given their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Whatever fits the worker: the preloaded shim or the library, and for Node its cluster channel.
    Auto,
    /// The preloaded shim or the library, and nothing else.
    Preload,
    /// Node's cluster channel or the library, and nothing else.
    Node,
}

impl Attach {
    /// Whether the shim is preloaded into workers.
    pub fn has_shim(self) -> bool {
        self != Attach::Node
    }

    /// Whether workers get a channel on which Node's cluster module speaks with its primary.
    pub fn has_node_channel(self) -> bool {
        self != Attach::Preload
    }
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Attach::Auto => "auto",
            Attach::Preload => "preload",
            Attach::Node => "node",
        })
    }
}
