//! The control socket: commands and questions to a running clusterd, over HTTP on a Unix socket.
//!
//! Its server and its client share one [`api`]. It decides nothing about workers: that is the supervisor's.
//!
//! In reading order:
//!
//! - [`api`]: the messages.
//! - [`address`], [`home`] and [`peer`]: where the socket is, and who may be at its other end; [`app_name`]: names in paths.
//! - [`backend`]: what can be asked of an app; [`usage`]: what its workers use.
//! - `routes`, `extract`, `handlers`, `feed`, [`live`], [`snapshots`] and `respond`: what each request is answered.
//! - [`server`] and `hang_up`: the connections.
//! - [`client`]: the other side.

pub(crate) mod address;
pub(crate) mod api;
pub(crate) mod app_name;
pub(crate) mod backend;
pub(crate) mod client;
mod extract;
#[cfg(test)]
pub(crate) mod fake;
mod feed;
mod handlers;
mod hang_up;
pub(crate) mod home;
pub(crate) mod live;
pub(crate) mod peer;
mod respond;
pub(crate) mod routes;
pub(crate) mod server;
pub(crate) mod snapshots;
mod stream;
pub(crate) mod usage;
