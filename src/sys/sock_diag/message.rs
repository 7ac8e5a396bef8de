//! The messages of sock_diag(7) as bytes: `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg` with their
//! attributes, as linux/netlink.h, linux/inet_diag.h and linux/tcp.h lay them out.
//!
//! It does no I/O. What is shorter than it should be is skipped: kernels before this one told less.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::state;

/// The groups of SKNLGRP_INET_TCP_DESTROY (1) and SKNLGRP_INET6_TCP_DESTROY (3), a bit each.
pub(super) const DESTROY_GROUPS: u32 = 1 << 0 | 1 << 2;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
const INET_DIAG_REQ_BYTECODE: u16 = 1;

/// The place of SK_MEMINFO_DROPS among the numbers of INET_DIAG_SKMEMINFO.
const DROPS: usize = 8;

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
const SOCKET: usize = 72;

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpSocket {
    /// What it is called as long as it is there, and no other ever will be (SO_COOKIE, socket(7)).
    pub cookie: u64,
    /// Its file's number in /proc/PID/fd; 0 if no process has it.
    pub inode: u64,
    /// One of [`super::state`].
    pub state: u8,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Bytes that have come and were not read; that the other side has closed counts as one until it is read. Of a
    /// listening socket: the connections in its accept queue.
    pub unread: u32,
    /// Bytes that the other end has not acknowledged. Of a listening socket: how many connections its accept queue may
    /// have before it takes the last one (listen(2), cut to net.core.somaxconn).
    pub unacknowledged: u32,
    /// How many packets the kernel has dropped for it since it is there, wrapping (SK_MEMINFO_DROPS of
    /// linux/sock_diag.h): the handshakes that a listening socket had no room for. `None` where nobody has asked for it,
    /// or the kernel does not tell.
    pub dropped: Option<u32>,
    /// What the kernel has measured; `None` if it does not tell.
    pub figures: Option<TcpFigures>,
}

/// What the kernel has measured of a connection (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpFigures {
    /// How long ago data was last sent, with the exactness of the kernel's ticks (1 to 10 ms).
    pub since_sent: Duration,
    /// The same for data that was received.
    pub since_received: Duration,
    /// The smoothed time from a segment to its acknowledgement.
    pub round_trip: Duration,
    /// How much that varies.
    pub round_trip_variation: Duration,
    /// How many segments were sent more than once.
    pub retransmitted: u64,
    /// How many bytes of data the other end has acknowledged; its end (FIN) counts as one more.
    pub acknowledged: u64,
    /// How many bytes of data have come.
    pub received: u64,
}

/// A question for all sockets of a family in these states that a bytecode is true of. Of listening sockets it asks how much
/// was dropped; of connections that would make a long list longer.
pub(super) fn dump_request(sequence: u32, family: i32, states: u32, bytecode: &[u8]) -> Vec<u8> {
    let family = u8::try_from(family).unwrap_or_default();
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    let protocol = u8::try_from(libc::IPPROTO_TCP).unwrap_or_default();
    let dropped = if states == 1 << state::LISTEN { 1 << (INET_DIAG_SKMEMINFO - 1) } else { 0 };
    let extensions = 1 << (INET_DIAG_INFO - 1) | dropped;
    let mut request = Vec::with_capacity(128 + bytecode.len());
    request.extend([0; 4]);
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request.extend([family, protocol, extensions, 0]);
    request.extend(states.to_ne_bytes());
    // Any ports, addresses, interface and cookie.
    request.extend([0; 48]);
    if let Ok(length) = u16::try_from(ATTRIBUTE + bytecode.len())
        && !bytecode.is_empty()
    {
        request.extend(length.to_ne_bytes());
        request.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        request.extend(bytecode);
    }
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request
}

/// A message of an answer.
#[derive(Debug)]
pub(super) struct Received {
    /// Which question it answers.
    pub sequence: u32,
    /// The list changed while it was written.
    pub is_interrupted: bool,
    /// What it says.
    pub content: Part,
}

/// What a message says.
#[derive(Debug)]
pub(super) enum Part {
    /// There is this socket.
    Socket(TcpSocket),
    /// That was all; or there will be no answer.
    Done(io::Result<()>),
    /// Something else.
    Other,
}

/// The messages in what was received at once.
pub(super) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Iterator for Parts<'_> {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        let bytes = self.0;
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let (message, rest) = (bytes.get(..length)?, bytes.get(aligned(length)..).unwrap_or_default());
        let body = message.get(HEADER..)?;
        self.0 = rest;
        let (kind, flags) = (u16_at(message, 4)?, u16_at(message, 6)?);
        let content = match i32::from(kind) {
            libc::NLMSG_DONE | libc::NLMSG_ERROR => Part::Done(outcome(body)),
            _ if kind == SOCK_DIAG_BY_FAMILY => socket(body).map_or(Part::Other, Part::Socket),
            _ => Part::Other,
        };
        let is_interrupted = i32::from(flags) & libc::NLM_F_DUMP_INTR != 0;
        Some(Received { sequence: u32_at(message, 8)?, is_interrupted, content })
    }
}

/// An error number below zero, or zero; old kernels leave it out at the end of a list.
fn outcome(body: &[u8]) -> io::Result<()> {
    match body.get(..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(number) if number < 0 => Err(io::Error::from_raw_os_error(-number)),
        _ => Ok(()),
    }
}

