//! The events of an app: told to whoever follows them, and kept for a while for those who come later.
//!
//! It waits for nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::events::{Event, EventKind};

/// How many events are kept for those who are slow to follow, and how many for those who come later.
const EVENTS: usize = 256;

/// Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct EventBus {
    followers: broadcast::Sender<Event>,
    past: Arc<Mutex<VecDeque<Event>>>,
}

impl EventBus {
    /// Nothing has happened yet.
    pub(super) fn new() -> Self {
        Self { followers: broadcast::channel(EVENTS).0, past: Arc::default() }
    }

    /// Tells an event; that nobody follows is no error.
    pub(super) fn tell(&self, event: Event) {
        let mut past = self.past();
        if is_kept(&event.kind) {
            if past.len() >= EVENTS {
                past.pop_front();
            }
            past.push_back(event.clone());
        }
        // Under the lock, so that it is either past or to come for everybody.
        let _ = self.followers.send(event);
    }

    /// What happens from now on.
    pub(super) fn follow(&self) -> broadcast::Receiver<Event> {
        self.followers.subscribe()
    }

    /// The last things that happened, the oldest first, and what happens from then on.
    pub(super) fn follow_with_past(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.past();
        (past.iter().cloned().collect(), self.followers.subscribe())
    }

    /// What has happened, the oldest first.
    pub(super) fn snapshot(&self) -> Vec<Event> {
        self.past().iter().cloned().collect()
    }

    /// This has happened before all else.
    pub(super) fn restore(&self, events: Vec<Event>) {
        let mut past = self.past();
        events.into_iter().rev().for_each(|event| past.push_front(event));
        let surplus = past.len().saturating_sub(EVENTS);
        past.drain(..surplus);
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Workers may send very long messages very often, and they are nothing that happens to them.
fn is_kept(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::WorkerSays { .. })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::supervisor::events::Time;

    fn event(worker: u32) -> Event {
        let kind = EventKind::WorkerMoves { worker };
        Event { time: Time(SystemTime::UNIX_EPOCH), app: "web".to_owned(), kind }
    }

    fn worker(event: &Event) -> u32 {
        let EventKind::WorkerMoves { worker } = event.kind else { panic!("{event:?}") };
        worker
    }

    #[test]
    fn what_is_past_and_what_is_to_come_are_everything() {
        let bus = EventBus::new();
        (1..=3).for_each(|worker| bus.tell(event(worker)));
        let (past, mut to_come) = bus.follow_with_past();
        bus.tell(event(4));
        assert_eq!(past.iter().map(worker).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(to_come.try_recv().as_ref().map(worker), Ok(4));
        assert!(to_come.try_recv().is_err());
    }

    #[test]
    fn only_so_many_are_kept_and_no_messages() {
        let bus = EventBus::new();
        (1..=1000).for_each(|worker| bus.tell(event(worker)));
        let says = EventKind::WorkerSays { worker: 1, message: "long".into() };
        bus.tell(Event { kind: says, ..event(1) });
        let (past, _) = bus.follow_with_past();
        assert_eq!((past.len(), worker(&past[0]), worker(&past[EVENTS - 1])), (EVENTS, 745, 1000));
    }
}
