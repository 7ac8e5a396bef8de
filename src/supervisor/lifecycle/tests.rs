//! The lifecycle by example, and against a small world that carries out whatever it asks.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::Slot;

const PORTS: [WorkerPort; 2] = [WorkerPort(80), WorkerPort(443)];

fn process(launch: u64) -> Process {
    let number = i32::try_from(launch).expect("small") + 100;
    Process {
        id: WorkerId { slot: Slot(1), launch },
        group: Pid::from_raw(number).expect("not 0"),
        token: Token([0; 16]),
    }
}

fn launch(now: Instant) -> State {
    let (starting, actions) = step(State::Stopped, Event::Start, now);
    assert_eq!(actions, [Action::Launch]);
    let launched = Event::Launched { process: process(1), ports: PORTS.to_vec() };
    step(starting, launched, now).0
}

fn listen(state: State, port: WorkerPort, now: Instant) -> State {
    let id = process(1).id;
    step(state, Event::Listening { id, port }, now).0
}

fn end(how: Ended, others: bool) -> Event {
    Event::Ended { group: process(1).group, how, others, chance: 0.5 }
}

#[test]
fn a_worker_is_online_once_it_listens_on_every_port() {
    let now = Instant::now();
    let state = listen(launch(now), PORTS[0], now);
    assert_eq!(state.phase(), Phase::Launching);
    assert_eq!(listen(state, PORTS[1], now).phase(), Phase::Online);
}

#[test]
fn a_notice_about_an_older_launch_changes_nothing() {
    let now = Instant::now();
    let state = launch(now);
    let id = process(7).id;
    let (after, actions) = step(state.clone(), Event::Listening { id, port: PORTS[0] }, now);
    assert_eq!((after, actions), (state, vec![]));
}

#[test]
fn what_is_left_of_a_crashed_worker_is_killed_and_taken_back() {
    let now = Instant::now();
    let (state, actions) = step(launch(now), end(Ended::Code(1), true), now);
    assert_eq!(actions, [Action::Kill(process(1).group), Action::Forget(process(1).id)]);
    assert_eq!(state.phase(), Phase::WaitingRestart);
    assert_eq!(state.deadline(), Some(now + restart::SHORTEST));
}

#[test]
fn a_restart_is_counted_when_the_process_runs() {
    let now = Instant::now();
    let (state, _) = step(launch(now), end(Ended::Code(0), false), now);
    let later = now + Duration::from_secs(1);
    let (state, actions) = step(state, Event::Tick, later);
    assert_eq!(actions, [Action::Launch]);
    let launched = Event::Launched { process: process(2), ports: vec![] };
    assert_eq!(step(state, launched, later).1, [Action::Count(Reason::Exit)]);
}

#[test]
fn advice_is_given_once() {
    let now = Instant::now();
    let state = launch(now);
    let (state, early) = step(state, Event::Tick, now + PATIENCE / 2);
    assert_eq!(early, []);
    let (state, actions) = step(state, Event::Tick, now + PATIENCE);
    assert_eq!(actions, [Action::Advise(process(1))]);
    assert_eq!(state.deadline(), None);
}

#[test]
fn a_stronger_stop_shortens_the_deadline_and_a_weaker_one_does_not() {
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let (state, actions) = step(launch(now), Event::Stop { kill_at: at(8) }, now);
    assert_eq!(actions, [Action::Terminate(process(1).group)]);
    let (state, actions) = step(state, Event::Stop { kill_at: at(1) }, now);
    assert_eq!(actions, [Action::Terminate(process(1).group)]);
    let (state, actions) = step(state, Event::Stop { kill_at: at(30) }, now);
    assert_eq!((state.deadline(), actions), (Some(at(1)), vec![]));
    let (state, actions) = step(state, Event::Tick, at(1));
    assert_eq!(actions, [Action::Kill(process(1).group)]);
    let (state, _) = step(state, end(Ended::Signal(9), false), at(1));
    assert_eq!(state, State::Stopped);
}

