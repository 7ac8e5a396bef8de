//! What the kernel, or a filter of system calls, lets clusterd do with sockets. None of them listens but for one of Unix, and those
//! that are bound are closed at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::finding::Found;
use super::limits::defaults;
use crate::connections::notes;
use crate::front::steering::{self, Steers};
use crate::sys::exhausted::more_descriptors;
use crate::sys::sock_diag::SockDiag;
use crate::sys::{guarded, reuseport, seqpacket, socket};

fn stream(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// A socket of whichever family there is.
fn any_stream() -> io::Result<OwnedFd> {
    stream(AddressFamily::INET).or_else(|_| stream(AddressFamily::INET6))
}

pub(super) fn tcp() -> Found {
    let families = (stream(AddressFamily::INET).map(drop), stream(AddressFamily::INET6).map(drop));
    judge_tcp(families, accept_one())
}

/// A filter of system calls does not know a socket of Unix from others, and with one no port is opened. Where there is none, that
/// is for others to say.
fn accept_one() -> io::Result<()> {
    let Ok(listener) = stream(AddressFamily::UNIX) else { return Ok(()) };
    // The kernel names it (unix(7), autobind).
    rustix::net::bind(&listener, &SocketAddrUnix::new_unnamed())?;
    rustix::net::listen(&listener, 1)?;
    let client = stream(AddressFamily::UNIX)?;
    rustix::net::connect(&client, &rustix::net::getsockname(&listener)?)?;
    rustix::net::accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    Ok(())
}

fn judge_tcp((v4, v6): (io::Result<()>, io::Result<()>), accepted: io::Result<()>) -> Found {
    if let Err(error) = accepted {
        let permit = "let the filter of system calls permit listen and accept4";
        let hint = more_descriptors(&error).unwrap_or(permit);
        return Found::fails(
            format!("sockets cannot listen and accept: {error}"),
            format!("clusterd can serve no port; {hint}"),
        );
    }
    match (v4, v6) {
        (Ok(()), Ok(())) => Found::works("there are sockets of IPv4 and IPv6"),
        (Ok(()), Err(error)) => Found::limited(
            format!("there are no sockets of IPv6: {error}"),
            "Clients are served over IPv4 alone, and servers that listen on an address of IPv6 fail",
        ),
        (Err(error), Ok(())) => Found::limited(
            format!("there are no sockets of IPv4: {error}"),
            "--port does not work; use --bind with an address of IPv6 (--bind [::]:3000), and servers that listen on one",
        ),
        (Err(error), Err(_)) => Found::fails(
            format!("there are no TCP sockets: {error}"),
            "clusterd can listen nowhere; permit them (systemd: RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK)",
        ),
    }
}

pub(super) fn hand_over() -> Found {
    judge_hand_over(pass_one())
}

/// As a connection is handed over, and as it is known that it was taken.
fn pass_one() -> io::Result<()> {
    let (ours, theirs) = seqpacket::pair()?;
    let (passed, _) = io::pipe()?;
    seqpacket::send(&ours, b"x", Some(passed.as_fd()))?;
    if seqpacket::waiting_bytes(&theirs)? == 0 {
        return Err(io::Error::other("what waits in the socket is not told"));
    }
    let received = seqpacket::receive(&theirs, &mut [0; 8])?;
    if received.fd.is_none() {
        return Err(io::Error::other("no descriptor has arrived"));
    }
    match seqpacket::waiting_bytes(&theirs)? {
        0 => Ok(()),
        _ => Err(io::Error::other("what was received still waits in the socket")),
    }
}

fn judge_hand_over(passed: io::Result<()>) -> Found {
    match passed {
        Ok(()) => Found::works("connections can be handed over to other processes"),
        Err(error) => Found::fails(
            format!("connections cannot be handed over to other processes: {error}"),
            "Workers would get none; permit Unix sockets (systemd: RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK)",
        ),
    }
}

pub(super) fn pass_rights() -> Found {
    judge_pass_rights(refuses_descriptors())
}

/// Whether a socket that is to refuse descriptors does so.
fn refuses_descriptors() -> io::Result<bool> {
    let (ours, theirs) = seqpacket::pair()?;
    let (passed, _) = io::pipe()?;
    let is_known = guarded::pass_descriptors(&theirs, false);
    let sent = seqpacket::send(&ours, b"x", Some(passed.as_fd()));
    Ok(is_known && sent.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied))
}

fn judge_pass_rights(refuses: io::Result<bool>) -> Found {
    match refuses {
        Ok(true) => Found::works("the kernel keeps out descriptors that nobody asked for (SO_PASSRIGHTS)"),
        Ok(false) => Found::limited(
            "the kernel keeps out no descriptors (SO_PASSRIGHTS, Linux 6.16)",
            "clusterd keeps them out itself, by looking at each message before it receives it; there is nothing to do",
        ),
        Err(error) => Found::not_applicable(format!("nothing can be passed: {error}")),
    }
}

