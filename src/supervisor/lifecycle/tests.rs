//! The lifecycle by example, and against a small world that carries out whatever it asks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ids::Slot;
use crate::protocol::wire::Token;

const PORTS: [WorkerPort; 2] = [WorkerPort(80), WorkerPort(443)];
const CHANCE: Chance = Chance(500);

fn rules() -> Rules {
    Rules {
        ports: PORTS.to_vec(),
        wait_ready: false,
        probes: false,
        ready_timeout: Duration::from_secs(30),
        stop: StopRules { signal: Signal::TERM, at: StopAt::Drained, message: false },
        kill_timeout: Duration::from_secs(2),
        restart: restart::Policy::default(),
    }
}

fn process(launch: u64) -> Process {
    let number = i32::try_from(launch).expect("small") + 100;
    Process {
        id: WorkerId { slot: Slot(1), launch },
        group: Pid::from_raw(number).expect("not 0"),
        token: Token([0; 16]),
        ending: Ending::default(),
    }
}

/// A worker under these rules, at this time.
struct Subject {
    state: State,
    rules: Rules,
    now: Instant,
}

impl Subject {
    fn launched(rules: Rules) -> Self {
        let mut subject = Self { state: State::Stopped, rules, now: Instant::now() };
        assert_eq!(subject.happen(Input::Start(Run::FRESH)), [Action::Launch]);
        assert_eq!(subject.happen(Input::Launched(process(1))), []);
        subject
    }

    fn online() -> Self {
        let mut subject = Self::launched(rules());
        subject.listen(PORTS[0]);
        assert_eq!(subject.listen(PORTS[1]), [Action::Release(process(1).id)]);
        subject
    }

    fn happen(&mut self, input: Input) -> Vec<Action> {
        let before = std::mem::replace(&mut self.state, State::Stopped);
        let (state, actions) = step(before, input, &self.rules, self.now);
        self.state = state;
        actions
    }

    fn listen(&mut self, port: WorkerPort) -> Vec<Action> {
        self.happen(Input::Listening { id: process(1).id, port })
    }

    fn end(&mut self, how: Ended, others: bool) -> Vec<Action> {
        self.happen(Input::Ended { group: process(1).group, how, others, chance: CHANCE })
    }

    fn forgotten(&mut self, served: u64) -> Vec<Action> {
        self.happen(Input::Forgotten { id: process(1).id, served })
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.happen(Input::Tick)
    }

    fn phase(&self) -> Phase {
        self.state.phase()
    }
}

/// Nothing runs, and nothing will unless it is asked for.
fn is_settled(state: &State) -> bool {
    matches!(state, State::Stopped | State::Left(_) | State::Errored(_))
}

const FORGET: Action = Action::Forget(WorkerId { slot: Slot(1), launch: 1 });

fn terminate() -> Vec<Action> {
    vec![Action::Terminate(process(1).group, Signal::TERM)]
}

fn kill() -> Vec<Action> {
    vec![Action::Kill(process(1).group)]
}

#[test]
fn a_worker_is_online_once_it_listens_on_every_port() {
    let mut subject = Subject::launched(rules());
    subject.listen(PORTS[0]);
    assert_eq!(subject.phase(), Phase::Launching);
    subject.listen(PORTS[1]);
    assert_eq!(subject.phase(), Phase::Online);
}

#[test]
fn a_worker_without_a_port_is_online_once_it_runs_unless_its_word_is_waited_for() {
    for (wait_ready, expected) in [(false, Phase::Online), (true, Phase::Launching)] {
        let rules = Rules { ports: Vec::new(), wait_ready, ..rules() };
        let mut subject = Subject { state: State::Stopped, rules, now: Instant::now() };
        subject.happen(Input::Start(Run::FRESH));
        assert_eq!(subject.happen(Input::Launched(process(1))), []);
        assert_eq!(subject.state.deadline() == Some(subject.now), !wait_ready, "it is looked at once");
        let released = subject.wait(Duration::ZERO);
        assert_eq!(subject.phase(), expected);
        assert_eq!(released.is_empty(), wait_ready, "{released:?}");
        subject.happen(Input::Ready(process(1).id));
        assert_eq!(subject.phase(), Phase::Online);
    }
}

