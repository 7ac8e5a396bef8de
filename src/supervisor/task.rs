//! The task that owns the workers: it carries out what [`lifecycle`](super::lifecycle) decides.
//!
//! It decides nothing by itself but the order of things.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::advisor::Advisor;
use super::guardian::Guardian;
use super::lifecycle::{Action, Ended, Event, Phase, Process, Reason, State, step};
use super::reaper::Reaper;
use super::spawn::{self, Spawned, StartError};
use super::{FAST, Launched, Overview, Refused, Request, Spec, Status, Stop, Surroundings};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::protocol::wire::Token;

/// How often an orphaned process group is looked at: its members need not be children of this process, so
/// nothing tells when the last one ends.
const GROUP_POLL: Duration = Duration::from_millis(50);
/// How long to wait, at the very end, for what should take no time at all.
const FINISH: Duration = Duration::from_secs(1);
/// A guardian that ends sooner than this after its start would end again.
const GUARDIAN_RAN_WELL: Duration = Duration::from_secs(1);

/// The task. See [`super::new`].
pub struct Supervisor {
    spec: Spec,
    surroundings: Box<dyn Surroundings>,
    metrics: Metrics,
    inbox: mpsc::Receiver<Request>,
    publish: watch::Sender<Arc<Overview>>,
    places: Vec<Place>,
    launches: u64,
    forgetting: JoinSet<()>,
    guardian: Option<Guardian>,
    advisor: Advisor,
}

/// A slot, and the worker in it.
struct Place {
    slot: Slot,
    state: State,
    listening: Vec<WorkerPort>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").finish_non_exhaustive()
    }
}

impl Supervisor {
    pub(super) fn new(
        spec: Spec,
        surroundings: Box<dyn Surroundings>,
        metrics: Metrics,
        inbox: mpsc::Receiver<Request>,
        publish: watch::Sender<Arc<Overview>>,
    ) -> Self {
        let places = (1..=spec.recipe.workers.get()).map(|number| Place {
            slot: Slot(number),
            state: State::Stopped,
            listening: Vec::new(),
        });
        Self {
            places: places.collect(),
            spec,
            surroundings,
            metrics,
            inbox,
            publish,
            launches: 0,
            forgetting: JoinSet::new(),
            guardian: None,
            advisor: Advisor::default(),
        }
    }

    /// Starts the workers and keeps them running. Returns when they were stopped and all are gone.
    ///
    /// Workers are tied to the calling thread: run it on the main thread's own runtime.
    ///
    /// # Errors
    /// The first worker cannot be started; nothing runs then. A start that fails later is tried again.
    pub async fn run(mut self) -> Result<(), StartError> {
        self.zero_metrics();
        let mut reaper = Reaper::new(self.spec.scope).map_err(StartError::Signals)?;
        self.start_guardian();
        if let Err(error) = self.start() {
            self.finish(&mut reaper).await;
            return Err(error);
        }
        while self.places.iter().any(|place| place.state != State::Stopped) {
            self.publish();
            let groups = self.groups();
            let wake = self.wake();
            tokio::select! {
                (pid, how) = reaper.next(&groups) => self.ended(pid, how),
                Some(request) = self.inbox.recv() => self.answer(request),
                Some(()) = self.advisor.say_next() => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            }
            self.look_at_orphaned_groups();
            for index in 0..self.places.len() {
                self.apply(index, Event::Tick);
            }
            while self.forgetting.try_join_next().is_some() {}
        }
        self.publish();
        self.finish(&mut reaper).await;
        Ok(())
    }

    /// The process groups of children.
    fn groups(&self) -> Vec<Pid> {
        let workers = self.places.iter().filter_map(|place| place.state.group());
        workers.chain(self.guardian.as_ref().map(Guardian::pid)).collect()
    }

    async fn finish(&mut self, reaper: &mut Reaper) {
        let forgotten = async { while self.forgetting.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH, forgotten).await.is_err() {
            tracing::warn!("the front did not take back what the last workers left in time");
        }
        if let Some(guardian) = self.guardian.take() {
            let pid = guardian.dismiss();
            let gone = async { while reaper.next(&[pid]).await.0 != pid {} };
            if tokio::time::timeout(FINISH, gone).await.is_err() {
                tracing::warn!(pid = pid.as_raw_pid(), "the guardian did not end in time");
            }
        }
    }

    /// Without a guardian everything works but the cleaning up after a `kill -9` of the primary.
    fn start_guardian(&mut self) {
        self.guardian = None;
        let Some(orders) = &self.spec.guardian else {
            return;
        };
        if rustix::process::getpid().is_init() {
            return;
        }
        match Guardian::start(orders) {
            Ok(guardian) => {
                for group in self.groups() {
                    guardian.watch(group);
                }
                self.guardian = Some(guardian);
            }
            Err(error) => tracing::warn!(
                "cannot start the guardian: {error}; if clusterd is killed with SIGKILL, processes that its \
                 workers started may live on"
            ),
        }
    }

