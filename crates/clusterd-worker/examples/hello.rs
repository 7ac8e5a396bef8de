//! Greets whoever connects. Each connection gets one line: the worker's number and the client's address.
//!
//! ```console
//! $ cargo build --package clusterd-worker --example hello
//! $ clusterd --port 3000 --workers 2 -- target/debug/examples/hello
//! ```
//!
//! Without clusterd it listens by itself, on `PORT` or 3000.

use std::error::Error;

use clusterd_worker::Listener;
use tokio::io::AsyncWriteExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let worker = std::env::var("CLUSTERD_WORKER_ID").unwrap_or_else(|_| "alone".to_owned());
    let mut listener = Listener::bind(port).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut open = tokio::task::JoinSet::new();
    while let Some((mut stream, client)) = listener.accept().await? {
        let greeting = format!("hello {client}, this is worker {worker}\n");
        open.spawn(async move { stream.write_all(greeting.as_bytes()).await });
        // Forget those that are done.
        while open.try_join_next().is_some() {}
    }
    open.join_all().await;
    Ok(())
}