#[test]
fn its_word_is_waited_for_and_then_the_probe() {
    let mut subject = Subject::launched(Rules { wait_ready: true, probes: true, ..rules() });
    let id = process(1).id;
    subject.listen(PORTS[0]);
    assert_eq!(subject.happen(Input::Probed(id)), [], "nothing was asked yet");
    assert_eq!(subject.happen(Input::Ready(id)), []);
    assert_eq!(subject.listen(PORTS[1]), [Action::Probe(id)]);
    assert_eq!(subject.phase(), Phase::Launching);
    assert_eq!(subject.listen(PORTS[1]), [], "it is probed once");
    assert_eq!(subject.happen(Input::Probed(id)), [Action::Release(id)]);
    assert_eq!(subject.phase(), Phase::Online);
}

#[test]
fn a_worker_is_ready_when_it_listens_has_said_so_and_has_answered_and_not_before() {
    use Answer::{Awaited, Given, NotAskedFor};
    use Readiness::{Ready, ToBeProbed, Waiting};
    let table: [(&[WorkerPort], bool, Answer, Readiness); 8] = [
        (&[], false, Given, Ready),
        (&[], false, NotAskedFor, ToBeProbed),
        (&[], false, Awaited, Waiting),
        (&[], true, Given, Waiting),
        (&[], true, NotAskedFor, Waiting),
        (&PORTS[1..], false, Given, Waiting),
        (&PORTS[1..], false, NotAskedFor, Waiting),
        (&PORTS, true, Given, Waiting),
    ];
    for (ports, word, answer, readiness) in table {
        let missing = Missing { ports: ports.iter().copied().collect(), word, answer };
        assert_eq!(missing.readiness(), readiness, "{missing:?}");
    }
}

#[test]
fn a_word_that_comes_first_of_all_releases_nobody() {
    for probes in [false, true] {
        let mut subject = Subject::launched(Rules { wait_ready: true, probes, ..rules() });
        let id = process(1).id;
        assert_eq!(subject.happen(Input::Ready(id)), []);
        assert_eq!(subject.listen(PORTS[0]), []);
        let last = if probes { Action::Probe(id) } else { Action::Release(id) };
        assert_eq!(subject.listen(PORTS[1]), [last]);
        assert_eq!(subject.happen(Input::Ready(id)), [], "said again it changes nothing");
    }
}

#[test]
fn news_of_an_older_launch_change_nothing() {
    let mut subject = Subject::launched(rules());
    let before = subject.state.clone();
    let id = process(7).id;
    for input in [
        Input::Listening { id, port: PORTS[0] },
        Input::Ready(id),
        Input::Probed(id),
        Input::Speaks { id, on_channel: OnChannel::Known },
        Input::Catches { id, signals: Signals::from_bits(u64::MAX) },
        Input::Retired(id),
        Input::Drained(id),
        Input::Forgotten { id, served: 1 },
    ] {
        assert_eq!(subject.happen(input), []);
        assert_eq!(subject.state, before);
    }
}

#[test]
fn who_is_not_ready_in_time_has_failed() {
    let mut subject = Subject::launched(rules());
    assert_eq!(subject.wait(ADVISE_AFTER), [Action::Advise(process(1))]);
    assert_eq!(subject.wait(ADVISE_AFTER), [], "said once");
    assert_eq!(subject.wait(ADVISE_AFTER), terminate());
    assert_eq!(subject.phase(), Phase::Stopping);
    assert_eq!(subject.wait(Duration::from_secs(2)), kill());
    assert_eq!(subject.end(Ended::Signal { signal: 9, core: false }, false), [FORGET]);
    subject.forgotten(3);
    let State::WaitingRestart { again, run, .. } = subject.state else { panic!("{:?}", subject.state) };
    assert_eq!((again, run), (Reason::Unready, Run::Regular { failures: 1 }));
}

