//! Who leaves connections waiting: what was seen of the backlogs of one group, and who is left out for it.
//!
//! Pure: no I/O, no clock but a passed time. A worker that accepts by itself tells nothing; that it takes is seen by fewer
//! that wait.
//!
//! ```text
//!            waits for PATIENCE, and another has nobody waiting            waits for the hand-off timeout
//! Taking ───────────────────────────────────────────────────▶ Left out ───────────────────────────────────▶ Stalled
//!    ▲                                                            │            (Taking, too, where all wait)     │
//!    └───────────────────────── fewer wait, or none ──────────────┴──────────────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::MemberId;
use super::snapshot::WaitSnapshot;

/// How long a connection may wait while another worker has none waiting.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// How often it is told of one that takes nothing.
const AGAIN: Duration = Duration::from_secs(1);

/// The backlogs of one group.
#[derive(Debug)]
pub(super) struct Waits {
    /// How long a worker may leave connections waiting until it counts as stalled.
    timeout: Duration,
    members: BTreeMap<MemberId, Wait>,
}

/// What was seen of one backlog.
#[derive(Clone, Copy, Debug)]
struct Wait {
    backlog: usize,
    /// Since when connections wait, and no fewer.
    since: Instant,
    /// When it was last told that it takes none.
    told: Instant,
    is_left_out: bool,
    is_stalled: bool,
}

/// What is seen of one backlog now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Whose.
    pub member: MemberId,
    /// How many connections wait in it.
    pub backlog: usize,
    /// Connections may be steered to it: its server listens, and its worker is ready and is not to end.
    pub takes: bool,
}

/// What has become of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It gets no connection until it takes one.
    LeftOut(MemberId),
    /// It takes again.
    Back(MemberId),
    /// It is left out or stalled, and takes none still.
    Waits(MemberId),
    /// It has taken none for the hand-off timeout.
    Stalled(MemberId),
    /// It was stalled, and takes again.
    Moving(MemberId),
}

impl Waits {
    /// Nobody waits.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, members: BTreeMap::new() }
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> Vec<WaitSnapshot> {
        self.members.iter().map(|(&member, wait)| wait.snapshot(member)).collect()
    }

    /// As it was written down.
    pub(super) fn restored(timeout: Duration, snapshot: Vec<WaitSnapshot>) -> Self {
        let members = snapshot.into_iter().map(|wait| (wait.member, Wait::restored(wait)));
        Self { timeout, members: members.collect() }
    }

    /// This is how all stand now.
    pub(super) fn see(&mut self, looks: &[Look], now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for look in looks {
            let new = Wait { backlog: 0, since: now, told: now, is_left_out: false, is_stalled: false };
            let wait = self.members.entry(look.member).or_insert(new);
            wait.see(*look, now, &mut changes);
        }
        let some_has_none = looks.iter().any(|look| look.takes && look.backlog == 0);
        for look in looks {
            let Some(wait) = self.members.get_mut(&look.member) else { continue };
            if wait.backlog == 0 {
                continue;
            }
            let waited = now.saturating_duration_since(wait.since);
            if look.takes && some_has_none && waited >= PATIENCE && !wait.is_left_out {
                wait.is_left_out = true;
                wait.told = now;
                changes.push(Change::LeftOut(look.member));
            }
            if waited >= self.timeout && !wait.is_stalled {
                wait.is_stalled = true;
                changes.push(Change::Stalled(look.member));
            }
            let is_told = wait.is_left_out || wait.is_stalled;
            if is_told && now.saturating_duration_since(wait.told) >= AGAIN {
                wait.told = now;
                changes.push(Change::Waits(look.member));
            }
        }
        changes
    }

    /// Whether it gets no connection while others take.
    pub(super) fn leaves_out(&self, member: MemberId) -> bool {
        self.members.get(&member).is_some_and(|wait| wait.is_left_out)
    }

    /// Whether it has taken nothing for long.
    pub(super) fn is_stalled(&self, member: MemberId) -> bool {
        self.members.get(&member).is_some_and(|wait| wait.is_stalled)
    }

    /// The member is gone, or its server is. Returns whether it was stalled.
    pub(super) fn forget(&mut self, member: MemberId) -> bool {
        self.members.remove(&member).is_some_and(|wait| wait.is_stalled)
    }
}

impl Wait {
    fn snapshot(&self, member: MemberId) -> WaitSnapshot {
        let &Wait { backlog, since, told, is_left_out, is_stalled } = self;
        let (since, told) = (since.into(), told.into());
        WaitSnapshot { member, backlog, since, told, is_left_out, is_stalled }
    }

    fn restored(snapshot: WaitSnapshot) -> Self {
        let WaitSnapshot { member: _, backlog, since, told, is_left_out, is_stalled } = snapshot;
        Wait { backlog, since: since.into(), told: told.into(), is_left_out, is_stalled }
    }

