//! Socket options of a listener: what the primary is told of, and what a channel answers in a listener's place.
//!
//! It does not set options on connections: the primary sets them on the public socket, and connections inherit.

use crate::abi::{
    self, IP_TOS, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPV6_TCLASS, SO_KEEPALIVE, SO_LINGER, SOL_SOCKET,
    TCP_DEFER_ACCEPT, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY, TCP_USER_TIMEOUT,
};
use crate::address;
use crate::channel;
use crate::syscalls::{self as sys, Fd, Owned};
use crate::wire::{ChannelName, FromWorker, SocketOption};

/// The options that accepted connections inherit and that a server may have set before bind.
const INHERITED: [(i32, i32); 10] = [
    (SOL_SOCKET, SO_KEEPALIVE),
    (SOL_SOCKET, SO_LINGER),
    (IPPROTO_IP, IP_TOS),
    (IPPROTO_IPV6, IPV6_TCLASS),
    (IPPROTO_TCP, TCP_NODELAY),
    (IPPROTO_TCP, TCP_KEEPIDLE),
    (IPPROTO_TCP, TCP_KEEPINTVL),
    (IPPROTO_TCP, TCP_KEEPCNT),
    (IPPROTO_TCP, TCP_DEFER_ACCEPT),
    (IPPROTO_TCP, TCP_USER_TIMEOUT),
];

/// Tells the primary of the options that the server set on its TCP socket `fd` before it bound it: those in
/// which it differs from a new one.
pub(crate) fn report_all(fd: Fd, channel: &Owned) {
    let Ok(domain) = sys::getsockopt_int(fd, SOL_SOCKET, abi::SO_DOMAIN) else {
        return;
    };
    let Ok(fresh) = sys::socket(domain as u16, abi::SOCK_STREAM | abi::SOCK_CLOEXEC) else {
        return;
    };
    for (level, name) in INHERITED {
        let value = get(fd, level, name);
        if let Some(option) = value.filter(|_| value != get(fresh.get(), level, name)) {
            channel::say(channel.get(), &FromWorker::SetOption(option));
        }
    }
}

fn get(fd: Fd, level: i32, name: i32) -> Option<SocketOption> {
    let mut value = [0; SocketOption::MAX_LEN];
    let len = sys::getsockopt(fd, level, name, &mut value).ok()?;
    SocketOption::new(level, name, value.get(..len)?)
}

/// The message for an option that the server sets on its channel; `None` for values that no message can carry.
pub(crate) fn to_report(level: i32, name: i32, value: &[u8]) -> Option<SocketOption> {
    SocketOption::new(level, name, value)
}

/// Options that a Unix socket knows too, but that connections are to inherit.
pub(crate) fn is_inherited(level: i32, name: i32) -> bool {
    level == SOL_SOCKET && INHERITED.contains(&(level, name))
}

/// Options that share out a port among sockets: with a channel, the primary does that.
pub(crate) fn shares_port(level: i32, name: i32) -> bool {
    let names = [abi::SO_REUSEPORT, abi::SO_ATTACH_REUSEPORT_CBPF, abi::SO_ATTACH_REUSEPORT_EBPF];
    level == SOL_SOCKET && names.contains(&name)
}

/// Options that only IP sockets have.
pub(crate) fn is_internet(level: i32) -> bool {
    matches!(level, IPPROTO_IP | IPPROTO_IPV6 | IPPROTO_TCP)
}

/// Whether the kernel's answer `value` may be a channel's, and then is not a listener's.
pub(crate) fn betrays_channel(level: i32, name: i32, value: i32) -> bool {
    level == SOL_SOCKET
        && match name {
            abi::SO_TYPE => value == abi::SOCK_SEQPACKET,
            abi::SO_DOMAIN => value == i32::from(abi::AF_UNIX),
            abi::SO_PROTOCOL | abi::SO_ACCEPTCONN => value == 0,
            _ => false,
        }
}

/// What a TCP listener would have answered in a case of [`betrays_channel`].
pub(crate) fn answer_of_listener(fd: Fd, channel: &ChannelName, name: i32) -> i32 {
    match name {
        abi::SO_TYPE => abi::SOCK_STREAM,
        abi::SO_DOMAIN => i32::from(address::family(&channel.address)),
        abi::SO_PROTOCOL => IPPROTO_TCP,
        _ => i32::from(channel::listens(fd)),
    }
}
