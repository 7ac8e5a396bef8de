//! How a worker is spoken to.
//!
//! - [`wire`]: the attach protocol's messages, shared with the shim.
//! - [`native`]: one channel of that protocol, as the front uses it.
//! - [`attach`]: the attach socket, where channels come from.

pub mod native;
pub mod wire;
