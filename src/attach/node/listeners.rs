//! What Node workers listen on: one entry for all servers of one address, which lives as long as a worker wants it.
//!
//! A TCP port is the front's, be it one that is always served or one that is bound here. Unix and UDP sockets stay here
//! and are shared: each worker has a copy and accepts for itself, as under Node's `SCHED_NONE`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde_json::value::RawValue;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::super::on_demand::Openings;
use super::snapshot::{EntrySnapshot, SourceSnapshot, json, wrong};
use crate::carry::{CarriedFd, CarriedFds, Raw};
use crate::front::bound::{Bound, ListeningSocket};
use crate::ids::{ServiceId, WorkerId, WorkerPort};
use crate::protocol::node::{AddressType, Errno, HandleType, Query};
use crate::settings::Bind;
use crate::sys::acting::with_rights_of_workers;
use crate::sys::closer::ForeignFd;
use crate::sys::process::Credentials;

/// Node's own default for listen(2).
const BACKLOG: u32 = 511;

/// The length of `sun_path` (unix(7)).
const SUN_PATH: usize = 108;

/// How many there may be; more is a worker gone wild.
const MOST: usize = 1024;

/// The entries, by the key of the query.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// Whom workers run as, if not as clusterd does.
    user: Option<Credentials>,
    entries: BTreeMap<String, Entry>,
    openings: Openings,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// What the first server said that all of them share.
    data: Option<Box<RawValue>>,
    wanted_by: BTreeSet<WorkerId>,
}

/// Where the servers of one address get their connections.
#[derive(Debug)]
enum Source {
    /// From the front, or from a socket that it keeps.
    Service { id: ServiceId, address: SocketAddr },
    /// From the socket itself.
    Shared(Shared),
}

/// A socket that all workers share.
#[derive(Debug)]
struct Shared {
    /// What clients have sent to one of a path lies in it unread.
    socket: ForeignFd,
    handle: HandleType,
    path: Option<OwnPath>,
}

/// The path of such a socket.
#[derive(Debug)]
struct OwnPath {
    path: PathBuf,
    /// Whose it is.
    user: Option<Credentials>,
    /// It is to stay when this is dropped.
    stays: bool,
}

/// What a server that joined an entry is to get.
#[derive(Debug)]
pub(crate) enum Joined {
    /// What the front has.
    Service {
        /// Of this service.
        id: ServiceId,
        /// Where it listens, as the server shall see it.
        address: SocketAddr,
        /// Its sockets, if the front has to be told of it first.
        open: Option<Bound>,
    },
    /// A copy of a socket.
    Shared(ForeignFd, HandleType),
}

/// What becomes of an address that a worker has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It is still listened on, or always served.
    Open,
    /// It is closed here.
    Closed,
    /// The front is to close it.
    Unwanted(ServiceId),
}

impl Listeners {
    /// None yet. Workers of another `user` get what that one may
    /// have: what they ask for is bound, and a path removed, with its rights.
    pub(crate) fn new(user: Option<Credentials>, openings: Openings) -> Self {
        Self { user, entries: BTreeMap::new(), openings }
    }

    /// Joins a server of `worker` to the entry for its query, which is made for the first. `served` are the ports
    /// that are always served.
    ///
    /// # Errors
    /// What the worker is to be told.
    pub(crate) fn join(
        &mut self,
        worker: WorkerId,
        query: &Query,
        served: &[WorkerPort],
    ) -> Result<Joined, Errno> {
        let key = query.key();
        let mut to_open = None;
        if !self.entries.contains_key(&key) {
            if self.entries.len() >= MOST {
                return Err(Errno::from(&io::Error::from_raw_os_error(libc::EMFILE)));
            }
            let user = self.user.clone();
            let source = with_rights_of_workers(user.as_ref(), || self.source(query, served, &mut to_open));
            let source = source.map_err(|error| errno(&error, query))?;
            let entry = Entry { source, data: query.data.clone(), wanted_by: BTreeSet::new() };
            self.entries.insert(key.clone(), entry);
        }
        let entry = self.entries.get_mut(&key).ok_or(Errno::UNKNOWN)?;
        let joined = match &entry.source {
            Source::Service { id, address } => Joined::Service { id: *id, address: *address, open: to_open },
            Source::Shared(shared) => {
                let copy = shared.socket.try_clone().map_err(|error| Errno::from(&error))?;
                Joined::Shared(copy, shared.handle)
            }
        };
        entry.wanted_by.insert(worker);
        Ok(joined)
    }

