//! Everything that is written for people and log collectors: the workers' output and clusterd's own messages.
//!
//! It decides neither what a message says nor what happens to a worker: it only carries lines.
//!
//! ```text
//! worker's pipe ── capture ──┐ waits for room     ┌── writer thread ── stdout
//!                            ├────► queue ────────┤
//! tracing event ── messages ─┘ never waits        └── writer thread ── stderr
//! ```

mod capture;
mod last;
mod lines;
mod look;
pub mod messages;
mod open_pipes;
mod queue;
mod write;

pub(crate) use last::LastLines;
pub use write::Output;
pub(crate) use write::{OutputError, Stream};
