//! Who is at the other end of a Unix socket.
//!
//! It decides nothing about who may be.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The process at the other end of a Unix socket, when it connected (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its process id; 0 if it lives in a pid namespace that this one cannot see.
    pub pid: i32,
    /// Its effective user id.
    pub uid: u32,
}

impl Peer {
    /// Who is at the other end.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub(crate) fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len =
            libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `len` bytes to the pointer, which is the size of what it points to.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { pid: credentials.pid, uid: credentials.uid })
    }
}
