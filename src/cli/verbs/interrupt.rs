//! Ctrl-C while something is waited for that goes on without this command.
//!
//! Who listens says what goes on. A second Ctrl-C ends the command at once, and so does the first one where nobody listens.

use std::future::Future;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::sys::signals;
use crate::tasks;

/// What a shell says of a command that SIGINT has ended.
pub(super) const CODE: u8 = 130;

/// Whether it was heard; `None` within where it cannot be, or was ignored before this command was started, as by nohup(1).
static HEARD: OnceLock<Option<watch::Receiver<bool>>> = OnceLock::new();

/// Listens from now on.
pub(super) fn listen() {
    HEARD.get_or_init(|| {
        if signals::is_ignored(Signal::INT) {
            return None;
        }
        let mut arrivals = signal(SignalKind::interrupt()).ok()?;
        let (tell, heard) = watch::channel(false);
        tasks::spawn(async move {
            arrivals.recv().await;
            let _ = tell.send(true);
            arrivals.recv().await;
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::TERM);
        });
        Some(heard)
    });
}

fn receiver() -> Option<watch::Receiver<bool>> {
    HEARD.get()?.clone()
}

/// Whether it was heard.
pub(super) fn is_heard() -> bool {
    receiver().is_some_and(|heard| *heard.borrow())
}

/// What comes of this; `None` once it is interrupted. That it listens is said by [`listen`] before.
pub(super) async fn or<T>(work: impl Future<Output = T>) -> Option<T> {
    let Some(mut heard) = receiver() else { return Some(work.await) };
    tokio::select! {
        biased;
        Ok(_) = heard.wait_for(|heard| *heard) => None,
        done = work => Some(done),
    }
}

/// Waits so long, or until it is interrupted. Whether it was.
pub(super) async fn within(time: Duration) -> bool {
    or(tokio::time::sleep(time)).await.is_none()
}

/// The code of a command that is done, or was interrupted.
pub(super) fn code(done: ExitCode) -> ExitCode {
    if is_heard() { ExitCode::from(CODE) } else { done }
}
