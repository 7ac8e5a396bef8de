//! Why there is no listener, and what would help.
//!
//! Errors of `accept` are plain `io::Error`s; `Listener::accept` lists them.

use std::io;
use std::net::SocketAddr;

/// Why there is no listener. The text is lower case; where something can be done about it, a second line says what,
/// and begins with `hint: `.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// `CLUSTERD_ATTACH_SOCKET` is set, but what belongs to it is missing or damaged.
    #[error(
        "cannot attach to clusterd: {variable} {problem}\n\
         hint: pass the environment on as clusterd set it, or unset CLUSTERD_ATTACH_SOCKET to run without clusterd"
    )]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The attach socket cannot be reached.
    #[error(
        "cannot connect to clusterd at {socket}: {cause}\n\
         hint: check that clusterd is running, or unset CLUSTERD_ATTACH_SOCKET to run without it"
    )]
    Unreachable {
        /// The attach socket, as it stands in the environment.
        socket: String,
        /// The error of socket(2), bind(2) or connect(2).
        cause: io::Error,
    },
    /// The primary does not accept this process as one of its workers.
    #[error(
        "clusterd refused to serve {address}: this process does not have the token of a running worker\n\
         hint: start the server with clusterd, or unset CLUSTERD_ATTACH_SOCKET to run without it"
    )]
    NotAdmitted {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The primary has no room for another listener.
    #[error(
        "clusterd refused to serve {address}: it has as many listeners as it can take\n\
         hint: close some listeners, then try again"
    )]
    Full {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The primary serves nothing but Node's cluster workers.
    #[error(
        "clusterd refused to serve {address}: with `--accept workers`, workers accept by themselves, and this library takes connections from clusterd\n\
         hint: start clusterd with `--accept primary`"
    )]
    Shared {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// A process of this worker has bound that address already.
    #[error(
        "cannot listen on {address}: a process of this worker has bound it already\n\
         hint: bind one listener per address, or close the first one before"
    )]
    InUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The primary did not answer in time.
    #[error("clusterd did not answer at {socket} within {} s\nhint: check whether it is stopped or overloaded", super::listener::ATTACH_TIMEOUT.as_secs())]
    Timeout {
        /// The attach socket, as it stands in the environment.
        socket: String,
    },
    /// The primary did not answer, or its answer makes no sense.
    #[error(
        "cannot attach to clusterd for {address}: {cause}\n\
         hint: check that clusterd is running, and that the library and the command have the same version"
    )]
    Attach {
        /// The address that was asked for.
        address: SocketAddr,
        /// The error of sendmsg(2) or recvmsg(2), or `InvalidData`.
        cause: io::Error,
    },
    /// There is no clusterd, or it does not serve this port, and this process cannot listen on the address itself.
    #[error("cannot listen on {address}: {cause}")]
    Tcp {
        /// The address that was asked for.
        address: SocketAddr,
        /// The error of socket(2), bind(2) or listen(2).
        cause: io::Error,
    },
}
