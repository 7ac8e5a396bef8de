//! What has workers replaced without anybody asking: the time, changed files, and what one worker may use.
//!
//! Each trigger is a task of its own that only asks, as a command does; what follows is the supervisor's.

pub(crate) mod cron;
pub(crate) mod limits;
mod reload;
pub(crate) mod watch;