#[test]
fn what_is_left_of_a_crashed_worker_is_killed_and_taken_back_before_it_is_started_again() {
    let mut subject = Subject::launched(rules());
    let killed = [kill(), vec![FORGET]].concat();
    assert_eq!(subject.end(Ended::Code(1), true), killed);
    assert_eq!(subject.wait(Duration::from_millis(1)), []);
    assert_eq!(subject.forgotten(0), []);
    assert_eq!(subject.phase(), Phase::WaitingRestart);
    assert_eq!(subject.wait(restart::SHORTEST), [Action::Launch]);
    assert_eq!(subject.happen(Input::Launched(process(2))), [Action::Count(Reason::Crash)]);
}

#[test]
fn who_has_served_somebody_is_started_again_at_once() {
    let mut subject = Subject::online();
    subject.end(Ended::Code(1), false);
    subject.forgotten(1);
    assert_eq!(subject.wait(Duration::ZERO), [Action::Launch]);
}

#[test]
fn nobody_waits_for_ever_to_hear_what_a_worker_had_done() {
    let mut subject = Subject::online();
    subject.end(Ended::Code(1), false);
    assert_eq!(subject.wait(SETTLING), []);
    assert!(matches!(subject.state, State::WaitingRestart { .. }));
}

#[test]
fn a_trial_that_fails_is_not_repeated() {
    let mut subject = Subject { state: State::Stopped, rules: rules(), now: Instant::now() };
    subject.happen(Input::Start(Run::Trial));
    subject.happen(Input::Launched(process(1)));
    subject.end(Ended::Code(0), false);
    subject.forgotten(0);
    assert_eq!(subject.phase(), Phase::Errored);
    let mut subject = Subject { state: State::Stopped, rules: rules(), now: Instant::now() };
    subject.happen(Input::Start(Run::Trial));
    subject.happen(Input::LaunchFailed { chance: CHANCE });
    assert_eq!(subject.state, State::Errored(End::NotStarted));
}

#[test]
fn a_trial_lasts_until_the_worker_is_trusted() {
    for (is_trusted, phase) in [(false, Phase::Errored), (true, Phase::WaitingRestart)] {
        let mut subject = Subject { state: State::Stopped, rules: rules(), now: Instant::now() };
        subject.happen(Input::Start(Run::Trial));
        subject.happen(Input::Launched(process(1)));
        subject.listen(PORTS[0]);
        subject.listen(PORTS[1]);
        assert_eq!(subject.phase(), Phase::Online);
        if is_trusted {
            assert_eq!(subject.happen(Input::Trusted), []);
        }
        subject.end(Ended::Code(1), false);
        subject.forgotten(1);
        assert_eq!(subject.phase(), phase);
    }
}

#[test]
fn a_meant_end_is_the_last() {
    let restart = restart::Policy { stop_exit_codes: vec![0], ..restart::Policy::default() };
    let mut subject = Subject::launched(Rules { restart, ..rules() });
    subject.end(Ended::Code(0), false);
    subject.forgotten(0);
    assert_eq!(subject.state, State::Left(End::Ended(Ended::Code(0))));
    assert_eq!(subject.happen(Input::Start(Run::FRESH)), [Action::Launch]);
}

#[test]
fn a_retired_worker_is_asked_to_end_when_its_last_client_has_gone() {
    let mut subject = Subject::online();
    let until = subject.now + Duration::from_secs(6);
    assert_eq!(subject.happen(Input::Retire { until }), [Action::Retire(process(1).id)]);
    assert_eq!(subject.phase(), Phase::Draining);
    assert!(subject.state.serving().is_none());
    assert_eq!(subject.wait(Duration::from_secs(1)), []);
    assert_eq!(subject.happen(Input::Drained(process(1).id)), terminate());
    assert_eq!(subject.state.deadline(), Some(subject.now + Duration::from_secs(2)));
    assert_eq!(subject.end(Ended::Signal { signal: 15, core: false }, false), [FORGET]);
    assert_eq!(subject.state, State::Stopped);
}

