//! An axum application in a cluster. `axum::serve` takes any listener; this file makes clusterd's one of them.
//!
//! ```console
//! $ cargo build --package clusterd-worker --example axum
//! $ clusterd --port 3000 --workers 2 -- target/debug/examples/axum
//! $ curl http://127.0.0.1:3000/
//! $ clusterd reload       # no request fails
//! ```
//!
//! Without clusterd it listens by itself, on `PORT` or 3000, and ends with SIGTERM or Ctrl-C.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clusterd_worker::Listener;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Before the next attempt when no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// From the end of accepting to the end of the connections that are idle. The request of a client that has connected just
/// now may be on its way, and axum closes connections without one at once.
const LAST_REQUEST: Duration = Duration::from_millis(300);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let worker = std::env::var("CLUSTERD_WORKER_ID").unwrap_or_else(|_| "alone".to_owned());
    let app = Router::new().route("/", get(move || async move { format!("hello from worker {worker}\n") }));

    let listener = Listener::bind(port).await?;
    println!("listening on {}", listener.local_addr()?);
    let (drained, no_more) = watch::channel(false);
    axum::serve(Workers { listener, drained }, app).with_graceful_shutdown(ended(no_more)).await?;
    Ok(())
}

/// A listener as `axum::serve` wants it: one that always brings another connection, so that its end is told beside it.
struct Workers {
    listener: Listener,
    drained: watch::Sender<bool>,
}

impl axum::serve::Listener for Workers {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(Some(connection)) => return connection,
                Ok(None) => break,
                Err(error) if is_fatal(&error) => {
                    eprintln!("{error}");
                    break;
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        self.drained.send_replace(true);
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// No connection will come after such an error.
fn is_fatal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}

/// Waits until no further connection comes, or somebody wants the server to end.
async fn ended(mut no_more: watch::Receiver<bool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = no_more.wait_for(|drained| *drained) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::time::sleep(LAST_REQUEST).await;
}