fn socket(body: &[u8]) -> Option<TcpSocket> {
    let family = i32::from(*body.first()?);
    let address = |at: usize| match family {
        libc::AF_INET => Some(IpAddr::V4(Ipv4Addr::from(array::<4>(body, at)?))),
        libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(array::<16>(body, at)?))),
        _ => None,
    };
    let port = |at| array(body, at).map(u16::from_be_bytes);
    let cookie = [u32_at(body, 44)?, u32_at(body, 48)?];
    let of_kind = |wanted| attributes(body.get(SOCKET..)?).find(|(kind, _)| *kind == wanted);
    Some(TcpSocket {
        cookie: u64::from(cookie[0]) | u64::from(cookie[1]) << 32,
        inode: u64::from(u32_at(body, 68)?),
        state: *body.get(1)?,
        local: (address(8)?, port(4)?).into(),
        remote: (address(24)?, port(6)?).into(),
        unread: u32_at(body, 56)?,
        unacknowledged: u32_at(body, 60)?,
        dropped: of_kind(INET_DIAG_SKMEMINFO).and_then(|(_, memory)| u32_at(memory, 4 * DROPS)),
        figures: of_kind(INET_DIAG_INFO).and_then(|(_, info)| figures(info)),
    })
}

fn figures(info: &[u8]) -> Option<TcpFigures> {
    let milliseconds = |at| u32_at(info, at).map(|value| Duration::from_millis(value.into()));
    let microseconds = |at| u32_at(info, at).map(|value| Duration::from_micros(value.into()));
    let bytes = |at| array(info, at).map(u64::from_ne_bytes);
    Some(TcpFigures {
        since_sent: milliseconds(44)?,
        since_received: milliseconds(52)?,
        round_trip: microseconds(68)?,
        round_trip_variation: microseconds(72)?,
        retransmitted: u32_at(info, 100)?.into(),
        acknowledged: bytes(120)?,
        received: bytes(128)?,
    })
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)?, bytes.get(ATTRIBUTE..length)?);
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(attribute)
    })
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(u16::try_from(flags).unwrap().to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn body(family: i32) -> Vec<u8> {
        let mut body = vec![0; SOCKET];
        body[0] = u8::try_from(family).unwrap();
        body[1] = state::CLOSE_WAIT;
        body[4..8].copy_from_slice(&[0x1f, 0x90, 0x00, 0x50]);
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        body[24..28].copy_from_slice(&[10, 0, 0, 9]);
        body[44..48].copy_from_slice(&2u32.to_ne_bytes());
        body[48..52].copy_from_slice(&1u32.to_ne_bytes());
        body[56..60].copy_from_slice(&1u32.to_ne_bytes());
        body[60..64].copy_from_slice(&300u32.to_ne_bytes());
        body[68..72].copy_from_slice(&99u32.to_ne_bytes());
        body
    }

    #[test]
    fn a_list_is_sockets_and_an_end() {
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP_INTR, &body(libc::AF_INET));
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, 0, &body(libc::AF_UNIX)));
        bytes.extend(message(u16::try_from(libc::NLMSG_DONE).unwrap(), 0, &0i32.to_ne_bytes()));
        let parts: Vec<_> = Parts::new(&bytes).collect();
        let [first, other, done] = &parts[..] else { panic!("{parts:?}") };
        let expected = TcpSocket {
            cookie: 1 << 32 | 2,
            inode: 99,
            state: state::CLOSE_WAIT,
            local: "127.0.0.1:8080".parse().unwrap(),
            remote: "10.0.0.9:80".parse().unwrap(),
            unread: 1,
            unacknowledged: 300,
            dropped: None,
            figures: None,
        };
        assert!(matches!(&first.content, Part::Socket(socket) if *socket == expected), "{first:?}");
        assert!(first.is_interrupted && first.sequence == 7);
        assert!(matches!(other.content, Part::Other));
        assert!(matches!(done.content, Part::Done(Ok(()))) && !done.is_interrupted);
    }

    #[test]
    fn a_refusal_is_an_error() {
        let refusal = (-libc::ENOENT).to_ne_bytes();
        let bytes = message(u16::try_from(libc::NLMSG_ERROR).unwrap(), 0, &refusal);
        let part = Parts::new(&bytes).next().unwrap().content;
        let Part::Done(Err(error)) = part else { panic!("{part:?}") };
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_kernel_that_knows_less_of_tcp_tells_no_figures() {
        let mut body = body(libc::AF_INET);
        body.extend(104u16.to_ne_bytes());
        body.extend(INET_DIAG_INFO.to_ne_bytes());
        body.extend([0; 100]);
        assert_eq!(socket(&body).unwrap().figures, None);
    }

    #[test]
    fn what_was_dropped_is_told_by_kernels_that_count_it() {
        let with = |numbers: u16| {
            let mut body = body(libc::AF_INET);
            body.extend((4 + 4 * numbers).to_ne_bytes());
            body.extend(INET_DIAG_SKMEMINFO.to_ne_bytes());
            (0..u32::from(numbers)).for_each(|number| body.extend(number.to_ne_bytes()));
            socket(&body).unwrap().dropped
        };
        assert_eq!([with(8), with(9), with(10)], [None, Some(8), Some(8)]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(bytes: Vec<u8>) {
            prop_assert!(Parts::new(&bytes).count() <= bytes.len());
            let framed = message(SOCK_DIAG_BY_FAMILY, 0, &bytes);
            prop_assert_eq!(Parts::new(&framed).count(), 1);
        }
    }
}
