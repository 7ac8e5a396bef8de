//! What is known of the connections that were given to a worker, and not yet told to have been taken.
//!
//! Pure: a channel is first in, first out, so how much lies in it tells which of them the worker has taken.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::snapshot::{GivenSnapshot, InFlightSnapshot};
use crate::front::arrival::Arrival;
use crate::front::snapshot::wrong;
use crate::protocol::wire::{Endpoint, MAX_MESSAGE};

/// A connection that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The client.
    pub(super) peer: Endpoint,
    /// How it arrived.
    pub(super) arrival: Arrival,
    /// When it was accepted.
    pub(super) accepted: Instant,
    /// When it was given.
    pub(super) since: Instant,
    /// The bytes of its record.
    pub(super) size: usize,
}

/// All of a channel, the one that was given first in front.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    given: VecDeque<Given>,
    /// How many of them, from the front, were taken.
    taken: usize,
}

impl InFlight {
    /// As it is written down.
    pub(super) fn snapshot(&self) -> InFlightSnapshot {
        InFlightSnapshot { given: self.given.iter().map(Given::snapshot).collect(), taken: self.taken }
    }

    /// As it was written down.
    ///
    /// # Errors
    /// More were taken than were given, or a record is longer than any.
    pub(super) fn restored(snapshot: InFlightSnapshot) -> io::Result<Self> {
        let InFlightSnapshot { given, taken } = snapshot;
        if taken > given.len() {
            return Err(wrong("more connections were taken than were given"));
        }
        if given.iter().any(|given| given.size > MAX_MESSAGE) {
            return Err(wrong("a connection was given with a longer record than there is"));
        }
        Ok(Self { given: given.into_iter().map(Given::restored).collect(), taken })
    }

    /// One more was given.
    pub(super) fn push(&mut self, given: Given) {
        self.given.push_back(given);
    }

    /// Whether there is nothing that was not told.
    pub(super) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Whether there are any that were taken.
    pub(super) fn has_taken(&self) -> bool {
        self.taken > 0
    }

    /// How many were not taken, as far as is known.
    pub(super) fn untaken(&self) -> usize {
        self.given.len() - self.taken
    }

    /// The one that was given first of those that were not taken, as far as is known.
    pub(super) fn next(&self) -> Option<&Given> {
        self.given.get(self.taken)
    }

    /// The channel holds no more than so many bytes: all that came before these were taken.
    pub(super) fn left(&mut self, bytes: usize) {
        let mut untaken: usize = self.given.range(self.taken..).map(|given| given.size).sum();
        while untaken > bytes
            && let Some(next) = self.given.get(self.taken)
        {
            untaken -= next.size;
            self.taken += 1;
        }
    }

    /// Tells one that was taken, and forgets it.
    pub(super) fn tell(&mut self) -> Option<Given> {
        self.taken = self.taken.checked_sub(1)?;
        self.given.pop_front()
    }

    /// The primary has received this client's connection out of the channel: all before it were taken.
    pub(super) fn taken_back(&mut self, peer: &Endpoint) -> Option<Given> {
        let place = self.given.range(self.taken..).position(|given| given.peer == *peer)?;
        self.taken += place;
        self.given.remove(self.taken)
    }

    /// The worker has given this client's connection back, whether it had taken it or not.
    pub(super) fn declined(&mut self, peer: &Endpoint) -> Option<Given> {
        let place = self.given.iter().position(|given| given.peer == *peer)?;
        self.taken -= usize::from(place < self.taken);
        self.given.remove(place)
    }
}

impl Given {
    fn snapshot(&self) -> GivenSnapshot {
        let &Given { peer, arrival, accepted, since, size } = self;
        GivenSnapshot { peer, arrival, accepted: accepted.into(), since: since.into(), size }
    }

    fn restored(snapshot: GivenSnapshot) -> Self {
        let GivenSnapshot { peer, arrival, accepted, since, size } = snapshot;
        Given { peer, arrival, accepted: accepted.into(), since: since.into(), size }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given(port: u16, size: usize) -> Given {
        let (now, peer) = (Instant::now(), Endpoint::V4 { address: [127, 0, 0, 1], port });
        Given { peer, arrival: Arrival::V4, accepted: now, since: now, size }
    }

    fn told(in_flight: &mut InFlight) -> Vec<u16> {
        std::iter::from_fn(|| in_flight.tell()).map(|given| given.peer.port()).collect()
    }

    #[test]
    fn what_was_declined_is_not_told_to_be_taken() {
        let mut in_flight = InFlight::default();
        (1..=3).for_each(|port| in_flight.push(given(port, 10)));
        in_flight.left(10);
        assert_eq!(in_flight.declined(&given(1, 0).peer).unwrap().peer.port(), 1);
        assert_eq!(in_flight.declined(&given(3, 0).peer).unwrap().peer.port(), 3);
        assert!(in_flight.declined(&given(3, 0).peer).is_none());
        assert_eq!((told(&mut in_flight), in_flight.untaken(), in_flight.is_empty()), (vec![2], 0, true));
    }

    /// What happens to a channel.
    #[derive(Clone, Debug)]
    enum Step {
        Give {
            size: usize,
        },
        /// The worker takes as many, and is asked about.
        Take(usize),
        /// The worker takes as many unseen, and the primary takes back one.
        TakeBack(usize),
        Tell,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1_usize..40).prop_map(|size| Step::Give { size }),
            (0_usize..4).prop_map(Step::Take),
            (0_usize..4).prop_map(Step::TakeBack),
            Just(Step::Tell),
        ]
    }

    proptest! {
        /// Each connection is told to be taken once, in order, if the worker took it, and comes back once if it did not.
        #[test]
        fn each_connection_is_taken_or_comes_back(steps in prop::collection::vec(step(), 0..100)) {
            let mut in_flight = InFlight::default();
            let (mut channel, mut taken, mut seen) = (VecDeque::new(), Vec::new(), Vec::new());
            for (step, port) in steps.into_iter().zip(1..) {
                match step {
                    Step::Give { size } => {
                        channel.push_back((port, size));
                        in_flight.push(given(port, size));
                    }
                    Step::Take(count) => {
                        taken.extend(channel.drain(..count.min(channel.len())).map(|(port, _)| port));
                        let bytes = channel.iter().map(|(_, size)| size).sum();
                        in_flight.left(bytes);
                        prop_assert_eq!(in_flight.has_taken(), taken.len() > seen.len());
                        prop_assert_eq!(in_flight.untaken(), channel.len());
                    }
                    Step::TakeBack(count) => {
                        taken.extend(channel.drain(..count.min(channel.len())).map(|(port, _)| port));
                        if let Some((port, size)) = channel.pop_front() {
                            let back = in_flight.taken_back(&given(port, size).peer);
                            prop_assert_eq!(back.map(|given| given.peer.port()), Some(port));
                        }
                        prop_assert!(in_flight.untaken() >= channel.len());
                    }
                    Step::Tell => seen.extend(in_flight.tell().map(|given| given.peer.port())),
                }
            }
            in_flight.left(channel.iter().map(|(_, size)| size).sum());
            seen.extend(told(&mut in_flight));
            prop_assert_eq!(seen, taken);
            prop_assert_eq!(in_flight.untaken(), channel.len());
            prop_assert_eq!(in_flight.given.front().map(|next| next.peer.port()), channel.front().map(|&(port, _)| port));
        }
    }
}
