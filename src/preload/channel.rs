//! A channel in place of a listener: recognising one, speaking on it, and taking connections from it.
//!
//! It does not make channels (that is `attach`). It keeps no list of them: a channel is known by the name it is
//! bound to, which stays with the descriptor through dup, fork, exec and passing it to another process.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::abi;
use crate::numbers::Numbers;
use crate::primary;
use crate::syscalls::{self as sys, Errno, Fd, Owned, Result};
use crate::wire::{ChannelName, Endpoint, FromWorker, Linger, MAX_MESSAGE, ToWorker};

/// How often a message to the primary is tried when the channel is full, and how long each time.
const SEND_ATTEMPTS: u32 = 5;
const SEND_WAIT_MILLISECONDS: i64 = 1000;

/// How long an accept on a channel at its end takes, so that a server which repeats it does not spin.
const END_PAUSE_MILLISECONDS: i64 = 50;

/// How long an accept of Node takes that has no free descriptor.
const FULL_PAUSE_MILLISECONDS: i64 = 10;

/// Whether the last accept on a channel brought a connection. It only tells what to try first.
static TOOK: AtomicBool = AtomicBool::new(false);

/// The numbers that a channel has had in this process, as far as it was noticed.
static SEEN: Numbers = Numbers::none();

/// Whether this number was a channel's at some time, for calls that are too frequent to ask for the name each time.
pub(crate) fn may_be_one(fd: Fd) -> bool {
    u16::try_from(fd).map_or(fd >= 0, |number| SEEN.has(number))
}

/// The name of a channel; `None` for every other descriptor.
pub(crate) fn name(fd: Fd) -> Option<ChannelName> {
    let mut buffer = [0; 128];
    let (family, path) = sys::getsockname(fd, &mut buffer).ok()?.split_first_chunk()?;
    if u16::from_ne_bytes(*family) != abi::AF_UNIX {
        return None;
    }
    let name = ChannelName::decode(path)?;
    if let Ok(number) = u16::try_from(fd) {
        SEEN.add(number);
    }
    Some(name)
}

/// Tells the primary something, if it can be told: a primary that reads nothing for seconds, or is gone, shows
/// itself at the next accept.
pub(crate) fn say(fd: Fd, message: &FromWorker) {
    let mut buffer = [0; MAX_MESSAGE];
    let record = message.encode(&mut buffer);
    for _ in 0..SEND_ATTEMPTS {
        match sys::send(fd, record, None, abi::MSG_DONTWAIT) {
            Err(Errno(abi::EAGAIN)) => sys::wait_writable(fd, SEND_WAIT_MILLISECONDS),
            Err(Errno(abi::EINTR)) => {}
            _ => return,
        }
    }
}

/// Where the channel itself remembers that its server has called listen(2): an option without a meaning for Unix
/// sockets, which no server sets on a listener, and which goes wherever the descriptor goes.
const LISTENS: i32 = abi::SO_BROADCAST;

/// listen(2) on a channel.
pub(crate) fn listen(fd: Fd) {
    let _ = sys::setsockopt(fd, abi::SOL_SOCKET, LISTENS, &1_i32.to_ne_bytes());
    say(fd, &FromWorker::Listening);
}

/// Whether [`listen`] was called: some servers ask first, and do not call it again.
pub(crate) fn listens(fd: Fd) -> bool {
    sys::getsockopt_int(fd, abi::SOL_SOCKET, LISTENS).is_ok_and(|flag| flag != 0)
}

/// accept4(2) on a channel: the connection, and the client's address.
pub(crate) fn accept(fd: Fd, name: &ChannelName, flags: i32) -> Result<(Fd, Endpoint)> {
    if flags & !(abi::SOCK_CLOEXEC | abi::SOCK_NONBLOCK) != 0 {
        return Err(Errno(abi::EINVAL));
    }
    // After a connection there is seldom another one: to see that takes one call, and to try to receive it four.
    if TOOK.swap(false, Ordering::Relaxed) {
        wait(fd)?;
    }
    loop {
        if let Err(errno) = room_for_a_descriptor(fd) {
            return Err(if name.given { wait_for_room() } else { errno });
        }
        if let ControlFlow::Break((connection, client)) = take(fd, flags)? {
            TOOK.store(true, Ordering::Relaxed);
            return Ok((connection, client));
        }
    }
}