#[test]
fn clients_that_stay_have_until_the_deadline() {
    let mut subject = Subject::online();
    let until = subject.now + Duration::from_secs(6);
    subject.happen(Input::Retire { until });
    assert_eq!(subject.wait(Duration::from_secs(6)), terminate());
    assert_eq!(subject.wait(Duration::from_secs(2)), kill());
}

#[test]
fn a_retired_worker_may_end_by_itself_and_the_rest_of_its_group_is_asked_to() {
    let mut subject = Subject::online();
    subject.happen(Input::Retire { until: subject.now + Duration::from_secs(60) });
    assert_eq!(subject.end(Ended::Code(0), true), [terminate(), vec![FORGET]].concat());
    assert_eq!(subject.state.group(), Some(process(1).group));
    assert_eq!(subject.wait(Duration::from_secs(2)), kill());
    assert_eq!(subject.state, State::Stopped);
}

#[test]
fn a_stronger_stop_shortens_the_deadline_and_a_weaker_one_does_not() {
    let mut subject = Subject::online();
    let begin = subject.now;
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(subject.happen(Input::Stop { kill_at: at(8) }), terminate());
    assert_eq!(subject.happen(Input::Stop { kill_at: at(1) }), terminate());
    assert_eq!(subject.happen(Input::Stop { kill_at: at(30) }), []);
    assert_eq!(subject.happen(Input::Retire { until: at(60) }), []);
    assert_eq!(subject.state.deadline(), Some(at(1)));
    assert_eq!(subject.wait(Duration::from_secs(1)), kill());
    subject.end(Ended::Signal { signal: 9, core: false }, false);
    assert_eq!(subject.state, State::Stopped);
}

#[test]
fn others_of_a_stopped_workers_group_have_until_the_deadline() {
    let mut subject = Subject::online();
    let kill_at = subject.now + Duration::from_secs(8);
    subject.happen(Input::Stop { kill_at });
    subject.end(Ended::Signal { signal: 15, core: false }, true);
    assert_eq!(subject.state.group(), Some(process(1).group));
    let rest = subject.state.clone();
    assert_eq!(subject.happen(Input::GroupEmpty(process(1).group)), []);
    assert_eq!(subject.state, State::Stopped);
    subject.state = rest;
    assert_eq!(subject.wait(Duration::from_secs(8)), kill());
    assert_eq!(subject.state, State::Stopped);
}

/// TERM alone, or INT alone.
const CATCHES_TERM: Signals = Signals::from_bits(1 << 14);
const CATCHES_INT: Signals = Signals::from_bits(1 << 1);

/// A worker that is Node, whose app catches these, and whose drain has begun; it may take another 6 s.
fn draining_node(rules: Rules, on_channel: OnChannel, signals: Signals) -> Subject {
    let mut subject = Subject::launched(rules);
    let id = process(1).id;
    assert_eq!(subject.happen(Input::Speaks { id, on_channel }), []);
    subject.listen(PORTS[0]);
    subject.listen(PORTS[1]);
    assert_eq!(subject.happen(Input::Catches { id, signals }), []);
    let until = subject.now + Duration::from_secs(6);
    assert_eq!(subject.happen(Input::Retire { until }), [Action::Retire(id)]);
    subject
}

fn ask_of(at: StopAt, message: bool) -> Rules {
    Rules { stop: StopRules { signal: Signal::TERM, at, message }, ..rules() }
}

