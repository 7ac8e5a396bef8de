//! The attach protocol's messages, byte by byte: the one definition that primary, shim and library share.
//!
//! It only turns messages into bytes and back. It does no I/O and needs nothing but `core`, since the shim
//! includes this very file. `docs/protocol.md` specifies the same for authors of other clients.
//!
//! Every message is one SOCK_SEQPACKET record: a kind, the protocol's version, then the fields of that kind in
//! little-endian order. A record of another length than its kind has is malformed.

use core::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// The version that this file describes, the second byte of every message.
pub const VERSION: u8 = 1;

/// The longest message, in bytes: a buffer of this size holds any.
pub const MAX_MESSAGE: usize = 48;

/// Environment of a worker: the attach socket, a path, or `@name` for an abstract one.
pub const ENV_SOCKET: &str = "CLUSTERD_ATTACH_SOCKET";
/// Environment of a worker: its [`Token`], as 32 hexadecimal digits.
pub const ENV_TOKEN: &str = "CLUSTERD_ATTACH_TOKEN";
/// Environment of a worker: the ports it is served on, decimal, separated by commas.
pub const ENV_PORTS: &str = "CLUSTERD_ATTACH_PORTS";
/// Stands there for any port, where each is opened for whoever asks.
pub const ANY_PORT: &str = "*";

/// What a process shows to prove that it belongs to a worker; each launch of a worker has its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl Token {
    /// The length of a token in the environment, in hexadecimal digits.
    pub const HEX_LEN: usize = 32;

    /// Reads what [`Token::to_hex`] wrote.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != Self::HEX_LEN {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The token as it stands in the environment: ASCII, lower case.
    pub fn to_hex(self) -> [u8; Self::HEX_LEN] {
        let mut hex = [0; Self::HEX_LEN];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        hex
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// An IP address and port, as a message carries it: family, port, address, scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An IPv4 address.
    V4 {
        /// The address, most significant byte first.
        address: [u8; 4],
        /// The port.
        port: u16,
    },
    /// An IPv6 address.
    V6 {
        /// The address, most significant byte first.
        address: [u8; 16],
        /// The port.
        port: u16,
        /// `sin6_scope_id`: the interface of a link-local address, 0 for any other.
        scope: u32,
    },
}

impl Endpoint {
    const LEN: usize = 23;

    /// The port.
    pub fn port(&self) -> u16 {
        match *self {
            Endpoint::V4 { port, .. } | Endpoint::V6 { port, .. } => port,
        }
    }

    fn put(&self, out: &mut Writer<'_>) {
        match *self {
            Endpoint::V4 { address, port } => {
                out.put(&[4]);
                out.put(&port.to_le_bytes());
                out.put(&address);
                out.put(&[0; 16]);
            }
            Endpoint::V6 { address, port, scope } => {
                out.put(&[6]);
                out.put(&port.to_le_bytes());
                out.put(&address);
                out.put(&scope.to_le_bytes());
            }
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let family = input.u8()?;
        let port = u16::from_le_bytes(input.array()?);
        let address: [u8; 16] = input.array()?;
        let scope = u32::from_le_bytes(input.array()?);
        match family {
            4 => Ok(Endpoint::V4 { address: [address[0], address[1], address[2], address[3]], port }),
            6 => Ok(Endpoint::V6 { address, port, scope }),
            _ => Err(Malformed),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let port = address.port();
        match address {
            SocketAddr::V4(v4) => Endpoint::V4 { address: v4.ip().octets(), port },
            SocketAddr::V6(v6) => Endpoint::V6 { address: v6.ip().octets(), port, scope: v6.scope_id() },
        }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::V4 { address, port } => SocketAddrV4::new(address.into(), port).into(),
            Endpoint::V6 { address, port, scope } => SocketAddrV6::new(address.into(), port, 0, scope).into(),
        }
    }
}

/// A socket option that the server set on its listener, for the primary to set on the public ones, from which
/// every accepted connection inherits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// As in setsockopt(2): `SOL_SOCKET`, `IPPROTO_TCP`, ...
    pub level: i32,
    /// As in setsockopt(2): `TCP_NODELAY`, ...
    pub name: i32,
    /// The value in its first bytes, zero after them: an `int`, a `struct linger`, a `struct timeval`, a name.
    pub value: [u8; SocketOption::MAX_LEN],
    /// How many bytes of the value count: 1 to [`SocketOption::MAX_LEN`].
    pub len: u8,
}

