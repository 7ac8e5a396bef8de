//! Takes its time: it prepares before the first client comes, and finishes with the last one before it exits.
//!
//! ```console
//! $ cargo build --package clusterd-worker --example drain
//! $ clusterd --port 3000 --workers 2 -- target/debug/examples/drain
//! $ clusterd reload       # in another terminal, while clients are connected
//! ```
//!
//! Each line that a client sends comes back in upper case, until the client closes the connection. After the drain every
//! connection is closed behind the line that is under way, or at once if there is none. SIGTERM and Ctrl-C begin the same
//! end without clusterd.

use std::error::Error;
use std::io;
use std::time::Duration;

use clusterd_worker::Listener;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long an answer takes, as if there were something to compute.
const WORK: Duration = Duration::from_millis(300);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    // The port is taken at once, so that a mistake shows early; clients come when everything is prepared.
    let paused = Listener::bind_paused(port).await?;
    prepare().await;
    let mut listener = paused.ready()?;
    println!("listening on {}", listener.local_addr()?);

    let (drain, draining) = watch::channel(false);
    let mut open = JoinSet::new();
    tokio::select! {
        ended = accept(&mut listener, &mut open, &draining) => ended?,
        () = asked_to_end() => {}
    }
    // Connections that were handed over and not accepted go to other workers.
    drop(listener);
    drain.send_replace(true);
    let count = open.len();
    open.join_all().await;
    println!("drained {count} connections");
    Ok(())
}

/// Where a real server opens its database, fills its caches, and so on.
async fn prepare() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Serves connections until no further one comes.
async fn accept(
    listener: &mut Listener,
    open: &mut JoinSet<()>,
    draining: &watch::Receiver<bool>,
) -> io::Result<()> {
    while let Some((stream, _)) = listener.accept().await? {
        while open.try_join_next().is_some() {}
        let draining = draining.clone();
        open.spawn(async move {
            // How a connection fails is its client's affair.
            let _ = answer(stream, draining).await;
        });
    }
    Ok(())
}

async fn answer(mut stream: TcpStream, mut draining: watch::Receiver<bool>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    loop {
        let line = tokio::select! {
            biased;
            line = lines.next_line() => line?,
            _ = draining.wait_for(|draining| *draining) => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        tokio::time::sleep(WORK).await;
        write.write_all(format!("{}\n", line.to_uppercase()).as_bytes()).await?;
    }
}

async fn asked_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
