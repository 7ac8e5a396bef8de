//! A reload that nobody is there to watch: that of `--cron` and `--watch`.
//!
//! When one is due is decided by them, how it goes by the supervisor, which also says in the log how it went.

use tracing::{info, warn};

use super::events::Asker;
use super::{Command, Handle, Refused};

/// Reloads, and returns when that is over. While another reload is under way it waits for its end, once: what has to
/// be loaded may have come after that began. A reload that fails leaves the old workers serving.
pub async fn reload(supervisor: &Handle, by: Asker) {
    let mut refused = begin(supervisor, &by).await;
    if let Some(Refused::Busy { .. }) = refused {
        let mut status = supervisor.status();
        // An error says that the supervisor has ended, which the next line finds out too.
        let _ = status.wait_for(|app| app.reload.is_none()).await;
        refused = begin(supervisor, &by).await;
    }
    match refused {
        None | Some(Refused::Stopping) => {}
        Some(Refused::Stopped) => {
            info!("no reload, by {by}: the app is stopped, and starts with what is there then")
        }
        Some(refused) => warn!("no reload, by {by}: {refused}"),
    }
}

/// Why it is not carried out; `None` once it was, whatever came of it.
async fn begin(supervisor: &Handle, by: &Asker) -> Option<Refused> {
    match supervisor.begin(Command::Reload, by.clone()).await {
        Ok(underway) => {
            let _ = underway.done().await;
            None
        }
        Err(refused) => Some(refused),
    }
}