    fn source(
        &mut self,
        query: &Query,
        served: &[WorkerPort],
        to_open: &mut Option<Bound>,
    ) -> io::Result<Source> {
        if !matches!(query.address_type, AddressType::V4 | AddressType::V6) {
            return shared(query, self.user.clone()).map(Source::Shared);
        }
        let port = port(query)?;
        let address = address(query, port)?;
        let asked = address.unwrap_or(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
        if served.contains(&WorkerPort(port)) {
            return Ok(Source::Service { id: ServiceId::Port(WorkerPort(port)), address: asked });
        }
        let only_ipv6 = query.flags & Query::IPV6_ONLY != 0;
        let everywhere = asked.ip() == Ipv6Addr::UNSPECIFIED && !only_ipv6;
        let bind = if everywhere { Bind::Everywhere { port } } else { Bind::Address(asked) };
        let socket = ListeningSocket::new(bind, backlog(query))
            .inspect_err(|error| self.openings.refused(bind.address(), error))?;
        let (id, address) = (self.openings.next(), socket.address());
        *to_open = Some(Bound::Socket(socket));
        Ok(Source::Service { id, address })
    }

    /// What all servers of this key share.
    pub(crate) fn data(&self, key: &str) -> Option<&RawValue> {
        self.entries.get(key)?.data.as_deref()
    }

    /// The TCP ports that were opened here.
    pub(crate) fn opened_ports(&self) -> Vec<u16> {
        let ports = self.entries.values().filter_map(|entry| match &entry.source {
            Source::Service { id: ServiceId::Opened(_), address } => Some(address.port()),
            Source::Service { .. } | Source::Shared(_) => None,
        });
        ports.collect()
    }

    /// The worker does not listen there any more. What nobody wants is gone.
    pub(crate) fn leave(&mut self, worker: WorkerId, key: &str) -> Left {
        let Some(entry) = self.entries.get_mut(key) else { return Left::Open };
        entry.wanted_by.remove(&worker);
        if !entry.wanted_by.is_empty() {
            return Left::Open;
        }
        match self.entries.remove(key).map(|entry| entry.source) {
            Some(Source::Service { id: id @ ServiceId::Opened(_), .. }) => Left::Unwanted(id),
            Some(Source::Shared(_)) => Left::Closed,
            Some(Source::Service { .. }) | None => Left::Open,
        }
    }
}

impl Listeners {
    /// As they are written down, while no worker listens anew or leaves.
    pub(super) fn snapshot(&self) -> Vec<EntrySnapshot> {
        let entries = self.entries.iter().map(|(key, entry)| EntrySnapshot {
            key: key.clone(),
            source: entry.source.snapshot(),
            data: entry.data.as_ref().map(|data| data.get().to_owned()),
            wanted_by: entry.wanted_by.iter().copied().collect(),
        });
        entries.collect()
    }

    /// Goes on with these. Paths stay when they are dropped, until [`Listeners::leave_paths`] says otherwise.
    ///
    /// # Errors
    /// What was written down cannot be, or a descriptor was not carried.
    pub(super) fn restore(&mut self, entries: Vec<EntrySnapshot>, fds: &CarriedFds) -> io::Result<()> {
        for EntrySnapshot { key, source, data, wanted_by } in entries {
            let (source, data) = (Source::restore(source, fds)?, data.map(json).transpose()?);
            let entry = Entry { source, data, wanted_by: wanted_by.into_iter().collect() };
            if self.entries.insert(key, entry).is_some() {
                return Err(wrong("an address that Node workers listen on is there twice"));
            }
        }
        Ok(())
    }

    /// Whether paths stay when their sockets are dropped: another image of clusterd may go on with them.
    pub(crate) fn leave_paths(&mut self, stay: bool) {
        for entry in self.entries.values_mut() {
            if let Source::Shared(Shared { path: Some(path), .. }) = &mut entry.source {
                path.stays = stay;
            }
        }
    }
}

impl Source {
    fn snapshot(&self) -> SourceSnapshot {
        match self {
            Source::Service { id, address } => SourceSnapshot::Service { id: *id, address: *address },
            Source::Shared(Shared { socket, handle, path }) => SourceSnapshot::Shared {
                socket: CarriedFd::of(socket),
                handle: (*handle).into(),
                path: path.as_ref().map(|own| Raw::from(own.path.as_path())),
                user: path.as_ref().and_then(|own| own.user.as_ref()).map(Into::into),
            },
        }
    }

