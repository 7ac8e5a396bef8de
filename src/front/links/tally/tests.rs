//! Links and a balancer in random sequences: what is kept by differences is what counting anew would give.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::front::links::state::{Gate, LinkState, Timeouts};
use crate::policy::Choice;
use crate::protocol::wire::Endpoint;

const CLIENT: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };
const SECOND: Duration = Duration::from_secs(1);
const TIMEOUTS: Timeouts = Timeouts { slow: SECOND, late: SECOND, timeout: Duration::from_secs(3) };

/// Two links for each of three workers.
const LINKS: usize = 6;
const WORKERS: usize = 3;

/// A link without a channel.
#[derive(Clone, Copy, Debug)]
struct Model {
    state: LinkState,
    untaken: usize,
    window: usize,
    last_handed: Option<Instant>,
    /// When the oldest connection in it was accepted.
    oldest: Option<Instant>,
}

impl Model {
    fn new(gate: Gate, is_relayed: bool) -> Self {
        let state = LinkState::new(gate, is_relayed, TIMEOUTS);
        Self { state, untaken: 0, window: 1, last_handed: None, oldest: None }
    }

    fn standing(&self) -> Standing {
        let ahead = match self.state.may_be_given_ahead() {
            false => Ahead::Never,
            true if self.untaken < self.window => Ahead::Room,
            true => Ahead::Full,
        };
        Standing {
            is_available: self.state.is_available(),
            is_listening: self.state.is_listening(),
            serves: self.state.is_listening() && !self.state.is_stalled(),
            is_up: self.state.is_up(),
            is_urgent: false,
            is_busy: self.state.is_busy(),
            untaken: self.untaken,
            ahead,
            late: self.oldest.filter(|_| self.state.is_late() && self.untaken > 0),
            last_handed: self.last_handed,
            deadline: self.state.deadline(),
        }
    }

    fn go(&mut self, step: Step, now: Instant) {
        match step {
            Step::Listen => drop(self.state.listens()),
            Step::Give if self.state.is_idle() || self.state.may_be_given_ahead() => {
                self.oldest = if self.untaken == 0 { Some(now) } else { self.oldest };
                self.untaken += 1;
                self.last_handed = Some(now);
                self.state.given(now);
            }
            Step::Take | Step::TakeBack if self.untaken > 0 => {
                self.untaken -= 1;
                self.state.done(self.untaken == 0);
            }
            Step::Decline { pause } if self.untaken > 0 => {
                self.untaken = 0;
                if pause { self.state.pause() } else { self.state.rest(now) }
            }
            Step::Stall if self.untaken > 0 => {
                self.untaken = 0;
                self.state.stall();
            }
            Step::Bypass if self.untaken > 0 && self.state.is_late() => {
                self.untaken = 0;
                self.state.bypass(now);
            }
            Step::Move if self.state.is_stalled() || self.state.is_bypassed() => drop(self.state.moves()),
            Step::Due => drop(self.state.due(now)),
            Step::Open => self.state.open(),
            Step::Retire => self.state.retire(),
            Step::Window(size) => self.window = size,
            _ => {}
        }
    }
}

/// What happens to a link.
#[derive(Clone, Copy, Debug)]
enum Step {
    Listen,
    Give,
    Take,
    TakeBack,
    Decline {
        pause: bool,
    },
    Stall,
    Bypass,
    Move,
    Due,
    Open,
    Retire,
    Window(usize),
    /// It is closed, and another one has its place.
    Replace {
        is_held: bool,
        is_relayed: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Listen),
        8 => Just(Step::Give),
        8 => Just(Step::Take),
        2 => Just(Step::TakeBack),
        1 => any::<bool>().prop_map(|pause| Step::Decline { pause }),
        1 => Just(Step::Stall),
        2 => Just(Step::Bypass),
        1 => Just(Step::Move),
        2 => Just(Step::Due),
        2 => Just(Step::Open),
        1 => Just(Step::Retire),
        2 => (1_usize..4).prop_map(Step::Window),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(is_held, is_relayed)| Step::Replace { is_held, is_relayed }),
    ]
}

/// Remembers what it was told, and chooses nobody.
#[derive(Debug, Default)]
struct Recorder {
    stands: BTreeMap<Seat, Availability>,
    open: BTreeMap<Seat, usize>,
}

impl Balancer for Recorder {
    fn stands(&mut self, seat: Seat, availability: Availability) {
        self.stands.insert(seat, availability);
    }

    fn open(&mut self, seat: Seat, connections: usize) {
        self.open.insert(seat, connections);
    }

    fn next(&mut self, _client: &Endpoint) -> Option<Seat> {
        None
    }
}

fn seat(link: usize) -> Seat {
    Seat(link % WORKERS)
}

impl Recorder {
    fn of(&self, seat: Seat) -> Availability {
        self.stands.get(&seat).copied().unwrap_or_default()
    }

    fn idle(&self) -> BTreeSet<Seat> {
        (0..WORKERS).map(Seat).filter(|&seat| self.of(seat) == Availability::Idle).collect()
    }
}

/// What a worker can be given, seen anew: the best that one of its links can.
fn availability(links: &[Model], worker: Seat) -> Availability {
    let own = links.iter().enumerate().filter(|&(link, _)| seat(link) == worker);
    let each = own.map(|(_, model)| match model.standing() {
        Standing { is_available: true, .. } => Availability::Idle,
        Standing { ahead: Ahead::Room, .. } => Availability::Ahead,
        Standing { serves: true, .. } => Availability::Full,
        Standing { .. } => Availability::Away,
    });
    each.max().unwrap_or_default()
}

/// The workers that have an available link, counted anew.
fn available(links: &[Model]) -> BTreeSet<Seat> {
    (0..WORKERS).map(Seat).filter(|&seat| availability(links, seat) == Availability::Idle).collect()
}

