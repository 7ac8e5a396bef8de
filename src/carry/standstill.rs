//! How a task is asked to stand still: it answers with what it has, and goes on when whoever asked lets it.
//!
//! What it has is true for as long as it stands still.

use tokio::sync::oneshot;

/// What a task is sent that is to stand still.
#[derive(Debug)]
pub(crate) struct StandStill<T> {
    state: oneshot::Sender<T>,
    go_on: oneshot::Receiver<()>,
}

/// A task that was asked to stand still. It goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Frozen<T> {
    state: Option<oneshot::Receiver<T>>,
    _go_on: oneshot::Sender<()>,
}

/// What a task is sent that is to stand still, and what whoever asks keeps.
pub(crate) fn stand_still<T>() -> (StandStill<T>, Frozen<T>) {
    let ((state, told), (go_on, waits)) = (oneshot::channel(), oneshot::channel());
    (StandStill { state, go_on: waits }, Frozen { state: Some(told), _go_on: go_on })
}

impl<T> StandStill<T> {
    /// Tells what the task has. What is returned is done when the task may go on; until then it is to change nothing.
    pub(crate) fn with(self, state: T) -> impl Future<Output = ()> + Send + use<T> {
        let Self { state: told, go_on } = self;
        // Who has asked may have given up, and then lets it go on.
        let _ = told.send(state);
        async move {
            let _ = go_on.await;
        }
    }

    /// The same for a thread without a runtime, which is held until it may go on.
    pub(crate) fn block_with(self, state: T) {
        let Self { state: told, go_on } = self;
        let _ = told.send(state);
        let _ = go_on.blocking_recv();
    }
}

impl<T> Frozen<T> {
    /// What the task has, once it stands still; `None` if it has ended, or this was asked before.
    pub(crate) async fn state(&mut self) -> Option<T> {
        self.state.take()?.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_task_stands_still_until_it_may_go_on() {
        let (asked, mut frozen) = stand_still();
        let mut stands = Box::pin(asked.with(7));
        assert_eq!(frozen.state().await, Some(7));
        assert_eq!(frozen.state().await, None);
        assert_eq!((&mut stands).now_or_never(), None);
        drop(frozen);
        stands.await;
    }

    #[tokio::test]
    async fn a_thread_stands_still_until_it_may_go_on() {
        let (asked, mut frozen) = stand_still();
        let thread = std::thread::spawn(move || asked.block_with(7));
        assert_eq!(frozen.state().await, Some(7));
        assert!(!thread.is_finished());
        drop(frozen);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_holds_nobody_and_who_has_ended_holds_nobody_up() {
        let (asked, frozen) = stand_still();
        drop(frozen);
        asked.with(()).await;
        let (asked, mut frozen) = stand_still::<()>();
        drop(asked);
        assert_eq!(frozen.state().await, None);
    }
}