pub(super) fn netlink() -> Found {
    judge_netlink(SockDiag::open().and_then(|mut diag| diag.listeners(&[1])).map(drop))
}

fn judge_netlink(listed: io::Result<()>) -> Found {
    match listed {
        Ok(()) => Found::works("the kernel lists connections over netlink"),
        Err(error) => Found::limited(
            format!("the kernel lists no connections over netlink: {error}"),
            "clusterd reads /proc/net/tcp, which takes longer and tells neither bytes nor times; permit it (systemd: \
             RestrictAddressFamilies= with AF_NETLINK); gVisor has none",
        ),
    }
}

pub(super) fn cookies() -> Found {
    judge_cookies(notes::check())
}

fn judge_cookies(named: io::Result<()>) -> Found {
    match named {
        Ok(()) => {
            Found::works("the kernel gives connections names, so that those of each worker can be counted")
        }
        Err(error) => Found::fails(
            format!("the kernel gives connections no names (SO_COOKIE): {error}"),
            "--policy least-connections and random-two, and --concurrency, do not work; --policy round-robin and source-ip do",
        ),
    }
}

pub(super) fn steering() -> Found {
    let tried = any_stream().and_then(|socket| {
        sockopt::set_socket_reuseport(&socket, true)?;
        Ok(steering::tried(&socket))
    });
    judge_steering(&tried.unwrap_or_else(Steers::NotAtAll))
}

fn judge_steering(steers: &Steers) -> Found {
    match steers {
        Steers::InTurn => Found::works("workers that accept by themselves get connections in turn"),
        Steers::ByChance(error) => {
            let why = match error.kind() {
                io::ErrorKind::Unsupported => "a filter of system calls is upon clusterd".to_owned(),
                io::ErrorKind::PermissionDenied => "clusterd has no CAP_BPF".to_owned(),
                _ => format!("bpf failed: {error}"),
            };
            Found::limited(
                format!("workers that accept by themselves get connections by chance, not in turn: {why}"),
                "With --accept workers, and for Go and static servers, shares are even over many connections only; turns take \
                 root outside of a container, or CAP_BPF and no filter of system calls",
            )
        }
        Steers::NotAtAll(error) => Found::limited(
            format!("workers that accept by themselves cannot be steered: {error}"),
            "With --accept workers, and for Go and static servers, all share one socket, and the load is uneven; servers that \
             clusterd accepts for are served as ever",
        ),
    }
}

pub(super) fn filter() -> Found {
    judge_filter(any_stream().and_then(socket::filter_new_handshakes))
}

fn judge_filter(attached: io::Result<()>) -> Found {
    match attached {
        Ok(()) => Found::works("a stop can keep new connections out while it serves those that have come"),
        Err(error) => Found::limited(
            format!("sockets take no filters: {error}"),
            "With --accept workers, a stop resets connections that come just before the last worker ends",
        ),
    }
}

pub(super) fn migrate() -> Found {
    judge_migrate(reuseport::migrates(), reuseport::may_migrate())
}

fn judge_migrate(is_on: bool, may: io::Result<()>) -> Found {
    match may {
        _ if is_on => Found::works("net.ipv4.tcp_migrate_req is on"),
        Ok(()) => Found::works("net.ipv4.tcp_migrate_req is off, and --tcp-migrate can turn it on"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::fails(
            "there is no net.ipv4.tcp_migrate_req (Linux 5.14, with /proc mounted)",
            "--tcp-migrate does not work; what waits for a worker that has ended waits for its next start",
        ),
        Err(error) => Found::limited(
            format!("net.ipv4.tcp_migrate_req is off and not clusterd's to turn on: {error}"),
            "--tcp-migrate does not work, which is of use with --accept workers alone; set it from outside (docker run --sysctl \
             net.ipv4.tcp_migrate_req=1)",
        ),
    }
}

pub(super) fn backlog() -> Found {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    judge_backlog(
        defaults().map(|config| config.backlog.get()),
        most.ok().and_then(|most| most.trim().parse().ok()),
    )
}

fn judge_backlog(wanted: Option<u32>, most: Option<u32>) -> Found {
    let (Some(wanted), Some(most)) = (wanted, most) else {
        return Found::not_applicable("net.core.somaxconn is not told");
    };
    match most < wanted {
        false => {
            Found::works(format!("as many connections as --backlog says ({wanted}) can wait in the kernel"))
        }
        true => Found::limited(
            format!("net.core.somaxconn is {most}, and --backlog {wanted}"),
            format!(
                "In a burst, the kernel drops handshakes beyond {most}, and clients try again after a second; raise it: sysctl -w \
                 net.core.somaxconn={wanted} (docker run --sysctl net.core.somaxconn={wanted})"
            ),
        ),
    }
}

/// The first port that takes no privilege, where nobody tells another.
const UNPRIVILEGED: u16 = 1024;

pub(super) fn low_ports() -> Found {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|first| first.trim().parse().ok()).unwrap_or(UNPRIVILEGED);
    let bound = match first.checked_sub(1) {
        None | Some(0) => Ok(()),
        Some(port) => stream(AddressFamily::INET).and_then(|socket| {
            Ok(rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?)
        }),
    };
    judge_low_ports(first, bound)
}