const RETIRED: Input = Input::Retired(WorkerId { slot: Slot(1), launch: 1 });
const DRAINED: Input = Input::Drained(WorkerId { slot: Slot(1), launch: 1 });
const AWAIT: Action = Action::AwaitDrained(WorkerId { slot: Slot(1), launch: 1 });
const DISCONNECT: Action = Action::Disconnect(WorkerId { slot: Slot(1), launch: 1 });
const WHEN_IDLE: Action = Action::DisconnectWhenIdle(WorkerId { slot: Slot(1), launch: 1 });
const SHUTDOWN: Action = Action::SendShutdown(WorkerId { slot: Slot(1), launch: 1 });

#[test]
fn node_with_a_handler_gets_its_signal_once_it_has_drained_and_disconnect_late() {
    for (catches, signal) in [(CATCHES_TERM, Signal::TERM), (CATCHES_INT, Signal::INT)] {
        let mut subject = draining_node(rules(), OnChannel::Known, catches);
        assert_eq!(subject.happen(RETIRED), [AWAIT]);
        assert_eq!(subject.happen(DRAINED), [Action::Terminate(process(1).group, signal), WHEN_IDLE]);
        assert_eq!(subject.wait(Duration::from_millis(999)), []);
        assert_eq!(
            subject.wait(Duration::from_millis(1)),
            [DISCONNECT],
            "it may only be held by its channel"
        );
        assert_eq!(subject.wait(Duration::from_millis(999)), []);
        assert_eq!(subject.wait(Duration::from_millis(1)), kill());
    }
}

#[test]
fn node_without_a_handler_gets_disconnect_and_the_signal_when_the_drain_is_over() {
    let mut subject = draining_node(rules(), OnChannel::Known, Signals::default());
    subject.happen(RETIRED);
    subject.wait(Duration::from_secs(1));
    assert_eq!(subject.happen(DRAINED), [DISCONNECT]);
    assert_eq!(subject.phase(), Phase::Stopping);
    let id = process(1).id;
    assert_eq!(
        subject.happen(Input::Speaks { id, on_channel: OnChannel::Nobody }),
        [],
        "it has disconnected"
    );
    assert_eq!(subject.wait(Duration::from_millis(4999)), [], "it works on");
    assert_eq!(subject.wait(Duration::from_millis(1)), terminate());
    assert_eq!(subject.wait(Duration::from_secs(2)), kill());
}

#[test]
fn node_without_a_handler_that_clients_hold_until_the_end_gets_disconnect_then() {
    let mut subject = draining_node(rules(), OnChannel::Known, Signals::default());
    subject.happen(RETIRED);
    assert_eq!(subject.wait(Duration::from_secs(6)), [DISCONNECT]);
    assert_eq!(subject.wait(Duration::from_secs(1)), terminate());
    assert_eq!(subject.wait(Duration::from_secs(1)), kill(), "no later than with any other worker");
}

#[test]
fn node_without_the_shim_gets_the_signal_the_kill_timeout_after_it_has_disconnected() {
    let id = process(1).id;
    let disconnected = Input::Speaks { id, on_channel: OnChannel::Nobody };
    for (disconnects_after, signal_after) in [(500, 2000), (5500, 2000)] {
        let mut subject = draining_node(rules(), OnChannel::Unknown, Signals::default());
        subject.happen(RETIRED);
        assert_eq!(subject.happen(DRAINED), [DISCONNECT]);
        assert_eq!(subject.wait(Duration::from_millis(disconnects_after)), []);
        assert_eq!(subject.happen(disconnected.clone()), []);
        assert_eq!(subject.wait(Duration::from_millis(signal_after - 1)), []);
        assert_eq!(subject.wait(Duration::from_millis(1)), terminate());
        assert_eq!(subject.wait(Duration::from_secs(2)), kill());
    }
}

