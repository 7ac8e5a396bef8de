//! Two ends of one TCP connection, both in this process.
//!
//! There is no socketpair(2) for TCP, and servers expect their connections to be TCP: they ask for addresses and set
//! options.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use tokio::net::{TcpListener, TcpStream};

use crate::front::arrival::Arrival;

/// A connection over the loopback interface that arrives in this way: its client's end, its server's end in non-blocking mode, and the client's
/// address. Not bounded in time.
///
/// # Errors
/// Those of socket(2), bind(2), connect(2) and accept(2).
pub(super) async fn connected(arrival: Arrival) -> io::Result<(TcpStream, OwnedFd, SocketAddr)> {
    let (here, client_side): (IpAddr, IpAddr) = match arrival {
        Arrival::V4 => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()),
        Arrival::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), Ipv4Addr::LOCALHOST.into()),
        Arrival::V6 => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
    };
    let listener = TcpListener::bind((here, 0)).await?;
    let client = TcpStream::connect((client_side, listener.local_addr()?.port())).await?;
    client.set_nodelay(true)?;
    let address = client.local_addr()?;
    loop {
        let (server, peer) = listener.accept().await?;
        // Any process on this machine may connect to the port before this one does.
        if (peer.ip().to_canonical(), peer.port()) == (address.ip(), address.port()) {
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
        for (arrival, seen) in
            [(Arrival::V4, "127.0.0.1"), (Arrival::Mapped, "::ffff:127.0.0.1"), (Arrival::V6, "::1")]
        {
            let (mut client, server, address) = connected(arrival).await.unwrap();
            let mut server = TcpStream::from_std(server.into()).unwrap();
            assert_eq!(server.peer_addr().unwrap(), SocketAddr::new(seen.parse().unwrap(), address.port()));
            server.write_all(b"hello").await.unwrap();
            drop(server);
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "hello");
        }
    }
}