    fn restore(snapshot: SourceSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        match snapshot {
            SourceSnapshot::Service { id, address } => Ok(Source::Service { id, address }),
            SourceSnapshot::Shared { socket, handle, path, user } => {
                let user = user.map(Credentials::try_from).transpose()?;
                let path = path.map(|path| OwnPath { path: path.into(), user, stays: true });
                Ok(Source::Shared(Shared { socket: fds.take(socket)?.into(), handle: handle.into(), path }))
            }
        }
    }
}

impl Drop for OwnPath {
    /// libuv removes the path of a Unix socket when it closes it (`uv__pipe_close`).
    fn drop(&mut self) {
        if !self.stays {
            // Where the path leads by now is in the hands of whoever may write to its folders.
            let _ = with_rights_of_workers(self.user.as_ref(), || std::fs::remove_file(&self.path));
        }
    }
}

fn shared(query: &Query, user: Option<Credentials>) -> io::Result<Shared> {
    match query.address_type {
        AddressType::Udp4 | AddressType::Udp6 => {
            Ok(Shared { socket: open_udp(query)?.into(), handle: HandleType::Dgram, path: None })
        }
        AddressType::Pipe => {
            let (socket, path) = open_path(query)?;
            let path = path.map(|path| OwnPath { path, user, stays: false });
            Ok(Shared { socket: socket.into(), handle: HandleType::Net, path })
        }
        // A descriptor of the primary's, and none of those is a listener that a worker could mean.
        AddressType::V4 | AddressType::V6 | AddressType::Descriptor => {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }
}

/// libuv says EACCES for a path in no folder (`uv_pipe_bind`).
fn errno(error: &io::Error, query: &Query) -> Errno {
    match query.address_type {
        AddressType::Pipe if error.kind() == io::ErrorKind::NotFound => {
            Errno::from(&io::Error::from_raw_os_error(libc::EACCES))
        }
        _ => Errno::from(error),
    }
}

fn open_udp(query: &Query) -> io::Result<OwnedFd> {
    let any: IpAddr = match query.address_type {
        AddressType::Udp6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let port = port(query)?;
    let address = address(query, port)?.unwrap_or(SocketAddr::new(any, port));
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
    match (&name, &path) {
        // libuv fills all of `sun_path`, so that the name ends in zero bytes, and its clients look for that.
        (Some(name), _) => {
            socket.bind(&SockAddr::unix(format!("\0{name:\0<width$}", width = SUN_PATH - 1))?)?;
        }
        (None, Some(path)) => {
            let place = Place::of(path)?;
            remove_stale(path, &place.address);
            socket.bind(&place.address)?;
        }
        (None, None) => {}
    }
    if let Some(path) = &path {
        let read = if query.readable_all { 0o444 } else { 0 };
        let write = if query.writable_all { 0o222 } else { 0 };
        let mode = path.metadata()?.permissions().mode() | read | write;
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(i32::try_from(backlog(query)).unwrap_or(i32::MAX))?;
    Ok((socket.into(), path))
}

/// Node makes every path absolute before it sends it, also an abstract name: `/folder/\0name`.
fn abstract_name(path: &str) -> Option<&str> {
    path.split_once('\0').map(|(_, name)| name)
}

/// A path as bind(2) and connect(2) take it.
struct Place {
    address: SockAddr,
    /// What the address leads through.
    _folder: Option<OwnedFd>,
}

impl Place {
    /// Node makes the relative path of a worker absolute before it sends it, which may make it too long for `sun_path`.
    /// Then its folder is opened, and the way there is short.
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() < SUN_PATH {
            return Ok(Self { address: SockAddr::unix(path)?, _folder: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { address: SockAddr::unix(short)?, _folder: Some(folder) })
    }
}

/// A socket that nobody listens on is left from a server that was killed.
fn remove_stale(path: &Path, address: &SockAddr) {
    let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && nobody_listens(address).unwrap_or(false) {
        let _ = std::fs::remove_file(path);
    }
}

fn nobody_listens(address: &SockAddr) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let reached = probe.connect(address);
    Ok(reached.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// The address that a server asks for, at this port; none for every address.
fn address(query: &Query, port: u16) -> io::Result<Option<SocketAddr>> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let Some(address) = query.address.as_deref() else { return Ok(None) };
    let Some((address, zone)) = address.split_once('%') else {
        let ip: IpAddr = address.parse().map_err(|_| invalid())?;
        return Ok(Some(SocketAddr::new(ip, port)));
    };
    let ip = address.parse().map_err(|_| invalid())?;
    Ok(Some(SocketAddrV6::new(ip, port, 0, interface(zone)?).into()))
}

/// The number of a network interface, as `fe80::1%eth0` names it.
fn interface(name: &str) -> io::Result<u32> {
    let any = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let number = rustix::net::netdevice::name_to_index(any, name);
    number.map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn port(query: &Query) -> io::Result<u16> {
    u16::try_from(query.port).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn backlog(query: &Query) -> u32 {
    u32::try_from(query.backlog).ok().filter(|&backlog| backlog > 0).unwrap_or(BACKLOG)
}
