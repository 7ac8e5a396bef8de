//! Which numbers launches have that no other living launch of the app has: `CLUSTERD_LANE`.
//!
//! A worker's own number is for two at once while one replaces the other; its lane is for one alone, so that what must
//! not be shared (a second port, a file) can be named by it. Who lives is asked, not known here.

/// The number of a launch, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane(pub u32);

/// The lanes that were given away, and to whom.
#[derive(Debug)]
pub(super) struct Lanes<Launch>(Vec<(Lane, Launch)>);

impl<Launch> Default for Lanes<Launch> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Launch> Lanes<Launch> {
    /// Who has which.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Lane, Launch)> {
        self.0.iter()
    }

    /// The lowest lane that no launch has that still lives.
    pub(super) fn lowest_free(&mut self, lives: impl Fn(&Launch) -> bool) -> Lane {
        self.0.retain(|(_, launch)| lives(launch));
        self.0.sort_by_key(|&(lane, _)| lane);
        let taken = self.0.iter().zip(1..).take_while(|((lane, _), number)| lane.0 == *number);
        Lane(taken.last().map_or(1, |(_, number)| number + 1))
    }

    /// Gives a lane to a launch.
    pub(super) fn give(&mut self, lane: Lane, launch: Launch) {
        self.0.push((lane, launch));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_free_lane_is_given() {
        let table: [(&[u32], u32); 6] =
            [(&[], 1), (&[1], 2), (&[2], 1), (&[1, 2, 3], 4), (&[3, 1], 2), (&[4, 2, 1], 3)];
        for (taken, expected) in table {
            let mut lanes = Lanes::default();
            taken.iter().for_each(|&lane| lanes.give(Lane(lane), ()));
            assert_eq!(lanes.lowest_free(|()| true), Lane(expected), "{taken:?} are taken");
        }
    }

    proptest! {
        /// Launches begin (`None`) and end, in any order.
        #[test]
        fn no_two_that_live_share_one_and_there_are_no_more_than_lived_at_once(
            steps in proptest::collection::vec(proptest::option::of(0usize..64), 0..200),
        ) {
            let mut lanes = Lanes::default();
            let mut living = BTreeMap::<usize, Lane>::new();
            let mut most = 0;
            for (launch, step) in steps.into_iter().enumerate() {
                match step {
                    Some(ended) => drop(living.remove(&ended)),
                    None => {
                        let lane = lanes.lowest_free(|launch| living.contains_key(launch));
                        prop_assert!(living.values().all(|&other| other != lane), "{lane:?} is taken");
                        lanes.give(lane, launch);
                        living.insert(launch, lane);
                        most = most.max(living.len());
                        prop_assert!(lane.0 as usize <= most, "{lane:?} with {most} at once");
                    }
                }
            }
        }
    }
}
