//! [`WebServer`]: the listening socket of `clusterd web`, and how many connections it has at a time.
//!
//! What is answered is decided in `routes`.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use rustix::system::uname;
use tokio::net::TcpListener;

use super::feed::Greeting;
use super::routes::{self, WebState};
use super::token::Token;
use crate::control::home::Home;
use crate::http::newest::Newest;
use crate::http::stay::Followers;
use crate::http::{ConnectionLimits, tcp};
use crate::sys::users;

const LIMITS: ConnectionLimits =
    ConnectionLimits { connections: 128, head: Duration::from_secs(5), total: Duration::from_secs(30) };

/// How many pages and logs may be open at once.
const FOLLOWERS: usize = 64;

/// A server that listens.
#[derive(Debug)]
pub(crate) struct WebServer {
    listener: StdListener,
    address: SocketAddr,
}

impl WebServer {
    /// Listens on `address`; port 0 asks the kernel for a free one.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Where it listens; the port is the real one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for ever who has the token; with `actions`, orders are carried out.
    ///
    /// # Errors
    /// The socket cannot be watched (epoll_ctl(2)).
    pub(crate) async fn serve(self, home: Home, token: Token, actions: bool) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let greeting = Greeting {
            version: env!("CARGO_PKG_VERSION"),
            host: Some(host_name()),
            user: users::own().map(|user| user.name),
            actions,
            logs: true,
            connections: true,
            token: true,
        };
        let router = routes::router(WebState::new(home, token, greeting));
        let mut connections = Newest::new(LIMITS.connections);
        tcp::serve(&listener, &router, LIMITS, Followers::new(FOLLOWERS), &mut connections).await;
        Ok(())
    }
}

/// What this machine is called.
pub(crate) fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}
