//! What was noted of the connections that have not ended, by their cookies.
//!
//! It does no I/O. A connection leaves it when its end is told, or when it is missing from a list.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::notes::{Client, Micros, Note};
use super::snapshot::NotedSnapshot;
use super::{Ended, Figures};
use crate::carry::Moment;
use crate::ids::WorkerId;
use crate::sys::sock_diag::{TcpFigures, TcpSocket};

/// So many may have ended without that having been seen, beside as many as are open.
const STALE: usize = 4 * 1024;

/// So long the end of a connection is waited for that is in no list. Until it is told, a process may have it: the kernel lists
/// none that the client has reset, and tells of its end when the process closes it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    noted: HashMap<u64, Noted>,
    /// How many were open when that was last seen.
    open: usize,
    /// What was last seen of those that are open; nothing unless somebody waits for their ends.
    figures: HashMap<u64, Figures>,
    /// Since when those are missing from lists whose ends may still be told.
    missing: HashMap<u64, Instant>,
    /// The earliest of them, as far as was last seen.
    missing_since: Option<Instant>,
}

/// What is known of a connection, in as little room as in a [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// Whose it is; the front's if nobody's.
    pub(super) worker: Option<WorkerId>,
    client: Client,
    accepted: Moment,
    waited: Micros,
    /// No process has it any more, which was told.
    is_freed: bool,
}

/// Whether it can be relied on that ends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Nobody wants to know.
    Unwatched,
    /// The kernel tells each of them.
    Told,
    /// It does not, or some may have been lost.
    Lost,
}

/// What follows from something that was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Those that have ended.
    pub(super) ended: Vec<Ended>,
    /// For each that no process has any more, whose it was.
    pub(super) freed: Vec<WorkerId>,
}

impl Table {
    /// What the next image of clusterd has to know of it.
    pub(super) fn snapshot(&self) -> Vec<NotedSnapshot> {
        let missing_since = |cookie| self.missing.get(cookie).copied().map(Into::into);
        self.noted.iter().map(|(cookie, noted)| noted.snapshot(*cookie, missing_since(cookie))).collect()
    }

    /// With what an image before has known. All of them are taken to be open.
    pub(super) fn restored(noted: Vec<NotedSnapshot>) -> Self {
        let missing = |noted: &NotedSnapshot| Some((noted.cookie, noted.missing_since?.into()));
        let missing: HashMap<_, _> = noted.iter().filter_map(missing).collect();
        let noted: HashMap<_, _> = noted.into_iter().map(|noted| (noted.cookie, noted.into())).collect();
        let missing_since = missing.values().min().copied();
        Self { open: noted.len(), noted, figures: HashMap::new(), missing, missing_since }
    }

    /// Notes something.
    pub(super) fn note(&mut self, note: Note) {
        let Note { cookie, worker, client, accepted, waited } = note;
        self.noted.insert(cookie, Noted { worker, client, accepted, waited, is_freed: false });
        self.missing.remove(&cookie);
    }

    /// What is known of a connection.
    pub(super) fn get(&self, cookie: u64) -> Option<&Noted> {
        self.noted.get(&cookie)
    }

    /// Which clients' connections have which names, where the kernel tells none.
    pub(super) fn by_client(&self) -> HashMap<Client, u64> {
        self.noted.iter().map(|(&cookie, noted)| (noted.client, cookie)).collect()
    }

    /// Whether it is time to look which of them are still there.
    pub(super) fn is_stale(&self) -> bool {
        self.noted.len() > 2 * self.open + STALE
    }

    /// The kernel has destroyed this socket. Whose it was, if that was noted.
    pub(super) fn destroyed(
        &mut self,
        socket: &TcpSocket,
        now: Instant,
        outcome: &mut Outcome,
    ) -> Option<WorkerId> {
        self.figures.remove(&socket.cookie);
        self.missing.remove(&socket.cookie);
        let noted = self.noted.remove(&socket.cookie)?;
        end(socket.cookie, &noted, socket.figures.map(Into::into), now, outcome);
        noted.worker
    }

