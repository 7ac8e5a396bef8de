//! What the sessions with Node workers have, as it is written down for the next image of clusterd.
//!
//! Only the form: each part says by itself what it has, and begins with it again. What is known of processes (whether one has
//! the shim) is not here: it is looked up each time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::fs::{Gid, Uid};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Exit;
use super::transport::Sent;
use crate::carry::{CarriedFd, Moment, Raw};
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::protocol::node::{AddressType, HandleType, Query, Seq};
use crate::sys::process::Credentials;

/// No number of a message is greater than JavaScript can count (`Number.MAX_SAFE_INTEGER`).
const LAST_SEQ: u64 = (1 << 53) - 1;

/// Everything about Node workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSnapshot {
    /// Those whose channel has not ended.
    pub(super) sessions: Vec<SessionSnapshot>,
    pub(super) listeners: Vec<EntrySnapshot>,
    pub(super) messages: ExchangeSnapshot,
}

/// The session with one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionSnapshot {
    pub worker: WorkerId,
    /// What it says is dropped.
    pub is_ignored: bool,
    /// How far it was asked to go.
    pub exit: Exit,
    /// It was not told so yet.
    pub exit_is_news: bool,
    pub transport: TransportSnapshot,
    pub servers: Vec<ServerSnapshot>,
    pub closed: Vec<ClosedSnapshot>,
    pub offers: OffersSnapshot,
    /// It gets what others send.
    pub has_mailbox: bool,
    pub idle: IdleSnapshot,
}

/// The channel of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransportSnapshot {
    pub channel: CarriedFd,
    pub worker_end: CarriedFd,
    /// The process that wrote last.
    pub speaker: Option<i32>,
    /// The beginning of a line whose end has not come.
    pub partial: Raw,
    /// What is not written yet, in order. Of a line that was begun it is the rest.
    pub outgoing: Vec<PieceSnapshot>,
    pub seq: Seq,
    pub unacknowledged: Vec<Sent>,
}

/// Bytes, and the descriptor that goes with the first of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PieceSnapshot {
    pub bytes: Raw,
    pub fd: Option<CarriedFd>,
}

/// A server of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerSnapshot {
    pub query: QuerySnapshot,
    pub supply: SupplySnapshot,
}

/// What a server has asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuerySnapshot {
    seq: Seq,
    index: i64,
    data: Option<String>,
    address: Option<String>,
    port: i64,
    address_type: AddressTypeSnapshot,
    fd: i64,
    flags: i64,
    backlog: i64,
    readable_all: bool,
    writable_all: bool,
}

/// How it has meant the address.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum AddressTypeSnapshot {
    V4,
    V6,
    Pipe,
    Udp4,
    Udp6,
    Descriptor,
}

/// How a server gets its connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum SupplySnapshot {
    Channel { link: LinkId, inode: u64, pid: i32 },
    Relay { link: LinkId, port: u16, passing: PassingSnapshot },
    Shared { link: LinkId, port: u16 },
    Other,
}

/// How far a relay is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum PassingSnapshot {
    /// It begins when the server listens.
    NotBegun { worker_end: CarriedFd },
    /// It runs.
    Begun(RelaySnapshot),
    /// Its channel has ended.
    Ended,
}

/// A relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RelaySnapshot {
    pub channel: CarriedFd,
    pub position: RelayPosition,
}

/// What a relay does. The connection that it is about lies in the channel until it is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RelayPosition {
    /// It looks for the next connection.
    Looking,
    /// It waits for what becomes of the one that was offered.
    Offered,
    /// It gives it back to the front, for the worker does not want it.
    Declining,
    /// The same, for the worker does not look at it.
    DecliningStuck,
    /// It waits for the worker to move.
    Stuck,
}

/// A server that was closed, and may be held by a child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClosedSnapshot {
    pub server: ServerSnapshot,
    pub look_at: Moment,
    pub pause: Duration,
}

/// What a worker was offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OffersSnapshot {
    pub made: Vec<MadeSnapshot>,
    pub is_stuck: bool,
}

/// One connection of those.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MadeSnapshot {
    pub seq: Seq,
    /// The channel that it came from.
    pub link: LinkId,
    pub until: Option<Moment>,
}

/// Whether a worker waits for nothing but its channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdleSnapshot {
    pub look_at: Option<Moment>,
    pub looks: u8,
}

/// What servers listen on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntrySnapshot {
    pub key: String,
    pub source: SourceSnapshot,
    pub data: Option<String>,
    pub wanted_by: Vec<WorkerId>,
}

/// Where the servers of one address get their connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum SourceSnapshot {
    Service { id: ServiceId, address: SocketAddr },
    Shared { socket: CarriedFd, handle: HandleSnapshot, path: Option<Raw>, user: Option<UserSnapshot> },
}

