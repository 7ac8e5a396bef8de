//! What the links of a service come to: who is available, how many are busy, who is next to be given one ahead.
//!
//! Pure, and kept by differences: whoever changes a link says how it stood before and how it stands now, so that nothing
//! is ever counted anew. It chooses nobody.

use std::collections::BTreeSet;
use std::time::Instant;

use super::LinkKey;
use crate::policy::{Balancer, Seat};

/// What of a link matters beyond it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// It can be given a client's connection.
    pub(super) is_available: bool,
    /// Clients are sent to it.
    pub(super) is_listening: bool,
    /// Its server listens, and is not to end: clients may come.
    pub(super) is_up: bool,
    /// Something was given to it and not told to be taken.
    pub(super) is_busy: bool,
    /// How many connections lie in it.
    pub(super) untaken: usize,
    /// Whether it can be given connections ahead.
    pub(super) ahead: Ahead,
    /// If the worker is late: when the oldest connection in it was accepted.
    pub(super) late: Option<Instant>,
    /// When it was last given one.
    pub(super) last_handed: Option<Instant>,
    /// When something is due.
    pub(super) deadline: Option<Instant>,
}

/// Whether a busy link can be given another connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ahead {
    /// It is not busy, or gets one at a time.
    #[default]
    Never,
    /// Not now: its window is full.
    Full,
    /// Yes.
    Room,
}

/// The one transition that others hear of: whether a worker has a link that is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// It has one now. It was last given a connection on it at this time.
    Gained { last_handed: Option<Instant> },
    /// It has none any more.
    Lost,
}

/// Of those that are given ahead, the one to whom the fewest are on their way comes first, then the one that was given
/// one longest ago.
type Turn = (usize, Option<Instant>, LinkKey);

/// The sums.
#[derive(Debug, Default)]
pub(super) struct Tally {
    seats: Vec<SeatTally>,
    listening: usize,
    up: usize,
    busy: usize,
    ahead: usize,
    room: BTreeSet<Turn>,
    full: BTreeSet<Turn>,
    late: BTreeSet<(Instant, LinkKey)>,
    /// Nothing is due before this.
    due: Option<Instant>,
}

/// The sums of one worker.
#[derive(Clone, Copy, Debug, Default)]
struct SeatTally {
    available: usize,
    busy: usize,
    untaken: usize,
}

impl Tally {
    /// The link `key` of the worker on this seat stood so, and stands otherwise now.
    pub(super) fn step(
        &mut self,
        seat: Seat,
        key: LinkKey,
        before: &Standing,
        after: &Standing,
    ) -> Option<Availability> {
        self.listening = moved(self.listening, before.is_listening.into(), after.is_listening.into());
        self.up = moved(self.up, before.is_up.into(), after.is_up.into());
        self.busy = moved(self.busy, before.is_busy.into(), after.is_busy.into());
        self.ahead = moved(self.ahead, before.untaken.saturating_sub(1), after.untaken.saturating_sub(1));
        self.turn(key, before, after);
        if before.late != after.late {
            before.late.map(|accepted| self.late.remove(&(accepted, key)));
            after.late.map(|accepted| self.late.insert((accepted, key)));
        }
        self.due_by(after.deadline);
        let sums = self.seat(seat);
        sums.busy = moved(sums.busy, before.is_busy.into(), after.is_busy.into());
        sums.untaken = moved(sums.untaken, before.untaken, after.untaken);
        let had_any = sums.available > 0;
        sums.available = moved(sums.available, before.is_available.into(), after.is_available.into());
        match (had_any, sums.available > 0) {
            (false, true) => Some(Availability::Gained { last_handed: after.last_handed }),
            (true, false) => Some(Availability::Lost),
            (false, false) | (true, true) => None,
        }
    }

    fn seat(&mut self, seat: Seat) -> &mut SeatTally {
        if seat.0 >= self.seats.len() {
            self.seats.resize(seat.0 + 1, SeatTally::default());
        }
        &mut self.seats[seat.0]
    }

