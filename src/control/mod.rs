//! The control socket: commands and questions to a running clusterd, over HTTP on a Unix socket.
//!
//! Its server and its client speak the same [`api`]. It decides nothing about workers: that is the supervisor's.
//!
//! In reading order:
//!
//! - [`api`]: what is said.
//! - [`address`], [`home`] and [`peer`]: where the socket is, and who may be at its other end.
//! - [`app`]: what can be asked of an app; [`usage`]: what its workers use.
//! - `answer` and `feed`: what each request is answered; [`server`]: to whom.
//! - [`client`]: the other side.

pub mod address;
mod answer;
pub mod api;
pub mod app;
pub mod client;
mod feed;
pub mod home;
pub mod peer;
pub mod server;
pub mod usage;