#[test]
fn a_signal_at_the_beginning_of_the_drain_is_not_repeated_and_the_kill_counts_from_its_end() {
    let mut subject = Subject::launched(ask_of(StopAt::Drain, false));
    subject.listen(PORTS[0]);
    subject.listen(PORTS[1]);
    subject.happen(Input::Retire { until: subject.now + Duration::from_secs(6) });
    assert_eq!(subject.happen(RETIRED), [terminate(), vec![AWAIT]].concat());
    assert_eq!(subject.phase(), Phase::Draining);
    assert_eq!(subject.wait(Duration::from_secs(5)), []);
    assert_eq!(subject.happen(DRAINED), []);
    assert_eq!(subject.phase(), Phase::Stopping);
    assert_eq!(subject.wait(Duration::from_millis(1999)), []);
    assert_eq!(subject.wait(Duration::from_millis(1)), kill());
}

#[test]
fn who_would_die_of_the_signal_at_once_does_not_get_it_at_the_beginning_of_the_drain() {
    let mut subject = draining_node(ask_of(StopAt::Drain, false), OnChannel::Known, Signals::default());
    assert_eq!(subject.happen(RETIRED), [AWAIT]);
    assert_eq!(subject.happen(DRAINED), [DISCONNECT]);
    let mut subject = draining_node(ask_of(StopAt::Drain, false), OnChannel::Known, CATCHES_TERM);
    assert_eq!(subject.happen(RETIRED), [terminate(), vec![AWAIT]].concat());
    // Whoever wants it so knows what is not known here.
    let mut subject = draining_node(ask_of(StopAt::Drain, false), OnChannel::Unknown, Signals::default());
    assert_eq!(subject.happen(RETIRED), [terminate(), vec![AWAIT]].concat());
}

#[test]
fn a_message_stands_for_the_signal_and_the_rest_of_the_group_gets_that() {
    let mut subject = draining_node(ask_of(StopAt::Drained, true), OnChannel::Unknown, CATCHES_TERM);
    subject.happen(RETIRED);
    assert_eq!(subject.happen(DRAINED), [SHUTDOWN, WHEN_IDLE]);
    assert_eq!(subject.end(Ended::Code(0), true), [terminate(), vec![FORGET]].concat());
    let mut subject = draining_node(ask_of(StopAt::Drain, true), OnChannel::Known, Signals::default());
    assert_eq!(subject.happen(RETIRED), [SHUTDOWN, AWAIT]);
    let kill_at = subject.now + Duration::from_secs(1);
    let again = [terminate(), vec![WHEN_IDLE]].concat();
    assert_eq!(subject.happen(Input::Stop { kill_at }), again, "who does not heed it gets the signal");
}

/// What happens to a worker, for the world below to carry out.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Listens(usize),
    SaysReady,
    Answers,
    Ends { code: bool, others: bool },
    Settles(u64),
    OthersEnd,
    Speaks(OnChannel),
    Catches(u64),
    Retires(u64),
    HasRetired,
    Empties,
    Stops(u64),
    Starts,
    Passes(u64),
}

fn happenings() -> impl Strategy<Value = Vec<(Happening, bool)>> {
    let one = prop_oneof![
        2 => (0..2usize).prop_map(Happening::Listens),
        1 => Just(Happening::SaysReady),
        1 => Just(Happening::Answers),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(code, others)| Happening::Ends { code, others }),
        2 => (0..2u64).prop_map(Happening::Settles),
        1 => Just(Happening::OthersEnd),
        1 => (0..10_000u64).prop_map(Happening::Retires),
        1 => prop_oneof![
            Just(OnChannel::Nobody),
            Just(OnChannel::Known),
            Just(OnChannel::Unknown)
        ].prop_map(Happening::Speaks),
        1 => any::<u64>().prop_map(Happening::Catches),
        1 => Just(Happening::HasRetired),
        1 => Just(Happening::Empties),
        1 => (0..10_000u64).prop_map(Happening::Stops),
        1 => Just(Happening::Starts),
        3 => (0..40_000u64).prop_map(Happening::Passes),
    ];
    prop::collection::vec((one, prop::bool::weighted(0.8)), 0..80)
}