    /// These are all that there are, in the order of their cookies; nothing was noted since they were listed. What is missing
    /// has ended if nobody waits for ends. If somebody does, its end may be on its way, or a process may still have it: it has
    /// ended when it is missing again and ends are lost, or when it is missing for [`PATIENCE`].
    pub(super) fn listed(&mut self, sockets: &[TcpSocket], ends: Ends, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let listed = |cookie: u64| {
            let at = sockets.binary_search_by_key(&cookie, |socket| socket.cookie).ok()?;
            sockets.get(at)
        };
        let figures = &mut self.figures;
        let missing = std::mem::take(&mut self.missing);
        self.noted.retain(|&cookie, noted| {
            let Some(socket) = listed(cookie) else {
                let missing_since = missing.get(&cookie).copied();
                let is_over = match (ends, missing_since) {
                    (Ends::Unwatched, _) => true,
                    (_, None) => false,
                    (Ends::Lost, Some(_)) => true,
                    (Ends::Told, Some(since)) => now.saturating_duration_since(since) >= PATIENCE,
                };
                if is_over {
                    // Else nobody wants to know.
                    if ends != Ends::Unwatched {
                        end(cookie, noted, figures.remove(&cookie), now, &mut outcome);
                    }
                    return false;
                }
                self.missing.insert(cookie, missing_since.unwrap_or(now));
                return true;
            };
            if socket.inode == 0 {
                free(noted, &mut outcome);
            }
            true
        });
        self.missing_since = self.missing.values().min().copied();
        if ends != Ends::Unwatched {
            let noted = &self.noted;
            self.figures.retain(|cookie, _| noted.contains_key(cookie));
            let seen = sockets.iter().filter_map(|socket| Some((socket.cookie, socket.figures?.into())));
            self.figures.extend(seen.filter(|(cookie, _)| noted.contains_key(cookie)));
        } else {
            self.figures = HashMap::new();
        }
        self.open = self.noted.len();
        if self.noted.capacity() > 4 * (self.open + STALE) {
            self.noted.shrink_to_fit();
        }
        outcome
    }

    /// When to look again because of those that are missing.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        self.missing_since.map(|since| since + PATIENCE)
    }
}

impl Noted {
    /// When it was accepted.
    pub(super) fn accepted(&self) -> Instant {
        self.accepted.into()
    }

    /// How long it waited for a worker.
    pub(super) fn waited(&self) -> Duration {
        self.waited.into()
    }

    fn snapshot(&self, cookie: u64, missing_since: Option<Moment>) -> NotedSnapshot {
        let &Self { worker, client, accepted, waited, is_freed } = self;
        NotedSnapshot { cookie, worker, client, accepted, waited, is_freed, missing_since }
    }
}

impl From<NotedSnapshot> for Noted {
    fn from(noted: NotedSnapshot) -> Self {
        let NotedSnapshot { cookie: _, worker, client, accepted, waited, is_freed, missing_since: _ } = noted;
        Self { worker, client, accepted, waited, is_freed }
    }
}

fn end(cookie: u64, noted: &Noted, figures: Option<Figures>, now: Instant, outcome: &mut Outcome) {
    free(&mut noted.clone(), outcome);
    if let Some(worker) = noted.worker {
        let lived = now.saturating_duration_since(noted.accepted());
        outcome.ended.push(Ended { cookie, worker, lived, figures });
    }
}

fn free(noted: &mut Noted, outcome: &mut Outcome) {
    if !std::mem::replace(&mut noted.is_freed, true) {
        outcome.freed.extend(noted.worker);
    }
}

