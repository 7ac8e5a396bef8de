//! Closes what was not admitted, on threads that may wait: who sends a descriptor decides how long its last close(2) takes
//! (SO_LINGER, socket(7)), and nobody that is not a worker may hold the main thread up.
//!
//! It also bounds how many connections the attach socket has in hand, be they heard, admitted or closed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many there may be at once.
const TURNS: usize = 128;

/// Gives out the turns.
#[derive(Clone, Debug)]
pub(super) struct Closer(Arc<Semaphore>);

/// The right to have a connection in hand.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "it is there to be dropped")] OwnedSemaphorePermit);

impl Default for Closer {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TURNS)))
    }
}

impl Closer {
    /// Waits until there is room for another; `None` never comes, for nobody closes the semaphore.
    pub(super) async fn turn(&self) -> Option<Turn> {
        Arc::clone(&self.0).acquire_owned().await.ok().map(Turn)
    }
}

impl Turn {
    /// Closes `stranger` elsewhere; the turn is over when that is done.
    pub(super) fn close(self, stranger: impl Send + 'static) {
        tokio::task::spawn_blocking(move || {
            drop(stranger);
            drop(self);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Takes a second to close.
    struct Slow;

    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    #[tokio::test]
    async fn a_close_that_takes_long_holds_nobody_up_and_keeps_its_turn() {
        let closer = Closer(Arc::new(Semaphore::new(1)));
        let begin = Instant::now();
        closer.turn().await.unwrap().close(Slow);
        assert!(begin.elapsed() < Duration::from_millis(900), "it is closed elsewhere");
        closer.turn().await.unwrap();
        assert!(begin.elapsed() >= Duration::from_secs(1), "the turn is over when it is closed");
    }
}
