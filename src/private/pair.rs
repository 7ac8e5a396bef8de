//! Two ends of one TCP connection, both in this process.
//!
//! There is no socketpair(2) for TCP, and servers expect their connections to be TCP: they ask for addresses and set
//! options.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use tokio::net::{TcpListener, TcpStream};

/// A connection over the loopback interface: its client's end, its server's end in non-blocking mode, and the client's
/// address. Not bounded in time.
///
/// # Errors
/// Those of socket(2), bind(2), connect(2) and accept(2).
pub(super) async fn connected() -> io::Result<(TcpStream, OwnedFd, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    client.set_nodelay(true)?;
    let address = client.local_addr()?;
    loop {
        let (server, peer) = listener.accept().await?;
        // Any process on this machine may connect to the port before this one does.
        if peer == address {
            return Ok((client, server.into_std()?.into(), address));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_ends_are_those_of_one_connection() {
        let (mut client, server, address) = connected().await.unwrap();
        let mut server = TcpStream::from_std(server.into()).unwrap();
        assert_eq!(server.peer_addr().unwrap(), address);
        server.write_all(b"hello").await.unwrap();
        drop(server);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
    }
}
