//! A TCP listener for servers that run under clusterd: connections, readiness, drain.
//!
//! A server that runs under clusterd unchanged needs nothing of this. What the library adds to the preloaded shim is that
//! the server decides when it is ready, and learns that no further connection will come:
//!
//! ```no_run
//! use clusterd_worker::Listener;
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut listener = Listener::bind(3000).await?;
//! let mut open = tokio::task::JoinSet::new();
//! while let Some((mut stream, peer)) = listener.accept().await? {
//!     open.spawn(async move { stream.write_all(format!("hello, {peer}\n").as_bytes()).await });
//! }
//! // No further connection will come: finish what is open.
//! open.join_all().await;
//! # Ok(())
//! # }
//! ```
//!
//! Without clusterd (no `CLUSTERD_ATTACH_SOCKET` in the environment) the same program listens by itself.
//!
//! The library accepts and no more: it neither serves a protocol nor limits how many connections are open.

#![forbid(unsafe_code)]

mod channel;
mod error;
mod listener;
// The next three files belong to the command, which the library must not depend on; both include the same source.
#[cfg(test)]
mod scarcity;
#[allow(dead_code)]
mod seqpacket;
#[allow(dead_code)]
mod wire;

pub use error::BindError;
pub use listener::{Address, Listener, PausedListener};

#[cfg(test)]
mod tests;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