    fn start(&mut self) -> Result<(), StartError> {
        for index in 0..self.places.len() {
            self.transition(index, Event::Start);
            match self.launch(index) {
                Ok(launched) => self.apply(index, launched),
                Err(error) if index == 0 => {
                    self.apply(index, Event::Stop { kill_at: Instant::now() });
                    self.publish();
                    return Err(error);
                }
                Err(error) => {
                    let failed = self.launch_failed(index, &error);
                    self.apply(index, failed);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Admit { token, uid, reply } => {
                // Whoever asked may have given up meanwhile.
                let _ = reply.send(self.admit(token, uid));
            }
            Request::Listening { worker, port } => self.listening(worker, port),
            Request::Do { reply, .. } => drop(reply.send(Err(Refused::Stopping))),
            Request::Ready { .. } | Request::Replace { .. } | Request::Tell(_) => {}
            Request::Stop { stop, done } => {
                let event = match stop {
                    Stop::Drain { kill_at } => Event::Drain { kill_at },
                    Stop::Graceful { kill_at } => Event::Stop { kill_at },
                    Stop::Fast => Event::Stop { kill_at: Instant::now() + FAST },
                };
                for index in 0..self.places.len() {
                    self.apply(index, event.clone());
                }
                let _ = done.send(());
            }
        }
    }

    fn admit(&self, token: Token, uid: u32) -> Option<WorkerId> {
        if !super::is_admissible(uid) {
            return None;
        }
        let serving = self.places.iter().filter_map(|place| place.state.serving());
        serving.into_iter().find(|process| process.token == token).map(|process| process.id)
    }

    fn listening(&mut self, worker: WorkerId, port: WorkerPort) {
        let holds = |place: &Place| place.state.serving().is_some_and(|process| process.id == worker);
        let Some(index) = self.places.iter().position(holds) else {
            return;
        };
        let place = &mut self.places[index];
        if !place.listening.contains(&port) {
            place.listening.push(port);
            tracing::info!(worker = %worker.slot, %port, "worker listens");
        }
        self.apply(index, Event::Listening { id: worker, port });
    }

    fn guardian_ended(&mut self, guardian: &Guardian, how: Ended) {
        let pid = guardian.pid().as_raw_pid();
        if guardian.since().elapsed() >= GUARDIAN_RAN_WELL {
            tracing::warn!(pid, "the guardian {how}; starting it again");
            self.start_guardian();
        } else {
            tracing::warn!(pid, "the guardian {how} as soon as it was started; going on without");
        }
    }

    fn ended(&mut self, pid: Pid, how: Ended) {
        if let Some(guardian) = self.guardian.take_if(|guardian| guardian.pid() == pid) {
            return self.guardian_ended(&guardian, how);
        }
        let leads = |place: &Place| place.state.process().is_some_and(|process| process.group == pid);
        let Some(index) = self.places.iter().position(leads) else {
            tracing::debug!(pid = pid.as_raw_pid(), "an adopted process {how}");
            return;
        };
        let before = self.places[index].state.clone();
        let event = Event::Ended { group: pid, how, others: group_exists(pid), chance: fastrand::f64() };
        self.apply(index, event);
        self.tell_end(index, &before, pid, how);
        self.advise_ended(index, &before, how);
    }

    fn tell_end(&self, index: usize, before: &State, pid: Pid, how: Ended) {
        let place = &self.places[index];
        let (worker, pid) = (place.slot, pid.as_raw_pid());
        let State::WaitingRestart { until, .. } = place.state else {
            tracing::info!(%worker, pid, "worker {how}");
            return;
        };
        let now = Instant::now();
        let ran = before.since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let ran = humantime::format_duration(whole_millis(ran));
        match whole_millis(until.saturating_duration_since(now)) {
            Duration::ZERO => tracing::warn!(%worker, pid, "worker {how} after {ran}; starting it again"),
            wait => {
                let wait = humantime::format_duration(wait);
                tracing::warn!(%worker, pid, "worker {how} after {ran}; starting it again in {wait}");
            }
        }
    }

    fn look_at_orphaned_groups(&mut self) {
        for index in 0..self.places.len() {
            if let State::Orphaned { group, .. } = self.places[index].state
                && !group_exists(group)
            {
                self.apply(index, Event::GroupEmpty { group });
            }
        }
    }

    /// When the loop has to run again even if nothing happens.
    fn wake(&self) -> Option<Instant> {
        let states = || self.places.iter().map(|place| &place.state);
        let poll = states()
            .any(|state| matches!(state, State::Orphaned { .. }))
            .then(|| Instant::now() + GROUP_POLL);
        states().filter_map(State::deadline).chain(poll).min()
    }

    /// Lets `event` happen to a slot and does what follows from it.
    fn apply(&mut self, index: usize, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.transition(index, event) {
                next = self.perform(index, action).or(next);
            }
        }
    }

    fn transition(&mut self, index: usize, event: Event) -> Vec<Action> {
        let place = &mut self.places[index];
        let before = std::mem::replace(&mut place.state, State::Stopped);
        let (old_phase, old_group) = (before.phase(), before.group());
        let (state, actions) = step(before, event, Instant::now());
        let (phase, group) = (state.phase(), state.group());
        place.state = state;
        if group != old_group {
            place.listening.clear();
            self.guard(old_group, group);
        }
        if phase != old_phase {
            self.metrics.workers.with_label_values(&[old_phase.label()]).dec();
            self.metrics.workers.with_label_values(&[phase.label()]).inc();
        }
        actions
    }

    fn guard(&self, old: Option<Pid>, new: Option<Pid>) {
        if let Some(guardian) = &self.guardian {
            old.into_iter().for_each(|group| guardian.release(group));
            new.into_iter().for_each(|group| guardian.watch(group));
        }
    }

    fn perform(&mut self, index: usize, action: Action) -> Option<Event> {
        match action {
            Action::Launch => {
                let launched = self.launch(index);
                return Some(launched.unwrap_or_else(|error| self.launch_failed(index, &error)));
            }
            Action::Count(reason) => {
                let slot = self.places[index].slot.to_string();
                self.metrics.restarts.with_label_values(&[&slot, reason.label()]).inc();
            }
            Action::Terminate(group) => send(group, Signal::TERM),
            Action::Kill(group) => send(group, Signal::KILL),
            Action::Forget(worker) => {
                // A task of its own: the front may be waiting for this one to take a notice.
                self.forgetting.spawn(self.surroundings.gone(worker));
            }
            Action::Advise(process) => self.advise_running(index, process.group),
        }
        None
    }

    fn advise_running(&mut self, index: usize, group: Pid) {
        let place = &self.places[index];
        let served = place.listening.clone();
        let recipe = &self.spec.recipe;
        let how = (recipe.attach.shim.clone(), recipe.wait_ready);
        let missing = self.missing(&served);
        self.advisor.look_at((place.slot, group), how, missing, served);
    }

    /// Once a streak: the other runs of it are likely to end for the same reason.
    fn advise_ended(&mut self, index: usize, before: &State, how: Ended) {
        let place = &self.places[index];
        let State::Launching { streak, waiting_for, .. } = before else { return };
        let restarts = matches!(place.state, State::WaitingRestart { .. });
        if !restarts || !streak.is_empty() || waiting_for.len() < self.spec.recipe.ports.len() {
            return;
        }
        let others = self.places.iter().filter_map(|place| place.state.group()).collect();
        let command = self.spec.recipe.command.clone();
        self.advisor.look_back_at((place.slot, how), command, self.missing(&[]), others);
    }

    fn missing(&self, served: &[WorkerPort]) -> Vec<WorkerPort> {
        let ports = self.spec.recipe.ports.iter().copied();
        ports.filter(|port| !served.contains(port)).collect()
    }

    fn launch(&mut self, index: usize) -> Result<Event, StartError> {
        let slot = self.places[index].slot;
        let token = spawn::fresh_token().map_err(StartError::Token)?;
        let id = WorkerId { slot, launch: self.launches + 1 };
        let Spawned { pid, pipes, channel } = spawn::spawn(&self.spec.recipe, id, token)?;
        self.launches = id.launch;
        self.surroundings.launched(Launched { worker: id, token, pipes, channel });
        tracing::info!(worker = %slot, pid = pid.as_raw_pid(), "worker started");
        Ok(Event::Launched {
            process: Process { id, group: pid, token },
            ports: self.spec.recipe.ports.clone(),
        })
    }

    fn launch_failed(&self, index: usize, error: &StartError) -> Event {
        tracing::error!(worker = %self.places[index].slot, "{error}; trying again");
        Event::LaunchFailed { chance: fastrand::f64() }
    }

    /// Every series is there from the start, so that none begins with a jump.
    fn zero_metrics(&self) {
        for phase in Phase::ALL {
            let here = self.places.iter().filter(|place| place.state.phase() == phase);
            let count = i64::try_from(here.count()).unwrap_or(i64::MAX);
            self.metrics.workers.with_label_values(&[phase.label()]).set(count);
        }
        for place in &self.places {
            for reason in Reason::ALL {
                self.metrics.restarts.with_label_values(&[&place.slot.to_string(), reason.label()]);
            }
        }
    }

    fn publish(&self) {
        let status = |place: &Place| Status {
            slot: place.slot,
            phase: place.state.phase(),
            running: place.state.process().map(|process| (process.id, process.group)),
            listening: place.listening.clone(),
            since: None,
            restarts: 0,
            last_end: None,
            last_lines: Vec::new(),
        };
        let workers = self.places.iter().map(status).collect();
        let now = Overview { wanted: self.spec.recipe.workers.get(), workers, ..Overview::default() };
        self.publish.send_if_modified(|published| {
            let changed = **published != now;
            *published = Arc::new(now);
            changed
        });
    }
}

fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn group_exists(group: Pid) -> bool {
    // EPERM: there are members, of another user.
    !matches!(rustix::process::test_kill_process_group(group), Err(Errno::SRCH))
}

fn send(group: Pid, signal: Signal) {
    match rustix::process::kill_process_group(group, signal) {
        // ESRCH: the last one has just ended.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => tracing::warn!(
            pid = group.as_raw_pid(),
            "cannot send signal {} to the worker's process group: {error}",
            signal.as_raw()
        ),
    }
}
