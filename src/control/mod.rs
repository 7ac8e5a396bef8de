//! The control socket.

pub mod api;
pub mod peer;
pub mod place;