impl SocketOption {
    /// The longest value, in bytes: the name of a congestion control (TCP_CA_NAME_MAX).
    pub const MAX_LEN: usize = 16;

    /// The option with this value; `None` if no message can carry it.
    pub fn new(level: i32, name: i32, value: &[u8]) -> Option<Self> {
        let mut padded = [0; Self::MAX_LEN];
        if value.is_empty() {
            return None;
        }
        padded.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self { level, name, value: padded, len: value.len() as u8 })
    }

    /// The bytes that count.
    pub fn bytes(&self) -> &[u8] {
        self.value.get(..usize::from(self.len)).unwrap_or(&self.value)
    }

    /// If this is SO_LINGER: how connections linger, if they do.
    pub fn linger(&self) -> Option<Option<Linger>> {
        if (self.level, self.name) != (Linger::LEVEL, Linger::NAME) {
            return None;
        }
        let (on, seconds) = self.bytes().split_first_chunk()?;
        let seconds = i32::from_ne_bytes(*seconds.first_chunk()?);
        // The kernel reads it as a number without a sign.
        let seconds = if seconds < 0 { i32::MAX } else { seconds };
        Some((i32::from_ne_bytes(*on) != 0).then_some(Linger(seconds)))
    }
}

/// For how many seconds close(2) of a connection waits at most (SO_LINGER, socket(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linger(pub i32);

impl Linger {
    /// The option's level, SOL_SOCKET, on each processor that Rust supports.
    pub const LEVEL: i32 = 1;
    /// The option's name.
    pub const NAME: i32 = 13;

    /// Its value, a `struct linger`.
    pub fn value(self) -> [u8; 8] {
        let mut value = [0; 8];
        let (on, seconds) = value.split_at_mut(4);
        on.copy_from_slice(&1_i32.to_ne_bytes());
        seconds.copy_from_slice(&self.0.to_ne_bytes());
        value
    }
}

/// What a server binds a listener to, and what bind(2) looks at beside the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The address that the server asked for.
    pub address: Endpoint,
    /// IPV6_V6ONLY (ipv6(7)): a listener on `[::]` is for IPv6 alone.
    pub only_v6: bool,
    /// SO_REUSEADDR (socket(7)).
    pub reuses_address: bool,
    /// SO_REUSEPORT (socket(7)).
    pub reuses_port: bool,
}

impl Binding {
    /// Of a socket on which no option was set.
    pub fn new(address: Endpoint) -> Self {
        Self { address, only_v6: false, reuses_address: false, reuses_port: false }
    }
}

