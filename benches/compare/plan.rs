//! Who is measured when and for how long; it decides before anything is started, and measures nothing.

use std::time::Duration;

use crate::options::Options;

/// How long the default run may take.
pub const BUDGET: Duration = Duration::from_secs(600);
/// How long the run may take that only shows that everything works.
pub const SHORT_BUDGET: Duration = Duration::from_secs(15);
/// What is reckoned for starting a contender and ending it.
const START: Duration = Duration::from_millis(1_500);
/// A slice that is shorter says little, one that is longer says hardly more.
const SLICE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
const SHORT_SLICE: Duration = Duration::from_millis(40);

/// Which rounds there are, and how long each part of them takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub rounds: usize,
    pub contenders: usize,
    /// What a measure's share of the time is counted in.
    pub slice: Duration,
    /// After this, no contender is started any more.
    pub budget: Option<Duration>,
    /// How long a contender may take to serve its first connection, and for a reload.
    pub patience: Duration,
    /// Workers of each contender.
    pub workers: usize,
    /// Connections at a time, where clients come again as soon as they are answered.
    pub clients: usize,
}

impl Plan {
    /// Divides the time: `slices` is how many of them the measures take together in one round of one contender.
    pub fn new(options: &Options, contenders: usize, slices: f64) -> Self {
        let (rounds, budget) = match (options.is_short, options.is_full) {
            (true, _) => (1, Some(SHORT_BUDGET)),
            (false, true) => (5, None),
            (false, false) => (5, Some(BUDGET)),
        };
        let rounds = options.rounds.unwrap_or(rounds);
        let slice = match budget {
            _ if options.is_short => SHORT_SLICE,
            None => SLICE.1,
            Some(budget) => {
                let turns = (rounds * contenders).max(1) as f64;
                let left = budget.as_secs_f64() / turns - START.as_secs_f64();
                Duration::from_secs_f64((left / slices.max(1.0)).max(0.0)).clamp(SLICE.0, SLICE.1)
            }
        };
        let (patience, workers, clients) = if options.is_short { (4, 2, 8) } else { (20, 4, 64) };
        let patience = Duration::from_secs(patience);
        Self { rounds, contenders, slice, budget, patience, workers, clients }
    }

    /// Every turn as its round and contender. Whoever comes first in a round may find the machine in another state, so
    /// each does in turn.
    pub fn turns(self) -> impl Iterator<Item = (usize, usize)> {
        let turn = move |round, place| (round, (round + place) % self.contenders);
        (0..self.rounds).flat_map(move |round| (0..self.contenders).map(move |place| turn(round, place)))
    }

    /// What all turns are expected to take.
    pub fn expected(self, slices: f64) -> Duration {
        let turn = START + self.slice.mul_f64(slices);
        turn.mul_f64((self.rounds * self.contenders) as f64)
    }

    /// Whether another turn may begin after so long.
    pub fn may_begin(self, elapsed: Duration) -> bool {
        self.budget.is_none_or(|budget| elapsed < budget)
    }
}