#[test]
fn a_draining_worker_may_end_by_itself_and_is_not_started_again() {
    let now = Instant::now();
    let kill_at = now + Duration::from_secs(8);
    let (state, actions) = step(launch(now), Event::Drain { kill_at }, now);
    assert_eq!((state.phase(), actions), (Phase::Draining, vec![]));
    assert!(state.serving().is_none());
    let (ended, actions) = step(state.clone(), end(Ended::Code(0), false), now);
    assert_eq!((ended, actions), (State::Stopped, vec![Action::Forget(process(1).id)]));
    let (asked, actions) = step(state.clone(), Event::Stop { kill_at }, now);
    assert_eq!((asked.phase(), actions), (Phase::Stopping, vec![Action::Terminate(process(1).group)]));
    assert_eq!(step(state, Event::Tick, kill_at).1, [Action::Kill(process(1).group)]);
}

#[test]
fn others_of_a_stopped_workers_group_have_until_the_deadline() {
    let now = Instant::now();
    let kill_at = now + Duration::from_secs(8);
    let (state, _) = step(launch(now), Event::Stop { kill_at }, now);
    let (state, _) = step(state, end(Ended::Signal(15), true), now);
    assert_eq!(state.group(), Some(process(1).group));
    let empty = Event::GroupEmpty { group: process(1).group };
    assert_eq!(step(state.clone(), empty, now), (State::Stopped, vec![]));
    let killed = vec![Action::Kill(process(1).group)];
    assert_eq!(step(state, Event::Tick, kill_at), (State::Stopped, killed));
}

#[test]
fn an_end_is_told_in_words() {
    let words = [
        (Ended::Code(3), "exited with code 3"),
        (Ended::Signal(libc::SIGSEGV), "was ended by SIGSEGV"),
        (Ended::Signal(40), "was ended by signal 40"),
    ];
    for (ended, expected) in words {
        assert_eq!(ended.to_string(), expected);
    }
}

/// What happens to a slot, for the world below to carry out.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Listens(usize),
    Ends { code: bool, others: bool },
    OthersEnd,
    Drains(u64),
    Stops(u64),
    Passes(u64),
}

fn happenings() -> impl Strategy<Value = Vec<(Happening, bool)>> {
    let one = prop_oneof![
        (0..2usize).prop_map(Happening::Listens),
        (any::<bool>(), any::<bool>()).prop_map(|(code, others)| Happening::Ends { code, others }),
        Just(Happening::OthersEnd),
        (0..10_000u64).prop_map(Happening::Drains),
        (0..10_000u64).prop_map(Happening::Stops),
        (0..20_000u64).prop_map(Happening::Passes),
    ];
    prop::collection::vec((one, prop::bool::weighted(0.8)), 0..60)
}

/// The processes that would exist.
struct World {
    now: Instant,
    state: State,
    launches: u64,
    stopped: bool,
    /// By group: the leader lives, others live.
    groups: BTreeMap<i32, (bool, bool)>,
}

impl World {
    fn happen(&mut self, event: Event, starts_work: bool) {
        let (state, actions) = step(std::mem::replace(&mut self.state, State::Stopped), event, self.now);
        self.state = state;
        for action in actions {
            match action {
                Action::Launch => self.launch(starts_work),
                Action::Kill(group) => self.kill(group),
                Action::Terminate(_) | Action::Count(_) | Action::Forget(_) | Action::Advise(_) => {}
            }
        }
    }

    fn launch(&mut self, works: bool) {
        assert!(!self.stopped, "a stopped worker is never started again");
        if !works {
            return self.happen(Event::LaunchFailed { chance: 0.3 }, true);
        }
        self.launches += 1;
        let process = process(self.launches);
        self.groups.insert(process.group.as_raw_pid(), (true, false));
        let ports = PORTS.to_vec();
        self.happen(Event::Launched { process, ports }, true);
    }

