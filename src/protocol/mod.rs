//! How a worker is spoken to.
//!
//! - [`wire`]: the attach protocol's messages, shared with the shim.
//! - [`native`]: one channel of that protocol, as the front uses it.
//! - [`node`]: the messages of Node's own cluster protocol.
//! - [`notify`]: what a worker says of itself in the language of systemd.

pub mod native;
pub mod node;
pub mod notify;
pub mod wire;