    fn see(&mut self, Look { member, backlog, .. }: Look, now: Instant, changes: &mut Vec<Change>) {
        let has_taken = backlog == 0 || backlog < self.backlog;
        if has_taken || self.backlog == 0 {
            self.since = now;
            self.told = now;
        }
        self.backlog = backlog;
        if has_taken && std::mem::take(&mut self.is_left_out) {
            changes.push(Change::Back(member));
        }
        if has_taken && std::mem::take(&mut self.is_stalled) {
            changes.push(Change::Moving(member));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    fn look(member: u64, backlog: usize) -> Look {
        Look { member: MemberId(member), backlog, takes: true }
    }

    /// Backlogs that are seen, so many milliseconds after the start.
    type Step<'a> = (u64, &'a [usize]);

    /// What changes, and when.
    type Changes<'a> = &'a [(u64, Change)];

    /// What changes then.
    fn seen(steps: &[Step<'_>]) -> Vec<(u64, Change)> {
        let (mut waits, start) = (Waits::new(TIMEOUT), Instant::now());
        let see = |&(at, backlogs): &Step<'_>| {
            let looks: Vec<_> = (0..).zip(backlogs).map(|(member, &backlog)| look(member, backlog)).collect();
            let changes = waits.see(&looks, start + Duration::from_millis(at));
            changes.into_iter().map(move |change| (at, change)).collect::<Vec<_>>()
        };
        steps.iter().flat_map(see).collect()
    }

    #[test]
    fn who_lets_wait_is_left_out_until_it_takes() {
        use Change::{Back, LeftOut, Moving, Stalled, Waits};
        let first = MemberId(0);
        let cases: [(&[Step<'_>], Changes<'_>); 9] = [
            (&[(0, &[1, 0]), (10, &[1, 0]), (19, &[2, 0])], &[]),
            (&[(0, &[1, 0]), (20, &[1, 0])], &[(20, LeftOut(first))]),
            // It has taken some, though others have come.
            (&[(0, &[3, 0]), (10, &[2, 0]), (20, &[4, 0]), (29, &[4, 0])], &[]),
            // Under load everybody's is above 0.
            (&[(0, &[1, 1]), (20, &[9, 1]), (40, &[9, 1])], &[]),
            (&[(0, &[1, 1]), (20, &[9, 1]), (40, &[9, 0])], &[(40, LeftOut(first))]),
            (
                &[(0, &[3, 0]), (20, &[3, 0]), (30, &[3, 1]), (50, &[2, 1])],
                &[(20, LeftOut(first)), (50, Back(first))],
            ),
            (
                &[(0, &[3, 0]), (20, &[3, 0]), (100, &[3, 0]), (120, &[3, 0]), (200, &[0, 0])],
                &[(20, LeftOut(first)), (100, Stalled(first)), (200, Back(first)), (200, Moving(first))],
            ),
            (
                &[
                    (0, &[3, 0]),
                    (20, &[3, 0]),
                    (100, &[3, 0]),
                    (1019, &[3, 0]),
                    (1020, &[3, 0]),
                    (2019, &[3, 0]),
                    (2020, &[3, 0]),
                ],
                &[(20, LeftOut(first)), (100, Stalled(first)), (1020, Waits(first)), (2020, Waits(first))],
            ),
            // Nobody else is free, and it takes nothing all the same.
            (
                &[(0, &[3, 1]), (99, &[3, 2]), (100, &[3, 1]), (1000, &[3, 2])],
                &[(100, Stalled(first)), (1000, Waits(first)), (1000, Stalled(MemberId(1)))],
            ),
        ];
        for (steps, changes) in cases {
            assert_eq!(seen(steps), changes, "{steps:?}");
        }
    }

    #[test]
    fn one_that_is_alone_is_stalled_and_not_left_out() {
        assert_eq!(seen(&[(0, &[5]), (100, &[7])]), [(100, Change::Stalled(MemberId(0)))]);
    }

    #[test]
    fn who_is_not_to_take_is_no_reason_to_leave_another_out() {
        let (mut waits, start) = (Waits::new(TIMEOUT), Instant::now());
        let ending = Look { takes: false, ..look(1, 0) };
        for at in [0, 20, 40] {
            let changes = waits.see(&[look(0, 2), ending], start + Duration::from_millis(at));
            assert_eq!(changes, []);
        }
    }

    #[test]
    fn one_that_is_gone_is_forgotten() {
        let (mut waits, start) = (Waits::new(TIMEOUT), Instant::now());
        waits.see(&[look(0, 2), look(1, 0)], start);
        waits.see(&[look(0, 2), look(1, 0)], start + TIMEOUT);
        assert!(waits.leaves_out(MemberId(0)));
        assert!(waits.forget(MemberId(0)));
        assert!(!waits.leaves_out(MemberId(0)));
        assert!(!waits.forget(MemberId(1)));
    }

    proptest! {
        /// And what is told comes in turn.
        #[test]
        fn never_are_all_left_out_at_once(steps in proptest::collection::vec(
            (0_u64..40, proptest::collection::vec(0_usize..3, 4)), 1..60,
        )) {
            let mut waits = Waits::new(TIMEOUT);
            let mut now = Instant::now();
            let mut left_out = [false; 4];
            for (pause, backlogs) in steps {
                now += Duration::from_millis(pause);
                let looks: Vec<_> =
                    (0..).zip(&backlogs).map(|(member, &backlog)| look(member, backlog)).collect();
                for change in waits.see(&looks, now) {
                    match change {
                        Change::LeftOut(MemberId(index)) => {
                            prop_assert!(backlogs.contains(&0));
                            prop_assert!(!std::mem::replace(&mut left_out[index as usize], true));
                        }
                        Change::Back(MemberId(index)) => {
                            prop_assert!(std::mem::take(&mut left_out[index as usize]));
                        }
                        Change::Stalled(_) | Change::Waits(_) | Change::Moving(_) => {}
                    }
                }
                for (index, &backlog) in backlogs.iter().enumerate() {
                    prop_assert_eq!(waits.leaves_out(MemberId(index as u64)), left_out[index]);
                    prop_assert!(backlog > 0 || !left_out[index]);
                }
                prop_assert!(left_out.contains(&false));
            }
        }
    }
}
