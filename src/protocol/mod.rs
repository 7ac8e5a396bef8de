//! How a worker is spoken to.
//!
//! - [`wire`]: the attach protocol's messages, shared with the shim.
//! - [`native`]: one channel of that protocol, as the front uses it.

pub mod native;
pub mod wire;
