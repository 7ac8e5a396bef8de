//! Workers' processes: how one is started, as whom and with what, and how its end is noticed.
//!
//! When one is wanted is not decided here.

pub mod exec_context;
pub mod guardian;
pub mod identity;
pub mod notify_socket;
pub mod oom;
pub mod reaper;
pub mod spawn;
