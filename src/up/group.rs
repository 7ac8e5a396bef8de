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
mod tests;
