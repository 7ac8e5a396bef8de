//! `clusterd monit`: the apps of this user on one screen, live.
//!
//! ```text
//!  whoever looks (cli::verbs::monit) ── News ──▶ Model ── Effect ──▶ whoever acts
//!  keys of the terminal ───────────────────────▶   │
//!                                                  └── view ──▶ the screen
//! ```
//!
//! [`model`] is what is shown and chosen, and [`keys`] what a key means: both are pure. [`view`] draws the model, and
//! [`screen`] is the terminal. It asks no clusterd itself, gives no order, and reads no file.

mod figures;
mod format;
mod keys;
mod model;
mod order;
mod screen;
mod view;

#[cfg(test)]
pub(crate) use self::model::tests as testing;
pub(crate) use self::model::{Effect, Happened, Look, News, Running, Written};
pub(crate) use self::order::Order;
pub(crate) use self::screen::{Ended, run};