    /// A killed leader still has to be waited for.
    fn kill(&mut self, group: Pid) {
        if let Some((_, others)) = self.groups.get_mut(&group.as_raw_pid()) {
            *others = false;
        }
    }

    fn carry_out(&mut self, happening: Happening, starts_work: bool) {
        match happening {
            Happening::Listens(port) => {
                let id = process(self.launches.max(1)).id;
                let port = PORTS[port];
                self.happen(Event::Listening { id, port }, starts_work);
            }
            Happening::Ends { code, others } => self.leader_ends(code, others, starts_work),
            Happening::OthersEnd => {
                let Some(group) = self.state.group() else { return };
                if let Some(alive) = self.groups.get_mut(&group.as_raw_pid()) {
                    alive.1 = false;
                }
                self.happen(Event::GroupEmpty { group }, starts_work);
            }
            Happening::Drains(millis) => {
                self.stopped = true;
                let kill_at = self.now + Duration::from_millis(millis);
                self.happen(Event::Drain { kill_at }, starts_work);
            }
            Happening::Stops(millis) => {
                self.stopped = true;
                let kill_at = self.now + Duration::from_millis(millis);
                self.happen(Event::Stop { kill_at }, starts_work);
            }
            Happening::Passes(millis) => {
                self.now += Duration::from_millis(millis);
                self.happen(Event::Tick, starts_work);
            }
        }
        self.groups.retain(|_, (leader, others)| *leader || *others);
    }

    fn leader_ends(&mut self, code: bool, others: bool, starts_work: bool) {
        let Some(group) = self.state.process().map(|process| process.group) else {
            return;
        };
        let others = others && !matches!(self.state, State::Killed { .. });
        self.groups.insert(group.as_raw_pid(), (false, others));
        let ended = Event::Ended {
            group,
            how: if code { Ended::Code(1) } else { Ended::Signal(9) },
            others,
            chance: 0.7,
        };
        self.happen(ended, starts_work);
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_process_is_lost_or_doubled(happenings in happenings()) {
        let mut world = World {
            now: Instant::now(),
            state: State::Stopped,
            launches: 0,
            stopped: false,
            groups: BTreeMap::new(),
        };
        world.happen(Event::Start, true);
        for (happening, starts_work) in happenings {
            let killed = matches!(world.state, State::Killed { .. });
            world.carry_out(happening, starts_work);
            if killed && world.state == State::Stopped {
                // Given up, or waited for: either way it was killed.
                world.groups.clear();
            }
            let tracked: Vec<i32> = world.state.group().iter().map(|group| group.as_raw_pid()).collect();
            let alive: Vec<i32> = world.groups.keys().copied().collect();
            prop_assert_eq!(alive, tracked);
            let starting = matches!(world.state, State::Starting { .. });
            prop_assert!(!starting, "every start is reported");
            prop_assert!(!world.stopped || world.state.serving().is_none());
            prop_assert!(world.state.process().is_none() || world.state.phase() != Phase::Stopped);
        }
    }

    #[test]
    fn a_stop_ends_within_its_deadline(happenings in happenings(), millis in 0..10_000u64) {
        let mut world = World {
            now: Instant::now(),
            state: State::Stopped,
            launches: 0,
            stopped: false,
            groups: BTreeMap::new(),
        };
        world.happen(Event::Start, true);
        for (happening, starts_work) in happenings {
            world.carry_out(happening, starts_work);
        }
        let kill_at = world.now + Duration::from_millis(millis);
        world.stopped = true;
        world.happen(Event::Stop { kill_at }, true);
        world.now = world.now.max(kill_at);
        world.happen(Event::Tick, true);
        world.now += KILL_PATIENCE;
        world.happen(Event::Tick, true);
        prop_assert_eq!(world.state, State::Stopped);
    }
}
