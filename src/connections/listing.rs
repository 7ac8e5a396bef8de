//! The sockets of clients' connections, as the kernel lists them at one moment.
//!
//! It asks over netlink, and where that is not to be had reads `/proc/net/tcp`, which lists every socket of the machine and
//! measures nothing.

use std::collections::HashMap;
use std::io;

use procfs::ProcError;
use procfs::net::{TcpNetEntry, TcpState};
use tracing::warn;

use super::notes::Client;
use super::table::Table;
use crate::sys::sock_diag::{SockDiag, TcpSocket, state};

/// How it asks.
#[derive(Debug)]
pub(super) enum Listing {
    /// Over netlink.
    Netlink(SockDiag),
    /// It has yet to begin, for want of descriptors for instance.
    NotYet,
    /// By reading files.
    Files,
}

impl Listing {
    /// Prepares to ask.
    pub(super) fn new() -> Self {
        let mut listing = Self::NotYet;
        // What passes is tried again when it is needed.
        let _ = listing.open();
        listing
    }

    fn open(&mut self) -> io::Result<()> {
        if matches!(self, Self::NotYet) {
            match SockDiag::open() {
                Ok(diag) => *self = Self::Netlink(diag),
                Err(error) => return self.refused(error),
            }
        }
        Ok(())
    }

    /// The connections to these ports. Their cookies are those of the table where the kernel does not tell them.
    ///
    /// # Errors
    /// It cannot be told now.
    pub(super) fn connections(&mut self, ports: &[u16], table: &Table) -> io::Result<Vec<TcpSocket>> {
        self.open()?;
        if let Self::Netlink(diag) = self {
            match diag.connections(ports) {
                Err(error) => {
                    // An answer may be left half read.
                    *self = Self::NotYet;
                    self.refused(error)?;
                }
                listed => return listed,
            }
        }
        from_files(ports, &table.by_client())
    }

    fn refused(&mut self, error: io::Error) -> io::Result<()> {
        if !is_refusal(&error) {
            return Err(error);
        }
        warn!(
            "cannot list connections over netlink: {error}; reading /proc/net/tcp instead, which takes longer and tells neither \
             bytes nor times"
        );
        *self = Self::Files;
        Ok(())
    }
}

/// Whether it would be refused again: the kernel does not have it, or a filter of system calls forbids it.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPERM
                | libc::EACCES
                | libc::ENOSYS
                | libc::ENOENT
                | libc::EINVAL
                | libc::EOPNOTSUPP
                | libc::EAFNOSUPPORT
                | libc::EPROTONOSUPPORT
                | libc::ESOCKTNOSUPPORT
        )
    )
}

fn from_files(ports: &[u16], cookies: &HashMap<Client, u64>) -> io::Result<Vec<TcpSocket>> {
    let mut entries = procfs::net::tcp().map_err(into_io)?;
    match procfs::net::tcp6() {
        Ok(more) => entries.extend(more),
        // Absent where the kernel has no IPv6.
        Err(ProcError::NotFound(_)) => {}
        Err(error) => return Err(into_io(error)),
    }
    let sockets = entries.into_iter().filter(|entry| ports.contains(&entry.local_address.port()));
    let mut sockets: Vec<TcpSocket> = sockets.filter_map(|entry| socket(&entry, cookies)).collect();
    sockets.sort_unstable_by_key(|socket| socket.cookie);
    sockets.dedup_by_key(|socket| socket.cookie);
    Ok(sockets)
}

fn socket(entry: &TcpNetEntry, cookies: &HashMap<Client, u64>) -> Option<TcpSocket> {
    let state = match entry.state {
        TcpState::Established => state::ESTABLISHED,
        TcpState::CloseWait => state::CLOSE_WAIT,
        TcpState::FinWait1 => state::FIN_WAIT1,
        TcpState::FinWait2 => state::FIN_WAIT2,
        TcpState::LastAck => state::LAST_ACK,
        TcpState::Closing => state::CLOSING,
        _ => return None,
    };
    let remote = entry.remote_address;
    let noted = cookies.get(&remote.into()).copied();
    // One that was not noted needs a name of its own: no cookie has this bit.
    let cookie = noted.unwrap_or_else(|| 1 << 63 | u64::from(remote.port()) << 40 | entry.inode);
    Some(TcpSocket {
        cookie,
        inode: entry.inode,
        state,
        local: entry.local_address,
        remote,
        unread: entry.rx_queue,
        unacknowledged: entry.tx_queue,
        dropped: None,
        figures: None,
    })
}

fn into_io(error: ProcError) -> io::Error {
    match error {
        ProcError::Io(error, _) => error,
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        error => io::Error::other(error),
    }
}