    fn turn(&mut self, key: LinkKey, before: &Standing, after: &Standing) {
        let turn = |standing: &Standing| (standing.untaken, standing.last_handed, key);
        if (before.ahead, turn(before)) == (after.ahead, turn(after)) {
            return;
        }
        match before.ahead {
            Ahead::Never => false,
            Ahead::Full => self.full.remove(&turn(before)),
            Ahead::Room => self.room.remove(&turn(before)),
        };
        match after.ahead {
            Ahead::Never => false,
            Ahead::Full => self.full.insert(turn(after)),
            Ahead::Room => self.room.insert(turn(after)),
        };
    }

    /// How many links clients are sent to.
    pub(super) fn listening(&self) -> usize {
        self.listening
    }

    /// How many links clients may come for.
    pub(super) fn up(&self) -> usize {
        self.up
    }

    /// Whether any link is busy.
    pub(super) fn is_any_busy(&self) -> bool {
        self.busy > 0
    }

    /// Whether this worker has a busy link.
    pub(super) fn is_busy(&self, seat: Seat) -> bool {
        self.seats.get(seat.0).is_some_and(|sums| sums.busy > 0)
    }

    /// How many connections are on their way to this worker.
    pub(super) fn untaken(&self, seat: Seat) -> usize {
        self.seats.get(seat.0).map_or(0, |sums| sums.untaken)
    }

    /// How many connections were given ahead.
    pub(super) fn ahead(&self) -> usize {
        self.ahead
    }

    /// Which link is next to be given a connection ahead.
    pub(super) fn next_ahead(&self) -> Option<LinkKey> {
        self.room.first().map(|&(.., key)| key)
    }

    /// Of the links whose workers are late, the one with the oldest connection, and when that was accepted.
    pub(super) fn latest(&self) -> Option<(Instant, LinkKey)> {
        self.late.first().copied()
    }

    /// The links that are passed over if that is done, in turn.
    pub(super) fn passed_over(&self) -> impl Iterator<Item = LinkKey> {
        let next = self.room.first();
        let passed = self.full.iter().take_while(move |turn| next.is_none_or(|next| *turn < next));
        passed.map(|&(.., key)| key)
    }

    /// Nothing is due before this.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// All links are about to be asked what is due: nothing is known to be.
    pub(super) fn forget_due(&mut self) {
        self.due = None;
    }

    /// Something is due then, if at all.
    pub(super) fn due_by(&mut self, deadline: Option<Instant>) {
        self.due = self.due.into_iter().chain(deadline).min();
    }
}

/// A sum in which one part has become another.
fn moved(sum: usize, before: usize, after: usize) -> usize {
    sum + after - before
}

/// Availabilities that the balancer has not heard of.
///
/// Several workers are often heard of at once. They join in the order in which they were given their connections: by the
/// order of the events they would lose their turns.
#[derive(Debug, Default)]
pub(super) struct Changes {
    lost: Vec<Seat>,
    gained: Vec<(Option<Instant>, Seat)>,
    loads: Vec<(Seat, usize)>,
}

impl Changes {
    /// This has become of the worker.
    pub(super) fn note(&mut self, seat: Seat, availability: Availability) {
        match availability {
            Availability::Gained { last_handed } => self.gained.push((last_handed, seat)),
            Availability::Lost => {
                self.gained.retain(|&(_, gained)| gained != seat);
                self.lost.push(seat);
            }
        }
    }

    /// So many connections are on their way to the worker.
    pub(super) fn load(&mut self, seat: Seat, connections: usize) {
        self.loads.push((seat, connections));
    }

    /// Tells the balancer everything that it has not heard of.
    pub(super) fn tell(&mut self, balancer: &mut dyn Balancer) {
        self.lost.drain(..).for_each(|seat| balancer.left(seat));
        self.loads.drain(..).for_each(|(seat, connections)| balancer.load(seat, connections));
        self.gained.sort_by_key(|&(last_handed, _)| last_handed);
        self.gained.drain(..).for_each(|(_, seat)| balancer.joined(seat));
    }
}

#[cfg(test)]
mod tests;
