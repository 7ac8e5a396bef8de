//! Node's cluster protocol, as a primary speaks it: bytes in, typed messages out, and back with descriptors.
//!
//! It has no sockets, no tasks and no clock, and takes no decision: what to answer is the caller's business.
//!
//! The channel is a stream Unix socket that both ends write lines to, each a JSON value. A line may carry one
//! descriptor. What the lines mean follows Node's `lib/internal/cluster` and `lib/internal/child_process.js`.
//!
//! - [`message`]: what the two sides say to each other.
//! - [`codec`]: the lines of one channel, in and out.
//! - [`errno`]: how a failure is told to a worker.

pub mod codec;
pub mod errno;
pub mod message;
mod reach;

pub use codec::{Decoder, Fault, Full, MAX_LINE, MAX_QUEUED, Outgoing};
pub use errno::Errno;
pub use message::{AddressType, FromNode, HandleType, Query, Seq, SocketQuestion, ToNode, offered};
