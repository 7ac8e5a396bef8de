//! Socket options that have no typed wrapper: raw setsockopt(2), and a filter that stops new handshakes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{SockFilter, SockRef};

use super::bpf::{self, Instruction, JUMP_IF_SET, LOAD_BYTE, RETURN};

/// Sets an option whose value is plain bytes: an `int`, or a small C structure without pointers.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn set_option(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `len` bytes from the pointer, which is a live slice of that length.
    let result = unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option into `value`: the part of it that the kernel filled.
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn option(socket: impl AsFd, level: i32, name: i32, value: &mut [u8]) -> io::Result<&[u8]> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes to the pointer, which is a live slice of that length.
    let result = unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.get(..len as usize).unwrap_or(value))
}

/// How many established connections wait in a TCP listener's backlog (`tcpi_unacked` of tcp(7)).
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn backlog_len(listener: impl AsFd) -> io::Result<usize> {
    Ok(tcp_info(listener)?.tcpi_unacked as usize)
}

/// Whether there is something to read, or to accept (poll(2)). If that cannot be found out, there may be.
pub(crate) fn is_readable(socket: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::IN)];
    !matches!(rustix::event::poll(&mut polled, Some(&Timespec::default())), Ok(0))
}

/// How many of them may wait there (`tcpi_sacked` of tcp(7)).
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn backlog_limit(listener: impl AsFd) -> io::Result<i32> {
    Ok(i32::try_from(tcp_info(listener)?.tcpi_sacked).unwrap_or(i32::MAX))
}

/// What the kernel knows of a TCP socket (TCP_INFO).
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn tcp_info(listener: impl AsFd) -> io::Result<libc::tcp_info> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len =
        libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes to the pointer, which is what `info` holds.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `tcp_info` is integers only, and every byte that the kernel did not write is zero.
    Ok(unsafe { info.assume_init() })
}

/// Lets a TCP listener drop every new SYN, while handshakes that have begun can still be completed.
///
/// A client whose SYN is dropped sends it again after a second; a listener that was closed instead would reset
/// clients that are already connected in its backlog. Connections accepted from now on need [`welcome_late`].
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn drop_new_handshakes(listener: impl AsFd) -> io::Result<()> {
    match filter_new_handshakes(&listener) {
        // Some kernels keep filters for the privileged.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => set_least_hops(listener, u8::MAX),
        filtered => filtered,
    }
}

/// Undoes [`drop_new_handshakes`].
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn take_new_handshakes(listener: impl AsFd) -> io::Result<()> {
    match SockRef::from(&listener).detach_filter() {
        // There is none where the kernel keeps filters for the privileged.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        Ok(()) | Err(_) => set_least_hops(listener, 0),
    }
}

/// Makes a connection whole that was accepted after [`drop_new_handshakes`].
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn welcome_late(connection: impl AsFd) -> io::Result<()> {
    set_least_hops(connection, 0)
}

/// [`drop_new_handshakes`] by a filter that looks at the flags of the TCP header (`SO_ATTACH_FILTER`, socket(7)), after
/// which accepted connections need nothing.
///
/// # Errors
/// Those of setsockopt(2): `PermissionDenied` where the kernel keeps filters for the privileged.
pub(crate) fn filter_new_handshakes(listener: impl AsFd) -> io::Result<()> {
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    const ACCEPT_ALL: u32 = u32::MAX;
    let filter = [
        bpf::plain(LOAD_BYTE, FLAGS_OFFSET),
        bpf::branch(JUMP_IF_SET, SYN, 0, 1),
        bpf::plain(RETURN, 0),
        bpf::plain(RETURN, ACCEPT_ALL),
    ];
    attach_filter(listener, &filter)
}

/// Has a program of classic BPF say how much of each packet a socket gets (`SO_ATTACH_FILTER`, socket(7)).
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn attach_filter(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let of_socket2 = |&Instruction { code, jt, jf, k }: &Instruction| SockFilter::new(code, jt, jf, k);
    let program: Vec<_> = program.iter().map(of_socket2).collect();
    SockRef::from(&socket).attach_filter(&program)
}

/// By asking for more hops to live than packets have (`IP_MINTTL`, ip(7)): the kernel applies it to what reaches
/// the listener itself, a SYN, and not to what completes a handshake. The new connection inherits it, though.
fn set_least_hops(socket: impl AsFd, hops: u8) -> io::Result<()> {
    let value = i32::from(hops).to_ne_bytes();
    let over_ipv4 = set_option(&socket, libc::IPPROTO_IP, libc::IP_MINTTL, &value);
    // Only an IPv6 socket has this one, and a dual-stack one has both.
    let over_ipv6 = set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &value);
    over_ipv6.or(over_ipv4)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn the_backlog_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(super::backlog_len(&listener).unwrap(), 0);
        let address = listener.local_addr().unwrap();
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        assert_eq!(super::backlog_len(&listener).unwrap(), 2);
    }

    /// `stop` keeps new connections out, while one that waits in the backlog is served.
    fn keeps_out_newcomers_alone(address: &str, stop: impl Fn(&TcpListener) -> std::io::Result<()>) {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = TcpStream::connect(address).unwrap();
        stop(&listener).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        let (mut accepted, _) = listener.accept().unwrap();
        super::welcome_late(&accepted).unwrap();
        waiting.write_all(b"?").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        accepted.write_all(b"served").unwrap();
        drop((accepted, listener));
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "served");
    }

    #[test]
    fn new_connections_can_be_kept_out_while_old_ones_are_served() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            keeps_out_newcomers_alone(address, |listener| super::drop_new_handshakes(listener));
            keeps_out_newcomers_alone(address, |listener| super::set_least_hops(listener, u8::MAX));
        }
    }

    #[test]
    fn new_connections_can_be_taken_again() {
        for has_filter in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            match has_filter {
                true => super::drop_new_handshakes(&listener).unwrap(),
                false => super::set_least_hops(&listener, u8::MAX).unwrap(),
            }
            super::take_new_handshakes(&listener).unwrap();
            TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
        }
    }
}