/// What a worker's process says to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// The first message on a new channel: a process of the worker that holds `token` binds a listener to
    /// `address`. No descriptor travels with it: from a process that is not admitted none is taken.
    Attach {
        /// Which worker.
        token: Token,
        /// What the server asked for.
        binding: Binding,
        /// The client reads [`ToWorker::Drain`]; only the library does.
        wants_drain: bool,
        /// [`FromWorker::Socket`] follows [`FromWorker::End`] at once; only the shim has one.
        brings_socket: bool,
    },
    /// Follows [`ToWorker::Admitted`]. A duplicate of the worker's end of the channel travels with it, as its only descriptor.
    End,
    /// The server's own socket, which the channel is to replace, follows [`FromWorker::End`] as the only descriptor
    /// of this message. The primary reads the options that were set before bind(2) from it, and keeps it for
    /// [`FromWorker::FetchSocket`].
    Socket,
    /// The server listens: from now on, connections may come. Said again, it changes nothing.
    Listening,
    /// The server set an option on its listener.
    SetOption(SocketOption),
    /// The worker does not want the connection that it was given, and gets none for a moment. The connection's
    /// descriptor travels back with the message, as its only one. Receiving a connection is taking it: who may
    /// decline looks at it first (MSG_PEEK), and receives it after this message.
    Decline {
        /// The client, as [`ToWorker::Connection`] told it.
        peer: Endpoint,
        /// It gets none until it says [`FromWorker::Listening`] again, however long that takes.
        pause: bool,
    },
    /// The first and only message on a new connection: asks for the socket of a channel, as [`FromWorker::Socket`]
    /// brought it, or a new one of the same family. The answer is [`ToWorker::Socket`].
    FetchSocket {
        /// Which worker.
        token: Token,
        /// Which channel: the nonce in its [`ChannelName`].
        nonce: u64,
    },
    /// The first and only message on a new connection: asks whether any process of this launch has listened. The answer
    /// is [`ToWorker::HasListened`].
    AskListened {
        /// Which launch.
        token: Token,
        /// On which port.
        port: u16,
        /// By which channel, by the nonce in its [`ChannelName`]; 0 stands for any.
        channel: u64,
    },
    /// The first and only message on a new connection: the process on the launch's Node channel catches these signals by
    /// now. There is no answer.
    Catches {
        /// Which launch.
        token: Token,
        /// All that it catches, of those by which a server may be asked to stop: bit 0 is signal 1.
        signals: u64,
    },
    /// The first and only message on a new connection: the server listens on the socket that it was given with
    /// [`ToWorker::Listener`]. The answer is [`ToWorker::HasListened`]: false if the launch has no such socket.
    Listens {
        /// Which launch.
        token: Token,
        /// Which socket: its SO_COOKIE (socket(7)).
        cookie: u64,
    },
    /// The first and only message on a new connection: a process that is about to run a server, which is to find its
    /// listeners open, asks for them. The answers are a [`ToWorker::Listener`] for each served port, and
    /// [`ToWorker::Welcome`]. They are listened on from when this connection ends, as it does when the server's program is
    /// run.
    Inherit {
        /// Which launch.
        token: Token,
    },
}

/// What the primary says to a worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// The answer to [`FromWorker::End`]: the channel stands.
    Welcome,
    /// The answer to [`FromWorker::Attach`]: the process is one of a worker's, and is to send its descriptors, the first with
    /// [`FromWorker::End`]. Before, it cannot.
    Admitted,
    /// The answer to [`FromWorker::Attach`] or [`FromWorker::End`]: there will be no channel; the primary closes its end.
    Refuse(Refusal),
    /// A connection; its descriptor travels with the message and is in non-blocking mode.
    Connection {
        /// The client, as accept(2) told the primary.
        peer: Endpoint,
        /// What SO_LINGER (socket(7)) the server has set on its listener, for the receiver to set on the connection.
        linger: Option<Linger>,
    },
    /// Nothing: reading it shows the primary that a worker thought stuck moves again.
    Wake,
    /// No further connection will come on this channel: finish what is open.
    Drain,
    /// The answer to [`FromWorker::FetchSocket`]; the socket is the message's only descriptor.
    Socket,
    /// The answer to [`FromWorker::AskListened`] and [`FromWorker::Listens`].
    HasListened(bool),
    /// An answer to [`FromWorker::End`], and to [`FromWorker::Inherit`]: there is no channel, for workers accept by
    /// themselves. The message's only descriptor is a listening socket in place of the server's own.
    Listener {
        /// On which port it is served.
        port: u16,
    },
}

