//! The server's own socket of a channel: options are set on it and read from it, so that every answer is the kernel's.
//!
//! The primary keeps it and gives it to every process of the worker that asks. A process keeps it in turn, in a table
//! without locks: it is asked in signal handlers and after fork too.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use crate::abi;
use crate::address;
use crate::primary;
use crate::settings;
use crate::syscalls::{self as sys, Errno, Fd, Owned, Result};
use crate::wire::{ChannelName, FromWorker, ToWorker};

/// How many sockets a process keeps.
const KEPT: usize = 32;

/// How far below the highest number that a process may have, or 1024, they lie, so that the server's own descriptors have
/// the numbers that they would have without the shim, and none that select(2) could not take.
const BELOW: u64 = 64;
const HIGHEST: u64 = 1024;

static TABLE: [Place; KEPT] = [const { Place::new() }; KEPT];
static NEXT: AtomicU32 = AtomicU32::new(0);

/// One socket, or none.
struct Place {
    /// How many use it at the moment, or [`Place::CHANGING`]. All else changes only then, and is read only while in use.
    users: AtomicU32,
    /// The channel's, or 0.
    nonce: AtomicU64,
    fd: AtomicI32,
    /// The socket's: a server may have closed the descriptor, as closefrom(3) does, and opened another of that number.
    cookie: AtomicU64,
}

/// A place that nobody changes meanwhile.
struct InUse<'a>(&'a Place);

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Release);
    }
}

impl Place {
    const CHANGING: u32 = u32::MAX;

    const fn new() -> Self {
        Self {
            users: AtomicU32::new(0),
            nonce: AtomicU64::new(0),
            fd: AtomicI32::new(-1),
            cookie: AtomicU64::new(0),
        }
    }

    /// `None` if somebody changes it.
    fn enter(&self) -> Option<InUse<'_>> {
        let one_more = |users| if users < Self::CHANGING - 1 { Some(users + 1) } else { None };
        self.users.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).ok().map(|_| InUse(self))
    }

    /// Keeps a socket instead of what is there; gives it back if the place is in use.
    fn put(&self, nonce: u64, socket: Owned, cookie: u64) -> core::result::Result<InUse<'_>, Owned> {
        if self.users.compare_exchange(0, Self::CHANGING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(socket);
        }
        let fd = socket.release();
        let (former, its) =
            (self.fd.swap(fd, Ordering::Relaxed), self.cookie.swap(cookie, Ordering::Relaxed));
        // The new one may have the number of a former one that the server closed.
        if former != fd && sys::cookie(former) == Ok(its) {
            sys::close(former);
        }
        self.nonce.store(nonce, Ordering::Relaxed);
        self.users.store(1, Ordering::Release);
        Ok(InUse(self))
    }
}

impl InUse<'_> {
    /// The descriptor, if it still is the socket of this channel.
    fn socket_of(&self, nonce: u64) -> Option<Fd> {
        let fd = self.0.fd.load(Ordering::Relaxed);
        let is_it = self.0.nonce.load(Ordering::Relaxed) == nonce
            && sys::cookie(fd) == Ok(self.0.cookie.load(Ordering::Relaxed));
        is_it.then_some(fd)
    }
}

/// Does something with the server's own socket of this channel.
///
/// Errors: when no descriptor is free.
pub(crate) fn with<T>(channel: &ChannelName, act: impl FnOnce(Fd) -> T) -> Result<T> {
    let nonce = channel.nonce;
    for place in TABLE.iter().filter(|place| place.nonce.load(Ordering::Relaxed) == nonce) {
        if let Some(place) = place.enter()
            && let Some(fd) = place.socket_of(nonce)
        {
            return Ok(act(fd));
        }
    }
    let Some(socket) = fetch(channel) else {
        // Nobody has it to give: a new one knows at least what may be asked and set.
        return sys::socket(address::family(&channel.address), abi::SOCK_STREAM | abi::SOCK_CLOEXEC)
            .map(|socket| act(socket.get()));
    };
    let (socket, cookie) = match (out_of_the_way(&socket), sys::cookie(socket.get())) {
        (Ok(high), Ok(cookie)) => (high, cookie),
        _ => return Ok(act(socket.get())),
    };
    match keep(nonce, socket, cookie) {
        Ok(place) => Ok(act(place.0.fd.load(Ordering::Relaxed))),
        Err(socket) => Ok(act(socket.get())),
    }
}

/// Gets the socket from the primary.
fn fetch(channel: &ChannelName) -> Option<Owned> {
    match primary::ask(FromWorker::FetchSocket { token: settings::token(), nonce: channel.nonce }) {
        Ok((ToWorker::Socket, socket)) => socket,
        _ => None,
    }
}

/// A duplicate with a high number.
fn out_of_the_way(socket: &Owned) -> Result<Owned> {
    let lowest = sys::descriptor_limit()?.min(HIGHEST).saturating_sub(BELOW);
    sys::duplicate(socket, lowest as i32).map_err(|_| Errno(abi::EMFILE))
}

/// In the place where this channel's was, else in a free one, else in that of another.
fn keep(nonce: u64, mut socket: Owned, cookie: u64) -> core::result::Result<InUse<'static>, Owned> {
    let first = NEXT.fetch_add(1, Ordering::Relaxed) as usize % KEPT;
    let nonce_is = |wanted| move |place: &&Place| place.nonce.load(Ordering::Relaxed) == wanted;
    let others = TABLE.iter().cycle().skip(first).take(KEPT);
    for place in TABLE.iter().filter(nonce_is(nonce)).chain(TABLE.iter().filter(nonce_is(0))).chain(others) {
        socket = match place.put(nonce, socket, cookie) {
            Ok(place) => return Ok(place),
            Err(socket) => socket,
        };
    }
    Err(socket)
}
