//! Which app is started, passed over, started again and ended, and what `clusterd up` ends with.
//!
//! Pure: it starts and signals nothing, and reads no clock.
//!
//! ```text
//!  Waiting ── all that it needs is ready ──► Starting ── ready ──► Ready
//!     │                                        │  ▲                  │
//!     │ one of those will never be ready       │  │ after a pause    │ the primary was killed
//!     ▼                                        │  └──── Crashed ◄────┤ or crashed
//!  PassedOver                                  └────► Ended ◄────────┘ exited, or crashed too often
//! ```

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::supervisor::ends::Ended;

/// How long, at a stop, apps that others depend on go on while those are stopped.
const HEAD_START: Duration = Duration::from_secs(1);

/// How long a primary may take to end when it was asked to do so fast. It ends its workers in a second.
const FAST: Duration = Duration::from_secs(10);

/// How long a primary that has crashed is not started again: its guardian frees the ports.
const PAUSE: Duration = Duration::from_millis(300);

/// How many crashes of a primary are mended within [`CRASHES_WITHIN`].
const MOST_CRASHES: usize = 5;

/// How long a crash counts.
const CRASHES_WITHIN: Duration = Duration::from_secs(60);

/// The apps, each known by its place.
#[derive(Debug)]
pub(super) struct Group {
    apps: Vec<Member>,
    ends_on_failure: bool,
    stop: Option<Stop>,
    /// The code of the first that has failed.
    failure: Option<u8>,
    is_ready: bool,
}

#[derive(Debug)]
struct Member {
    /// The places of the apps that have to be ready first.
    needs: Vec<usize>,
    state: State,
    /// The last signal that it was sent at the stop.
    asked: Option<Signal>,
    /// When its primary has crashed lately.
    crashes: Vec<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Starting {
        is_late: bool,
        /// Its primary has crashed, and whatever is wrong now may come of that.
        is_again: bool,
    },
    Ready,
    Crashed {
        until: Instant,
    },
    Ended {
        code: u8,
    },
    PassedOver,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Those that others depend on go on until then, or until these have ended.
    HeadStart { signal: Signal, until: Instant },
    /// Each app was asked to end.
    Everyone { signal: Signal },
    /// Each was asked to end fast, and has until then.
    Fast { until: Instant },
    /// What is left is killed.
    Killing,
}

impl Stop {
    fn begins(signal: Signal, now: Instant) -> Self {
        match signal {
            Signal::INT => Self::Fast { until: now + FAST },
            signal => Self::HeadStart { signal, until: now + HEAD_START },
        }
    }

    fn is_faster(self, now: Instant) -> Self {
        match self {
            Self::HeadStart { .. } | Self::Everyone { .. } => Self::Fast { until: now + FAST },
            Self::Fast { .. } | Self::Killing => self,
        }
    }

    fn goes_on(self, now: Instant) -> Self {
        match self {
            Self::HeadStart { signal, until } if until <= now => Self::Everyone { signal },
            Self::Fast { until } if until <= now => Self::Killing,
            stop => stop,
        }
    }

    fn until(self) -> Option<Instant> {
        match self {
            Self::HeadStart { until, .. } | Self::Fast { until } => Some(until),
            Self::Everyone { .. } | Self::Killing => None,
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::HeadStart { signal, .. } | Self::Everyone { signal } => signal,
            Self::Fast { .. } => Signal::INT,
            Self::Killing => Signal::KILL,
        }
    }
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Time has passed.
    Time,
    /// The app serves.
    Ready(usize),
    /// The app should be ready by now.
    Late(usize),
    /// The app's primary could not be started.
    NotStarted(usize),
    /// The app's primary has ended.
    Ended(usize, Ended),
    /// This signal asks for the end of all.
    Stop(Signal),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start the app's primary.
    Start(usize),
    /// Send it this signal.
    Signal(usize, Signal),
    /// Say something of an app.
    Say(usize, News),
    /// All apps are ready, for the first time.
    AllReady,
    /// End with this code.
    End(u8),
}

/// What there is to be said of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It has ended, and others go on.
    Ended(Ended),
    /// It is started again.
    Crashed(Ended),
    /// It has crashed too often.
    GivenUp(Ended),
    /// It is not ready yet.
    Late,
    /// It is ready at last.
    ReadyAtLast,
    /// It is never started, because of this one.
    PassedOver(usize),
}

