//! Telling the client of a connection to leave, with the response that it is sent.
//!
//! What a response is told by is in `http`; here is whether these bytes are one, on this connection and at this moment, and how
//! the changed head is sent, so that what the program hears of it is what it would have heard of its own call.
//!
//! A body may look like a response (a proxied one, an archive). So bytes that look like one are one only if something came from
//! the client since the last: after one head none is changed until there is more to answer, and the first that is seen on a
//! connection only if nothing was sent since something was received. There is no table of descriptors: connections that
//! were passed on are covered as well.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::abi;
use crate::address;
use crate::draining;
use crate::http::{self, Changed, Piece, Sent};
use crate::intercept::answer;
use crate::libc;
use crate::syscalls::{self as sys, Errno, Fd, Message, Result, Slice};

/// How many buffers a changed head is sent with, at most, together with what follows it.
const MOST_BUFFERS: usize = 48;

/// How many bytes may lie unacknowledged before a head: as many as an interim answer has.
const MOST_UNSENT: i32 = 1024;

/// How often it is waited, and how long each time, until the kernel takes the rest of a head of which it has taken a part.
const FINISH_WAITS: u32 = 20;
const FINISH_WAIT_MILLISECONDS: i64 = 50;

/// For how many connections it is remembered where the last head was.
const REMEMBERED: usize = 1024;

/// Stands for as much as no client sends: no head follows.
const EVERYTHING: u64 = u64::MAX;

static HEADS: [Head; REMEMBERED] = [const { Head::new() }; REMEMBERED];

/// Sends these buffers of the program, if they are a response whose client is to leave: what the program's call returns then,
/// with `errno`. `None` if they are to be sent as they are.
pub(crate) fn send(fd: Fd, buffers: &[Slice], flags: i32) -> Option<isize> {
    if may_be_head(buffers) { send_head(fd, buffers, flags) } else { None }
}

/// Whether these buffers begin as a head does. Those that are not there, as far as they would be looked at, are the kernel's to
/// refuse.
fn may_be_head(buffers: &[Slice]) -> bool {
    let first = buffers.iter().find(|buffer| buffer.len() > 0);
    if !first.is_some_and(|first| first.is_readable(1) && first.as_ref().first() == Some(&b'H')) {
        return false;
    }
    let mut left = http::FAR;
    buffers.iter().all(|buffer| {
        let len = buffer.len().min(left);
        left -= len;
        buffer.is_readable(len)
    })
}

/// Not a part of its caller, which may run on the small stack of a signal handler.
#[inline(never)]
fn send_head(fd: Fd, buffers: &[Slice], flags: i32) -> Option<isize> {
    let sent = http::look(buffers)?;
    let connection = Connection::look(fd)?;
    if !connection.awaits_head() {
        return None;
    }
    match sent {
        // What follows is as much of an answer to what was read.
        Sent::Interim => connection.remember(connection.read().wrapping_sub(1)),
        Sent::Switched => connection.remember(EVERYTHING),
        Sent::Changed(changed) if connection.is_quiet(fd) => {
            return send_changed(fd, buffers, flags, &changed, &connection);
        }
        Sent::Changed(_) | Sent::Unchanged => connection.remember(connection.read()),
    }
    None
}

/// What is known of a client's connection.
struct Connection {
    cookie: u64,
    /// How many bytes came from the client.
    received: u64,
    /// How many of them the server has not read.
    unread: u64,
    /// Nothing was sent since something was received, as far as the kernel's clock tells.
    is_asked: bool,
}

/// How much was read on a connection when the last head was sent. Two connections may share one; then the older is forgotten.
struct Head {
    cookie: AtomicU64,
    read: AtomicU64,
}

impl Head {
    const fn new() -> Self {
        Self { cookie: AtomicU64::new(0), read: AtomicU64::new(0) }
    }

    fn of(cookie: u64) -> Option<&'static Self> {
        HEADS.get(cookie as usize % REMEMBERED)
    }
}

