//! The sockets that Node workers ask for beyond the served ports: bound once, and shared by all who ask.
//!
//! It accepts nothing: each worker has a copy and accepts for itself, as under Node's `SCHED_NONE`. A socket lives
//! as long as a worker wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::ids::WorkerId;
use crate::protocol::node::{AddressType, Errno, HandleType, Query};

/// Node's own default for listen(2).
const BACKLOG: i32 = 511;

/// How many there may be; more is a worker gone wild.
const MOST: usize = 1024;

/// The sockets, by the key of the query.
#[derive(Debug, Default)]
pub struct Listeners {
    shared: BTreeMap<String, Shared>,
}

/// What all workers' servers of one address share.
#[derive(Debug)]
struct Shared {
    socket: Option<(OwnedFd, HandleType)>,
    path: Option<PathBuf>,
    data: Option<Box<RawValue>>,
    wanted_by: BTreeSet<WorkerId>,
}

impl Listeners {
    /// Remembers that `worker` listens on a served port, and returns the data that all servers of this key share:
    /// that of the first.
    pub fn join_served(&mut self, worker: WorkerId, query: &Query) -> Result<Option<&RawValue>, Errno> {
        let shared = self.join(worker, query, |_| Ok((None, None)))?;
        Ok(shared.data.as_deref())
    }

    /// The socket for a query, bound for the first who asks, and the data that all its servers share.
    ///
    /// # Errors
    /// What the worker is to be told.
    pub fn join_shared(
        &mut self,
        worker: WorkerId,
        query: &Query,
    ) -> Result<(BorrowedFd<'_>, HandleType, Option<&RawValue>), Errno> {
        let shared = self.join(worker, query, |query| {
            let (socket, handle, path) = open(query).map_err(|error| Errno::from(&error))?;
            Ok((Some((socket, handle)), path))
        })?;
        let (socket, handle) = shared.socket.as_ref().ok_or(Errno::ADDRESS_IN_USE)?;
        Ok((socket.as_fd(), *handle, shared.data.as_deref()))
    }

    fn join(
        &mut self,
        worker: WorkerId,
        query: &Query,
        open: impl FnOnce(&Query) -> Result<(Option<(OwnedFd, HandleType)>, Option<PathBuf>), Errno>,
    ) -> Result<&Shared, Errno> {
        let key = query.key();
        if !self.shared.contains_key(&key) {
            if self.shared.len() >= MOST {
                return Err(Errno::from(&io::Error::from_raw_os_error(libc::EMFILE)));
            }
            let (socket, path) = open(query)?;
            let data = query.data.clone();
            let shared = Shared { socket, path, data, wanted_by: BTreeSet::new() };
            self.shared.insert(key.clone(), shared);
        }
        let shared = self.shared.get_mut(&key).ok_or(Errno::UNKNOWN)?;
        shared.wanted_by.insert(worker);
        Ok(shared)
    }

    /// The worker does not listen there any more; what nobody wants is closed.
    pub fn leave(&mut self, worker: WorkerId, key: &str) {
        if let Some(shared) = self.shared.get_mut(key) {
            shared.wanted_by.remove(&worker);
            if shared.wanted_by.is_empty() {
                self.shared.remove(key);
            }
        }
    }

    /// The worker is gone.
    pub fn leave_all(&mut self, worker: WorkerId) {
        self.shared.retain(|_, shared| {
            shared.wanted_by.remove(&worker);
            !shared.wanted_by.is_empty()
        });
    }
}

impl Drop for Shared {
    /// libuv removes the path of a Unix socket when it closes it (`uv__pipe_close`).
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn open(query: &Query) -> io::Result<(OwnedFd, HandleType, Option<PathBuf>)> {
    match query.address_type {
        AddressType::V4 | AddressType::V6 => Ok((open_tcp(query)?, HandleType::Net, None)),
        AddressType::Udp4 | AddressType::Udp6 => Ok((open_udp(query)?, HandleType::Dgram, None)),
        AddressType::Pipe => {
            let (socket, path) = open_path(query)?;
            Ok((socket, HandleType::Net, path))
        }
        // A descriptor of the primary's: nothing that a worker could know of.
        AddressType::Descriptor => Err(io::Error::from_raw_os_error(libc::EBADF)),
    }
}

fn open_tcp(query: &Query) -> io::Result<OwnedFd> {
    let port = port(query)?;
    let at = |ip| listening_tcp(SocketAddr::new(ip, port), query);
    match address(query)? {
        Some(ip) => at(ip),
        None => at(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EINVAL) => at(Ipv4Addr::UNSPECIFIED.into()),
            _ => Err(error),
        }),
    }
}

fn listening_tcp(address: SocketAddr, query: &Query) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(query.flags & Query::IPV6_ONLY != 0)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(backlog(query))?;
    Ok(socket.into())
}

fn open_udp(query: &Query) -> io::Result<OwnedFd> {
    let any: IpAddr = match query.address_type {
        AddressType::Udp6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let address = SocketAddr::new(address(query)?.unwrap_or(any), port(query)?);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_reuse_address(query.flags & Query::REUSE_ADDRESS != 0)?;
    if address.is_ipv6() {
        socket.set_only_v6(query.flags & Query::IPV6_ONLY != 0)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// A Unix socket; its path is returned if there is one to be removed. `net.Server.listen` lets everyone read or write
/// if it is asked to, with the bits that libuv's `uv_pipe_chmod` adds.
fn open_path(query: &Query) -> io::Result<(OwnedFd, Option<PathBuf>)> {
    let given = query.address.as_deref().ok_or(io::ErrorKind::InvalidInput)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let name = abstract_name(given);
    let path = name.is_none().then(|| PathBuf::from(given));
    let address = match &name {
        Some(name) => SockAddr::unix(format!("\0{name}"))?,
        None => SockAddr::unix(given)?,
    };
    if let Some(path) = &path {
        remove_stale(path);
    }
    socket.bind(&address)?;
    if let Some(path) = &path {
        let read = if query.readable_all { 0o444 } else { 0 };
        let write = if query.writable_all { 0o222 } else { 0 };
        let mode = path.metadata()?.permissions().mode() | read | write;
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(backlog(query))?;
    Ok((socket.into(), path))
}

/// Node makes every path absolute before it sends it, also an abstract name: `/folder/\0name`.
fn abstract_name(path: &str) -> Option<&str> {
    path.split_once('\0').map(|(_, name)| name)
}

/// A socket that nobody listens on is left from a server that was killed.
fn remove_stale(path: &Path) {
    let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && nobody_listens(path).unwrap_or(false) {
        let _ = std::fs::remove_file(path);
    }
}

fn nobody_listens(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let reached = probe.connect(&SockAddr::unix(path)?);
    Ok(reached.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

fn address(query: &Query) -> io::Result<Option<IpAddr>> {
    let Some(address) = query.address.as_deref() else { return Ok(None) };
    // A zone (`fe80::1%eth0`) is beyond what a socket address can be parsed with.
    address.parse().map(Some).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn port(query: &Query) -> io::Result<u16> {
    u16::try_from(query.port).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn backlog(query: &Query) -> i32 {
    match i32::try_from(query.backlog) {
        Ok(backlog) if backlog > 0 => backlog,
        _ => BACKLOG,
    }
}
