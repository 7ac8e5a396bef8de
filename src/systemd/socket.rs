//! Where messages to the service manager go: one datagram each, to the socket that `NOTIFY_SOCKET` names.
//!
//! It does not know what they say. The crate sd-notify was not taken: it may block, and knows no abstract names.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tracing::warn;

/// How long a message may wait for room at the service manager.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager's socket.
#[derive(Clone, Debug)]
pub(super) struct ManagerSocket(SocketAddr);

impl ManagerSocket {
    /// The one that clusterd was started with; `None` if nobody wants to be told anything.
    pub(super) fn from_environment() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        match address(&name) {
            Ok(address) => Some(Self(address)),
            Err(error) => {
                warn!("cannot notify the service manager at NOTIFY_SOCKET={}: {error}", name.display());
                None
            }
        }
    }

    /// Sends one message, or says in the log that it could not be sent.
    pub(super) async fn say(&self, message: &str) {
        let sent = tokio::time::timeout(PATIENCE, self.send(message.as_bytes())).await;
        if let Err(error) = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            warn!("cannot notify the service manager: {error}");
        }
    }

    /// As sd_notify(3), with a socket for each message: the one at the other end may be replaced by a new one.
    async fn send(&self, message: &[u8]) -> io::Result<()> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.0)?;
        UnixDatagram::from_std(socket)?.send(message).await.map(drop)
    }
}

/// `/path` or `@abstract`; sd_notify(3) also knows vsock, for virtual machines as a whole.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::other("must be a path or an abstract name (@...)")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::net::UnixDatagram as Socket;

    use super::*;

    /// A service manager that listens at an abstract name and does not block, and the way to it.
    pub(crate) fn manager() -> (Socket, ManagerSocket) {
        let name = format!("clusterd-test-{:016x}", fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = Socket::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, ManagerSocket(address))
    }

    #[test]
    fn paths_and_abstract_names_are_understood() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname(), Some("/run/systemd/notify".as_ref()));
        assert_eq!(address(OsStr::new("@a/b")).unwrap().as_abstract_name(), Some(b"a/b".as_slice()));
        for name in ["", "relative", "vsock:2:1234"] {
            assert!(address(OsStr::new(name)).is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_message_is_one_datagram() {
        let (manager, socket) = manager();
        socket.say("READY=1\nSTATUS=x\n").await;
        let mut buffer = [0; 64];
        let len = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"READY=1\nSTATUS=x\n");
    }

    #[tokio::test]
    async fn a_manager_that_is_gone_or_reads_nothing_holds_nobody_up() {
        let (reader, socket) = manager();
        drop(reader);
        assert!(socket.send(b"READY=1").await.is_err());
        let (_manager, socket) = manager();
        let fill = async { while socket.send(&[b'x'; 1024]).await.is_ok() {} };
        let filled = tokio::time::timeout(Duration::from_millis(300), fill).await;
        assert!(filled.is_err(), "it waits for room, and lets others run");
    }
}
