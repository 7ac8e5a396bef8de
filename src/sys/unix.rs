//! Unix stream sockets at paths of any length, and at abstract names.
//!
//! It decides nothing about who may be at the other end ([`Peer`](super::peer::Peer) tells who is).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::guarded;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Where a socket is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Name<'a> {
    /// A file.
    Path(&'a Path),
    /// A name of the network namespace (unix(7)).
    Abstract(&'a [u8]),
}

/// A new socket in non-blocking mode, listening at `name`. Nobody can send a descriptor to it, where the kernel can see to
/// that (Linux 6.16).
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2).
pub(crate) fn listen(name: Name<'_>, backlog: i32) -> io::Result<UnixListener> {
    let address = Address::of(name)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    guarded::pass_descriptors(&socket, false);
    rustix::net::bind(&socket, &address.socket)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket.into())
}

/// A new socket in non-blocking mode, connected to `name`, and to which nobody can send a descriptor as for [`listen`].
/// Never waits.
///
/// # Errors
/// Those of socket(2) and connect(2): `ConnectionRefused` if nobody listens, `WouldBlock` if the backlog is full.
pub(crate) fn connect(name: Name<'_>) -> io::Result<UnixStream> {
    let address = Address::of(name)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    guarded::pass_descriptors(&socket, false);
    rustix::net::connect(&socket, &address.socket)?;
    Ok(socket.into())
}

/// The abstract names of this network namespace that begin so and are listened at, as far as they are text.
///
/// # Errors
/// Those of reading /proc/net/unix.
pub(crate) fn listening(prefix: &str) -> io::Result<Vec<String>> {
    Ok(listening_in(&std::fs::read("/proc/net/unix")?, prefix))
}

/// Names may hold any byte, so a line may be less than one, and is not always text.
fn listening_in(table: &[u8], prefix: &str) -> Vec<String> {
    // __SO_ACCEPTON of include/uapi/linux/net.h, as the column of flags has it.
    const LISTENS: &str = "00010000";
    let name = |line: &[u8]| {
        let mut columns = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        (columns.nth(3)? == LISTENS).then(|| columns.nth(3))??.strip_prefix('@').map(str::to_owned)
    };
    let names = table.split(|&byte| byte == b'\n').filter_map(name);
    names.filter(|name| name.starts_with(prefix)).collect()
}

struct Address {
    socket: SocketAddrUnix,
    /// What the address names its folder by, to be open while the address is used.
    _folder: Option<OwnedFd>,
}

impl Address {
    fn of(name: Name<'_>) -> io::Result<Self> {
        match name {
            Name::Abstract(name) => {
                Ok(Self { socket: SocketAddrUnix::new_abstract_name(name)?, _folder: None })
            }
            Name::Path(path) => match SocketAddrUnix::new(path) {
                Err(Errno::NAMETOOLONG) => Self::by_descriptor(path),
                socket => Ok(Self { socket: socket?, _folder: None }),
            },
        }
    }

    /// A path that does not fit into an address (108 bytes) goes by way of a descriptor of its folder.
    fn by_descriptor(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { socket: SocketAddrUnix::new(&short)?, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};

    use super::*;

    fn is_reached(name: Name<'_>) {
        let listener = listen(name, 1).unwrap();
        let mut client = connect(name).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_name_of_any_kind_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        is_reached(Name::Path(&folder.path().join("short")));
        let deep = folder.path().join("x".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        is_reached(Name::Path(&deep.join("long")));
        assert!(deep.join("long").exists());
        is_reached(Name::Abstract(format!("clusterd-test-{:x}", fastrand::u64(..)).as_bytes()));
    }

    #[test]
    fn names_are_found_among_others_of_any_bytes() {
        let name = format!("clusterd-test-{:x}", fastrand::u64(..));
        let other = format!("{name}-\n\u{85} x").into_bytes();
        let _sockets = [listen(Name::Abstract(&other), 1), listen(Name::Abstract(name.as_bytes()), 1)];
        let _client = connect(Name::Abstract(name.as_bytes())).unwrap();
        let found = listening(&name).unwrap();
        assert_eq!(found.iter().filter(|found| **found == name).count(), 1, "{found:?}");
        let table = b"Num RefCount Protocol Flags Type St Inode Path\n\
            0: 2 0 00010000 0001 01 1 @a-1\n0: 2 0 00010000 0001 01 1 @a-\xff\n0: 3 0 00000000 0001 03 1 @a-2\n\
            0: 2 0 00010000 0001 01 1 /a-3\n0: 2 0 00010000 0001 01 1\nxx\n0: 2 0 00010000 0001 01 1 @b-1\n";
        assert_eq!(listening_in(table, "a-"), ["a-1"]);
    }

    #[test]
    fn a_full_backlog_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        let _listener = listen(Name::Path(&path), 0).unwrap();
        let refused = (0..8).map(|_| connect(Name::Path(&path))).find_map(Result::err);
        assert_eq!(refused.unwrap().kind(), ErrorKind::WouldBlock);
    }
}
