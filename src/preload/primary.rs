//! Words with the primary at its attach socket: reaching it, saying something, hearing the answer.
//!
//! Every wait is bounded. What the words mean is known to those that exchange them.

use crate::abi;
use crate::settings;
use crate::syscalls::{self as sys, Errno, Fd, Owned, Result};
use crate::wire::{FromWorker, MAX_MESSAGE, ToWorker};

/// How long the primary may take for each step of a handshake.
pub(crate) const PATIENCE_SECONDS: i64 = 5;

/// How long it may take to answer a question: less, for the program waits although it asked for nothing.
const ANSWER_SECONDS: i64 = 2;

/// How often a primary is tried again that hung up without an answer: it may be about to end.
const ATTEMPTS: u32 = 3;
const AGAIN_MILLISECONDS: i64 = 20;

/// Connects `socket`, whose every step from now on may take so long.
///
/// Errors: ENOENT and ECONNREFUSED when there is no primary; else those of connect(2).
pub(crate) fn reach(socket: &Owned, seconds: i64) -> Result<()> {
    set_patience(socket, seconds)?;
    let (address, len) = settings::attach_socket();
    let address = address.get(..len).unwrap_or(&address);
    through_signals(|| sys::connect(socket, address))
}

pub(crate) fn set_patience(socket: &Owned, seconds: i64) -> Result<()> {
    let mut time = [0; 16];
    let (whole, _) = time.split_at_mut(8);
    whole.copy_from_slice(&seconds.to_ne_bytes());
    sys::setsockopt(socket.get(), abi::SOL_SOCKET, abi::SO_RCVTIMEO, &time)?;
    sys::setsockopt(socket.get(), abi::SOL_SOCKET, abi::SO_SNDTIMEO, &time)
}

/// Sends one message, with a duplicate of `passed` if there is one.
pub(crate) fn say(socket: &Owned, message: &FromWorker, passed: Option<Fd>) -> Result<()> {
    let mut buffer = [0; MAX_MESSAGE];
    let record = message.encode(&mut buffer);
    through_signals(|| sys::send(socket.get(), record, passed, 0))
}

/// Receives one message, and the descriptor that came with it.
///
/// Errors: ECONNRESET when the primary hung up and had said nothing; EAGAIN when time was over.
pub(crate) fn hear(socket: &Owned) -> Result<(ToWorker, Option<Owned>)> {
    let mut buffer = [0; MAX_MESSAGE];
    let mut receive = || through_signals(|| sys::receive(socket.get(), &mut buffer, abi::MSG_CMSG_CLOEXEC));
    // Of a peer that closed without reading everything the kernel tells once; what it had said comes after that.
    let received = match receive() {
        Err(Errno(abi::ECONNRESET)) => receive(),
        received => received,
    };
    let (len, passed) = received?;
    if len == 0 {
        return Err(Errno(abi::ECONNRESET));
    }
    let message = ToWorker::decode(buffer.get(..len).unwrap_or_default()).map_err(|_| Errno(abi::EPROTO))?;
    Ok((message, passed))
}

/// Says something, and hears the answer, which may have come although not everything could be said: a primary that
/// refuses hangs up at once.
pub(crate) fn exchange(
    socket: &Owned,
    messages: &[(FromWorker, Option<Fd>)],
) -> Result<(ToWorker, Option<Owned>)> {
    for (message, passed) in messages {
        match say(socket, message, *passed) {
            Ok(()) => {}
            Err(Errno(abi::EPIPE | abi::ECONNRESET)) => break,
            Err(errno) => return Err(errno),
        }
    }
    hear(socket)
}

/// Says something that has no answer on a connection of its own.
pub(crate) fn tell(message: &FromWorker) -> Result<()> {
    let socket = sys::socket(abi::AF_UNIX, abi::SOCK_SEQPACKET | abi::SOCK_CLOEXEC)?;
    reach(&socket, ANSWER_SECONDS)?;
    say(&socket, message, None)
}

/// Asks one question on a connection of its own.
pub(crate) fn ask(question: FromWorker) -> Result<(ToWorker, Option<Owned>)> {
    let socket = sys::socket(abi::AF_UNIX, abi::SOCK_SEQPACKET | abi::SOCK_CLOEXEC)?;
    reach(&socket, ANSWER_SECONDS)?;
    exchange(&socket, &[(question, None)])
}

/// Whether there is still a primary: one that answers, whatever it says, or is only slow.
pub(crate) fn lives() -> bool {
    for _ in 0..ATTEMPTS {
        match ask(FromWorker::AskListened { token: settings::token(), port: 0, channel: 0 }) {
            Err(Errno(abi::ENOENT | abi::ECONNREFUSED)) => return false,
            Err(Errno(abi::ECONNRESET)) => sys::pause_milliseconds(AGAIN_MILLISECONDS),
            _ => return true,
        }
    }
    false
}

/// Repeats what a signal interrupted, but not for ever: a profiler's timer may interrupt every attempt.
pub(crate) fn through_signals<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = sys::monotonic() + PATIENCE_SECONDS as u64 * 1_000_000_000;
    loop {
        match attempt() {
            Err(Errno(abi::EINTR)) if sys::monotonic() < deadline => {}
            outcome => return outcome,
        }
    }
}
