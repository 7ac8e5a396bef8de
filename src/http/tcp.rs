//! The clients of a TCP listener, each of them served within limits.
//!
//! Who may ask for what is the router's.

use std::time::Duration;

use axum::Router;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::time;

use super::newest::Newest;
use super::stay::Followers;
use super::{ACCEPT_PAUSE, ConnectionLimits, serve_guest};

/// How long a client may take nothing of what is sent to it (TCP_USER_TIMEOUT, tcp(7)): one that follows something has no
/// other limit.
const UNREAD: Duration = Duration::from_secs(30);

/// Accepts for ever. The requests have a [`Stay`](super::stay::Stay) among their extensions, by which they follow something
/// while there is a place.
pub(crate) async fn serve(
    listener: &TcpListener,
    router: &Router,
    limits: ConnectionLimits,
    followers: Followers,
    connections: &mut Newest,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a client of HTTP");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD)).is_ok() {
            let stay = followers.client();
            let served = serve_guest(stream, router.clone(), limits, stay.clone());
            connections.spawn_guest(served, Some(stay)).await;
        }
    }
}
