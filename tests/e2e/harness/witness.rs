//! What a server sees of its clients, whatever it speaks: `fixtures/witness.c` is preloaded into it and tells.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::build;

/// A server that has answered has accepted before: what it saw is already on its way.
const LONGEST: Duration = Duration::from_secs(5);

/// Hears what the servers see that were started with its environment.
pub(crate) struct Witness(UdpSocket);

/// What accept, getpeername and getsockname gave a server: by the call, the family, the address, whose port it is, and
/// the length. `accepted` lacks where the server did not ask accept for the address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sighting(BTreeMap<String, String>);

impl Witness {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port on the loopback interface");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        Self(socket)
    }

    /// What makes the servers tell.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        static LIBRARY: OnceLock<String> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| build::library("witness", "witness.c")).clone();
        let port = self.0.local_addr().expect("it is bound").port().to_string();
        [("LD_PRELOAD", library), ("WITNESS_PORT", port)]
    }

    /// Forgets what was told so far.
    pub(crate) fn forget(&self) {
        self.0.set_nonblocking(true).expect("a socket");
        while self.0.recv(&mut [0; 1]).is_ok() {}
        self.0.set_nonblocking(false).expect("a socket");
    }

    /// What a server saw of the connection between these two addresses.
    #[track_caller]
    pub(crate) fn saw(&self, client: SocketAddr, server: SocketAddr) -> Sighting {
        let deadline = Instant::now() + LONGEST;
        while Instant::now() < deadline {
            if let Some(told) = self.hear()
                && let sighting = Sighting::of(&told, client.port(), server.port())
                && sighting.is_of_client()
            {
                return sighting;
            }
        }
        panic!("no server told what it saw of {client}");
    }

    fn hear(&self) -> Option<String> {
        let mut text = [0; 1024];
        match self.0.recv(&mut text) {
            Ok(length) => Some(String::from_utf8_lossy(&text[..length]).into_owned()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            Err(error) => panic!("the witness cannot be heard: {error}"),
        }
    }
}

impl Sighting {
    /// The lines `CALL FAMILY ADDRESS PORT LENGTH`, the ports of both ends by name.
    fn of(told: &str, client: u16, server: u16) -> Self {
        let whose = |port: &str| match port.parse::<u16>() {
            Ok(port) if port == client => "client's port".to_owned(),
            Ok(port) if port == server => "server's port".to_owned(),
            _ => port.to_owned(),
        };
        let lines = told.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        Self(
            lines
                .map(|words| match words[..] {
                    [call, family, address, port, length] => {
                        let port = whose(port);
                        (call.to_owned(), format!("family {family}, {address}, {port}, {length} bytes"))
                    }
                    _ => panic!("not what the witness says: {told}"),
                })
                .collect(),
        )
    }

    fn is_of_client(&self) -> bool {
        self.0.values().any(|seen| seen.contains("client's port"))
    }
}