/// The links that stand so, in their turn.
fn in_turn(links: &[Model], ahead: Ahead) -> Vec<Turn> {
    let those = links.iter().enumerate().filter(|(_, model)| model.standing().ahead == ahead);
    let mut turns: Vec<Turn> =
        those.map(|(link, model)| (model.untaken, model.last_handed, LinkKey(link))).collect();
    turns.sort_unstable();
    turns
}

fn sum(links: &[Model], of: impl Fn(&Model) -> usize) -> usize {
    links.iter().map(of).sum()
}

/// The tally says of these links what counting anew says.
fn check(tally: &Tally, links: &[Model]) -> Result<(), TestCaseError> {
    prop_assert_eq!(tally.listening(), sum(links, |model| model.state.is_listening().into()));
    prop_assert_eq!(tally.is_any_busy(), links.iter().any(|model| model.state.is_busy()));
    prop_assert_eq!(tally.ahead(), sum(links, |model| model.untaken.saturating_sub(1)));
    for worker in (0..WORKERS).map(Seat) {
        let own = |of: &dyn Fn(&Model) -> usize| -> usize {
            links
                .iter()
                .enumerate()
                .filter(|&(link, _)| seat(link) == worker)
                .map(|(_, model)| of(model))
                .sum()
        };
        prop_assert_eq!(tally.is_busy(worker), own(&|model| model.state.is_busy().into()) > 0);
    }
    let late =
        links.iter().enumerate().filter_map(|(link, model)| Some((model.standing().late?, LinkKey(link))));
    prop_assert_eq!(tally.latest(), late.min());
    let (room, full) = (in_turn(links, Ahead::Room), in_turn(links, Ahead::Full));
    prop_assert_eq!(tally.next_ahead(), room.first().map(|turn| turn.2));
    let passed: Vec<_> =
        full.iter().filter(|&turn| room.first().is_none_or(|next| turn < next)).map(|turn| turn.2).collect();
    prop_assert_eq!(tally.passed_over().collect::<Vec<_>>(), passed);
    let deadline = links.iter().filter_map(|model| model.standing().deadline).min();
    prop_assert!(deadline.is_none_or(|deadline| tally.due().is_some_and(|due| due <= deadline)));
    Ok(())
}

proptest! {
    /// At every step the balancer's workers are those that have an available link, whether it is told at once or later.
    #[test]
    fn the_balancer_knows_exactly_the_available_workers(
        steps in prop::collection::vec((step(), 0..LINKS, 0_u64..3, any::<bool>()), 0..200),
    ) {
        let mut now = Instant::now();
        let mut links = [Model::new(Gate::Open, false); LINKS];
        let (mut tally, mut all) = (Tally::new(Choice::RoundRobin), Tally::new(Choice::LeastConnections));
        let (mut knows_all, mut knowing) = (Changes::default(), Recorder::default());
        let (mut at_once, mut prompt) = (Changes::default(), Recorder::default());
        let (mut at_times, mut late) = (Changes::default(), Recorder::default());
        let (mut in_turn, mut round_robin) = (Changes::default(), Choice::RoundRobin.balancer());
        for (step, link, seconds, is_told) in steps {
            now += SECOND * u32::try_from(seconds).unwrap();
            let before = links[link].standing();
            if let Step::Replace { is_held, is_relayed } = step {
                let gate = if is_held { Gate::Held } else { Gate::Open };
                links[link] = Model::new(gate, is_relayed);
            } else {
                links[link].go(step, now);
            }
            let after = links[link].standing();
            let stands = tally.step(seat(link), LinkKey(link), &before, &after);
            for changes in [&mut at_once, &mut at_times, &mut in_turn] {
                if let Some(stands) = stands {
                    changes.stands(seat(link), stands, after.last_handed);
                }
                changes.open(seat(link), links[link].untaken);
            }
            if let Some(stands) = all.step(seat(link), LinkKey(link), &before, &after) {
                knows_all.stands(seat(link), stands, after.last_handed);
            }
            check(&tally, &links)?;

            let available = available(&links);
            at_once.tell(&mut prompt);
            prop_assert_eq!(&prompt.idle(), &available);
            prop_assert_eq!(prompt.open[&seat(link)], links[link].untaken);
            if is_told {
                knows_all.tell(&mut knowing);
                for worker in (0..WORKERS).map(Seat) {
                    prop_assert_eq!(knowing.of(worker), availability(&links, worker));
                }
                at_times.tell(&mut late);
                prop_assert_eq!(&late.idle(), &available);
                in_turn.tell(&mut *round_robin);
                let turns: BTreeSet<_> = (0..WORKERS).filter_map(|_| round_robin.next(&CLIENT)).collect();
                prop_assert_eq!(&turns, &available);
            }
        }
    }
}

#[test]
fn those_that_are_heard_of_at_once_join_in_the_order_in_which_they_were_given_connections() {
    let start = Instant::now();
    let at = |seconds| Some(start + SECOND * seconds);
    let mut changes = Changes::default();
    for (seat, availability, last_handed) in [
        (1, Availability::Idle, at(7)),
        (2, Availability::Idle, at(5)),
        (3, Availability::Idle, at(6)),
        (3, Availability::Full, at(8)),
        (4, Availability::Away, None),
        (4, Availability::Idle, at(4)),
        (5, Availability::Idle, None),
    ] {
        changes.stands(Seat(seat), availability, last_handed);
    }
    let mut balancer = Choice::RoundRobin.balancer();
    changes.tell(&mut *balancer);
    let turns = [(); 5].map(|()| balancer.next(&CLIENT).map(|seat| seat.0));
    assert_eq!(turns, [Some(5), Some(4), Some(2), Some(1), Some(5)]);
}
