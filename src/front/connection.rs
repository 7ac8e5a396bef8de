//! An accepted connection, as the data path passes it on.
//!
//! It owns the socket and nothing else; it is never read or written here.

use std::time::Instant;

use super::arrival::Arrival;
use crate::protocol::wire::Endpoint;
use crate::sys::closer::ForeignFd;

/// An accepted connection on its way to a worker, in non-blocking mode. Dropping it closes it, elsewhere.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The socket.
    pub socket: ForeignFd,
    /// The client.
    pub peer: Endpoint,
    /// How it arrived.
    pub arrival: Arrival,
    /// When it was accepted.
    pub accepted: Instant,
}
