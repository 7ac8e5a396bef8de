//! A group of listening sockets on one address (SO_REUSEPORT, socket(7)): the program that chooses for each connection which
//! of them gets it, and how one of them stands.
//!
//! It decides nothing: what a program says is up to its caller.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::bpf::Instruction;
use super::socket;

/// The state of a socket that listens, as tcp_states.h numbers it.
const LISTEN: u8 = 10;

/// How a socket that was made to listen stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenerStatus {
    /// It does so still: nobody who has it has called shutdown(2).
    pub listens: bool,
    /// How many established connections wait in its backlog.
    pub backlog: usize,
}

/// Has a program of classic BPF choose among the listening sockets of this one's group, from now on and for all of them
/// (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)). It returns an index: in the order in which they began to listen, where the last
/// one takes the place of one that ceases to. The kernel chooses by itself where there is no such index.
///
/// # Errors
/// Those of setsockopt(2): `EINVAL` for a socket in no group, or a program that the kernel does not accept.
pub(crate) fn attach_program(listener: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads a `sock_fprog` from the pointer, and from there `len` instructions of a live slice of that
    // length. It writes to neither.
    unsafe { set_option(listener, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// The same with a program of extended BPF that is loaded (`SO_ATTACH_REUSEPORT_EBPF`). The group keeps it.
///
/// # Errors
/// Those of setsockopt(2).
pub(super) fn attach_loaded(listener: impl AsFd, program: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd();
    // SAFETY: the kernel reads a number from the pointer.
    unsafe { set_option(listener, libc::SO_ATTACH_REUSEPORT_EBPF, &program) }
}

/// # Safety
/// `T` is what the kernel reads for this option, and its pointers hold what it reads there.
unsafe fn set_option<T>(socket: impl AsFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (fd, value): (_, *const T) = (socket.as_fd().as_raw_fd(), value);
    // SAFETY: the kernel reads `size` bytes, which are there. What else it reads, the caller promises.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value.cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How a listening socket stands (TCP_INFO, tcp(7)).
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn status(listener: impl AsFd) -> io::Result<ListenerStatus> {
    let info = socket::tcp_info(listener)?;
    let listens = info.tcpi_state == LISTEN;
    Ok(ListenerStatus { listens, backlog: if listens { info.tcpi_unacked as usize } else { 0 } })
}

/// Whether the kernel passes what waits in the backlog of a socket that ceases to listen on to the others of its group
/// (`net.ipv4.tcp_migrate_req`, since Linux 5.14). It is that of this process's network namespace.
pub(crate) fn migrates() -> bool {
    std::fs::read_to_string(MIGRATES).is_ok_and(|value| value.trim() != "0")
}

/// Has the kernel do that, if it does not already.
///
/// # Errors
/// Those of writing the setting: it is the privileged user's, and in most containers read-only.
pub(crate) fn migrate() -> io::Result<()> {
    if migrates() { Ok(()) } else { std::fs::write(MIGRATES, "1") }
}

/// Whether [`migrate`] would be permitted. Nothing is written.
///
/// # Errors
/// Those of opening the setting: `NotFound` where the kernel has none.
pub(crate) fn may_migrate() -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(MIGRATES).map(drop)
}

/// The setting that these read and write.
const MIGRATES: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::net::Shutdown;

    use super::*;
    use crate::sys::bpf;

    #[test]
    fn a_listener_tells_how_many_wait_until_it_is_shut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(status(&listener).unwrap(), ListenerStatus { listens: true, backlog: 1 });
        rustix::net::shutdown(&listener, Shutdown::Read).unwrap();
        assert_eq!(status(&listener).unwrap(), ListenerStatus { listens: false, backlog: 0 });
    }

    #[test]
    fn a_socket_in_no_group_takes_no_program() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = [bpf::plain(bpf::RETURN, 0)];
        assert_eq!(attach_program(&listener, &first).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
