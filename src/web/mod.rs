//! The page: every app of a home, live, in a browser; or one app, at its `--metrics`.
//!
//! ```text
//!  each clusterd ── live ──▶ Hub ── feed ──▶ pages        `clusterd web`: behind a token, and with actions if it was told so
//!  this clusterd ── live ─────── own ──────▶ pages        `--metrics`: read only, and less where others than this machine see it
//! ```
//!
//! In reading order: [`page`] (the files that a browser gets), [`token`] and [`origin`] (who is answered), `home_state` and
//! [`hub`] (all apps, followed once for however many pages), `feed` (what one page gets), `log` and `forward` (what it asks for
//! besides), `routes` and [`server`] (how), [`own`] and `restricted` (the same of one app, at `--metrics`).
//!
//! It supervises nothing, and reads no state but by the API of each clusterd.

mod feed;
mod forward;
pub(crate) mod home_state;
pub(crate) mod hub;
mod log;
pub(crate) mod origin;
pub(crate) mod own;
pub(crate) mod page;
mod restricted;
mod routes;
pub(crate) mod server;
pub(crate) mod token;
