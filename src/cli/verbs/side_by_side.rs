//! Many apps are started, several at once, each after those that it needs.
//!
//! How one is started is the caller's.

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// How many are started at once: each waits most of the time, for its workers.
const AT_ONCE: usize = 8;

/// How it stands with an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is not started yet.
    Waiting,
    /// It is being started.
    Starting,
    /// It has come up, or was not to.
    Up,
    /// It has not.
    Failed,
    /// One that it needs has not: this one.
    Skipped(usize),
}

/// Starts all of them; `needs` are the places of those that each one needs. How each came out, in their order.
///
/// # Errors
/// The first that cannot even be tried; those that are being started meanwhile are given up.
pub(super) async fn start_all<F, E>(needs: &[Vec<usize>], start: impl Fn(usize) -> F) -> Result<Vec<State>, E>
where
    F: Future<Output = Result<bool, E>>,
{
    let mut states = vec![State::Waiting; needs.len()];
    let mut underway = FuturesUnordered::new();
    loop {
        skip(needs, &mut states);
        for place in next(needs, &states) {
            states[place] = State::Starting;
            let started = start(place);
            underway.push(async move { (place, started.await) });
        }
        let Some((place, started)) = underway.next().await else { return Ok(states) };
        states[place] = if started? { State::Up } else { State::Failed };
    }
}

/// Those that wait in vain are not started.
fn skip(needs: &[Vec<usize>], states: &mut [State]) {
    loop {
        let in_vain = (0..states.len()).find_map(|place| {
            let failed = |need: &&usize| matches!(states[**need], State::Failed | State::Skipped(_));
            let need = needs[place].iter().find(failed).filter(|_| states[place] == State::Waiting)?;
            Some((place, *need))
        });
        let Some((place, need)) = in_vain else { return };
        states[place] = State::Skipped(need);
    }
}

/// Those that are next, and for which there is room.
fn next(needs: &[Vec<usize>], states: &[State]) -> Vec<usize> {
    let room = AT_ONCE.saturating_sub(states.iter().filter(|state| **state == State::Starting).count());
    let is_next = |place: &usize| {
        states[*place] == State::Waiting && needs[*place].iter().all(|&need| states[need] == State::Up)
    };
    (0..states.len()).filter(is_next).take(room).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// In which order they begin and end, if those with an odd place fail; and what becomes of each.
    async fn story(needs: &[Vec<usize>], fails: impl Fn(usize) -> bool) -> (Vec<String>, Vec<State>) {
        let said = RefCell::new(Vec::new());
        let states = start_all(needs, |place| {
            let (said, fails) = (&said, fails(place));
            async move {
                said.borrow_mut().push(format!("{place} begins"));
                tokio::task::yield_now().await;
                said.borrow_mut().push(format!("{place} ends"));
                Ok::<_, ()>(!fails)
            }
        });
        let states = states.await.unwrap();
        (said.into_inner(), states)
    }

    #[tokio::test]
    async fn what_needs_nothing_is_started_side_by_side() {
        let (said, states) = story(&[vec![], vec![], vec![0, 1]], |_| false).await;
        let (mut first, then) = (said[..4].to_vec(), &said[4..]);
        assert!(first[..2].iter().all(|line| line.ends_with("begins")), "{first:?}");
        first.sort();
        assert_eq!(first, ["0 begins", "0 ends", "1 begins", "1 ends"]);
        assert_eq!(then, ["2 begins", "2 ends"]);
        assert_eq!(states, [State::Up; 3]);
    }

    #[tokio::test]
    async fn what_needs_one_that_failed_is_not_started() {
        let (mut said, states) = story(&[vec![], vec![0], vec![1], vec![]], |place| place == 0).await;
        said.sort();
        assert_eq!(said, ["0 begins", "0 ends", "3 begins", "3 ends"]);
        assert_eq!(states, [State::Failed, State::Skipped(0), State::Skipped(1), State::Up]);
    }

    #[tokio::test]
    async fn no_more_than_some_are_started_at_once() {
        let (said, states) = story(&vec![vec![]; 20], |_| false).await;
        let mut most = (0, 0);
        for line in said {
            most.0 = if line.ends_with("begins") { most.0 + 1 } else { most.0 - 1 };
            most.1 = most.1.max(most.0);
        }
        assert_eq!((most.1, states), (AT_ONCE, vec![State::Up; 20]));
    }

    #[tokio::test]
    async fn an_error_ends_it() {
        let needs = [vec![], vec![0]];
        let started = start_all(&needs, |_| async { Err::<bool, _>("no folder") }).await;
        assert_eq!(started, Err("no folder"));
    }
}
