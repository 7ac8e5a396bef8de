//! How long one client of the control socket may stay: a bounded time, or as long as it follows something.
//!
//! It closes nothing itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time;

use super::api::{Code, Problem};

/// The places of clients that stay without a limit. They are fewer than those of all, so that commands and `clusterd list`
/// are answered however many follow. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    places: Arc<Semaphore>,
    most: usize,
}

/// One client's stay. Clones are the same client's.
#[derive(Clone, Debug)]
pub(super) struct Stay {
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
    pub(super) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), most }
    }

    /// A client has come.
    pub(super) fn client(&self) -> Stay {
        Stay { followers: self.clone(), leave: Arc::new(watch::Sender::new(Leave::InTime)) }
    }
}

impl Stay {
    /// It follows events or an answer of a worker from now on, as long as it likes.
    pub(super) fn follow(&self) -> Result<(), Problem> {
        let Ok(place) = Arc::clone(&self.followers.places).try_acquire_owned() else {
            let message =
                format!("{} clients follow events or answers of workers already", self.followers.most);
            let help = "close some of them (clusterd events, clusterd curl)";
            return Err(Problem::new(Code::Overloaded, message).help(help));
        };
        self.leave.send_replace(Leave::AtWill(place));
        Ok(())
    }

    /// It follows a command from now on.
    pub(super) fn follow_command(&self) {
        self.leave.send_replace(Leave::AtEnd);
    }

    /// Completes when so much time has passed, unless the client follows something by then.
    pub(super) async fn is_over(&self, limit: Duration) {
        time::sleep(limit).await;
        if !matches!(*self.leave.borrow(), Leave::InTime) {
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
        let problem = followers.client().follow().unwrap_err();
        assert_eq!(problem.code, Code::Overloaded);
        followers.client().follow_command();
        drop(first);
        assert!(followers.client().follow().is_err(), "its request is still answered");
        drop(of_request);
        followers.client().follow().unwrap();
    }
}
