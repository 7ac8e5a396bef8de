//! Connections of which only so many are open at once: a further one takes the place of the oldest, so that clients that
//! hold theirs without asking anything keep nobody out.
//!
//! It serves none of them itself.

use std::collections::VecDeque;

use tokio::task::{AbortHandle, JoinSet};

use super::stay::Stay;

/// The connections.
#[derive(Debug)]
pub(crate) struct Newest {
    most: usize,
    connections: JoinSet<()>,
    by_age: VecDeque<Open>,
}

/// One of them.
#[derive(Debug)]
struct Open {
    connection: AbortHandle,
    stay: Option<Stay>,
}

impl Newest {
    /// None yet, and never more than `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, connections: JoinSet::new(), by_age: VecDeque::new() }
    }

    /// Serves a further one.
    pub(crate) async fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.spawn_guest(connection, None).await;
    }

    /// Serves a further one, which keeps its place once it follows something.
    pub(crate) async fn spawn_guest(
        &mut self,
        connection: impl Future<Output = ()> + Send + 'static,
        stay: Option<Stay>,
    ) {
        while self.connections.try_join_next().is_some() {}
        self.by_age.retain(|open| !open.connection.is_finished());
        if self.by_age.len() >= self.most {
            self.end_one();
            self.connections.join_next().await;
        }
        self.by_age.push_back(Open { connection: self.connections.spawn(connection), stay });
    }

    /// Waits until all of them are served.
    pub(crate) async fn drain(&mut self) {
        while self.connections.join_next().await.is_some() {}
    }

    /// The oldest of those that follow nothing; there are fewer places for those that do than in all.
    fn end_one(&mut self) {
        let follows = |open: &Open| open.stay.as_ref().is_some_and(Stay::follows);
        let oldest = self.by_age.iter().position(|open| !follows(open)).unwrap_or(0);
        if let Some(oldest) = self.by_age.remove(oldest) {
            oldest.connection.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::stay::Followers;

    #[tokio::test]
    async fn who_follows_keeps_its_place_from_those_who_ask_nothing() {
        let mut connections = Newest::new(3);
        let followers = Followers::new(1);
        let alive = || {
            let held = Arc::new(());
            let connection = Arc::clone(&held);
            let connection = async move {
                let _connection = connection;
                std::future::pending().await
            };
            (held, connection)
        };
        let is_open = |held: &Arc<()>| Arc::strong_count(held) == 2;
        let (follower, connection) = alive();
        let stay = followers.client();
        stay.follow().unwrap();
        connections.spawn_guest(connection, Some(stay)).await;
        let mut silent = Vec::new();
        for _ in 0..5 {
            let (held, connection) = alive();
            connections.spawn_guest(connection, Some(followers.client())).await;
            silent.push(held);
        }
        assert!(is_open(&follower));
        assert_eq!(silent.iter().map(is_open).collect::<Vec<_>>(), [false, false, false, true, true]);
    }
}
