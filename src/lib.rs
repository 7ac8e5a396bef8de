//! clusterd turns any TCP server into a cluster of worker processes behind one port.
//!
//! The rooms, in reading order:
//!
//! - [`ids`]: what slots, launches and channels are called.
//! - [`config`]: what it was told to do; [`cli`]: how it is told on the command line.

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod front;
pub mod ids;
pub mod logs;
pub mod metrics;
pub mod preload;
pub mod primary;
pub mod protocol;
pub mod scheduler;
pub mod supervisor;
pub mod sys;
pub mod worker;
