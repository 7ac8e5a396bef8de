//! Whether there is room for more that waits to be closed.
//!
//! It counts nothing itself: it is told how many wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Whether more may be brought, and who wants to know when.
pub(super) struct Room {
    most: usize,
    is_full: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Room {
    pub(super) const fn of(most: usize) -> Self {
        Self { most, is_full: AtomicBool::new(false), wakers: Mutex::new(Vec::new()) }
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// So many wait by now. Full is full until half of them are closed.
    pub(super) fn update(&self, waiting: usize) {
        let is_full = self.is_full();
        if !is_full && waiting >= self.most {
            self.is_full.store(true, Ordering::Relaxed);
        } else if is_full && waiting <= self.most / 2 {
            let mut wakers = self.wakers();
            self.is_full.store(false, Ordering::Relaxed);
            wakers.drain(..).for_each(Waker::wake);
        }
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers();
        // Whoever makes room has the wakers for that.
        if !self.is_full() {
            return Poll::Ready(());
        }
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ROOM, ROOM_FOR_SENT};
    use super::*;

    #[test]
    fn clients_are_accepted_while_there_is_no_room_for_what_is_sent() {
        let (for_sent, for_accepted) = (Room::of(ROOM_FOR_SENT), Room::of(ROOM));
        let mut cx = Context::from_waker(Waker::noop());
        let mut ready = |waiting| {
            for_sent.update(waiting);
            for_accepted.update(waiting);
            (for_sent.poll(&mut cx).is_ready(), for_accepted.poll(&mut cx).is_ready())
        };
        let table = [
            (ROOM_FOR_SENT - 1, (true, true)),
            (ROOM_FOR_SENT, (false, true)),
            (ROOM, (false, false)),
            (ROOM / 2 + 1, (false, false)),
            (ROOM / 2, (false, true)),
            (ROOM_FOR_SENT / 2, (true, true)),
        ];
        for (waiting, expected) in table {
            assert_eq!(ready(waiting), expected, "{waiting}");
        }
    }
}
