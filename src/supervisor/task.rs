//! The task that owns the workers: it carries out what [`lifecycle`](super::lifecycle) and
//! [`rollout`](super::rollout) decide.
//!
//! It decides nothing by itself but the order of things. What users ask of it is in [`jobs`](super::jobs).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use super::diagnose::Advisor;
use super::ends::{End, Ended, Reason};
use super::events::{self, EventKind};
use super::instance::Instance;
use super::jobs::Job;
use super::lifecycle::{Action, Chance, Input, Phase, Process, State, step};
use super::processes::guardian::Guardian;
use super::processes::oom::Kills;
use super::processes::reaper::Reaper;
use super::processes::spawn::{self, Spawned, StartError};
use super::replacement::Replacing;
use super::restart::Run;
use super::rollout::LifeId;
use super::{Launched, Overview, Plan, Request, Spec, Status, WorkerHooks, event_log};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::protocol::wire::Token;

/// How often an orphaned process group is looked at: its members need not be children of this process, so
/// nothing tells when the last one ends.
const GROUP_POLL: std::time::Duration = std::time::Duration::from_millis(50);
/// How long to wait, at the very end, for what should take no time at all.
const FINISH: std::time::Duration = std::time::Duration::from_secs(1);
/// How long what a worker wrote last may take to be read; processes that it has left may hold its pipe for ever.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(100);
/// A guardian that ends sooner than this after its start would end again.
const GUARDIAN_RAN_WELL: std::time::Duration = std::time::Duration::from_secs(1);

/// The task. See [`super::new`].
pub struct Supervisor {
    pub(super) spec: Spec,
    pub(super) surroundings: Box<dyn WorkerHooks>,
    metrics: Metrics,
    inbox: mpsc::Receiver<Request>,
    publish: watch::Sender<Arc<Overview>>,
    events: broadcast::Sender<events::Event>,
    pub(super) mode: Mode,
    /// How many workers there are to be by now.
    pub(super) workers: u32,
    pub(super) lives: Vec<Instance>,
    lives_begun: u64,
    launches: u64,
    restarts: BTreeMap<Slot, u64>,
    pub(super) replacing: Replacing,
    pub(super) jobs: Vec<Job>,
    /// What is done for workers that run, each with what it will report. It ends with the task.
    helping: JoinSet<Option<(LifeId, Input)>>,
    /// What workers that are gone have left is taken back. The task waits for it.
    forgetting: JoinSet<(LifeId, Input)>,
    guardian: Option<Guardian>,
    advisor: Advisor,
    /// What the kernel has killed for want of memory.
    kills: Option<Kills>,
}

/// What is wanted of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// That it runs.
    Running,
    /// That its workers are stopped until they are started again.
    Stopped,
    /// That it runs until connections that were accepted are taken, and nothing else changes.
    Closing,
    /// That it ends.
    Ending,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").finish_non_exhaustive()
    }
}

/// The supervisor's ends of the ways to the rest of the program.
pub(super) struct Ends {
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) publish: watch::Sender<Arc<Overview>>,
    pub(super) events: broadcast::Sender<events::Event>,
}

impl Supervisor {
    pub(super) fn new(
        spec: Spec,
        surroundings: Box<dyn WorkerHooks>,
        metrics: Metrics,
        Ends { inbox, publish, events }: Ends,
    ) -> Self {
        Self {
            mode: Mode::Running,
            workers: spec.wanted.workers.get(),
            spec,
            surroundings,
            metrics,
            inbox,
            publish,
            events,
            lives: Vec::new(),
            lives_begun: 0,
            launches: 0,
            restarts: BTreeMap::new(),
            replacing: Replacing::default(),
            jobs: Vec::new(),
            helping: JoinSet::new(),
            forgetting: JoinSet::new(),
            guardian: None,
            advisor: Advisor::default(),
            kills: Kills::from_now(),
        }
    }

