//! What a Node worker and its cluster primary say to each other, one line a message.
//!
//! It reads and writes single lines; where lines begin and which descriptor belongs to which is
//! [`codec`](super::codec)'s.
//!
//! ```text
//! worker                                          primary
//!   Online ─────────────────────────────────────────▶
//!   QueryServer ────────────────────────────────────▶
//!     ◀──────────── Sockname, Refused, or Shared and its descriptor
//!   Listening ──────────────────────────────────────▶
//!     ◀──────────────────────── NewConn and its descriptor    (after Sockname only)
//!   HandleAck, Accepted ────────────────────────────▶
//!   Close ──────────────────────────────────────────▶
//!   ExitedAfterDisconnect ──────────────────────────▶
//!     ◀──────────────────────────────────────────── Ack
//! ```

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::codec::Fault;
use super::errno::Errno;

/// The number of a message, which its answer quotes. Each side counts its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// This number; the next call gives the one after it.
    pub fn take(&mut self) -> Seq {
        let taken = *self;
        self.0 += 1;
        taken
    }
}

/// What a worker says.
#[derive(Clone, Debug)]
pub enum FromNode {
    /// The worker has started, and its program is about to run.
    Online,
    /// A server of the worker wants to listen; it waits for the answer.
    QueryServer(Query),
    /// A server of the worker listens. The same as the query, but with the real port.
    Listening(Query),
    /// The answer to [`ToNode::NewConn`].
    Accepted {
        /// The `seq` of the connection.
        ack: Seq,
        /// False: the server is closed or has as many connections as it wants, and the worker dropped this one.
        accepted: bool,
    },
    /// A server of the worker listens no more.
    Close {
        /// This message's number.
        seq: Seq,
        /// The key that the answer to its query carried.
        key: String,
    },
    /// The worker leaves of its own accord, and waits for [`ToNode::Ack`] before it does.
    ExitedAfterDisconnect {
        /// This message's number.
        seq: Seq,
    },
    /// The descriptor that was sent first, of those neither acknowledged nor refused, arrived.
    HandleAck,
    /// That descriptor did not arrive: the worker has no room for it.
    HandleNack,
    /// `process.send(message, handle)`: the worker queues all it has to say until [`ToNode::HandleAck`] comes.
    Handle {
        /// What the handle is, in Node's words: `net.Socket`, `net.Server`, `dgram.Socket`, ...
        kind: Option<String>,
        /// What the program sent with it.
        message: Option<Box<RawValue>>,
    },
    /// A server of the worker that has sent connections to its primary asks what became of them: `getConnections`, or
    /// `close`, which waits until all of them are closed.
    SentSockets {
        /// Which of the two.
        question: SocketQuestion,
        /// The server, in Node's words.
        key: Box<RawValue>,
    },
    /// A message between Node's own parts that means nothing to a primary: to be ignored.
    Unknown(Box<RawValue>),
    /// What the program gave to `process.send`, any JSON value.
    User(Box<RawValue>),
}

/// What a server asks about the connections that it has sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketQuestion {
    /// How many are open?
    Count,
    /// Tell when all are closed.
    Close,
}

/// What a worker's server wants to listen on, as `net.Server.listen` or `dgram.Socket.bind` had it.
///
/// Node checks few of these values before it sends them, so numbers may arrive as text, as `false` or not at
/// all. What is no number counts as 0, as it does for Node's primary.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// This message's number.
    pub seq: Seq,
    /// Counts the worker's listens to the same address and port.
    #[serde(default, deserialize_with = "integer")]
    pub index: i64,
    /// What all workers' servers of one address have to share, from the first: the keys of TLS tickets. Its text
    /// is kept as it came.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
    /// An IP address, or an absolute path; none means every address.
    #[serde(default)]
    pub address: Option<String>,
    /// The port, 0 for any free one, -1 when `address` is a path.
    #[serde(default, deserialize_with = "integer")]
    pub port: i64,
    /// How `address` and `port` are meant.
    #[serde(default)]
    pub address_type: AddressType,
    /// The number of an open descriptor of the primary to listen on, instead of an address; negative for none.
    #[serde(default = "no_descriptor", deserialize_with = "descriptor")]
    pub fd: i64,
    /// [`Query::IPV6_ONLY`] and [`Query::REUSE_ADDRESS`].
    #[serde(default, deserialize_with = "integer")]
    pub flags: i64,
    /// As for listen(2); 0 means Node's 511.
    #[serde(default, deserialize_with = "integer")]
    pub backlog: i64,
    /// Everyone may read from the path.
    #[serde(default, deserialize_with = "truth")]
    pub readable_all: bool,
    /// Everyone may write to the path.
    #[serde(default, deserialize_with = "truth")]
    pub writable_all: bool,
}