/// The processes that would exist.
struct World {
    subject: Subject,
    launches: u64,
    /// Nobody wants it to run.
    stopped: bool,
    /// By group: the leader lives, others live.
    groups: BTreeMap<i32, (bool, bool)>,
    done: Done,
}

/// What the last launch has done to be ready.
#[derive(Default)]
struct Done {
    listens: BTreeSet<WorkerPort>,
    says_so: bool,
    is_asked: bool,
    answers: bool,
}

impl Done {
    fn note(&mut self, input: &Input) {
        match input {
            Input::Launched(_) => *self = Self::default(),
            Input::Listening { port, .. } => {
                self.listens.insert(*port);
            }
            Input::Ready(_) => self.says_so = true,
            Input::Probed(_) => self.answers |= self.is_asked,
            _ => {}
        }
    }

    fn is_all(&self, rules: &Rules) -> bool {
        self.listens.len() == rules.ports.len()
            && (self.says_so || !rules.wait_ready)
            && (self.answers || !rules.probes)
    }
}

impl World {
    fn new((wait_ready, probes): (bool, bool), (at_drain, message): (bool, bool)) -> Self {
        let restart = restart::Policy { max_restarts: 3, ..restart::Policy::default() };
        let at = if at_drain { StopAt::Drain } else { StopAt::Drained };
        let rules = Rules { wait_ready, probes, restart, ..ask_of(at, message) };
        let subject = Subject { state: State::Stopped, rules, now: Instant::now() };
        let mut world =
            Self { subject, launches: 0, stopped: false, groups: BTreeMap::new(), done: Done::default() };
        world.happen(Input::Start(Run::FRESH), true);
        world
    }

    fn happen(&mut self, input: Input, starts_work: bool) {
        let killed = matches!(self.subject.state, State::Killed { .. });
        self.done.note(&input);
        let actions = self.subject.happen(input);
        if killed && self.subject.state == State::Stopped {
            // Given up, or waited for: either way it was killed.
            self.groups.clear();
        }
        for action in actions {
            match action {
                Action::Launch => self.launch(starts_work),
                Action::Kill(group) => self.kill(group),
                Action::Retire(_)
                | Action::AwaitDrained(_)
                | Action::SendShutdown(_)
                | Action::DisconnectWhenIdle(_)
                | Action::Disconnect(_)
                | Action::Release(_)
                | Action::Probe(_) => {
                    self.done.is_asked |= matches!(action, Action::Probe(_));
                    let released = matches!(action, Action::Release(_));
                    assert!(!released || self.done.is_all(&self.subject.rules), "released too early");
                    assert!(!self.groups.is_empty(), "{action:?} is about a process that there is");
                }
                Action::Terminate(..) | Action::Count(_) | Action::Forget(_) | Action::Advise(_) => {}
            }
        }
    }

    fn launch(&mut self, works: bool) {
        assert!(!self.stopped, "a stopped worker is not started again");
        assert!(self.groups.values().all(|(leader, _)| !leader), "never two at once");
        if !works {
            return self.happen(Input::LaunchFailed { chance: CHANCE }, true);
        }
        self.launches += 1;
        let process = process(self.launches);
        self.groups.insert(process.group.as_raw_pid(), (true, false));
        self.happen(Input::Launched(process), true);
    }

    /// A killed leader still has to be waited for.
    fn kill(&mut self, group: Pid) {
        if let Some((_, others)) = self.groups.get_mut(&group.as_raw_pid()) {
            *others = false;
        }
    }