impl Group {
    /// Of apps that each need those at these places.
    pub(super) fn new(needs: impl IntoIterator<Item = Vec<usize>>, ends_on_failure: bool) -> Self {
        let member = |needs| Member { needs, state: State::Waiting, asked: None, crashes: Vec::new() };
        let apps = needs.into_iter().map(member).collect();
        Self { apps, ends_on_failure, stop: None, failure: None, is_ready: false }
    }

    /// What follows from what.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Time => {}
            Event::Ready(app) => self.ready(app, &mut actions),
            Event::Late(app) => self.late(app, &mut actions),
            Event::NotStarted(app) => self.end(app, 1),
            Event::Ended(app, how) => self.ended(app, how, now, &mut actions),
            // Whoever asks twice does not want to wait.
            Event::Stop(signal) => {
                self.stop = Some(self.stop.map_or(Stop::begins(signal, now), |stop| stop.is_faster(now)));
            }
        }
        self.stop_if_failed(now);
        if self.stop.is_none() {
            self.go_up(now, &mut actions);
            self.stop_if_failed(now);
        }
        self.stop = self.stop.map(|stop| stop.goes_on(now));
        if let Some(stop) = self.stop {
            self.go_down(stop, &mut actions);
        }
        if self.apps.iter().all(|app| app.state.is_over()) {
            actions.push(Action::End(self.failure.unwrap_or(0)));
        }
        actions
    }

    /// When [`Event::Time`] is due.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let again = self.apps.iter().filter_map(|app| match app.state {
            State::Crashed { until } => Some(until),
            _ => None,
        });
        again.chain(self.stop.and_then(Stop::until)).min()
    }

    /// How many apps are ready.
    pub(super) fn ready_apps(&self) -> usize {
        self.apps.iter().filter(|app| app.state == State::Ready).count()
    }

    /// Whether the stop has begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    fn stop_if_failed(&mut self, now: Instant) {
        if self.ends_on_failure && self.failure.is_some() && self.stop.is_none() {
            self.stop = Some(Stop::begins(Signal::TERM, now));
        }
    }

    fn ready(&mut self, app: usize, actions: &mut Vec<Action>) {
        let state = &mut self.apps[app].state;
        if let State::Starting { is_late, .. } = *state {
            *state = State::Ready;
            if is_late {
                actions.push(Action::Say(app, News::ReadyAtLast));
            }
        }
    }

    fn late(&mut self, app: usize, actions: &mut Vec<Action>) {
        if let State::Starting { is_late: is_late @ false, .. } = &mut self.apps[app].state {
            *is_late = true;
            actions.push(Action::Say(app, News::Late));
        }
    }

    fn ended(&mut self, app: usize, how: Ended, now: Instant, actions: &mut Vec<Action>) {
        let member = &mut self.apps[app];
        let is_again = matches!(member.state, State::Starting { is_again: true, .. });
        match how {
            // What it was asked for, before it could see to it.
            Ended::Signal { .. } if member.asked.is_some() => return self.end(app, 0),
            Ended::Signal { .. } if self.stop.is_none() => {}
            Ended::Code(1..) if is_again && self.stop.is_none() => {}
            Ended::Code(_) | Ended::Signal { .. } => {
                self.end(app, how.exit_code());
                if self.stop.is_none() && !self.apps.iter().all(|other| other.state.is_over()) {
                    actions.push(Action::Say(app, News::Ended(how)));
                }
                return;
            }
        }
        member.crashes.retain(|&at| now.duration_since(at) < CRASHES_WITHIN);
        member.crashes.push(now);
        if member.crashes.len() <= MOST_CRASHES {
            member.state = State::Crashed { until: now + PAUSE };
            actions.push(Action::Say(app, News::Crashed(how)));
        } else {
            self.end(app, how.exit_code());
            actions.push(Action::Say(app, News::GivenUp(how)));
        }
    }

    fn end(&mut self, app: usize, code: u8) {
        self.apps[app].state = State::Ended { code };
        if code != 0 {
            self.failure.get_or_insert(code);
        }
    }

    fn go_up(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // One that is passed over may be needed by another.
        while let Some((app, because)) = self.hopeless() {
            self.apps[app].state = State::PassedOver;
            self.failure.get_or_insert(1);
            actions.push(Action::Say(app, News::PassedOver(because)));
        }
        for app in 0..self.apps.len() {
            let is_again = match self.apps[app].state {
                State::Waiting
                    if self.apps[app].needs.iter().all(|&need| self.apps[need].state.is_good()) =>
                {
                    false
                }
                State::Crashed { until } if until <= now => true,
                _ => continue,
            };
            self.apps[app].state = State::Starting { is_late: false, is_again };
            actions.push(Action::Start(app));
        }
        if !self.is_ready && self.apps.iter().all(|app| app.state.is_good()) {
            self.is_ready = true;
            actions.push(Action::AllReady);
        }
    }

    /// An app that waits for one that will never be ready, and that one.
    fn hopeless(&self) -> Option<(usize, usize)> {
        let waiting = self.apps.iter().enumerate().filter(|(_, app)| app.state == State::Waiting);
        let mut pairs = waiting.filter_map(|(place, app)| {
            let bad = app.needs.iter().find(|&&need| self.apps[need].state.is_bad())?;
            Some((place, *bad))
        });
        pairs.next()
    }

    fn go_down(&mut self, stop: Stop, actions: &mut Vec<Action>) {
        for app in &mut self.apps {
            if matches!(app.state, State::Waiting | State::Crashed { .. }) {
                app.state = State::PassedOver;
            }
        }
        let (signal, waits) = (stop.signal(), matches!(stop, Stop::HeadStart { .. }));
        for app in 0..self.apps.len() {
            let is_needed = self.apps.iter().any(|other| other.state.runs() && other.needs.contains(&app));
            let member = &mut self.apps[app];
            if member.state.runs() && member.asked != Some(signal) && !(waits && is_needed) {
                member.asked = Some(signal);
                actions.push(Action::Signal(app, signal));
            }
        }
    }
}