/// Why an attach was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The primary does not serve that port: bind as if there were no primary.
    NotServed,
    /// The token is not a living worker's.
    NotAdmitted,
    /// The primary cannot take another channel now.
    Full,
    /// Workers accept by themselves on that port, and there are no channels.
    Shared,
    /// A process of the same launch has bound that address, and the kernel would not let another do so.
    InUse,
    /// Workers accept by themselves, and no public address is one that such a listener could have.
    NoAddress,
}

/// The bytes are not a message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

const ATTACH: u8 = 1;
const LISTENING: u8 = 2;
const SET_OPTION: u8 = 3;
const DECLINE: u8 = 4;
const SOCKET: u8 = 5;
const FETCH_SOCKET: u8 = 6;
const ASK_LISTENED: u8 = 7;
const END: u8 = 8;
const CATCHES: u8 = 9;
const LISTENS: u8 = 10;
const INHERIT: u8 = 11;
const WELCOME: u8 = 65;
const REFUSE: u8 = 66;
const CONNECTION: u8 = 67;
const WAKE: u8 = 68;
const DRAIN: u8 = 69;
const SOCKET_OF: u8 = 70;
const HAS_LISTENED: u8 = 71;
const ADMITTED: u8 = 72;
const LISTENER: u8 = 73;

/// On the wire, that a connection does not linger.
const NO_LINGER: i32 = -1;

const ONLY_V6: u8 = 1;
const REUSES_ADDRESS: u8 = 2;
const REUSES_PORT: u8 = 4;
const WANTS_DRAIN: u8 = 8;
const BRINGS_SOCKET: u8 = 16;

/// The value's longest length, as its byte on the wire.
const SOCKET_OPTION_LEN: u8 = SocketOption::MAX_LEN as u8;

/// The flags that hold, in one byte.
fn flags<const N: usize>(all: [(bool, u8); N]) -> u8 {
    all.iter().fold(0, |flags, &(holds, flag)| if holds { flags | flag } else { flags })
}

