//! Ends the primaries of apps, and waits until they have ended.
//!
//! They end as on SIGTERM: clients are served to the end.

use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{VerbError, interrupt};
use crate::control::api::App;
use crate::sys::process::is_over;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// How long it may take: the longest drain and kill timeouts that make sense together. A second TERM makes it faster.
const PATIENCE: Duration = Duration::from_secs(600);

/// Ends this app's clusterd, and returns when it is gone.
///
/// # Errors
/// It may not be signalled, or does not end.
pub(super) async fn end(app: &App) -> Result<(), VerbError> {
    let not_ended = |why: String| VerbError::NotEnded(app.name.clone(), why);
    let pid = i32::try_from(app.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| not_ended("it has no process id".to_owned()))?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| not_ended(error.to_string()))?;
    interrupt::listen();
    pidfd_send_signal(&process, Signal::TERM).map_err(|error| not_ended(error.to_string()))?;
    let deadline = Instant::now() + PATIENCE;
    while !is_over(&process) {
        if Instant::now() > deadline {
            return Err(not_ended(format!("it still runs after {}", humantime::format_duration(PATIENCE))));
        }
        if interrupt::within(LOOK).await {
            let name = &app.name;
            return Err(VerbError::Interrupted(format!(
                "{name} goes on ending; `clusterd list` shows whether it has ended"
            )));
        }
    }
    Ok(())
}