    /// Starts the workers and keeps them running. Returns when they were stopped and all are gone, or when each of
    /// them has ended for good, with the code to exit with.
    ///
    /// Workers are tied to the calling thread: run it on the main thread's own runtime.
    ///
    /// # Errors
    /// The first worker cannot be started; nothing runs then. A start that fails later is tried again.
    pub async fn run(mut self) -> Result<u8, StartError> {
        let mut reaper = Reaper::new(self.spec.scope).map_err(StartError::Signals)?;
        self.start_guardian();
        if let Err(error) = self.start_first() {
            self.finish(&mut reaper).await;
            return Err(error);
        }
        let code = loop {
            self.reconcile();
            self.publish();
            if let Some(code) = self.over() {
                break code;
            }
            self.next(&mut reaper).await;
            self.look_at_orphaned_groups();
            for index in 0..self.lives.len() {
                self.apply(self.lives[index].id, Input::Tick);
            }
        };
        if self.mode == Mode::Running {
            tracing::error!("every worker has ended for good; exiting with code {code}");
        }
        self.finish(&mut reaper).await;
        Ok(code)
    }

    /// Waits for the next thing that happens.
    async fn next(&mut self, reaper: &mut Reaper) {
        let groups = self.groups();
        let wake = self.wake();
        tokio::select! {
            (pid, how) = reaper.next(&groups) => self.ended(pid, how),
            Some(request) = self.inbox.recv() => self.answer(request),
            Some(done) = self.helping.join_next() => {
                if let Ok(Some((life, event))) = done {
                    self.done(life, event);
                }
            }
            Some(done) = self.forgetting.join_next() => {
                if let Ok((life, event)) = done {
                    self.done(life, event);
                }
            }
            Some(()) = self.advisor.say_next() => {}
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
        }
    }

    /// The code to exit with, when nothing runs and nothing will.
    fn over(&self) -> Option<u8> {
        match self.mode {
            Mode::Stopped | Mode::Closing => None,
            Mode::Ending => self.lives.is_empty().then_some(0),
            Mode::Running => {
                let verdicts: Option<Vec<_>> = self.lives.iter().map(Instance::verdict).collect();
                verdicts?.into_iter().max().map(|(_, code)| code)
            }
        }
    }

    /// The process groups of children.
    fn groups(&self) -> Vec<Pid> {
        let workers = self.lives.iter().filter_map(|life| life.state.group());
        workers.chain(self.guardian.as_ref().map(Guardian::pid)).collect()
    }