impl Query {
    /// A bit of `flags`: no IPv4 clients (`UV_TCP_IPV6ONLY`, `UV_UDP_IPV6ONLY`).
    pub const IPV6_ONLY: i64 = 1;
    /// A bit of `flags`, for UDP: `SO_REUSEADDR` (`UV_UDP_REUSEADDR`).
    pub const REUSE_ADDRESS: i64 = 4;

    /// The TCP port, 0 for any free one; `None` if it asks for something else.
    pub fn tcp_port(&self) -> Option<u16> {
        let is_tcp = matches!(self.address_type, AddressType::V4 | AddressType::V6);
        u16::try_from(self.port).ok().filter(|_| is_tcp)
    }

    /// The network interface that the address names, as in `fe80::1%eth0`.
    pub fn zone(&self) -> Option<&str> {
        Some(self.address.as_deref()?.split_once('%')?.1)
    }

    /// The name under which the worker shall know the listener: the same for the same address, in every worker.
    ///
    /// To ask for any free port twice is to ask for two listeners. To ask for another address twice is an error.
    pub fn key(&self) -> String {
        let address = self.address.as_deref().unwrap_or("null");
        let key = format!("{address}:{}:{}:{}", self.port, self.address_type.name(), self.fd);
        if self.port == 0 { format!("{key}:{}", self.index) } else { key }
    }
}

/// The kind of socket that a server wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddressType {
    /// TCP over IPv4, or over both when there is no address.
    V4,
    /// TCP over IPv6.
    V6,
    /// A Unix socket.
    Pipe,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// Whatever [`Query::fd`] is.
    #[default]
    Descriptor,
}

impl AddressType {
    fn name(self) -> &'static str {
        match self {
            AddressType::V4 => "4",
            AddressType::V6 => "6",
            AddressType::Pipe => "-1",
            AddressType::Udp4 => "udp4",
            AddressType::Udp6 => "udp6",
            AddressType::Descriptor => "null",
        }
    }
}

impl<'de> Deserialize<'de> for AddressType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match <&RawValue>::deserialize(deserializer)?.get() {
            "4" => Ok(AddressType::V4),
            "6" => Ok(AddressType::V6),
            "-1" => Ok(AddressType::Pipe),
            r#""udp4""# => Ok(AddressType::Udp4),
            r#""udp6""# => Ok(AddressType::Udp6),
            "null" => Ok(AddressType::Descriptor),
            _ => {
                Err(serde::de::Error::custom("addressType must be one of 4, 6, -1, \"udp4\", \"udp6\", null"))
            }
        }
    }
}

fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(<&RawValue>::deserialize(deserializer)?.get().trim_matches('"').parse().unwrap_or(0))
}

fn descriptor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(<&RawValue>::deserialize(deserializer)?.get().parse().unwrap_or(no_descriptor()))
}

fn no_descriptor() -> i64 {
    -1
}

fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(!matches!(<&RawValue>::deserialize(deserializer)?.get(), "null" | "false" | "0" | r#""""#))
}

/// What tells one kind of message from another, still as JSON text.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    cmd: Option<&'a RawValue>,
    #[serde(borrow)]
    act: Option<&'a RawValue>,
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Accepted {
    ack: Seq,
    #[serde(default)]
    accepted: bool,
}

#[derive(Deserialize)]
struct Close {
    seq: Seq,
    key: String,
}

#[derive(Deserialize)]
struct Numbered {
    seq: Seq,
}

#[derive(Deserialize)]
struct OfServer {
    key: Box<RawValue>,
}

#[derive(Deserialize)]
struct Handle {
    #[serde(rename = "type")]
    kind: Option<String>,
    msg: Option<Box<RawValue>>,
}

impl FromNode {
    /// Reads one line, without its line feed.
    ///
    /// # Errors
    /// [`Fault::NotUtf8`], [`Fault::NotJson`], and [`Fault::Malformed`] for a message that Node's cluster module
    /// is known to send, but not like this.
    pub fn read(line: &[u8]) -> Result<Self, Fault> {
        let line = std::str::from_utf8(line).map_err(Fault::NotUtf8)?;
        let value: &RawValue = serde_json::from_str(line).map_err(Fault::NotJson)?;
        let user = || Ok(FromNode::User(value.to_owned()));
        // An array would be taken for an object's values.
        if !value.get().starts_with('{') {
            return user();
        }
        let Ok(head) = serde_json::from_str::<Head<'_>>(line) else { return user() };
        match head.cmd.and_then(text).as_deref() {
            Some("NODE_CLUSTER") => Self::read_cluster(&head, value),
            Some("NODE_HANDLE") => {
                let Handle { kind, msg } = parse("NODE_HANDLE", value)?;
                Ok(FromNode::Handle { kind, message: msg })
            }
            Some("NODE_HANDLE_ACK") => Ok(FromNode::HandleAck),
            Some("NODE_HANDLE_NACK") => Ok(FromNode::HandleNack),
            Some("NODE_SOCKET_GET_COUNT") => Self::sent_sockets(SocketQuestion::Count, value),
            Some("NODE_SOCKET_NOTIFY_CLOSE") => Self::sent_sockets(SocketQuestion::Close, value),
            Some(cmd) if is_internal(cmd) => Ok(FromNode::Unknown(value.to_owned())),
            _ => user(),
        }
    }

    fn sent_sockets(question: SocketQuestion, value: &RawValue) -> Result<Self, Fault> {
        let OfServer { key } = parse("NODE_SOCKET", value)?;
        Ok(FromNode::SentSockets { question, key })
    }

    fn read_cluster(head: &Head<'_>, value: &RawValue) -> Result<Self, Fault> {
        match head.act.and_then(text).as_deref() {
            Some("online") => Ok(FromNode::Online),
            Some("queryServer") => parse("queryServer", value).map(FromNode::QueryServer),
            Some("listening") => parse("listening", value).map(FromNode::Listening),
            Some("close") => {
                let Close { seq, key } = parse("close", value)?;
                Ok(FromNode::Close { seq, key })
            }
            Some("exitedAfterDisconnect") => {
                let Numbered { seq } = parse("exitedAfterDisconnect", value)?;
                Ok(FromNode::ExitedAfterDisconnect { seq })
            }
            None if head.ack.is_some() => {
                let Accepted { ack, accepted } = parse("accepted", value)?;
                Ok(FromNode::Accepted { ack, accepted })
            }
            _ => Ok(FromNode::Unknown(value.to_owned())),
        }
    }
}

/// Node's `isInternal`: the prefix alone is a program's own.
fn is_internal(cmd: &str) -> bool {
    cmd.len() > "NODE_".len() && cmd.starts_with("NODE_")
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn parse<'a, T: Deserialize<'a>>(message: &'static str, value: &'a RawValue) -> Result<T, Fault> {
    serde_json::from_str(value.get()).map_err(|error| Fault::Malformed { message, error })
}

/// What a primary says. A message that carries a descriptor owns it.
///
/// `F` is the descriptor; it may be anything that holds one, or stands for one in a test.
#[derive(Clone, Debug)]
pub enum ToNode<'a, F = OwnedFd> {
    /// The answer to [`FromNode::QueryServer`]: the primary listens, and will hand connections over.
    Sockname {
        /// This message's number.
        seq: Seq,
        /// The query's number.
        ack: Seq,
        /// The listener's name from now on; the worker may not have another of that name.
        key: &'a str,
        /// What the first worker's query had as `data`.
        data: Option<&'a RawValue>,
        /// Where the server shall believe that it listens; none for a Unix socket. If it asked for a port and
        /// this is another, Node reports EADDRINUSE (`checkBindError` in `lib/net.js`).
        sockname: Option<SocketAddr>,
        /// The network interface of a link-local address, as the query named it.
        zone: Option<&'a str>,
    },
    /// The answer to [`FromNode::QueryServer`]: it cannot be.
    Refused {
        /// This message's number.
        seq: Seq,
        /// The query's number.
        ack: Seq,
        /// The name that the listener would have had.
        key: &'a str,
        /// What the first worker's query had as `data`; the worker applies it before it looks at `errno`.
        data: Option<&'a RawValue>,
        /// Why.
        errno: Errno,
    },
    /// The answer to [`FromNode::QueryServer`]: here is a listener, to accept from without the primary.
    Shared {
        /// This message's number.
        seq: Seq,
        /// The query's number.
        ack: Seq,
        /// The listener's name from now on; the worker may not have another of that name.
        key: &'a str,
        /// What the first worker's query had as `data`.
        data: Option<&'a RawValue>,
        /// What kind of socket it is.
        handle: HandleType,
        /// The listener: bound and, if it is a stream, in non-blocking mode.
        fd: F,
    },
    /// A connection, to be answered by [`FromNode::HandleAck`] and [`FromNode::Accepted`], or by
    /// [`FromNode::HandleNack`] alone.
    NewConn {
        /// This message's number.
        seq: Seq,
        /// The listener that it came to.
        key: &'a str,
        /// The connection, in non-blocking mode.
        fd: F,
    },
    /// The answer to [`FromNode::ExitedAfterDisconnect`]: leave.
    Ack {
        /// This message's number.
        seq: Seq,
        /// The number of what is answered.
        ack: Seq,
    },
    /// Close every listener, finish what is open, then leave.
    Disconnect {
        /// This message's number.
        seq: Seq,
    },
    /// The answer to [`FromNode::Handle`]: the handle arrived.
    HandleAck,
    /// The answer to [`FromNode::SentSockets`]: none is open.
    NoSockets {
        /// What was asked.
        question: SocketQuestion,
        /// About which server.
        key: &'a RawValue,
    },
    /// What another worker has given to `process.send`: one line of JSON.
    User(&'a str),
    /// Nothing: a worker ignores it, and shows by reading it that it moves.
    Nudge,
}

/// The kind of a shared listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleType {
    /// TCP, a Unix stream socket, or a channel that stands for one.
    Net,
    /// UDP.
    Dgram,
}

#[derive(Serialize)]
struct Answer<'a> {
    cmd: &'static str,
    errno: Option<i32>,
    key: &'a str,
    ack: Seq,
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockname: Option<Sockname>,
    seq: Seq,
}

