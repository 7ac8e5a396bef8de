//! What clusterd was told to do: every setting, resolved.
//!
//! Flags, environment and file meet in [`resolve`] and nowhere else; after that there is only [`Config`].
//! In reading order: [`keys`] (the table of settings), [`parse`] (what a value may look like), [`environment`] and
//! [`mod@file`] (where values come from), [`resolve`], [`check`] (what values may not do together), [`load`],
//! [`diff`] (what another reading changes).

pub mod check;
pub mod command;
pub mod diff;
pub mod environment;
pub mod error;
pub mod file;
pub mod keys;
pub mod load;
pub mod origin;
pub mod parse;
pub mod resolve;
pub mod setting;
pub mod show;
pub mod stop_signal;

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use croner::Cron;
use globset::Glob;
use hyper::Uri;
use tracing::level_filters::LevelFilter;

use crate::ids::WorkerPort;
use stop_signal::StopSignal;

/// Every setting, checked and with its default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the workers run.
    pub command: WorkerCommand,
    /// Where the primary listens: at least one place, none twice.
    pub listen: Vec<Listen>,
    /// Whether that is the default: nobody has named a port or an address.
    pub listen_is_default: bool,
    /// The backlog of each public listening socket, in connections (listen(2)).
    pub backlog: NonZeroU32,
    /// How many accepted connections may wait for an idle worker, for each worker port.
    pub queue: NonZeroUsize,
    /// How long a connection may wait for a worker before it is closed.
    pub queue_timeout: Duration,
    /// How many connections may be on their way to one worker that takes them quickly.
    pub window: NonZeroUsize,
    /// How long a worker may leave a connection untaken before it is given to another.
    pub handoff_timeout: Duration,
    /// Who chooses the worker of a connection.
    pub policy: Policy,
    /// How many workers there are; `max` is already a number.
    pub workers: NonZeroU32,
    /// What the application is called: 1 to 64 of `[A-Za-z0-9._-]`, no number and not `all`.
    pub name: String,
    /// How workers are given their connections.
    pub attach: Attach,
    /// Whom the workers run as, a name or a number, not looked up; `None` for whom clusterd runs as.
    pub user: Option<String>,
    /// With which group, a name or a number, not looked up; `None` for the user's own.
    pub group: Option<String>,
    /// How many descriptors a worker may have open (RLIMIT_NOFILE); `None` for what clusterd was given.
    pub nofile: Option<u64>,
    /// A worker's `oom_score_adj`, from -1000 to 1000 (proc_pid_oom_score_adj(5)); `None` for clusterd's own.
    pub oom_score_adj: Option<i16>,
    /// Whether worker K may run on CPU K only.
    pub cpu_affinity: bool,
    /// By which policy workers are scheduled.
    pub cpu_scheduling: CpuScheduling,
    /// Whether a worker gets no connections before it says that it is ready.
    pub wait_ready: bool,
    /// What a worker must answer before it gets connections, as a path with or without a query.
    pub ready_http: Option<Uri>,
    /// How long a worker may take from its start until it is ready.
    pub ready_timeout: Duration,
    /// Whether a worker that ends is started again.
    pub autorestart: bool,
    /// A worker that ends earlier has failed.
    pub min_uptime: Duration,
    /// How many times in a row a worker that fails is started again.
    pub max_restarts: u32,
    /// A worker that ends with one of these is not started again.
    pub stop_exit_codes: Vec<u8>,
    /// How long a worker may go on with its open connections once it gets no further one.
    pub drain_timeout: Duration,
    /// What asks a worker to stop, after that.
    pub stop_signal: StopSignal,
    /// From the stop signal to SIGKILL.
    pub kill_timeout: Duration,
    /// How many workers a reload replaces at a time.
    pub reload_parallel: NonZeroU32,
    /// When to reload by itself, in local time.
    pub cron: Option<Cron>,
    /// What is watched for changes, to reload; not looked up.
    pub watch: Vec<PathBuf>,
    /// Which changes do not matter.
    pub ignore: Vec<Glob>,
    /// What a healthy worker answers, as a path with or without a query.
    pub health_http: Option<Uri>,
    /// How often it is asked.
    pub health_interval: Duration,
    /// How many times in a row it may fail to answer.
    pub health_failures: NonZeroU32,
    /// How long a worker may take nothing while there is something for it; at least `handoff_timeout`.
    pub stuck_timeout: Option<Duration>,
    /// How much memory a worker's processes may use.
    pub max_memory: Option<ByteSize>,
    /// How long a worker may live.
    pub max_age: Option<Duration>,
    /// How many connections a worker may be given in its life.
    pub max_connections: Option<NonZeroU32>,
    /// Where /metrics, /livez and /readyz are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where workers serve metrics of their own, as a path with or without a query; only with `metrics`.
    pub scrape: Option<Uri>,
    /// The shape of clusterd's own messages.
    pub log_format: LogFormat,
    /// Which of clusterd's own messages are written.
    pub log_level: LevelFilter,
    /// What is run for each event of a worker's life, a line for a shell.
    pub on_event: Option<String>,
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

/// Who chooses the worker of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// clusterd: the one that has been idle longest, as Node's SCHED_RR.
    RoundRobin,
    /// The kernel, among workers that share the listening socket, as Node's SCHED_NONE.
    Shared,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::RoundRobin => "round-robin",
            Policy::Shared => "shared",
        })
    }
}

/// By which policy the kernel schedules workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuScheduling {
    /// SCHED_BATCH (sched(7)): a worker that wakes up does not interrupt what runs, another worker for one. Only in the
    /// place of the usual SCHED_OTHER: another policy was chosen by whoever started clusterd.
    Batch,
    /// clusterd's own.
    Inherit,
}

impl fmt::Display for CpuScheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CpuScheduling::Batch => "batch",
            CpuScheduling::Inherit => "inherit",
        })
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
