//! Everything that is written for people and log collectors: the workers' output and clusterd's own messages.
//!
//! It decides neither what a message says nor what happens to a worker: it only carries lines.
//!
//! ```text
//! worker's pipe ── capture ──┐ waits for room     ┌── writer thread ── stdout, stderr
//!                            ├────► queue ────────┤
//! tracing event ── messages ─┘ never waits        └── writer thread ── file ── set aside ── compressed
//! ```
//!
//! Where lines go is in [`plan`].

mod capture;
mod compress;
pub(crate) mod console;
mod cut;
mod drops;
mod ending;
mod file;
pub(crate) mod follow;
mod ids;
mod last;
mod lines;
pub(crate) mod look;
pub mod messages;
mod open_pipes;
pub(crate) mod plan;
mod queue;
pub(crate) mod read;
pub(crate) mod rotation;
mod snapshot;
pub(crate) mod source_file;
mod standstill;
mod text;
mod write;

pub(crate) use ids::{WorkerIds, id_of};
pub(crate) use last::LastLines;
pub(crate) use snapshot::OutputSnapshot;
pub use write::Output;
pub(crate) use write::{OutputError, Stream};