fn judge_low_ports(first: u16, bound: io::Result<()>) -> Found {
    match bound {
        Ok(()) => Found::works("clusterd may listen on every port"),
        // The privilege is looked at first.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Found::works("clusterd may listen on every port")
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Found::limited(
            format!("ports below {first} take root or CAP_NET_BIND_SERVICE, which clusterd has not"),
            "Listen on a higher port, as with --port 8080, or give clusterd the capability (systemd: \
             AmbientCapabilities=CAP_NET_BIND_SERVICE), or lower the limit (docker run --sysctl \
             net.ipv4.ip_unprivileged_port_start=0)",
        ),
        Err(error) => Found::not_applicable(format!(
            "whether ports below {first} are permitted cannot be tried: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict::{self, Fails, Limited, NotApplicable, Works};
    use super::*;

    fn refused(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[track_caller]
    fn is(found: &Found, verdict: Verdict, words: &str) {
        assert_eq!(found.verdict, verdict, "{found:?}");
        let all = format!("{} {}", found.what, found.follows.as_deref().unwrap_or_default());
        assert!(all.contains(words), "{words:?} in {all:?}");
    }

    #[test]
    fn families_that_are_missing_are_named() {
        let none = || Err(refused(libc::EAFNOSUPPORT));
        is(&judge_tcp((Ok(()), Ok(())), Ok(())), Works, "IPv4 and IPv6");
        is(&judge_tcp((Ok(()), none()), Ok(())), Limited, "over IPv4 alone");
        is(&judge_tcp((none(), Ok(())), Ok(())), Limited, "--bind [::]:3000");
        is(&judge_tcp((none(), none()), Ok(())), Fails, "listen nowhere");
        is(&judge_tcp((Ok(()), Ok(())), Err(refused(1))), Fails, "permit listen and accept4");
    }

    #[test]
    fn what_the_kernel_refuses_has_a_consequence() {
        let refused = || Err(refused(libc::EPERM));
        is(&judge_hand_over(refused()), Fails, "AF_UNIX");
        is(&judge_pass_rights(Ok(false)), Limited, "6.16");
        is(&judge_pass_rights(Err(io::ErrorKind::PermissionDenied.into())), NotApplicable, "");
        is(&judge_netlink(refused()), Limited, "/proc/net/tcp");
        is(&judge_cookies(refused()), Fails, "least-connections");
        is(&judge_filter(refused()), Limited, "--accept workers");
        let steers =
            |steers: fn(io::Error) -> Steers| judge_steering(&steers(io::ErrorKind::PermissionDenied.into()));
        is(&steers(Steers::ByChance), Limited, "CAP_BPF");
        is(&steers(Steers::NotAtAll), Limited, "share one socket");
    }

    #[test]
    fn what_it_permits_works() {
        for found in [
            judge_hand_over(Ok(())),
            judge_pass_rights(Ok(true)),
            judge_netlink(Ok(())),
            judge_cookies(Ok(())),
            judge_filter(Ok(())),
            judge_steering(&Steers::InTurn),
        ] {
            is(&found, Works, "");
        }
    }

    #[test]
    fn migration_is_on_or_can_be_turned_on() {
        is(&judge_migrate(true, Err(refused(libc::EROFS))), Works, "is on");
        is(&judge_migrate(false, Ok(())), Works, "can turn it on");
        is(&judge_migrate(false, Err(refused(libc::EROFS))), Limited, "docker run --sysctl");
        is(&judge_migrate(false, Err(refused(libc::ENOENT))), Fails, "5.14");
    }

    #[test]
    fn a_backlog_is_compared_with_what_the_kernel_takes() {
        is(&judge_backlog(Some(4096), Some(4096)), Works, "4096");
        is(&judge_backlog(Some(4096), Some(128)), Limited, "sysctl -w net.core.somaxconn=4096");
        is(&judge_backlog(Some(4096), None), NotApplicable, "");
    }

    #[test]
    fn a_low_port_takes_a_privilege() {
        is(&judge_low_ports(1024, Ok(())), Works, "every port");
        is(&judge_low_ports(1024, Err(refused(libc::EADDRINUSE))), Works, "every port");
        is(&judge_low_ports(1024, Err(refused(libc::EACCES))), Limited, "CAP_NET_BIND_SERVICE");
        is(&judge_low_ports(80, Err(refused(libc::EADDRNOTAVAIL))), NotApplicable, "below 80");
    }
}
