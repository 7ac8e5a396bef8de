//! What the environment says: where the primary's attach socket is, the worker's token, the served ports.
//!
//! It is read once, before `main`, and never again: programs overwrite their environment to show a title.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::abi::AF_UNIX;
use crate::numbers::Numbers;
use crate::wire::{ANY_PORT as ANY, ENV_PORTS, ENV_SOCKET, ENV_TOKEN, Token};

/// The length of `sun_path`.
const PATH_LEN: usize = 108;

static COMPLETE: AtomicBool = AtomicBool::new(false);
static PATH: [AtomicU8; PATH_LEN] = [const { AtomicU8::new(0) }; PATH_LEN];
static TOKEN: [AtomicU8; 16] = [const { AtomicU8::new(0) }; 16];
static PORTS: Numbers = Numbers::none();
/// Any port is opened for whoever asks.
static ANY_PORT: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
}

/// Reads the environment. Without all three variables the shim does nothing.
pub(crate) fn read() {
    let complete =
        variable(ENV_SOCKET, keep_path) && variable(ENV_TOKEN, keep_token) && variable(ENV_PORTS, keep_ports);
    COMPLETE.store(complete, Ordering::Release);
}

/// Whether a listener on this port belongs to the primary.
pub(crate) fn serves(port: u16) -> bool {
    COMPLETE.load(Ordering::Acquire) && PORTS.has(port)
}

/// Whether a listener on this port may be the primary's: it is to be asked.
pub(crate) fn may_serve(port: u16) -> bool {
    serves(port) || (port != 0 && ANY_PORT.load(Ordering::Relaxed) && COMPLETE.load(Ordering::Acquire))
}

/// Whether there is a primary to speak to.
pub(crate) fn names_primary() -> bool {
    COMPLETE.load(Ordering::Acquire)
}

pub(crate) fn token() -> Token {
    Token(core::array::from_fn(|at| TOKEN[at].load(Ordering::Relaxed)))
}

/// The `struct sockaddr_un` of the attach socket, and how much of it counts.
pub(crate) fn attach_socket() -> ([u8; 2 + PATH_LEN], usize) {
    let mut address = [0; 2 + PATH_LEN];
    let (family, path) = address.split_at_mut(2);
    family.copy_from_slice(&AF_UNIX.to_ne_bytes());
    let mut len = 0;
    for (to, from) in path.iter_mut().zip(&PATH) {
        *to = from.load(Ordering::Relaxed);
        if *to == 0 {
            break;
        }
        len += 1;
    }
    if let Some(at @ b'@') = path.first_mut() {
        *at = 0;
        return (address, 2 + len);
    }
    (address, (2 + len + 1).min(2 + PATH_LEN))
}

/// Hands the value of a variable, if it is set, to `keep`, which tells whether it makes sense.
pub(crate) fn variable(name: &str, keep: fn(&[u8]) -> bool) -> bool {
    let mut terminated = [0; 32];
    for (to, from) in terminated.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the names are shorter than the buffer, so a zero byte ends them. Nothing changes the environment
    // before `main`: no other thread runs.
    let value = unsafe { getenv(terminated.as_ptr().cast()) };
    if value.is_null() {
        return false;
    }
    // SAFETY: getenv(3) gives a terminated string, which stays as it is while the constructor runs.
    keep(unsafe { CStr::from_ptr(value) }.to_bytes())
}

fn keep_path(value: &[u8]) -> bool {
    for (to, from) in PATH.iter().zip(value) {
        to.store(*from, Ordering::Relaxed);
    }
    !value.is_empty() && value.len() <= PATH_LEN
}

fn keep_token(value: &[u8]) -> bool {
    let Some(token) = Token::from_hex(value) else {
        return false;
    };
    for (to, from) in TOKEN.iter().zip(token.0) {
        to.store(from, Ordering::Relaxed);
    }
    true
}

fn keep_ports(value: &[u8]) -> bool {
    if value == ANY.as_bytes() {
        ANY_PORT.store(true, Ordering::Relaxed);
        return true;
    }
    for port in value.split(|byte| *byte == b',') {
        let port = core::str::from_utf8(port).ok().and_then(|port| port.parse::<u16>().ok());
        let Some(port) = port else {
            return false;
        };
        PORTS.add(port);
    }
    true
}
