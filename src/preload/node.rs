//! Keeps Node from a channel that it could not use: the variables that announce one are removed from the environment.
//!
//! Node dies at its start if the announced descriptor is not a channel, as below a wrapper that closes descriptors; and
//! what is like Node, and yet not a worker of a cluster, is led astray by it. It does not speak on a channel: that is
//! Node's own business.

use core::ffi::{CStr, c_char};

use crate::abi;
use crate::runtime;
use crate::settings;
use crate::syscalls::{self as sys, Fd};
use crate::wire::NODE_CHANNEL;

const VARIABLES: [&CStr; 3] = [c"NODE_CHANNEL_FD", c"NODE_UNIQUE_ID", c"NODE_CHANNEL_SERIALIZATION_MODE"];

unsafe extern "C" {
    fn unsetenv(name: *const c_char) -> i32;
}

/// Called once, before `main`.
pub(crate) fn protect() {
    if settings::variable("NODE_CHANNEL_FD", is_useless) {
        for name in VARIABLES {
            // SAFETY: the names are terminated. Nobody else reads the environment before `main`: no other thread runs.
            unsafe { unsetenv(name.as_ptr()) };
        }
    }
}

/// Whether this process is Node, and has the channel that clusterd made for its worker. To be asked once [`protect`] has
/// removed what is of no use.
pub(crate) fn is_worker() -> bool {
    let mut file = [0; 256];
    settings::variable("NODE_CHANNEL_FD", is_number_of_clusterds)
        && sys::own_program(&mut file).is_ok_and(runtime::is_node)
}

fn is_number_of_clusterds(value: &[u8]) -> bool {
    core::str::from_utf8(value).ok().and_then(|value| value.parse().ok()).is_some_and(is_clusterds)
}

/// How much of a process's arguments is looked at, in bytes.
const ARGUMENTS: usize = 4096;

/// Whether this is not the number of a channel on which this process may speak.
///
/// The channel that clusterd made is for the process that it started, or what that became with exec: a cluster worker
/// never exits by itself, so that a script which runs one program of Node after the other would wait for ever for the
/// first. Node's channels to children of its own, which have no name, are for whomever they are given to.
fn is_useless(value: &[u8]) -> bool {
    let fd = core::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
    let Some(fd) = fd.filter(|&fd| is_unix_stream(fd)) else {
        return true;
    };
    is_clusterds(fd) && !(sys::leads_group() && is_for_this_program())
}

/// Without /proc nothing is known of the program, and Node is the one that is meant.
fn is_for_this_program() -> bool {
    let (mut file, mut arguments) = ([0; 256], [0; ARGUMENTS]);
    let (Ok(file), Ok(arguments)) = (sys::own_program(&mut file), sys::own_arguments(&mut arguments)) else {
        return true;
    };
    runtime::speaks(file, arguments.split(|&byte| byte == 0).skip(1))
}

fn is_unix_stream(fd: Fd) -> bool {
    let is = |name, value| sys::getsockopt_int(fd, abi::SOL_SOCKET, name).is_ok_and(|found| found == value);
    is(abi::SO_TYPE, abi::SOCK_STREAM) && is(abi::SO_DOMAIN, abi::AF_UNIX.into())
}

fn is_clusterds(fd: Fd) -> bool {
    let mut buffer = [0; 128];
    // The family, and the zero byte that makes the name abstract.
    let name = sys::getsockname(fd, &mut buffer).ok().and_then(|address| address.get(3..));
    name.is_some_and(|name| name.starts_with(NODE_CHANNEL))
}