    async fn finish(&mut self, reaper: &mut Reaper) {
        let done = async { while self.forgetting.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH, done).await.is_err() {
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

    /// Starts one worker, to see whether it can be: the others follow as vacancies.
    fn start_first(&mut self) -> Result<(), StartError> {
        let life = self.enter(Slot(1), Arc::clone(&self.spec.wanted.plan));
        self.transition(life, Input::Start(Run::FRESH));
        let launched = self.launch(life)?;
        self.apply(life, launched);
        Ok(())
    }

    /// Starts what is missing, goes on with what is replaced, and drops what is gone.
    fn reconcile(&mut self) {
        self.replace_on();
        self.lives.retain(|life| life.state != State::Stopped);
        if matches!(self.mode, Mode::Running | Mode::Closing) {
            for slot in (1..=self.workers).map(Slot).filter(|&slot| self.is_vacant(slot)).collect::<Vec<_>>()
            {
                self.begin_life(slot, Run::FRESH, Arc::clone(&self.spec.wanted.plan));
            }
        }
        self.finish_jobs();
    }

    /// Nobody fills the slot, or only somebody who finishes what it has. One that was asked to end is waited for.
    fn is_vacant(&self, slot: Slot) -> bool {
        let mut here = self.lives.iter().filter(|life| life.slot == slot);
        here.all(|life| matches!(life.state, State::Draining { .. } | State::Stopped))
    }

    fn enter(&mut self, slot: Slot, plan: Arc<Plan>) -> LifeId {
        self.lives_begun += 1;
        let id = LifeId(self.lives_begun);
        let place = self.lives.partition_point(|life| life.slot <= slot);
        self.lives.insert(place, Instance::new(id, slot, plan));
        id
    }

    /// Starts another worker in this slot.
    pub(super) fn begin_life(&mut self, slot: Slot, run: Run, plan: Arc<Plan>) -> LifeId {
        let life = self.enter(slot, plan);
        self.apply(life, Input::Start(run));
        life
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Admit { token, uid, reply } => {
                // Whoever asked may have given up meanwhile.
                let _ = reply.send(self.admit(token, uid));
            }
            Request::Listening { worker, port } => self.listening(worker, port),
            Request::Ready { worker } => self.apply_to(worker, Input::Ready(worker)),
            Request::Do { order, by, reply } => {
                let _ = reply.send(self.obey(order, by));
            }
            Request::Replace { worker, why } => self.plan_replacement(worker, why),
            Request::Tell(kind) => self.tell(kind),
            Request::Close { done } => {
                self.close();
                let _ = done.send(());
            }
            Request::Ping { done } => drop(done.send(())),
            Request::Stop { stop, done } => {
                self.end(stop);
                let _ = done.send(());
            }
        }
    }

    fn admit(&self, token: Token, uid: u32) -> Option<WorkerId> {
        if !self.spec.wanted.plan.spec.context.users().contains(uid) {
            return None;
        }
        let serving = self.lives.iter().filter_map(|life| life.state.serving());
        serving.into_iter().find(|process| process.token == token).map(|process| process.id)
    }

    /// The life that this launch is of, while it may be given connections.
    pub(super) fn life_of(&self, worker: WorkerId) -> Option<&Instance> {
        self.lives.iter().find(|life| life.state.serving().is_some_and(|process| process.id == worker))
    }

    fn apply_to(&mut self, worker: WorkerId, event: Input) {
        if let Some(life) = self.life_of(worker).map(|life| life.id) {
            self.apply(life, event);
        }
    }

    /// That a worker listens may be heard only after its end.
    fn listening(&mut self, worker: WorkerId, port: WorkerPort) {
        let Some(life) = self.lives.iter_mut().find(|life| life.state.launch() == Some(worker)) else {
            return;
        };
        if life.listening.contains(&port) {
            return;
        }
        life.listening.push(port);
        let (life, process) = (life.id, life.state.serving().copied());
        if let Some(Process { group, .. }) = process {
            self.tell(EventKind::WorkerListens {
                worker: worker.slot.0,
                pid: group.as_raw_pid(),
                port: port.0,
            });
        }
        self.apply(life, Input::Listening { id: worker, port });
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
        let leads = |life: &&mut Instance| life.state.process().is_some_and(|process| process.group == pid);
        let Some(life) = self.lives.iter_mut().find(leads) else {
            tracing::debug!(pid = pid.as_raw_pid(), "an adopted process {how}");
            return;
        };
        // It is not said which process it was; but the kernel kills with SIGKILL.
        let out_of_memory = self.kills.as_mut().is_some_and(|kills| kills.since_last() > 0)
            && matches!(how, Ended::Signal { signal: libc::SIGKILL, .. });
        life.ended(how, out_of_memory);
        let id = life.id;
        let event = Input::Ended { group: pid, how, others: group_exists(pid), chance: chance() };
        self.apply(id, event);
    }

    /// Something that was done beside the task has come to this.
    fn done(&mut self, life: LifeId, event: Input) {
        if matches!(event, Input::Forgotten { served: 0, .. }) {
            self.advise_ended(life);
        }
        self.apply(life, event);
    }

    fn look_at_orphaned_groups(&mut self) {
        for index in 0..self.lives.len() {
            let Instance { id, state: State::Orphaned { group, .. }, .. } = self.lives[index] else {
                continue;
            };
            if !group_exists(group) {
                self.apply(id, Input::GroupEmpty(group));
            }
        }
    }

    /// When the loop has to run again even if nothing happens.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let states = || self.lives.iter().map(|life| &life.state);
        let poll = states().any(|state| matches!(state, State::Orphaned { .. })).then(|| now + GROUP_POLL);
        states().filter_map(State::deadline).chain(poll).chain(self.replacing_deadline(now)).min()
    }