impl FromWorker {
    /// Writes the message into `buffer` and returns the part that it fills.
    pub fn encode<'a>(&self, buffer: &'a mut [u8; MAX_MESSAGE]) -> &'a [u8] {
        let mut out = Writer { buffer, len: 0 };
        match self {
            FromWorker::Attach { token, binding, wants_drain, brings_socket } => {
                out.put(&[ATTACH, VERSION]);
                out.put(&token.0);
                binding.address.put(&mut out);
                out.put(&[flags([
                    (binding.only_v6, ONLY_V6),
                    (binding.reuses_address, REUSES_ADDRESS),
                    (binding.reuses_port, REUSES_PORT),
                    (*wants_drain, WANTS_DRAIN),
                    (*brings_socket, BRINGS_SOCKET),
                ])]);
            }
            FromWorker::End => out.put(&[END, VERSION]),
            FromWorker::Socket => out.put(&[SOCKET, VERSION]),
            FromWorker::Listening => out.put(&[LISTENING, VERSION]),
            FromWorker::FetchSocket { token, nonce } => {
                out.put(&[FETCH_SOCKET, VERSION]);
                out.put(&token.0);
                out.put(&nonce.to_le_bytes());
            }
            FromWorker::AskListened { token, port, channel } => {
                out.put(&[ASK_LISTENED, VERSION]);
                out.put(&token.0);
                out.put(&port.to_le_bytes());
                out.put(&channel.to_le_bytes());
            }
            FromWorker::Catches { token, signals } => {
                out.put(&[CATCHES, VERSION]);
                out.put(&token.0);
                out.put(&signals.to_le_bytes());
            }
            FromWorker::Listens { token, cookie } => {
                out.put(&[LISTENS, VERSION]);
                out.put(&token.0);
                out.put(&cookie.to_le_bytes());
            }
            FromWorker::Inherit { token } => {
                out.put(&[INHERIT, VERSION]);
                out.put(&token.0);
            }
            FromWorker::SetOption(option) => {
                out.put(&[SET_OPTION, VERSION]);
                out.put(&option.level.to_le_bytes());
                out.put(&option.name.to_le_bytes());
                out.put(&[option.len]);
                out.put(&option.value);
            }
            FromWorker::Decline { peer, pause } => {
                out.put(&[DECLINE, VERSION]);
                peer.put(&mut out);
                out.put(&[u8::from(*pause)]);
            }
        }
        out.written()
    }

    /// Reads one record.
    pub fn decode(record: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader { rest: record };
        let message = match input.kind()? {
            ATTACH => {
                let (token, address) = (Token(input.array()?), Endpoint::take(&mut input)?);
                let flags = input.u8()?;
                if flags >= BRINGS_SOCKET << 1 {
                    return Err(Malformed);
                }
                let has = |flag| flags & flag != 0;
                FromWorker::Attach {
                    token,
                    binding: Binding {
                        address,
                        only_v6: has(ONLY_V6),
                        reuses_address: has(REUSES_ADDRESS),
                        reuses_port: has(REUSES_PORT),
                    },
                    wants_drain: has(WANTS_DRAIN),
                    brings_socket: has(BRINGS_SOCKET),
                }
            }
            END => FromWorker::End,
            SOCKET => FromWorker::Socket,
            FETCH_SOCKET => FromWorker::FetchSocket {
                token: Token(input.array()?),
                nonce: u64::from_le_bytes(input.array()?),
            },
            ASK_LISTENED => FromWorker::AskListened {
                token: Token(input.array()?),
                port: u16::from_le_bytes(input.array()?),
                channel: u64::from_le_bytes(input.array()?),
            },
            CATCHES => FromWorker::Catches {
                token: Token(input.array()?),
                signals: u64::from_le_bytes(input.array()?),
            },
            LISTENS => FromWorker::Listens {
                token: Token(input.array()?),
                cookie: u64::from_le_bytes(input.array()?),
            },
            INHERIT => FromWorker::Inherit { token: Token(input.array()?) },
            LISTENING => FromWorker::Listening,
            SET_OPTION => FromWorker::SetOption(SocketOption {
                level: i32::from_le_bytes(input.array()?),
                name: i32::from_le_bytes(input.array()?),
                len: match input.u8()? {
                    len @ 1..=SOCKET_OPTION_LEN => len,
                    _ => return Err(Malformed),
                },
                value: input.array()?,
            }),
            DECLINE => FromWorker::Decline { peer: Endpoint::take(&mut input)?, pause: input.bool()? },
            _ => return Err(Malformed),
        };
        input.end()?;
        Ok(message)
    }
}

