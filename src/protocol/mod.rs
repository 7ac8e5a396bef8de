//! How a worker is spoken to.

pub mod wire;