impl State {
    /// Whether its primary runs.
    fn runs(self) -> bool {
        matches!(self, State::Starting { .. } | State::Ready)
    }

    /// Whether nothing comes after it.
    fn is_over(self) -> bool {
        matches!(self, State::Ended { .. } | State::PassedOver)
    }

    /// Whether those that need it may be started: it serves, or has done what it had to do.
    fn is_good(self) -> bool {
        matches!(self, State::Ready | State::Ended { code: 0 })
    }

    /// Whether those that need it will not be started.
    fn is_bad(self) -> bool {
        matches!(self, State::Starting { is_late: true, .. } | State::Ended { code: 1.. } | State::PassedOver)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KILLED: Ended = Ended::Signal { signal: libc::SIGKILL, core: false };

    fn code(code: i32) -> Ended {
        Ended::Code(code)
    }

    /// What is done after each event, half a second apart.
    fn done(needs: &[&[usize]], ends_on_failure: bool, events: &[Event]) -> Vec<Vec<Action>> {
        let mut group = Group::new(needs.iter().map(|needs| needs.to_vec()), ends_on_failure);
        let start = Instant::now();
        let times = (0..).map(|step| start + HEAD_START / 2 * step);
        events.iter().zip(times).map(|(&event, now)| group.step(event, now)).collect()
    }

    use Action::{AllReady, End, Say, Signal as Send, Start};
    use Event::{Ended as Over, Late, NotStarted, Ready, Stop as Asked, Time};

    #[test]
    fn an_app_is_started_once_all_that_it_needs_is_ready() {
        let needs: [&[usize]; 4] = [&[], &[0], &[0, 1], &[]];
        let events = [Time, Ready(3), Ready(0), Ready(1), Ready(2)];
        let expected = [vec![Start(0), Start(3)], vec![], vec![Start(1)], vec![Start(2)], vec![AllReady]];
        assert_eq!(done(&needs, false, &events), expected);
    }

    #[test]
    fn what_has_done_its_work_is_as_good_as_ready() {
        let events = [Time, Over(0, code(0)), Ready(1), Over(1, code(0))];
        let ended = News::Ended(code(0));
        let expected = [vec![Start(0)], vec![Say(0, ended), Start(1)], vec![AllReady], vec![End(0)]];
        assert_eq!(done(&[&[], &[0]], false, &events), expected);
    }

    #[test]
    fn what_needs_an_app_that_fails_is_passed_over_with_all_that_needs_it() {
        let needs: [&[usize]; 4] = [&[], &[0], &[1], &[]];
        let passed = [Say(1, News::PassedOver(0)), Say(2, News::PassedOver(1))];
        let table = [
            (Over(0, code(3)), vec![Say(0, News::Ended(code(3)))], 3),
            (NotStarted(0), vec![], 1),
            (Late(0), vec![Say(0, News::Late)], 1),
        ];
        for (event, first, code_at_end) in table {
            let events = [Time, Ready(3), event, Over(0, code(0)), Over(3, code(0))];
            let done = done(&needs, false, &events);
            assert_eq!(done[2], [&first[..], &passed].concat(), "{event:?}");
            assert_eq!(done[4].last(), Some(&End(code_at_end)), "{event:?}");
        }
    }

    #[test]
    fn it_ends_when_all_have_ended_with_the_code_of_the_first_that_failed() {
        let table: [(&[Ended], u8); 4] = [
            (&[code(0), code(0)], 0),
            (&[code(0), code(7)], 7),
            (&[code(5), code(7)], 5),
            (&[code(300), code(0)], 1),
        ];
        for (ends, expected) in table {
            let events = [Time, Over(0, ends[0]), Over(1, ends[1])];
            assert_eq!(done(&[&[], &[]], false, &events)[2].last(), Some(&End(expected)), "{ends:?}");
        }
    }

    #[test]
    fn the_first_that_fails_ends_the_others_if_so_wished() {
        let needs: [&[usize]; 3] = [&[], &[], &[]];
        let events = [Time, Over(0, code(0)), Over(1, code(4)), Over(2, code(9))];
        let steps = done(&needs, true, &events);
        assert_eq!(steps[1], [Say(0, News::Ended(code(0)))], "it has not failed");
        assert_eq!(steps[2], [Say(1, News::Ended(code(4))), Send(2, Signal::TERM)]);
        assert_eq!(steps[3], [End(4)]);
        // One that is passed over has failed as well.
        let late = done(&[&[], &[0]], true, &[Time, Late(0)]).remove(1);
        assert_eq!(late, [Say(0, News::Late), Say(1, News::PassedOver(0)), Send(0, Signal::TERM)]);
    }

    #[test]
    fn at_a_stop_what_is_needed_ends_last_and_does_not_wait_for_long() {
        let needs: [&[usize]; 3] = [&[], &[0], &[1]];
        let up = [Time, Ready(0), Ready(1), Ready(2)];
        let quit = Signal::QUIT;
        let stop =
            |rest: &[Event]| done(&needs, false, &[&up[..], &[Asked(quit)], rest].concat()).split_off(4);
        let ends = [Over(2, code(0)), Over(1, code(0)), Over(0, code(0))];
        assert_eq!(
            stop(&ends),
            [vec![Send(2, quit)], vec![Send(1, quit)], vec![Send(0, quit)], vec![End(0)]]
        );
        assert_eq!(stop(&[Time, Time])[1..], [vec![], vec![Send(0, quit), Send(1, quit)]]);
        let fast = |app| Send(app, Signal::INT);
        assert_eq!(stop(&[Asked(Signal::TERM)])[1], [fast(0), fast(1), fast(2)]);
        assert_eq!(stop(&[Asked(Signal::TERM), Asked(Signal::TERM)])[2], []);
        // Ten seconds later, after many more who ask.
        let many = stop(&[[Asked(Signal::TERM)].repeat(20), vec![Time]].concat());
        let kill = |app| Send(app, Signal::KILL);
        assert_eq!(many.concat()[4..], [kill(0), kill(1), kill(2)]);
    }

    #[test]
    fn a_stop_starts_nothing_more_and_a_signal_is_then_no_failure() {
        let events = [Time, Asked(Signal::TERM), Ready(0), Over(0, KILLED)];
        let expected = [vec![Start(0)], vec![Send(0, Signal::TERM)], vec![], vec![End(0)]];
        assert_eq!(done(&[&[], &[0]], false, &events), expected);
        let failed = [Time, Asked(Signal::TERM), Over(0, code(2))];
        assert_eq!(done(&[&[]], false, &failed)[2], [End(2)]);
    }

    #[test]
    fn a_primary_that_crashes_is_started_again_five_times_a_minute() {
        let mut events = vec![Time];
        for _ in 0..6 {
            events.extend([Over(0, KILLED), Time]);
        }
        let done = done(&[&[], &[]], true, &events);
        for crash in 0..5 {
            assert_eq!(done[1 + 2 * crash], [Say(0, News::Crashed(KILLED))]);
            assert_eq!(done[2 + 2 * crash], [Start(0)]);
        }
        assert_eq!(done[11], [Say(0, News::GivenUp(KILLED)), Send(1, Signal::TERM)]);
    }

    #[test]
    fn a_failure_right_after_a_crash_is_part_of_it() {
        let again =
            [Time, Ready(0), Over(0, KILLED), Time, Over(0, code(1)), Time, Ready(0), Over(0, code(1))];
        let done = done(&[&[]], false, &again);
        assert_eq!(done[4], [Say(0, News::Crashed(code(1)))]);
        assert_eq!(done[7], [End(1)]);
    }

    #[test]
    fn it_wakes_up_for_what_is_due() {
        let mut group = Group::new([vec![], vec![0]], false);
        let now = Instant::now();
        group.step(Time, now);
        assert_eq!(group.wakes_at(), None);
        group.step(Over(0, KILLED), now);
        assert_eq!(group.wakes_at(), Some(now + PAUSE));
        group.step(Time, now + PAUSE);
        group.step(Ready(0), now);
        group.step(Asked(Signal::TERM), now);
        assert_eq!(group.wakes_at(), Some(now + HEAD_START));
        group.step(Time, now + HEAD_START);
        assert_eq!(group.wakes_at(), None);
        group.step(Asked(Signal::TERM), now);
        assert_eq!(group.wakes_at(), Some(now + FAST));
        group.step(Time, now + FAST);
        assert_eq!(group.wakes_at(), None);
    }

    fn event(apps: usize) -> impl Strategy<Value = Event> {
        let app = 0..apps;
        prop_oneof![
            Just(Time),
            app.clone().prop_map(Ready),
            app.clone().prop_map(Late),
            (app.clone(), 0..3i32).prop_map(|(app, number)| Over(app, code(number))),
            app.prop_map(|app| Over(app, KILLED)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_all_that_runs_is_ended_by_a_stop(
            needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..6),
            events in prop::collection::vec(event(5), 0..40),
            ends_on_failure: bool,
        ) {
            let needs: Vec<Vec<usize>> = needs.iter().enumerate().map(|(place, needs)| {
                needs.iter().filter(|_| place > 0).map(|index| index.index(place.max(1))).collect()
            }).collect();
            let count = needs.len();
            let mut group = Group::new(needs.clone(), ends_on_failure);
            let mut now = Instant::now();
            let (mut running, mut ended) = (vec![false; count], false);
            for event in [Time].into_iter().chain(events) {
                now += Duration::from_millis(100);
                // Only what runs gets ready, late and ends.
                match event {
                    Ready(app) | Late(app) | Over(app, _) if !running.get(app).is_some_and(|runs| *runs) => continue,
                    Over(app, _) => running[app] = false,
                    _ => {}
                }
                for action in group.step(event, now) {
                    match action {
                        Start(app) => {
                            prop_assert!(!std::mem::replace(&mut running[app], true));
                            let is_met = |&need: &usize| group.apps[need].state.is_good();
                            prop_assert!(!group.apps[app].crashes.is_empty() || needs[app].iter().all(is_met));
                        }
                        Send(app, _) => prop_assert!(running[app]),
                        End(_) => ended = true,
                        Say(..) | AllReady => {}
                    }
                }
            }
            prop_assert_eq!(ended, group.apps.iter().all(|app| app.state.is_over()));
            group.step(Asked(Signal::TERM), now);
            group.step(Time, now + HEAD_START);
            for app in (0..count).filter(|&app| running[app]) {
                prop_assert!(group.apps[app].asked.is_some());
                group.step(Over(app, code(0)), now + HEAD_START);
            }
            prop_assert!(group.apps.iter().all(|app| app.state.is_over()));
        }
    }
}
