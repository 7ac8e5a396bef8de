//! The processes that have connected to the attach socket and have said nothing yet, and who of them has to go when there
//! are too many; and how often it is said that one was refused.
//!
//! Anybody may connect. Users keep out nobody but themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How many there may be of all users, and of each.
const MOST: usize = 96;
const MOST_OF_ONE: usize = 64;

/// How long nothing more is said of refused processes after something was.
const QUIET: Duration = Duration::from_secs(10);

/// Those that are waited for, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<(u32, oneshot::Sender<()>)>);

impl Waiting {
    /// There is another, of this user. What is returned ends when it has to go: the first of its user if that has too many,
    /// else, if there are too many at all, the first of the user that has most.
    pub(super) fn joined(&mut self, uid: u32) -> oneshot::Receiver<()> {
        self.0.retain(|(_, process)| !process.is_closed());
        let mut counts = BTreeMap::new();
        self.0.iter().for_each(|(uid, _)| *counts.entry(*uid).or_insert(0) += 1);
        let goes = match counts.get(&uid) {
            Some(&count) if count >= MOST_OF_ONE => Some(uid),
            _ if self.0.len() >= MOST => {
                counts.into_iter().max_by_key(|(_, count)| *count).map(|(uid, _)| uid)
            }
            _ => None,
        };
        let first = goes.and_then(|goes| self.0.iter().position(|(uid, _)| *uid == goes));
        first.map(|at| self.0.remove(at));
        let (stays, goes) = oneshot::channel();
        self.0.push_back((uid, stays));
        goes
    }
}

/// Whether a refusal is to be said. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// How many were not said since the last one, if this one is to be said.
    pub(super) fn say(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: u32 = 0;
    const STRANGER: u32 = 65534;

    fn has_to_go(process: &mut oneshot::Receiver<()>) -> bool {
        matches!(process.try_recv(), Err(oneshot::error::TryRecvError::Closed))
    }

    #[test]
    fn a_user_with_too_many_keeps_out_itself_alone() {
        let mut waiting = Waiting::default();
        let mut worker = waiting.joined(WORKERS);
        let mut strangers: Vec<_> = (0..MOST_OF_ONE).map(|_| waiting.joined(STRANGER)).collect();
        assert!(!strangers.iter_mut().any(has_to_go), "there is room for all of them");
        for at in 0..MOST_OF_ONE {
            strangers.push(waiting.joined(STRANGER));
            assert!(has_to_go(&mut strangers[at]) && !has_to_go(&mut strangers[at + 1]), "the first goes");
        }
        assert!(!has_to_go(&mut worker));
    }

    #[test]
    fn of_many_users_the_one_with_most_has_to_go() {
        let mut waiting = Waiting::default();
        let mut worker = waiting.joined(WORKERS);
        let mut strangers: Vec<_> = (0..MOST - 1).map(|at| waiting.joined(1 + at as u32 % 3)).collect();
        let mut another = waiting.joined(9);
        assert_eq!(strangers.iter_mut().filter_map(|process| has_to_go(process).then_some(())).count(), 1);
        assert!(!has_to_go(&mut worker) && !has_to_go(&mut another));
        drop(strangers);
        let _workers: Vec<_> = (0..MOST_OF_ONE - 1).map(|_| waiting.joined(WORKERS)).collect();
        assert!(!has_to_go(&mut worker), "those that have spoken make room");
    }

    #[test]
    fn what_is_refused_often_is_said_at_times_with_a_count() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.say(now), Some(0));
        assert_eq!([1, 9].map(|seconds| complaints.say(now + Duration::from_secs(seconds))), [None, None]);
        assert_eq!(complaints.clone().say(now + QUIET), Some(2));
        assert_eq!(complaints.say(now + QUIET * 2), Some(0));
    }
}