impl ToWorker {
    /// Writes the message into `buffer` and returns the part that it fills.
    pub fn encode<'a>(&self, buffer: &'a mut [u8; MAX_MESSAGE]) -> &'a [u8] {
        let mut out = Writer { buffer, len: 0 };
        match self {
            ToWorker::Welcome => out.put(&[WELCOME, VERSION]),
            ToWorker::Admitted => out.put(&[ADMITTED, VERSION]),
            ToWorker::Refuse(refusal) => out.put(&[REFUSE, VERSION, refusal.code()]),
            ToWorker::Connection { peer, linger } => {
                out.put(&[CONNECTION, VERSION]);
                peer.put(&mut out);
                out.put(&linger.map_or(NO_LINGER, |Linger(seconds)| seconds).to_le_bytes());
            }
            ToWorker::Wake => out.put(&[WAKE, VERSION]),
            ToWorker::Drain => out.put(&[DRAIN, VERSION]),
            ToWorker::Socket => out.put(&[SOCKET_OF, VERSION]),
            ToWorker::HasListened(has) => out.put(&[HAS_LISTENED, VERSION, u8::from(*has)]),
            ToWorker::Listener { port } => {
                out.put(&[LISTENER, VERSION]);
                out.put(&port.to_le_bytes());
            }
        }
        out.written()
    }

    /// Reads one record.
    pub fn decode(record: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader { rest: record };
        let message = match input.kind()? {
            WELCOME => ToWorker::Welcome,
            ADMITTED => ToWorker::Admitted,
            REFUSE => ToWorker::Refuse(Refusal::from_code(input.u8()?)?),
            CONNECTION => ToWorker::Connection {
                peer: Endpoint::take(&mut input)?,
                linger: match i32::from_le_bytes(input.array()?) {
                    NO_LINGER => None,
                    seconds @ 0.. => Some(Linger(seconds)),
                    _ => return Err(Malformed),
                },
            },
            WAKE => ToWorker::Wake,
            DRAIN => ToWorker::Drain,
            SOCKET_OF => ToWorker::Socket,
            HAS_LISTENED => ToWorker::HasListened(input.bool()?),
            LISTENER => ToWorker::Listener { port: u16::from_le_bytes(input.array()?) },
            _ => return Err(Malformed),
        };
        input.end()?;
        Ok(message)
    }
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Refusal::NotServed => 1,
            Refusal::NotAdmitted => 2,
            Refusal::Full => 3,
            Refusal::Shared => 4,
            Refusal::InUse => 5,
            Refusal::NoAddress => 6,
        }
    }

    fn from_code(code: u8) -> Result<Self, Malformed> {
        match code {
            1 => Ok(Refusal::NotServed),
            2 => Ok(Refusal::NotAdmitted),
            3 => Ok(Refusal::Full),
            4 => Ok(Refusal::Shared),
            5 => Ok(Refusal::InUse),
            6 => Ok(Refusal::NoAddress),
            _ => Err(Malformed),
        }
    }
}

/// The name that a client binds its end of the channel to, in the abstract namespace, so that getsockname(2)
/// tells any process that comes to hold the descriptor that it is a channel, and for which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelName {
    /// The address that the server asked for.
    pub address: Endpoint,
    /// The primary made the channel and gave it to Node; otherwise a process of the worker did, at bind(2).
    pub given: bool,
    /// Makes the name unique in the network namespace.
    pub nonce: u64,
}

impl ChannelName {
    /// The length of every name, in bytes, with the zero byte that makes it abstract.
    pub const LEN: usize = Self::PREFIX.len() + 8 + 1 + Endpoint::LEN;
    const PREFIX: &'static [u8] = b"\0clusterd-channel-1\0";

    /// The bytes of `sun_path`.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut name = [0; Self::LEN];
        let mut out = Writer { buffer: &mut name, len: 0 };
        out.put(Self::PREFIX);
        out.put(&self.nonce.to_le_bytes());
        out.put(&[u8::from(self.given)]);
        self.address.put(&mut out);
        name
    }

    /// Reads the bytes of `sun_path`; `None` if they name something else.
    pub fn decode(name: &[u8]) -> Option<Self> {
        let mut input = Reader { rest: name.strip_prefix(Self::PREFIX)? };
        let nonce = u64::from_le_bytes(input.array().ok()?);
        let given = input.bool().ok()?;
        let address = Endpoint::take(&mut input).ok()?;
        input.end().ok()?;
        Some(Self { address, given, nonce })
    }
}

/// How the name of a worker's end of its Node channel begins, in the abstract namespace and without the zero byte
/// that makes it abstract; eight bytes that make it unique follow. By its name a process knows it from the channels
/// on which Node speaks with children of its own.
pub const NODE_CHANNEL: &[u8] = b"clusterd-node-1\0";

struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    fn put(&mut self, bytes: &[u8]) {
        self.buffer[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn written(self) -> &'a [u8] {
        &self.buffer[..self.len]
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn kind(&mut self) -> Result<u8, Malformed> {
        let [kind, version] = self.array()?;
        if version == VERSION { Ok(kind) } else { Err(Malformed) }
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}
