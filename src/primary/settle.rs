//! Gives back the memory that the start has taken, once it is over.
//!
//! Twenty apps in the background are twenty primaries that wait: what each keeps is what it needs for that.

use std::time::Duration;

use tokio::sync::watch;

use crate::admin::Readiness;
use crate::sys::memory;

/// How long after the app is ready it is believed that nothing of the start goes on.
const SETTLED: Duration = Duration::from_secs(2);

/// Waits until the app is ready and the start is over. It is done once: what is used later is used again.
pub(super) async fn settle(mut readiness: watch::Receiver<Readiness>) {
    if readiness.wait_for(Readiness::is_ready).await.is_ok() {
        tokio::time::sleep(SETTLED).await;
        memory::give_back();
    }
}