#[derive(Serialize)]
struct Sockname {
    address: String,
    family: &'static str,
    port: u16,
}

#[derive(Serialize)]
struct SocketAnswer<'a> {
    cmd: &'static str,
    key: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
}

#[derive(Serialize)]
struct WithHandle<M> {
    cmd: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    msg: M,
}

/// A message of the cluster module that answers no query.
#[derive(Serialize)]
struct Plain<'a> {
    cmd: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    seq: Seq,
}

const CLUSTER: &str = "NODE_CLUSTER";

impl<F> ToNode<'_, F> {
    /// The message as a line, with its line feed, and the descriptor that has to travel with it.
    pub fn into_line(self) -> (Vec<u8>, Option<F>) {
        match self {
            ToNode::Sockname { seq, ack, key, data, sockname, zone } => {
                let sockname = sockname.map(|address| Sockname::new(address, zone));
                (line(&Answer { cmd: CLUSTER, errno: None, key, ack, data, sockname, seq }), None)
            }
            ToNode::Refused { seq, ack, key, data, errno } => {
                let errno = Some(errno.get());
                (line(&Answer { cmd: CLUSTER, errno, key, ack, data, sockname: None, seq }), None)
            }
            ToNode::Shared { seq, ack, key, data, handle, fd } => {
                let msg = Answer { cmd: CLUSTER, errno: Some(0), key, ack, data, sockname: None, seq };
                (line(&handle.around(msg)), Some(fd))
            }
            ToNode::NewConn { seq, key, fd } => {
                let msg = Plain { act: Some("newconn"), key: Some(key), ..Plain::numbered(seq) };
                (line(&HandleType::Net.around(msg)), Some(fd))
            }
            ToNode::Ack { seq, ack } => (line(&Plain { ack: Some(ack), ..Plain::numbered(seq) }), None),
            ToNode::Disconnect { seq } => {
                (line(&Plain { act: Some("disconnect"), ..Plain::numbered(seq) }), None)
            }
            ToNode::HandleAck => (b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n".to_vec(), None),
            ToNode::NoSockets { question, key } => (line(&question.none_is_open(key)), None),
            ToNode::User(message) => ([message.as_bytes(), b"\n"].concat(), None),
            ToNode::Nudge => (b"{\"cmd\":\"NODE_CLUSTERD_NUDGE\"}\n".to_vec(), None),
        }
    }
}

/// The number of the connection that a line offers, if it is a [`ToNode::NewConn`]: for lines that were sent, and taken
/// back before the worker read them.
pub fn offered(line: &[u8]) -> Option<Seq> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        msg: Offer<'a>,
    }
    #[derive(Deserialize)]
    struct Offer<'a> {
        act: &'a str,
        seq: Seq,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    (line.msg.act == "newconn").then_some(line.msg.seq)
}

impl Plain<'_> {
    fn numbered(seq: Seq) -> Self {
        Plain { cmd: CLUSTER, act: None, ack: None, key: None, seq }
    }
}

impl SocketQuestion {
    fn none_is_open(self, key: &RawValue) -> SocketAnswer<'_> {
        match self {
            SocketQuestion::Count => SocketAnswer { cmd: "NODE_SOCKET_COUNT", key, count: Some(0) },
            SocketQuestion::Close => SocketAnswer { cmd: "NODE_SOCKET_ALL_CLOSED", key, count: None },
        }
    }
}

impl HandleType {
    fn around<M>(self, msg: M) -> WithHandle<M> {
        let kind = match self {
            HandleType::Net => "net.Native",
            HandleType::Dgram => "dgram.Native",
        };
        WithHandle { cmd: "NODE_HANDLE", kind, msg }
    }
}

impl Sockname {
    fn new(address: SocketAddr, zone: Option<&str>) -> Self {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let zone = zone.map(|zone| format!("%{zone}")).unwrap_or_default();
        Sockname { address: format!("{}{zone}", address.ip()), family, port: address.port() }
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("text keys and plain values");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests;