/// Fails as accept(2) does when no descriptor is free. It must be asked before a connection is received: the
/// kernel destroys a received descriptor for which there is no room.
fn room_for_a_descriptor(fd: Fd) -> Result<()> {
    match sys::fcntl(fd, abi::F_DUPFD_CLOEXEC, 0) {
        Ok(probe) => {
            sys::close(probe);
            Ok(())
        }
        // With a limit of 0 descriptors, fcntl(2) complains of its argument.
        Err(Errno(abi::EINVAL)) => Err(Errno(abi::EMFILE)),
        Err(errno) => Err(errno),
    }
}

/// What Node is told when no descriptor is free: that there is nothing to accept. Of EMFILE libuv would make room by
/// closing a descriptor that it holds in reserve, accept, and close the connection (`uv__emfile_trick`). The pause
/// keeps its event loop, which finds the channel readable at once, from spinning until the primary gives the
/// connection to another worker.
fn wait_for_room() -> Errno {
    sys::pause_milliseconds(FULL_PAUSE_MILLISECONDS);
    Errno(abi::EAGAIN)
}

/// Takes one connection, or waits, as the listener's mode tells, until there is something to try again for.
fn take(fd: Fd, flags: i32) -> Result<ControlFlow<(Fd, Endpoint)>> {
    let mut buffer = [0; MAX_MESSAGE];
    let cloexec = if flags & abi::SOCK_CLOEXEC != 0 { abi::MSG_CMSG_CLOEXEC } else { 0 };
    let (len, passed) = match sys::receive(fd, &mut buffer, abi::MSG_DONTWAIT | cloexec) {
        Err(Errno(abi::EAGAIN)) => return wait(fd).map(ControlFlow::Continue),
        // The primary closed its end; what it sent before can still be read.
        Err(Errno(abi::ECONNRESET)) => return Ok(ControlFlow::Continue(())),
        Err(errno) => return Err(errno),
        Ok((0, _)) => return Err(end(fd)),
        Ok(received) => received,
    };
    match (buffer.get(..len).map(ToWorker::decode), passed) {
        (Some(Ok(ToWorker::Connection { peer, linger })), Some(connection)) => {
            if let Some(linger) = linger {
                // The client may have reset the connection.
                let _ = sys::setsockopt(connection.get(), Linger::LEVEL, Linger::NAME, &linger.value());
            }
            Ok(ControlFlow::Break((into_mode(connection, flags), peer)))
        }
        // Another thread took the last free descriptor in between: the server must hear that there is none.
        (Some(Ok(ToWorker::Connection { .. })), None) => Err(Errno(abi::EMFILE)),
        _ => Ok(ControlFlow::Continue(())),
    }
}

/// Waits until there is something to receive. Peeking, instead of polling, waits exactly as accept(2) does: not
/// at all in non-blocking mode, for SO_RCVTIMEO at most, and through signals whose handler has SA_RESTART.
fn wait(fd: Fd) -> Result<()> {
    match sys::receive_bytes(fd, &mut [0], abi::MSG_PEEK) {
        Ok(_) | Err(Errno(abi::ECONNRESET)) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Connections come in non-blocking mode; accept(2) gives blocking ones.
fn into_mode(connection: Owned, flags: i32) -> Fd {
    if flags & abi::SOCK_NONBLOCK == 0 {
        let _ = sys::fcntl(connection.get(), abi::F_SETFL, 0);
    }
    connection.release()
}

/// No connection will come any more.
///
/// If the primary is gone, that is for good, and the worker ends as its supervisor would have ended it. The whole process
/// group, which the primary made for this worker, is asked to: a pre-forking parent that only waits for its
/// children would otherwise start them again and again. Otherwise this listener alone was closed.
///
/// An event loop then hears that there is nothing to accept, and returns to where it notices signals. A thread
/// that blocks hears of a connection that was aborted, since accept(2) in that mode never has nothing; on a closed
/// listener, of what accept(2) says after shutdown(2).
fn end(fd: Fd) -> Errno {
    let lives = primary::lives();
    if !lives {
        sys::kill(0, abi::SIGTERM);
    }
    sys::pause_milliseconds(END_PAUSE_MILLISECONDS);
    let mode = sys::fcntl(fd, abi::F_GETFL, 0).unwrap_or(0);
    Errno(match mode & abi::O_NONBLOCK {
        0 if lives => abi::EINVAL,
        0 => abi::ECONNABORTED,
        _ => abi::EAGAIN,
    })
}
