//! Watches whether apps get ready, each for as long as that takes.
//!
//! It asks their control sockets, as `clusterd start` does, and notices no ends.

use std::time::Duration;

use rustix::process::Pid;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::control::client;
use crate::control::home::Home;

/// How often it is looked, as long as the app is not late.
const LOOK: Duration = Duration::from_millis(50);

/// How often then.
const LOOK_LATE: Duration = Duration::from_millis(500);

/// How much longer than a worker an app may take to be ready.
const BEYOND: Duration = Duration::from_secs(5);

/// Those that are watched.
#[derive(Debug, Default)]
pub(super) struct Watched(JoinSet<Seen>);

/// What was seen of the primary of this app.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The app's place.
    pub app: usize,
    /// The process.
    pub primary: Pid,
    /// Whether it is ready; otherwise it should be, and is not.
    pub is_ready: bool,
}

impl Watched {
    /// Watches an app that was started, whose workers may take so long to be ready.
    pub(super) fn watch(&mut self, app: usize, primary: Pid, ready_timeout: Duration) {
        let deadline = Instant::now() + ready_timeout + BEYOND;
        self.0.spawn(async move {
            let is_ready = tokio::time::timeout_at(deadline, ready(primary, LOOK)).await.is_ok();
            Seen { app, primary, is_ready }
        });
    }

    /// What is seen next of any of them. One that is late is watched on.
    pub(super) async fn next(&mut self) -> Seen {
        while let Some(seen) = self.0.join_next().await {
            let Ok(seen) = seen else { continue };
            if !seen.is_ready {
                self.0.spawn(async move {
                    ready(seen.primary, LOOK_LATE).await;
                    Seen { is_ready: true, ..seen }
                });
            }
            return seen;
        }
        std::future::pending().await
    }
}

/// Never returns for a process that has ended: there are few of those, and they end with the whole.
async fn ready(primary: Pid, look: Duration) {
    let home = Home::of_this_process();
    let pid = primary.as_raw_pid().unsigned_abs();
    while client::find_process(&home, pid).await.is_none_or(|app| !app.is_up()) {
        tokio::time::sleep(look).await;
    }
}