    fn carry_out(&mut self, happening: Happening, starts_work: bool) {
        let id = process(self.launches.max(1)).id;
        let after = |millis| self.subject.now + Duration::from_millis(millis);
        let input = match happening {
            Happening::Listens(port) => Input::Listening { id, port: PORTS[port] },
            Happening::SaysReady => Input::Ready(id),
            Happening::Answers => Input::Probed(id),
            Happening::Ends { code, others } => return self.leader_ends(code, others, starts_work),
            Happening::Settles(served) => Input::Forgotten { id, served },
            Happening::OthersEnd => {
                let Some(group) = self.subject.state.group() else { return };
                if let Some(alive) = self.groups.get_mut(&group.as_raw_pid()) {
                    alive.1 = false;
                }
                Input::GroupEmpty(group)
            }
            Happening::Retires(millis) => {
                let until = after(millis);
                self.stopped = true;
                Input::Retire { until }
            }
            Happening::Speaks(on_channel) => Input::Speaks { id, on_channel },
            Happening::Catches(signals) => Input::Catches { id, signals: Signals::from_bits(signals) },
            Happening::HasRetired => Input::Retired(id),
            Happening::Empties => Input::Drained(id),
            Happening::Stops(millis) => {
                let kill_at = after(millis);
                self.stopped = true;
                Input::Stop { kill_at }
            }
            Happening::Starts => {
                self.stopped &= !is_settled(&self.subject.state);
                Input::Start(Run::FRESH)
            }
            Happening::Passes(millis) => {
                self.subject.now += Duration::from_millis(millis);
                Input::Tick
            }
        };
        self.happen(input, starts_work);
    }

    fn leader_ends(&mut self, code: bool, others: bool, starts_work: bool) {
        let Some(group) = self.subject.state.process().map(|process| process.group) else {
            return;
        };
        let others = others && !matches!(self.subject.state, State::Killed { .. });
        self.groups.insert(group.as_raw_pid(), (false, others));
        let how = if code { Ended::Code(1) } else { Ended::Signal { signal: 9, core: false } };
        self.happen(Input::Ended { group, how, others, chance: CHANCE }, starts_work);
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_process_is_lost_or_doubled(
        happenings in happenings(),
        ready: (bool, bool),
        asked: (bool, bool),
    ) {
        let mut world = World::new(ready, asked);
        for (happening, starts_work) in happenings {
            world.carry_out(happening, starts_work);
            let state = &world.subject.state;
            world.groups.retain(|_, (leader, others)| *leader || *others);
            let tracked: Vec<i32> = state.group().iter().map(|group| group.as_raw_pid()).collect();
            let alive: Vec<i32> = world.groups.keys().copied().collect();
            prop_assert_eq!(alive, tracked);
            prop_assert!(!matches!(state, State::Starting { .. }), "every start is reported");
            prop_assert!(!world.stopped || state.serving().is_none());
            prop_assert!(state.process().is_none() || state.phase() != Phase::Stopped);
            prop_assert!(!is_settled(state) || state.deadline().is_none());
        }
    }

    #[test]
    fn a_stop_ends_within_its_deadline(
        happenings in happenings(),
        millis in 0..10_000u64,
        asked: (bool, bool),
    ) {
        let mut world = World::new((false, false), asked);
        for (happening, starts_work) in happenings {
            world.carry_out(happening, starts_work);
        }
        let kill_at = world.subject.now + Duration::from_millis(millis);
        world.stopped = true;
        world.happen(Input::Stop { kill_at }, true);
        for time in [kill_at, kill_at + KILL_TIMEOUT] {
            world.subject.now = world.subject.now.max(time);
            world.happen(Input::Tick, true);
        }
        prop_assert_eq!(world.subject.state, State::Stopped);
    }

    #[test]
    fn a_retired_worker_is_gone_when_its_times_are_over(
        happenings in happenings(),
        millis in 0..10_000u64,
        asked: (bool, bool),
    ) {
        let mut world = World::new((false, false), asked);
        for (happening, starts_work) in happenings {
            world.carry_out(happening, starts_work);
        }
        world.stopped = true;
        let until = world.subject.now + Duration::from_millis(millis);
        world.happen(Input::Retire { until }, true);
        for _ in 0..4 {
            world.subject.now += Duration::from_secs(10);
            world.happen(Input::Tick, true);
        }
        prop_assert_eq!(world.subject.state, State::Stopped);
    }
}
