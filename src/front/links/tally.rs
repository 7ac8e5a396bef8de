//! What the links of a service come to: who is available, how many are busy, who is next to be given one ahead.
//!
//! Pure, and kept by differences: whoever changes a link says how it stood before and how it stands now, so that nothing
//! is ever counted anew. It chooses nobody.

use std::collections::BTreeSet;
use std::time::Instant;

use super::LinkKey;
use crate::ids::Slot;
use crate::policy::{Availability, Balancer, Choice, Seat};

/// What of a link matters beyond it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// It can be given a client's connection.
    pub(super) is_available: bool,
    /// Clients are sent to it.
    pub(super) is_listening: bool,
    /// Clients are sent to it, and it is not stuck.
    pub(super) serves: bool,
    /// Its server listens, and is not to end: clients may come.
    pub(super) is_up: bool,
    /// Something was given to it and not told to be taken.
    pub(super) is_busy: bool,
    /// It is not enough to ask when somebody else is to be given a connection: what the worker does is heard of at once.
    pub(super) is_urgent: bool,
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

/// Of those that are given ahead, the one to whom the fewest are on their way comes first, then the one that was given
/// one longest ago.
type Turn = (usize, Option<Instant>, LinkKey);

/// The sums.
#[derive(Debug)]
pub(super) struct Tally {
    /// Whether nobody is to hear in what way a worker is not idle.
    tells_idle_only: bool,
    seats: Vec<SeatTally>,
    listening: usize,
    up: usize,
    busy: usize,
    urgent: usize,
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
    serves: usize,
    room: usize,
    available: usize,
    busy: usize,
}

impl SeatTally {
    fn availability(&self) -> Availability {
        match self {
            Self { available: 1.., .. } => Availability::Idle,
            Self { room: 1.., .. } => Availability::Ahead,
            Self { serves: 1.., .. } => Availability::Full,
            Self { .. } => Availability::Away,
        }
    }
}

impl Tally {
    /// No links, whose workers are chosen in this way.
    pub(super) fn new(choice: Choice) -> Self {
        Self {
            tells_idle_only: choice.knows_idle_only(),
            seats: Vec::new(),
            listening: 0,
            up: 0,
            busy: 0,
            urgent: 0,
            ahead: 0,
            room: BTreeSet::new(),
            full: BTreeSet::new(),
            late: BTreeSet::new(),
            due: None,
        }
    }

    /// The link `key` of the worker on this seat stood so, and stands otherwise now. What the worker can be given, if that
    /// has changed.
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
        self.urgent = moved(self.urgent, before.is_urgent.into(), after.is_urgent.into());
        self.ahead = moved(self.ahead, before.untaken.saturating_sub(1), after.untaken.saturating_sub(1));
        self.turn(key, before, after);
        if before.late != after.late {
            before.late.map(|accepted| self.late.remove(&(accepted, key)));
            after.late.map(|accepted| self.late.insert((accepted, key)));
        }
        self.due_by(after.deadline);
        let sums = self.seat(seat);
        sums.busy = moved(sums.busy, before.is_busy.into(), after.is_busy.into());
        let was = sums.availability();
        let room = |standing: &Standing| usize::from(standing.ahead == Ahead::Room);
        sums.serves = moved(sums.serves, before.serves.into(), after.serves.into());
        sums.room = moved(sums.room, room(before), room(after));
        sums.available = moved(sums.available, before.is_available.into(), after.is_available.into());
        let is = sums.availability();
        let is_news = was != is && (!self.tells_idle_only || was.max(is) == Availability::Idle);
        is_news.then_some(is)
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

    /// Whether what some link's worker does is to be heard of at once.
    pub(super) fn is_any_urgent(&self) -> bool {
        self.urgent > 0
    }

    /// Whether this worker has a busy link.
    pub(super) fn is_busy(&self, seat: Seat) -> bool {
        self.seats.get(seat.0).is_some_and(|sums| sums.busy > 0)
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

    /// The busy link to whom the fewest are on their way, and that was given one longest ago.
    pub(super) fn longest_busy(&self) -> Option<LinkKey> {
        let turns = self.room.first().into_iter().chain(self.full.first());
        turns.min().map(|&(.., key)| key)
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

/// What the balancer has not heard of.
///
/// Several workers often become idle at once. That is told in the order in which they were given their connections: by the
/// order of the events they would lose their turns.
#[derive(Debug, Default)]
pub(super) struct Changes {
    first: Vec<Change>,
    idle: Vec<(Option<Instant>, Seat)>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Seated(Seat, Slot),
    Stands(Seat, Availability),
    Open(Seat, usize),
}

impl Changes {
    /// A launch of the worker in this slot has the seat.
    pub(super) fn seated(&mut self, seat: Seat, slot: Slot) {
        self.first.push(Change::Seated(seat, slot));
    }

    /// The worker can be given this; it was last given a connection then.
    pub(super) fn stands(&mut self, seat: Seat, availability: Availability, last_handed: Option<Instant>) {
        if availability == Availability::Idle {
            self.idle.push((last_handed, seat));
        } else {
            self.idle.retain(|&(_, idle)| idle != seat);
            self.first.push(Change::Stands(seat, availability));
        }
    }

    /// So many connections to the worker are open.
    pub(super) fn open(&mut self, seat: Seat, connections: usize) {
        self.first.push(Change::Open(seat, connections));
    }

    /// Those who have become idle are told in the order in which that was noted.
    pub(super) fn keep_order(&mut self) {
        self.idle.iter_mut().for_each(|(last_handed, _)| *last_handed = None);
    }

    /// Tells the balancer everything that it has not heard of.
    pub(super) fn tell(&mut self, balancer: &mut dyn Balancer) {
        for change in self.first.drain(..) {
            match change {
                Change::Seated(seat, slot) => balancer.seated(seat, slot),
                Change::Stands(seat, availability) => balancer.stands(seat, availability),
                Change::Open(seat, connections) => balancer.open(seat, connections),
            }
        }
        self.idle.sort_by_key(|&(last_handed, _)| last_handed);
        self.idle.drain(..).for_each(|(_, seat)| balancer.stands(seat, Availability::Idle));
    }
}

#[cfg(test)]
mod tests;
