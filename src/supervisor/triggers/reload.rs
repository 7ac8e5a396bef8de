//! A reload that nobody is there to watch: that of `--cron` and `--watch`.
//!
//! When one is due is decided by them, how it goes by the supervisor, which also says in the log how it went.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::supervisor::events::Asker;
use crate::supervisor::{Command, Handle, Overview, Refused};

/// Reloads, and returns when that is over. While another reload is under way it waits for its end, once: what has to
/// be loaded may have come after that began. A reload that fails leaves the old workers serving.
pub(super) async fn reload(supervisor: &Handle, by: Asker) {
    let begin = || begin(supervisor.clone(), by.clone());
    match after_another(begin, supervisor.status()).await {
        None | Some(Refused::Stopping) => {}
        // The supervisor has told it.
        Some(Refused::Configuration(_)) => {}
        Some(Refused::Stopped) => {
            info!("skipping the reload by {by}: the app is stopped");
        }
        Some(refused) => warn!("skipping the reload by {by}: {refused}"),
    }
}

/// Why it is not carried out; `None` once it was, whatever came of it.
async fn begin(supervisor: Handle, by: Asker) -> Option<Refused> {
    match supervisor.begin(Command::Reload, by).await {
        Ok(underway) => {
            let _ = underway.done().await;
            None
        }
        Err(refused) => Some(refused),
    }
}

/// Tries, and tries again after the reload that is in the way. Why that was refused; `None` if it was not.
async fn after_another<F: Future<Output = Option<Refused>>>(
    mut begin: impl FnMut() -> F,
    mut status: watch::Receiver<Arc<Overview>>,
) -> Option<Refused> {
    let refused = begin().await;
    if !matches!(refused, Some(Refused::Busy { .. })) {
        return refused;
    }
    // An error says that the supervisor has ended, which the next try finds out too.
    let _ = status.wait_for(|app| app.reload.is_none()).await;
    begin().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Option<Refused> {
        Some(Refused::Busy { by: Asker::Cron })
    }

    /// The answers that are given one after the other, and how many of them were asked for.
    async fn ask(answers: &[Option<Refused>]) -> (Option<Refused>, usize) {
        let under_way = Overview { reload: Some(Asker::Cron), ..Overview::default() };
        let (publish, status) = watch::channel(Arc::new(under_way));
        let mut asked = 0;
        let last = after_another(
            || {
                asked += 1;
                publish.send_replace(Arc::default());
                std::future::ready(answers[asked - 1].clone())
            },
            status,
        );
        (last.await, asked)
    }

    #[tokio::test]
    async fn another_reload_is_waited_for_once() {
        assert_eq!(ask(&[busy(), None]).await, (None, 2));
        assert_eq!(ask(&[busy(), busy()]).await, (busy(), 2));
    }

    #[tokio::test]
    async fn nothing_else_is_tried_again() {
        assert_eq!(ask(&[None]).await, (None, 1));
        assert_eq!(ask(&[Some(Refused::Stopped)]).await, (Some(Refused::Stopped), 1));
    }
}