    pub(super) fn life(&self, life: LifeId) -> &Instance {
        self.lives.iter().find(|candidate| candidate.id == life).expect("it is there until it is dropped")
    }

    fn life_mut(&mut self, life: LifeId) -> &mut Instance {
        self.lives.iter_mut().find(|candidate| candidate.id == life).expect("it is there until it is dropped")
    }

    /// Lets `event` happen to a worker and does what follows from it; to one that is gone nothing happens.
    pub(super) fn apply(&mut self, life: LifeId, event: Input) {
        if !self.lives.iter().any(|candidate| candidate.id == life) {
            return;
        }
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.transition(life, event) {
                next = self.perform(life, action).or(next);
            }
        }
    }

    fn transition(&mut self, id: LifeId, event: Input) -> Vec<Action> {
        let index =
            self.lives.iter().position(|life| life.id == id).expect("it is there until it is dropped");
        let life = &mut self.lives[index];
        let before = std::mem::replace(&mut life.state, State::Stopped);
        let (state, actions) = step(before.clone(), event, &life.plan.rules, Instant::now());
        life.state = state;
        let (old_group, group) = (before.group(), life.state.group());
        if matches!(life.state, State::Launching { .. }) && group != old_group {
            life.listening.clear();
            life.started = Some((Instant::now(), SystemTime::now()));
        }
        let news = life.news(&before);
        if group != old_group {
            self.guard(old_group, group);
        }
        news.into_iter().for_each(|kind| self.tell(kind));
        actions
    }

    fn guard(&self, old: Option<Pid>, new: Option<Pid>) {
        if let Some(guardian) = &self.guardian {
            old.into_iter().for_each(|group| guardian.release(group));
            new.into_iter().for_each(|group| guardian.watch(group));
        }
    }

    fn perform(&mut self, life: LifeId, action: Action) -> Option<Input> {
        match action {
            Action::Launch => {
                let launched = self.launch(life);
                return Some(launched.unwrap_or_else(|error| self.launch_failed(life, &error)));
            }
            Action::Count(reason) => self.count_restart(self.life(life).slot, reason),
            Action::Terminate(group) => send(group, self.life(life).plan.stop_signal),
            Action::Kill(group) => send(group, Signal::KILL),
            Action::Forget(id) => {
                let (gone, output) = (self.surroundings.gone(id), self.life(life).output.clone());
                self.forgetting.spawn(async move {
                    let served = gone.await;
                    if let Some(output) = output {
                        let _ = tokio::time::timeout(LAST_WORDS, output.ended()).await;
                    }
                    (life, Input::Forgotten { id, served })
                });
            }
            Action::Drain(process) => {
                let drained = self.surroundings.drain(process.id, process.group);
                let limit = self.life(life).plan.drain_timeout;
                self.helping.spawn(async move {
                    let _ = tokio::time::timeout(limit, drained).await;
                    Some((life, Input::Drained(process.id)))
                });
            }
            Action::Probe(id) => {
                let (probed, limit) = (self.surroundings.probe(id), self.life(life).plan.rules.ready_timeout);
                self.helping.spawn(async move {
                    tokio::time::timeout(limit, probed).await.ok().map(|()| (life, Input::Probed(id)))
                });
            }
            Action::Release(id) => {
                let released = self.surroundings.release(id);
                self.helping.spawn(async move {
                    released.await;
                    None
                });
            }
            Action::Advise(process) => self.advise_running(life, process.group),
        }
        None
    }

    pub(super) fn count_restart(&mut self, slot: Slot, reason: Reason) {
        *self.restarts.entry(slot).or_default() += 1;
        self.metrics.restarts.with_label_values(&[&slot.to_string(), reason.label()]).inc();
    }

    fn advise_running(&mut self, life: LifeId, group: Pid) {
        let life = self.life(life);
        let (slot, served) = (life.slot, life.listening.clone());
        let how = (life.plan.spec.attach.shim.clone(), life.plan.rules.wait_ready);
        let missing = life.missing();
        self.advisor.look_at((slot, group), how, missing, served);
    }

    /// Once a streak: the other runs of it are likely to end for the same reason.
    fn advise_ended(&mut self, life: LifeId) {
        let Some(life) = self.lives.iter().find(|candidate| candidate.id == life) else { return };
        let State::Settling { went, run: Run::FRESH | Run::Trial, .. } = life.state else { return };
        let End::Ended(how) = went.end else { return };
        if !life.listening.is_empty() {
            return;
        }
        let others = self.lives.iter().filter_map(|life| life.state.group()).collect();
        let (slot, command, missing) = (life.slot, life.plan.spec.command.clone(), life.missing());
        self.advisor.look_back_at((slot, how), command, missing, others);
    }

    fn launch(&mut self, life: LifeId) -> Result<Input, StartError> {
        let (slot, plan) = (self.life(life).slot, Arc::clone(&self.life(life).plan));
        let token = spawn::fresh_token().map_err(StartError::Token)?;
        let id = WorkerId { slot, launch: self.launches + 1 };
        let Spawned { pid, pipes, channel } = spawn::spawn(&plan.spec, id, token, self.workers)?;
        self.launches = id.launch;
        self.life_mut(life).output =
            self.surroundings.launched(Launched { worker: id, token, pipes, channel });
        Ok(Input::Launched(Process { id, group: pid, token }))
    }

    fn launch_failed(&mut self, life: LifeId, error: &StartError) -> Input {
        self.life_mut(life).last_end = Some((error.to_string(), error.exit_code()));
        Input::LaunchFailed { chance: chance() }
    }

    /// Tells whoever listens; that nobody does is no error.
    pub(super) fn tell(&self, kind: EventKind) {
        event_log::log(&kind);
        event_log::count(&kind, &self.metrics);
        let time = events::Time(SystemTime::now());
        let _ = self.events.send(events::Event { time, app: self.spec.app.clone(), kind });
    }

    fn publish(&self) {
        let restarts = |slot| self.restarts.get(&slot).copied().unwrap_or_default();
        let mut workers: Vec<Status> =
            self.lives.iter().map(|life| life.status(restarts(life.slot))).collect();
        let is_empty = |slot: &Slot| !self.lives.iter().any(|life| life.slot == *slot);
        workers.extend(
            (1..=self.workers).map(Slot).filter(is_empty).map(|slot| Status::empty(slot, restarts(slot))),
        );
        workers.sort_by_key(|worker| worker.slot);
        let reload = self.replacing.reload_by().cloned();
        let plan = Some(Arc::clone(&self.spec.wanted.plan));
        let is_stopped = self.mode == Mode::Stopped;
        let now = Overview { wanted: self.workers, plan, is_stopped, reload, workers };
        self.publish.send_if_modified(|published| {
            let changed = **published != now;
            if changed {
                self.show_metrics(&now.workers);
                *published = Arc::new(now);
            }
            changed
        });
    }

    /// Every series is there from the start, so that none begins with a jump.
    fn show_metrics(&self, workers: &[Status]) {
        for phase in Phase::ALL {
            let count = workers.iter().filter(|worker| worker.phase == phase).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.workers.with_label_values(&[phase.label()]).set(count);
        }
        for worker in workers {
            for reason in Reason::ALL {
                self.metrics.restarts.with_label_values(&[&worker.slot.to_string(), reason.label()]);
            }
        }
    }
}

fn chance() -> Chance {
    Chance(fastrand::u16(..=1000))
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
