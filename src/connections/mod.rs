//! Who has which connection: what is open, of which worker, and what has ended.
//!
//! It never touches a connection: it asks the kernel, which lists sockets and tells of those that it destroys. What is asked
//! now and then is answered with a list of that moment. While something has to be known at once, it listens as well.
//!
//! The front notes which worker it gives each connection to ([`notes`]); a thread of its own ([`task`]) keeps that in the
//! [`table`], and joins it with what is listed ([`listing`]). Where a connection was not noted, because workers accept by
//! themselves, and where it matters that a process still holds it, the descriptors of the worker's processes are read
//! ([`holders`]). [`drains`] are those who wait until a worker has none.

mod drains;
mod handle;
mod holders;
mod listing;
mod pace;
mod snapshot;
mod table;
mod task;

pub(crate) mod notes;
pub(crate) mod statistics;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use self::handle::{Handle, Telling};
pub(crate) use self::snapshot::{ConnectionsSnapshot, NotesSnapshot, StatisticsSnapshot};
pub(crate) use self::task::start;
#[cfg(feature = "internal")]
pub(crate) use self::task::trial;
use crate::ids::WorkerId;

/// A client's connection that a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenConnection {
    /// What it is called, from its beginning to its end.
    pub cookie: u64,
    /// Whose it is; `None` if it still waits for a worker, or if that cannot be told.
    pub worker: Option<WorkerId>,
    /// The address to which the client has connected.
    pub local: SocketAddr,
    /// The client.
    pub client: SocketAddr,
    /// How far it is closed.
    pub state: ConnectionState,
    /// Since when it is accepted; `None` if clusterd did not accept it.
    pub age: Option<Duration>,
    /// How long it waited for a worker; `None` as for the age.
    pub queued_for: Option<Duration>,
    /// What the kernel has measured; `None` where it does not tell.
    pub figures: Option<Figures>,
}

/// How far a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// Not at all.
    Established,
    /// The client has closed it in its direction.
    CloseWait,
    /// The server has closed it in its direction, which the client has not acknowledged.
    FinWait1,
    /// The server has closed it in its direction.
    FinWait2,
}

/// What the kernel has measured of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// For how long nothing was sent or received.
    pub idle: Duration,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes that the client has acknowledged.
    pub sent: u64,
    /// The smoothed round trip time.
    pub rtt: Duration,
    /// How much that varies.
    pub rtt_variation: Duration,
    /// Segments that were sent more than once.
    pub retransmitted: u64,
}

/// A client's connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// What it was called.
    pub cookie: u64,
    /// Whose it was.
    pub worker: WorkerId,
    /// From its acceptance to its end.
    pub lived: Duration,
    /// What the kernel has measured last; `None` if that was not seen.
    pub figures: Option<Figures>,
}