/// What a socket is to Node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum HandleSnapshot {
    Net,
    Dgram,
}

/// Whom workers run as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserSnapshot {
    uid: u32,
    gid: u32,
    groups: Option<Vec<u32>>,
}

/// Messages on their way from worker to worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExchangeSnapshot {
    pub letters: Vec<LettersSnapshot>,
    /// What was said once is not said again.
    pub off_said: bool,
    pub too_long_said: bool,
    pub full_said: bool,
}

/// What waits for one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LettersSnapshot {
    pub to: WorkerId,
    pub messages: Vec<String>,
}

/// What was written down is not what a clusterd writes.
pub(super) fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A number of a message, after which there is a next one.
pub(super) fn countable(seq: Seq) -> io::Result<Seq> {
    if seq.0 <= LAST_SEQ { Ok(seq) } else { Err(wrong("the number of a message is too great")) }
}

/// JSON on one line, as Node wrote it.
pub(super) fn json(text: String) -> io::Result<Box<RawValue>> {
    if text.contains('\n') {
        return Err(wrong("a message of a worker has several lines"));
    }
    RawValue::from_string(text).map_err(|error| wrong(&format!("a message of a worker is not JSON: {error}")))
}

impl From<&Query> for QuerySnapshot {
    fn from(query: &Query) -> Self {
        Self {
            seq: query.seq,
            index: query.index,
            data: query.data.as_ref().map(|data| data.get().to_owned()),
            address: query.address.clone(),
            port: query.port,
            address_type: query.address_type.into(),
            fd: query.fd,
            flags: query.flags,
            backlog: query.backlog,
            readable_all: query.readable_all,
            writable_all: query.writable_all,
        }
    }
}

impl TryFrom<QuerySnapshot> for Query {
    type Error = io::Error;

    fn try_from(query: QuerySnapshot) -> io::Result<Self> {
        Ok(Self {
            seq: query.seq,
            index: query.index,
            data: query.data.map(json).transpose()?,
            address: query.address,
            port: query.port,
            address_type: query.address_type.into(),
            fd: query.fd,
            flags: query.flags,
            backlog: query.backlog,
            readable_all: query.readable_all,
            writable_all: query.writable_all,
        })
    }
}

impl From<AddressType> for AddressTypeSnapshot {
    fn from(kind: AddressType) -> Self {
        match kind {
            AddressType::V4 => Self::V4,
            AddressType::V6 => Self::V6,
            AddressType::Pipe => Self::Pipe,
            AddressType::Udp4 => Self::Udp4,
            AddressType::Udp6 => Self::Udp6,
            AddressType::Descriptor => Self::Descriptor,
        }
    }
}

impl From<AddressTypeSnapshot> for AddressType {
    fn from(kind: AddressTypeSnapshot) -> Self {
        match kind {
            AddressTypeSnapshot::V4 => Self::V4,
            AddressTypeSnapshot::V6 => Self::V6,
            AddressTypeSnapshot::Pipe => Self::Pipe,
            AddressTypeSnapshot::Udp4 => Self::Udp4,
            AddressTypeSnapshot::Udp6 => Self::Udp6,
            AddressTypeSnapshot::Descriptor => Self::Descriptor,
        }
    }
}

impl From<HandleType> for HandleSnapshot {
    fn from(handle: HandleType) -> Self {
        match handle {
            HandleType::Net => Self::Net,
            HandleType::Dgram => Self::Dgram,
        }
    }
}

impl From<HandleSnapshot> for HandleType {
    fn from(handle: HandleSnapshot) -> Self {
        match handle {
            HandleSnapshot::Net => Self::Net,
            HandleSnapshot::Dgram => Self::Dgram,
        }
    }
}

impl From<&Credentials> for UserSnapshot {
    fn from(user: &Credentials) -> Self {
        let groups = user.groups.as_ref().map(|groups| groups.iter().map(|group| group.as_raw()).collect());
        Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups }
    }
}

impl TryFrom<UserSnapshot> for Credentials {
    type Error = io::Error;

    fn try_from(user: UserSnapshot) -> io::Result<Self> {
        // -1 is no user (setresuid(2)).
        let all = [user.uid, user.gid].into_iter().chain(user.groups.iter().flatten().copied());
        if all.into_iter().any(|id| id == u32::MAX) {
            return Err(wrong("a user of no number"));
        }
        let groups = user.groups.map(|groups| groups.into_iter().map(Gid::from_raw).collect());
        Ok(Self { uid: Uid::from_raw(user.uid), gid: Gid::from_raw(user.gid), groups })
    }
}
