//! `clusterd up`: the apps of a file in the foreground, each with a primary of its own, which is a child of this process.
//!
//! It supervises primaries and knows nothing of their workers. What the apps are is read by whoever calls it.
//!
//! In reading order: [`group`] (what is started when, and what it all ends with: pure), [`app`] (how a primary is started, and
//! what it does first), [`readiness`], [`signals`], [`reader`] (who reads the output), [`home`] (locks, and what is left behind: nothing), [`run`](mod@run) (carries it
//! out).

pub(crate) mod app;
mod group;
mod home;
mod reader;
mod readiness;
mod run;
mod signals;

pub(crate) use self::app::App;
pub(crate) use self::run::{Read, UpError, run};
