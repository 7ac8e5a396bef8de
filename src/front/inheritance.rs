//! The socket options that an accepted connection inherits from its listener (tcp(7), ip(7), ipv6(7), socket(7)), and that
//! one worker may set for all: each is about a connection, and natively it would have it.
//!
//! Not among them, though inherited, are those that say who may come to the port at all: SO_REUSEADDR and SO_REUSEPORT, a
//! device or a filter, IP_MINTTL and IPV6_MINHOPCOUNT (which clusterd needs itself), IP_TRANSPARENT and its like (which are
//! for the privileged, and about addresses of others).

/// Inherited as well, and not by way of the public socket: whoever closes a connection last lingers, and that may be
/// clusterd. A worker's process sets it on each connection that it takes.
pub(crate) const LINGER: (i32, i32) = (SOCKET, libc::SO_LINGER);

/// By their levels and names.
pub(crate) const INHERITED: &[(i32, i32)] = &[
    (SOCKET, libc::SO_KEEPALIVE),
    (SOCKET, libc::SO_OOBINLINE),
    // The sizes of a connection's buffers; the first decides what window the handshake offers.
    (SOCKET, libc::SO_RCVBUF),
    (SOCKET, libc::SO_SNDBUF),
    (SOCKET, libc::SO_RCVBUFFORCE),
    (SOCKET, libc::SO_SNDBUFFORCE),
    (SOCKET, libc::SO_RCVLOWAT),
    (SOCKET, libc::SO_RCVTIMEO),
    (SOCKET, libc::SO_SNDTIMEO),
    // What only root may set, clusterd may if it is root too.
    (SOCKET, libc::SO_MARK),
    (SOCKET, libc::SO_MAX_PACING_RATE),
    (SOCKET, libc::SO_DONTROUTE),
    (SOCKET, libc::SO_TIMESTAMP),
    (SOCKET, libc::SO_TIMESTAMPNS),
    (SOCKET, libc::SO_TIMESTAMPING),
    (SOCKET, libc::SO_ZEROCOPY),
    (SOCKET, libc::SO_BUSY_POLL),
    (SOCKET, libc::SO_PREFER_BUSY_POLL),
    (TCP, libc::TCP_NODELAY),
    (TCP, libc::TCP_CORK),
    (TCP, libc::TCP_MAXSEG),
    (TCP, libc::TCP_KEEPIDLE),
    (TCP, libc::TCP_KEEPINTVL),
    (TCP, libc::TCP_KEEPCNT),
    (TCP, libc::TCP_USER_TIMEOUT),
    (TCP, libc::TCP_SYNCNT),
    (TCP, libc::TCP_LINGER2),
    (TCP, libc::TCP_WINDOW_CLAMP),
    (TCP, libc::TCP_QUICKACK),
    (TCP, libc::TCP_CONGESTION),
    (TCP, libc::TCP_NOTSENT_LOWAT),
    (TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
    (TCP, libc::TCP_INQ),
    (TCP, libc::TCP_SAVE_SYN),
    // How connections begin, which is done at the public socket.
    (TCP, libc::TCP_DEFER_ACCEPT),
    (TCP, libc::TCP_FASTOPEN),
    (TCP, TCP_FASTOPEN_NO_COOKIE),
    (TCP, TCP_TX_DELAY),
    (TCP, TCP_RTO_MAX_MS),
    (TCP, TCP_RTO_MIN_US),
    (TCP, TCP_DELACK_MAX_US),
    // Of a connection over IPv4, whichever family its socket has.
    (IP, libc::IP_TTL),
    (IP, libc::IP_TOS),
    (IP, libc::IP_MTU_DISCOVER),
    (IP, libc::IP_RECVERR),
    (IP, libc::IP_RECVTTL),
    (IP, libc::IP_RECVTOS),
    (IP, libc::IP_RECVOPTS),
    (IP, libc::IP_RETOPTS),
    (IP, libc::IP_PKTINFO),
    (IP, libc::IP_RECVORIGDSTADDR),
    (IPV6, libc::IPV6_UNICAST_HOPS),
    (IPV6, libc::IPV6_TCLASS),
    (IPV6, libc::IPV6_MTU_DISCOVER),
    (IPV6, libc::IPV6_DONTFRAG),
    (IPV6, libc::IPV6_ADDR_PREFERENCES),
    (IPV6, libc::IPV6_RECVERR),
    (IPV6, libc::IPV6_RECVPKTINFO),
    (IPV6, libc::IPV6_RECVHOPLIMIT),
    (IPV6, libc::IPV6_RECVTCLASS),
    (IPV6, libc::IPV6_RECVHOPOPTS),
    (IPV6, libc::IPV6_RECVRTHDR),
    (IPV6, libc::IPV6_RECVDSTOPTS),
    (IPV6, libc::IPV6_RECVPATHMTU),
    (IPV6, libc::IPV6_RECVORIGDSTADDR),
    (IPV6, IPV6_FLOWINFO),
    (IPV6, libc::IPV6_FLOWINFO_SEND),
];

/// What a listener of a worker's own has besides, by their levels and names: who comes to it, and how it answers them. Where it is
/// clusterd that accepts, it would be so for the listeners of all workers.
pub(crate) const OF_ONES_OWN: &[(i32, i32)] = &[
    (SOCKET, libc::SO_PRIORITY),
    (SOCKET, libc::SO_INCOMING_CPU),
    (IP, libc::IP_MINTTL),
    (IP, libc::IP_FREEBIND),
    (IP, libc::IP_TRANSPARENT),
    (IPV6, libc::IPV6_MINHOPCOUNT),
    (IPV6, libc::IPV6_FREEBIND),
    (IPV6, libc::IPV6_TRANSPARENT),
];

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;

// From linux/tcp.h.
const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
const TCP_TX_DELAY: i32 = 37;
const TCP_RTO_MAX_MS: i32 = 44;
const TCP_RTO_MIN_US: i32 = 45;
const TCP_DELACK_MAX_US: i32 = 46;
// From linux/in6.h.
const IPV6_FLOWINFO: i32 = 11;

/// Whether a worker's listener may have the public sockets set this option.
pub(crate) fn is_inherited(level: i32, name: i32) -> bool {
    INHERITED.contains(&(level, name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_option_is_there_once_and_none_that_says_who_may_come() {
        let known: BTreeSet<_> = INHERITED.iter().collect();
        assert_eq!(known.len(), INHERITED.len());
        for (level, name) in [
            LINGER,
            (SOCKET, libc::SO_REUSEADDR),
            (SOCKET, libc::SO_REUSEPORT),
            (SOCKET, libc::SO_BINDTODEVICE),
            (SOCKET, libc::SO_ATTACH_FILTER),
            (SOCKET, libc::SO_INCOMING_CPU),
            (IP, libc::IP_MINTTL),
            (IP, libc::IP_TRANSPARENT),
            (IPV6, libc::IPV6_MINHOPCOUNT),
            (IPV6, libc::IPV6_V6ONLY),
        ] {
            assert!(!is_inherited(level, name), "{level} {name}");
        }
    }
}
