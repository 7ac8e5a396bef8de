//! Ends the primaries of apps, and waits until they have ended.
//!
//! They end as on SIGTERM: clients are served to the end.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::VerbError;
use crate::control::api::App;
use crate::control::client::{self, Clusterd};
use crate::control::home::Home;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// How long it may take: the longest drain and kill timeouts that make sense together. A second TERM makes it faster.
const PATIENCE: Duration = Duration::from_secs(600);

/// Ends this app's clusterd, and returns when it is gone.
///
/// # Errors
/// It may not be signalled, or does not end.
pub(super) async fn end((_, app): &(Clusterd, App)) -> Result<(), VerbError> {
    let pid = i32::try_from(app.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| VerbError::NotEnded(app.name.clone(), "it has no process id".to_owned()))?;
    kill_process(pid, Signal::TERM)
        .map_err(|error| VerbError::NotEnded(app.name.clone(), error.to_string()))?;
    let deadline = Instant::now() + PATIENCE;
    let home = Home::of_this_process();
    // Its socket goes at the very end, but for the process itself.
    while client::find_process(&home, app.pid).await.is_some() || is_alive(pid) {
        if Instant::now() > deadline {
            let after = humantime::format_duration(PATIENCE);
            return Err(VerbError::NotEnded(app.name.clone(), format!("it still runs after {after}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Whether there is such a process that has not ended.
fn is_alive(pid: Pid) -> bool {
    let stat = procfs::process::Process::new(pid.as_raw_pid()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.state != 'Z')
}
