//! How long one client may stay: a bounded time, or as long as it follows something.
//!
//! It closes nothing itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time;

/// The places of clients that stay without a limit. They are fewer than those of all, so that those who only ask something
/// are answered however many follow. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Followers {
    places: Arc<Semaphore>,
    most: usize,
}

/// So many follow something already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} clients follow something already")]
pub(crate) struct AllTaken(pub usize);

/// One client's stay. Clones are the same client's.
#[derive(Clone, Debug)]
pub(crate) struct Stay {
    followers: Followers,
    leave: Arc<watch::Sender<Leave>>,
}

/// What bounds a client's stay.
#[derive(Debug)]
enum Leave {
    /// The time since it came.
    InTime,
    /// Its command, of which an app has one at a time.
    AtEnd,
    /// Nothing, but it has one of the places for that.
    AtWill(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit),
}

impl Followers {
    /// So many places.
    pub(crate) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), most }
    }

    /// How many follow something as long as they like.
    pub(crate) fn count(&self) -> usize {
        self.most.saturating_sub(self.places.available_permits())
    }

    /// A client has come.
    pub(crate) fn client(&self) -> Stay {
        Stay { followers: self.clone(), leave: Arc::new(watch::Sender::new(Leave::InTime)) }
    }
}

impl Stay {
    /// It follows events or an answer of a worker from now on, as long as it likes.
    ///
    /// # Errors
    /// There is no place left.
    pub(crate) fn follow(&self) -> Result<(), AllTaken> {
        let place = Arc::clone(&self.followers.places).try_acquire_owned();
        let place = place.map_err(|_| AllTaken(self.followers.most))?;
        self.leave.send_replace(Leave::AtWill(place));
        Ok(())
    }

    /// Whether it follows something.
    pub(crate) fn follows(&self) -> bool {
        !matches!(*self.leave.borrow(), Leave::InTime)
    }

    /// It follows a command from now on.
    pub(crate) fn follow_command(&self) {
        self.leave.send_replace(Leave::AtEnd);
    }

    /// Completes when so much time has passed, unless the client follows something by then.
    pub(crate) async fn is_over(&self, limit: Duration) {
        time::sleep(limit).await;
        if self.follows() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_follows_stays() {
        let followers = Followers::new(1);
        let (quick, events, command) = (followers.client(), followers.client(), followers.client());
        events.follow().unwrap();
        command.follow_command();
        let limit = Duration::from_millis(1);
        quick.is_over(limit).await;
        for stay in [events, command] {
            assert!(time::timeout(20 * limit, stay.is_over(limit)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_place_is_free_when_its_client_has_left() {
        let followers = Followers::new(1);
        let first = followers.client();
        let of_request = first.clone();
        first.follow().unwrap();
        assert_eq!(followers.client().follow(), Err(AllTaken(1)));
        followers.client().follow_command();
        drop(first);
        assert!(followers.client().follow().is_err(), "its request is still answered");
        drop(of_request);
        followers.client().follow().unwrap();
    }
}