impl From<TcpFigures> for Figures {
    fn from(figures: TcpFigures) -> Self {
        Self {
            idle: figures.since_sent.min(figures.since_received),
            received: figures.received,
            sent: figures.acknowledged,
            rtt: figures.round_trip,
            rtt_variation: figures.round_trip_variation,
            retransmitted: figures.retransmitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;
    use crate::sys::sock_diag::state;

    const WORKER: WorkerId = WorkerId { slot: Slot(1), launch: 1 };
    const OTHER: WorkerId = WorkerId { slot: Slot(2), launch: 2 };

    fn note(cookie: u64, worker: Option<WorkerId>, accepted: Instant) -> Note {
        let client = ([127, 0, 0, 1], u16::try_from(cookie).unwrap()).into();
        Note::new(cookie, worker, client, accepted, Duration::from_millis(3))
    }

    fn socket(cookie: u64, inode: u64, received: u64) -> TcpSocket {
        let address = ([127, 0, 0, 1], 1).into();
        let figures = TcpFigures {
            since_sent: Duration::ZERO,
            since_received: Duration::ZERO,
            round_trip: Duration::from_micros(50),
            round_trip_variation: Duration::ZERO,
            retransmitted: 0,
            acknowledged: 7,
            received,
        };
        TcpSocket {
            cookie,
            inode,
            state: state::ESTABLISHED,
            local: address,
            remote: address,
            unread: 0,
            unacknowledged: 0,
            dropped: None,
            figures: Some(figures),
        }
    }

    fn received(ended: &[Ended]) -> Vec<Option<u64>> {
        ended.iter().map(|ended| ended.figures.map(|figures| figures.received)).collect()
    }

    #[test]
    fn an_end_is_told_once_with_what_was_measured() {
        let start = Instant::now();
        let mut table = Table::default();
        table.note(note(5, Some(WORKER), start));
        let mut outcome = Outcome::default();
        let now = start + Duration::from_secs(2);
        assert_eq!(table.destroyed(&socket(5, 0, 100), now, &mut outcome), Some(WORKER));
        assert_eq!(table.destroyed(&socket(5, 0, 100), now, &mut outcome), None);
        assert_eq!(table.destroyed(&socket(6, 0, 100), now, &mut outcome), None, "nobody's");
        assert_eq!((received(&outcome.ended), outcome.freed), (vec![Some(100)], vec![WORKER]));
        assert_eq!(outcome.ended[0].lived, Duration::from_secs(2));
    }

    #[test]
    fn an_end_that_was_lost_is_told_with_what_was_last_seen() {
        let now = Instant::now();
        let mut table = Table::default();
        table.note(note(5, Some(WORKER), now));
        assert_eq!(table.listed(&[socket(5, 77, 100)], Ends::Lost, now), Outcome::default());
        assert_eq!(table.listed(&[], Ends::Lost, now), Outcome::default(), "its end may be on its way");
        let outcome = table.listed(&[], Ends::Lost, now);
        assert_eq!((received(&outcome.ended), outcome.freed), (vec![Some(100)], vec![WORKER]));
        assert_eq!(table.listed(&[], Ends::Lost, now), Outcome::default());
        assert_eq!(table.overdue_at(), None);
    }

    #[test]
    fn one_that_is_in_no_list_is_its_workers_until_its_end_is_told() {
        let start = Instant::now();
        let mut table = Table::default();
        table.note(note(5, Some(WORKER), start));
        table.note(note(6, Some(OTHER), start));
        for looks in 0..5 {
            let now = start + Duration::from_millis(5 * looks);
            assert_eq!(table.listed(&[], Ends::Told, now), Outcome::default());
        }
        let mut outcome = Outcome::default();
        table.destroyed(&socket(5, 0, 100), start, &mut outcome);
        assert_eq!((received(&outcome.ended), outcome.freed), (vec![Some(100)], vec![WORKER]));
        let late = table.overdue_at().expect("the other is missing");
        assert_eq!(late, start + PATIENCE);
        assert_eq!(table.listed(&[], Ends::Told, late).freed, [OTHER], "its end was never told");
        assert_eq!(table.overdue_at(), None);
    }

    #[test]
    fn one_that_is_given_again_while_it_is_missing_is_waited_for_anew() {
        let now = Instant::now();
        let mut table = Table::default();
        table.note(note(5, Some(WORKER), now));
        assert_eq!(table.listed(&[], Ends::Lost, now), Outcome::default());
        table.note(note(5, Some(OTHER), now));
        assert_eq!(table.listed(&[], Ends::Lost, now), Outcome::default());
        assert_eq!(table.listed(&[], Ends::Lost, now).freed, [OTHER]);
    }

    #[test]
    fn one_that_no_process_has_is_free_before_it_ends_and_only_once() {
        let now = Instant::now();
        let mut table = Table::default();
        table.note(note(5, Some(WORKER), now));
        assert_eq!(table.listed(&[socket(5, 0, 1)], Ends::Told, now).freed, [WORKER]);
        assert_eq!(table.listed(&[socket(5, 0, 1)], Ends::Told, now), Outcome::default());
        let mut outcome = Outcome::default();
        table.destroyed(&socket(5, 0, 1), now, &mut outcome);
        assert_eq!((outcome.ended.len(), outcome.freed), (1, vec![]));
    }

    #[test]
    fn one_that_was_taken_back_is_nobodys_until_it_is_given_again() {
        let now = Instant::now();
        let mut table = Table::default();
        table.note(note(5, Some(WORKER), now));
        table.note(note(5, None, now));
        let mut outcome = Outcome::default();
        assert_eq!(table.get(5).unwrap().worker, None);
        table.note(note(6, Some(WORKER), now));
        table.note(note(6, None, now));
        table.note(note(6, Some(OTHER), now));
        table.destroyed(&socket(5, 0, 1), now, &mut outcome);
        table.destroyed(&socket(6, 0, 1), now, &mut outcome);
        assert_eq!(outcome.freed, [OTHER]);
    }

    #[test]
    fn it_does_not_grow_with_what_has_ended() {
        let now = Instant::now();
        let mut table = Table::default();
        let mut cookie = 0;
        for _ in 0..5 {
            while !table.is_stale() {
                cookie += 1;
                table.note(note(cookie % 60_000, Some(WORKER), now));
                assert!(cookie < 100_000);
            }
            table.listed(&[socket(1, 9, 9)], Ends::Unwatched, now);
            assert!(table.noted.len() <= 1);
        }
    }
}