impl Connection {
    /// `None` for what is no established connection to a served port.
    fn look(fd: Fd) -> Option<Self> {
        let mut buffer = [0; 128];
        let own = address::read(sys::getsockname(fd, &mut buffer).ok()?)?;
        if !draining::serves(own.port()) {
            return None;
        }
        // Before the rest: what comes meanwhile counts as read, so that it takes more for the next head.
        let unread = sys::ioctl_count(fd, abi::SIOCINQ).ok()? as u64;
        let mut info = [0; abi::TCP_INFO_LEN];
        let filled = sys::getsockopt(fd, abi::IPPROTO_TCP, abi::TCP_INFO, &mut info).ok()?;
        // A client that has ended its side leaves as it is.
        if filled < info.len() || info.first() != Some(&abi::TCP_ESTABLISHED) {
            return None;
        }
        let since = |at: usize| {
            let bytes = info.get(at..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let received = u64::from_ne_bytes(*info.get(abi::TCPI_BYTES_RECEIVED..)?.first_chunk()?);
        let is_asked = since(abi::TCPI_LAST_DATA_RECV)? <= since(abi::TCPI_LAST_DATA_SENT)?;
        Some(Self { cookie: sys::cookie(fd).ok()?, received, unread, is_asked })
    }

    /// Whether the next that is sent may be the beginning of a response.
    fn awaits_head(&self) -> bool {
        let last = Head::of(self.cookie).filter(|head| head.cookie.load(Ordering::Acquire) == self.cookie);
        match last {
            Some(last) => self.received > last.read.load(Ordering::Relaxed),
            None => self.is_asked,
        }
    }

    fn read(&self) -> u64 {
        self.received.saturating_sub(self.unread)
    }

    fn remember(&self, read: u64) {
        if let Some(head) = Head::of(self.cookie) {
            head.read.store(read, Ordering::Relaxed);
            head.cookie.store(self.cookie, Ordering::Release);
        }
    }

    /// Whether the kernel has nothing that is not read, and hardly anything that is not sent. The first is another request, which
    /// the client has sent before it could hear of anything: its answer is the one that says it. With the second, the kernel may
    /// not take a head whole.
    fn is_quiet(&self, fd: Fd) -> bool {
        self.unread == 0 && sys::ioctl_count(fd, abi::SIOCOUTQ).is_ok_and(|unsent| unsent <= MOST_UNSENT)
    }
}

/// What the program's call returns. `None` if the head is in too many buffers.
fn send_changed(
    fd: Fd,
    buffers: &[Slice],
    flags: i32,
    changed: &Changed,
    connection: &Connection,
) -> Option<isize> {
    let mut out = Buffers::new();
    if out.push_all(buffers, changed.after(0)).is_none() {
        connection.remember(connection.read());
        return None;
    }
    let head = changed.len();
    let rest = out.push_rest(buffers, changed.end);
    let more = if rest.is_empty() { 0 } else { abi::MSG_MORE };
    let all = out.slices().iter().fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
    // SAFETY: the program's own buffers, and bytes that live for ever.
    let sent = unsafe { libc::sendmsg(fd, &Message::of(out.slices()), flags | more) };
    let Ok(sent) = usize::try_from(sent) else {
        return Some(sent);
    };
    connection.remember(connection.read());
    if sent < head {
        if finish(fd, buffers, changed, sent).is_ok() {
            return Some(changed.end as isize);
        }
        // The client has a part of a head, which nothing that the program sends can make whole.
        sys::shutdown(fd);
        return Some(answer(Err(Errno(abi::EPIPE))) as isize);
    }
    let taken = changed.end + (sent - head);
    let further = if rest.is_empty() || sent < all { 0 } else { sys::gather(fd, rest, flags).unwrap_or(0) };
    Some((taken + further) as isize)
}

/// Sends what the kernel has not taken of a head, behind its first bytes.
fn finish(fd: Fd, buffers: &[Slice], changed: &Changed, mut taken: usize) -> Result<()> {
    let mut waits = 0;
    loop {
        let mut out = Buffers::new();
        out.push_all(buffers, changed.after(taken)).ok_or(Errno(abi::EPIPE))?;
        if out.slices().is_empty() {
            return Ok(());
        }
        match sys::gather(fd, out.slices(), abi::MSG_DONTWAIT | abi::MSG_NOSIGNAL) {
            Ok(more) => taken += more,
            Err(Errno(abi::EAGAIN)) if waits < FINISH_WAITS => {
                waits += 1;
                sys::wait_writable(fd, FINISH_WAIT_MILLISECONDS);
            }
            Err(Errno(abi::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// What is given to sendmsg(2).
struct Buffers {
    slices: [Slice; MOST_BUFFERS],
    count: usize,
}

impl Buffers {
    fn new() -> Self {
        Self { slices: [Slice::EMPTY; MOST_BUFFERS], count: 0 }
    }

    fn slices(&self) -> &[Slice] {
        self.slices.get(..self.count).unwrap_or_default()
    }

    fn push(&mut self, slice: Slice) -> Option<()> {
        *self.slices.get_mut(self.count)? = slice;
        self.count += 1;
        Some(())
    }

    /// `None` if there is no room, or none for the rest of the buffer in which the last piece ends.
    fn push_all(&mut self, buffers: &[Slice], pieces: impl Iterator<Item = Piece>) -> Option<()> {
        for piece in pieces {
            match piece {
                Piece::Ours(bytes) => self.push(Slice::lent(bytes))?,
                Piece::Theirs(range) => {
                    let mut start = 0;
                    for buffer in buffers {
                        let (from, to) = (range.start.saturating_sub(start), range.end.saturating_sub(start));
                        start = start.saturating_add(buffer.len());
                        let part = buffer.part(from, to);
                        if part.len() > 0 {
                            self.push(part)?;
                        }
                        if start >= range.end {
                            break;
                        }
                    }
                }
            }
        }
        (self.count < MOST_BUFFERS).then_some(())
    }

    /// What follows the first `skipped` bytes, as far as there is room: the buffers for which there is none.
    fn push_rest<'a>(&mut self, buffers: &'a [Slice], skipped: usize) -> &'a [Slice] {
        let mut start = 0_usize;
        for (index, buffer) in buffers.iter().enumerate() {
            let part = buffer.part(skipped.saturating_sub(start), buffer.len());
            start = start.saturating_add(buffer.len());
            if part.len() > 0 && self.push(part).is_none() {
                return buffers.get(index..).unwrap_or_default();
            }
        }
        &[]
    }
}
