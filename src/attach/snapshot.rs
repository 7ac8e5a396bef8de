//! What the ways of attaching have, as it goes to the next image of clusterd.
//!
//! Only the words: who has what writes it down, and begins with it again. What Node's way has is [`node`](super::node)'s.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::handshake::Hello;
use crate::carry::{CarriedFd, LAST_COUNT, Moment};
use crate::ids::{LinkId, ServiceId, Slot, WorkerId, WorkerPort};
use crate::protocol::wire::{Binding, Endpoint};
use crate::settings::Bind;
use crate::sys::seccomp::notifications::{Asks, Call};

/// The attach socket, and whoever it has in hand.
///
/// How often a refusal was said is not carried: at worst one is said sooner than it would have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachSnapshot {
    /// What workers find in their environment.
    pub(super) name: String,
    pub(super) listener: CarriedFd,
    /// What takes its place once it has answered everybody who waits there.
    pub(super) next: Option<CarriedFd>,
    /// In the order in which they came.
    pub(super) turns: Vec<TurnSnapshot>,
}

/// A process that is waited for. Who it is, its socket tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TurnSnapshot {
    pub(super) channel: CarriedFd,
    pub(super) stage: Stage,
    /// How long it may take for what it has to say next.
    pub(super) until: Moment,
}

/// How far a process has got that is waited for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Stage {
    /// It has said nothing yet, as far as anybody has heard.
    Began,
    /// It was told that it may send its end, and its socket.
    Admitted {
        /// What it asks for.
        hello: Hello,
        /// What it has sent.
        worker_end: Option<CarriedFd>,
    },
    /// It has got its listeners, and is about to become its program.
    Inherited {
        /// Which ones.
        links: Vec<LinkId>,
    },
}

/// What the processes of each launch have bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BoundSnapshot {
    pub(super) entries: Vec<EntrySnapshot>,
    pub(super) listened: Vec<(WorkerId, WorkerPort)>,
    pub(super) told: Vec<Slot>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntrySnapshot {
    pub(super) worker: WorkerId,
    pub(super) uid: u32,
    pub(super) binding: Binding,
    pub(super) link: LinkId,
    pub(super) inode: u64,
    pub(super) pid: i32,
    pub(super) nonce: u64,
    pub(super) given: bool,
    pub(super) listens: bool,
    pub(super) kept: KeptSnapshot,
}

/// What is in the place of the server's socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum KeptSnapshot {
    /// A channel.
    Channel {
        /// The server's own socket, if clusterd has it.
        socket: Option<CarriedFd>,
    },
    /// A listening socket.
    Socket {
        /// The connection by which it is on its way.
        way: Option<CarriedFd>,
    },
}

/// An address that was opened because a server asks to listen there. What listens there is the front's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenedSnapshot {
    pub(super) bind: BindSnapshot,
    pub(super) service: ServiceId,
    pub(super) was_listened_on: bool,
    pub(super) unused_since: Option<Moment>,
}

/// A public address.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum BindSnapshot {
    Everywhere { port: u16 },
    Address { address: SocketAddr },
}

impl From<Bind> for BindSnapshot {
    fn from(bind: Bind) -> Self {
        match bind {
            Bind::Everywhere { port } => Self::Everywhere { port },
            Bind::Address(address) => Self::Address { address },
        }
    }
}

impl From<BindSnapshot> for Bind {
    fn from(bind: BindSnapshot) -> Self {
        match bind {
            BindSnapshot::Everywhere { port } => Self::Everywhere { port },
            BindSnapshot::Address { address } => Self::Address(address),
        }
    }
}

/// The numbers that were given to addresses, by whichever way they were opened.
///
/// Which addresses could not be opened is not carried: it is said the next time that one is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpeningsSnapshot {
    /// The next one.
    pub(super) next: u64,
}

impl OpeningsSnapshot {
    /// Whether there are further ones.
    pub(crate) fn goes_on(self) -> bool {
        self.next < LAST_COUNT
    }
}

/// The calls of one launch, and of whatever it has left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallsSnapshot {
    pub(super) worker: WorkerId,
    pub(super) notifications: CarriedFd,
    /// The launch is gone.
    pub(super) is_gone: bool,
    pub(super) untold: Vec<(u64, Endpoint)>,
    pub(super) told_of_access: bool,
    /// The one that was received and waits for its answer: the kernel tells of it once.
    pub(super) call: Option<CallSnapshot>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallSnapshot {
    pub(super) id: u64,
    pub(super) thread: i32,
    pub(super) asks: Asks,
    /// How long it waits at most for what is scarce.
    pub(super) until: Moment,
}

impl CallSnapshot {
    pub(super) fn of(call: &Call, until: Instant) -> Self {
        Self { id: call.id(), thread: call.thread.as_raw_pid(), asks: call.asks, until: until.into() }
    }

    /// The same call. Whether it still waits is to be asked.
    pub(super) fn restore(&self) -> io::Result<(Call, Instant)> {
        // A negative one would be a bug to `Pid`.
        let thread = (self.thread > 0).then(|| Pid::from_raw(self.thread)).flatten();
        let thread = thread.ok_or_else(|| wrong("a call is of no thread"))?;
        Ok((Call::received(self.id, thread, self.asks), self.until.into()))
    }
}

/// Why this is not what another clusterd has written down.
pub(super) fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
