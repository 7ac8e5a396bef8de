//! Why clusterd could not start, and with which code it exits for it.

use std::io;

use super::attach_way::WayError;
use super::owner::{self, Owner};
use super::primary_user::PrimaryUserError;
use super::public_sockets::ListenError;
use crate::supervisor::StartError;
use crate::supervisor::exec_context::ExecContextError;
use crate::supervisor::triggers::watch::WatchError;
use crate::{admin, logs, preload};

/// EX_CONFIG of sysexits(3).
const CONFIGURATION: u8 = 78;

/// Why the primary could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrimaryError {
    /// What another image of clusterd has left cannot be taken over.
    #[error("cannot go on with what the clusterd before has left: {0}")]
    Carried(#[source] io::Error),
    /// And it cannot be given back either.
    #[error("{why}; cannot go back to the clusterd before: {failed}")]
    NotGivenBack {
        /// Why it cannot be taken over.
        why: Box<PrimaryError>,
        /// Why not.
        failed: io::Error,
    },
    /// No event loop.
    #[error("cannot start the event loop: {0}")]
    Runtime(#[source] io::Error),
    /// No writer for standard output and error.
    #[error(transparent)]
    Output(#[from] logs::OutputError),
    /// Messages are set up already.
    #[error(transparent)]
    Messages(#[from] logs::messages::AlreadyInstalled),
    /// No signal handlers.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// The limits could not be set.
    #[error("cannot set the limit of open files: {0}")]
    Descriptors(#[source] io::Error),
    /// Workers cannot run as they should.
    #[error(transparent)]
    ExecContext(#[from] ExecContextError),
    /// Files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Orphans could not be adopted.
    #[error("cannot become the parent of orphaned processes: {0}")]
    Subreaper(#[source] io::Error),
    /// Two metrics of one name.
    #[error("cannot register the metrics: {0}")]
    Metrics(prometheus::Error),
    /// clusterd cannot run as the user that it should.
    #[error(transparent)]
    PrimaryUser(PrimaryUserError),
    /// The kernel's setting could not be set.
    #[error(
        "cannot set net.ipv4.tcp_migrate_req to 1: {0}: --tcp-migrate needs root and a writable /proc/sys; or set it from \
         outside, as with docker run --sysctl net.ipv4.tcp_migrate_req=1"
    )]
    TcpMigrate(#[source] io::Error),
    /// Workers cannot get connections.
    #[error(transparent)]
    Way(#[from] WayError),
    /// A public port could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The metrics address could not be opened.
    #[error("{source}{}", .owner.as_ref().map(|owner| format!(": {owner}")).unwrap_or_default())]
    Admin {
        /// Why not.
        source: admin::BindError,
        /// Who has it.
        owner: Option<Owner>,
    },
    /// It cannot be watched.
    #[error("cannot serve metrics and probes: {0}")]
    Unwatched(#[source] io::Error),
    /// No attach socket.
    #[error("cannot open the attach socket that workers connect to: {0}")]
    AttachSocket(#[source] io::Error),
    /// No shim.
    #[error(transparent)]
    Shim(#[from] preload::ExposeError),
    /// No data path.
    #[error("cannot start the data path: {0}")]
    Front(#[source] io::Error),
    /// Connections cannot be followed.
    #[error("cannot start to follow connections: {0}")]
    Connections(#[source] io::Error),
    /// The policy or `--concurrency` needs what this system does not tell.
    #[error(
        "cannot count the connections of workers, for this kernel gives sockets no names (SO_COOKIE): {0}\n\
         hint: `--policy round-robin` and `source-ip` without `--concurrency` work without them"
    )]
    Uncounted(#[source] io::Error),
    /// The workers cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl From<PrimaryUserError> for PrimaryError {
    fn from(error: PrimaryUserError) -> Self {
        match error {
            PrimaryUserError::TcpMigrate(source) => Self::TcpMigrate(source),
            other => Self::PrimaryUser(other),
        }
    }
}

impl From<admin::BindError> for PrimaryError {
    /// Looks for whoever has the address.
    fn from(source: admin::BindError) -> Self {
        let is_taken = source.source.kind() == io::ErrorKind::AddrInUse;
        let owner = is_taken.then(|| owner::of_port(source.address.port()));
        Self::Admin { source, owner }
    }
}

impl PrimaryError {
    /// The exit code of clusterd: 127 and 126 for a command that cannot be found or run, 78 for inherited sockets that
    /// are not those of the configuration, otherwise 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            PrimaryError::Start(error) => error.exit_code(),
            PrimaryError::Way(WayError::InVain { .. }) => CONFIGURATION,
            PrimaryError::Listen(ListenError::Inherited(_) | ListenError::Several { .. }) => CONFIGURATION,
            _ => 1,
        }
    }
}
