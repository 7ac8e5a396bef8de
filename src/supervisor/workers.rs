//! Carries out what the lifecycle of each worker decides, and brings back what came of it.
//!
//! It decides nothing by itself, and knows no commands: which workers are wanted is its caller's affair.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tracing::warn;

use super::background::Background;
use super::diagnose::{self, Advisor, Awaited, Obstacle, Why};
use super::ends::{End, Ended, Reason};
use super::events::{Event, EventKind};
use super::instance::{Instance, Transition};
use super::lanes::{Lane, Lanes};
use super::leftovers::Leftovers;
use super::lifecycle::{Action, Answer, Chance, Input, Phase, Process, State, advise_after};
use super::processes::guardian::{Guardian, Waiting};
use super::processes::{self, Died, Processes};
use super::publisher::Publisher;
use super::restart::Run;
use super::rollout::InstanceId;
use super::snapshot::{self, LaneSnapshot, ProcessesSnapshot, SupervisorSnapshot, TableSnapshot, Wrong};
use super::turn::Turned;
use super::worker_hooks::HooksStanding;
use super::worker_table::WorkerTable;
use super::{Overview, Plan, StartError, WorkerHooks};
use crate::carry::NotCarried;
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::logs::LastLines;
use crate::sys::mark::Mark;

/// How often an orphaned process group is looked at: its members need not be children of this process, so
/// nothing tells when the last one ends.
const GROUP_POLL: Duration = Duration::from_millis(50);
/// How long to wait, at the very end, for what should take no time at all.
const FINISH: Duration = Duration::from_secs(1);

/// The workers that run, with everything that is done for them.
pub(super) struct Workers {
    table: WorkerTable,
    processes: Processes,
    leftovers: Leftovers,
    /// Who has which lane: the launch's process group, and what is known by its mark.
    lanes: Lanes<(Pid, Mark)>,
    background: Background,
    advisor: Advisor,
    hooks: Box<dyn WorkerHooks>,
    /// How much was done that concerns the hooks.
    deeds: Deeds,
    publisher: Publisher,
}

/// A number that changes whenever the hooks are told of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deeds(u64);

/// How they stand, as it is written down.
pub(super) struct WorkersSnapshot {
    pub(super) table: TableSnapshot,
    pub(super) processes: ProcessesSnapshot,
    pub(super) lanes: Vec<LaneSnapshot>,
    pub(super) events: Vec<Event>,
}

impl Workers {
    /// So many are wanted, and none was started yet.
    pub(super) fn new(
        wanted: u32,
        processes: Processes,
        hooks: Box<dyn WorkerHooks>,
        publisher: Publisher,
    ) -> Self {
        let (background, advisor) = (Background::default(), Advisor::default());
        let (leftovers, lanes) = (Leftovers::default(), Lanes::default());
        Self {
            table: WorkerTable::new(wanted),
            processes,
            leftovers,
            lanes,
            background,
            advisor,
            hooks,
            deeds: Deeds::default(),
            publisher,
        }
    }

    /// As they were written down, by this plan.
    ///
    /// # Errors
    /// They cannot have been so.
    pub(super) fn restore(
        snapshot: SupervisorSnapshot,
        plan: &Arc<Plan>,
        output: HashMap<WorkerId, LastLines>,
        (mut processes, hooks, publisher): (Processes, Box<dyn WorkerHooks>, Publisher),
    ) -> Result<Self, Wrong> {
        processes.go_on(snapshot.launches());
        let mut lanes = Lanes::default();
        for LaneSnapshot { lane, group, launch } in snapshot.lanes {
            lanes.give(Lane(lane), (snapshot::pid(group)?, processes.mark(launch)));
        }
        let table = WorkerTable::restore(snapshot.table, plan, output)?;
        let workers = Self::new(table.wanted(), processes, hooks, publisher);
        Ok(Self { table, lanes, ..workers })
    }

    /// Starts the guardian of all that were started, or gives its orders to the one that waits for them.
    pub(super) fn guard(&mut self, waiting: Option<Waiting>) {
        self.processes.guard(waiting, &self.table.groups());
    }

    /// Takes over from the image that has left these, and from its guardian.
    pub(super) fn take_over(&mut self, snapshot: &SupervisorSnapshot, guardian: Option<Guardian>) {
        self.processes.take_over(snapshot, guardian);
    }

    /// As they are written down.
    ///
    /// # Errors
    /// Something is under way.
    pub(super) fn snapshot(&self) -> Result<WorkersSnapshot, NotCarried> {
        if !self.background.is_empty() {
            return Err(NotCarried("a worker is waited for".to_owned()));
        }
        if !self.leftovers.is_empty() {
            return Err(NotCarried("what a worker has left behind is being ended".to_owned()));
        }
        let lane = |(lane, (group, mark)): &(Lane, (Pid, Mark))| LaneSnapshot {
            lane: lane.0,
            group: group.as_raw_pid(),
            launch: mark.member(),
        };
        Ok(WorkersSnapshot {
            table: self.table.snapshot()?,
            processes: self.processes.snapshot(),
            lanes: self.lanes.iter().map(lane).collect(),
            events: self.publisher.events(),
        })
    }

    /// Has what is around them stand still. It is true for as long as nothing more is done.
    pub(super) fn hooks_stand_still(&mut self) -> (Deeds, HooksStanding) {
        (self.deeds, self.hooks.stand_still())
    }

    /// How much was done until now.
    pub(super) fn deeds(&self) -> Deeds {
        self.deeds
    }

    /// How they stand.
    pub(super) fn table(&self) -> &WorkerTable {
        &self.table
    }

    /// The app is stopped until it is started again; or it is started.
    pub(super) fn app_stopped(&mut self, is_stopped: bool) {
        let done = self.hooks.app_stopped(is_stopped);
        self.background.see_to(done);
    }

    /// Nobody is to have clients soon.
    pub(super) fn all_leaving(&mut self) {
        self.deeds.0 += 1;
        let processes = self.table.iter().filter_map(|instance| instance.state().process());
        let workers: Vec<_> = processes.map(|process| process.id).collect();
        workers.into_iter().for_each(|worker| self.hooks.leaving(worker));
    }

    /// Wants so many from now on; how many were wanted before. Nothing is started or stopped by that.
    pub(super) fn resize(&mut self, wanted: u32) -> u32 {
        self.table.resize(wanted)
    }

    /// Publishes an event.
    pub(super) fn tell(&self, kind: EventKind) {
        self.publisher.tell(kind);
    }

    /// Publishes how things stand; `app` is what is known of that without them.
    pub(super) fn publish(&self, app: Overview) {
        let (wanted, workers) = (self.table.wanted(), self.table.statuses());
        self.publisher.publish(Overview { wanted, workers, ..app });
    }

    /// Starts one worker, to see whether it can be.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start_first(&mut self, plan: Arc<Plan>) -> Result<(), StartError> {
        let first = self.table.enter(Slot(1), plan);
        self.step(first, Input::Start(Run::FRESH));
        let process = self.launch(first)?;
        self.apply(first, Input::Launched(process));
        Ok(())
    }

    /// Starts another worker in this slot.
    pub(super) fn start(&mut self, slot: Slot, run: Run, plan: Arc<Plan>) -> InstanceId {
        let instance = self.table.enter(slot, plan);
        self.apply(instance, Input::Start(run));
        instance
    }

    /// Has these drain and end, each within its own times.
    pub(super) fn retire(&mut self, instances: Vec<InstanceId>) {
        for id in instances {
            let Some(instance) = self.table.get(id) else { continue };
            let until = Instant::now() + instance.plan().drain_timeout;
            self.apply(id, Input::Retire { until });
        }
    }

    /// Asks these to end at once, each within its own time.
    pub(super) fn stop(&mut self, instances: Vec<InstanceId>) {
        for id in instances {
            let Some(instance) = self.table.get(id) else { continue };
            let kill_at = Instant::now() + instance.plan().rules.kill_timeout;
            self.apply(id, Input::Stop { kill_at });
        }
    }

    /// Asks everybody to end by then, also what workers that have ended left behind.
    pub(super) fn stop_all(&mut self, kill_at: Instant) {
        self.apply_to_all(&Input::Stop { kill_at });
        self.leftovers.hurry(kill_at);
    }

    /// Whether nothing is left of the workers that have ended.
    pub(super) fn left_nothing(&self) -> bool {
        self.leftovers.is_empty()
    }

    /// Starts those again that have no process: they are errored, or wait.
    pub(super) fn start_settled(&mut self, slot: Option<Slot>) {
        let is_meant = |instance: &&Instance| slot.is_none_or(|slot| instance.slot() == slot);
        let meant = self.table.iter().filter(is_meant);
        let settled = meant.filter(|instance| instance.state().process().is_none());
        for id in settled.map(Instance::id).collect::<Vec<_>>() {
            self.apply(id, Input::Start(Run::FRESH));
        }
    }

    /// Nobody is to be in this slot, until it is filled again.
    pub(super) fn keep_empty(&mut self, slot: Slot) {
        self.table.keep_empty(slot);
    }

    /// Somebody is to be in this slot.
    pub(super) fn fill(&mut self, slot: Slot) {
        self.table.fill(slot);
    }

    /// Somebody is to be in each slot.
    pub(super) fn fill_all(&mut self) {
        (1..=self.table.wanted()).for_each(|slot| self.table.fill(Slot(slot)));
    }

    /// Lets this happen to every worker.
    pub(super) fn apply_to_all(&mut self, input: &Input) {
        for id in self.table.ids() {
            self.apply(id, input.clone());
        }
    }

    /// Lets this happen to the worker of a launch, while it may be given connections.
    pub(super) fn apply_to(&mut self, worker: WorkerId, input: Input) {
        if let Some(instance) = self.table.serving(worker).map(Instance::id) {
            self.apply(instance, input);
        }
    }

    /// Lets this happen to the worker of a launch, while its process may run.
    pub(super) fn apply_to_running(&mut self, worker: WorkerId, input: Input) {
        if let Some(instance) = self.table.running(worker).map(Instance::id) {
            self.apply(instance, input);
        }
    }

    /// Notes that a launch listens on a port, which may be heard only after its end.
    pub(super) fn listening(&mut self, worker: WorkerId, port: WorkerPort) {
        let Some(instance) = self.table.listens(worker, port) else { return };
        let (id, process) = (instance.id(), instance.serving().copied());
        if let Some(Process { group, .. }) = process {
            let (worker, pid) = (worker.slot.0, group.as_raw_pid());
            self.tell(EventKind::WorkerListens { worker, pid, port: port.0 });
        }
        self.apply(id, Input::Listening { id: worker, port });
    }

    /// Notes that the workers' program has an io_uring.
    pub(super) fn has_ring(&mut self, ring: Obstacle) {
        self.advisor.has_ring(ring);
    }

    /// Has all workers accept by themselves from their next start on, if that helps against what stands in the way of this one;
    /// whether it is so, be it since now.
    pub(super) fn turns(&mut self, worker: Slot, obstacle: &Obstacle) -> bool {
        let Some(turn) = self.table.iter().next().map(|instance| instance.plan().spec.attach.turn.clone())
        else {
            return false;
        };
        if let Some(turned) = turn.take(obstacle.why) {
            tracing::warn!(%worker, "{}", diagnose::advice_on_turn(obstacle, turned));
            let done = self.hooks.accept_by_workers();
            self.background.see_to(done);
            // None of those that run can serve any more, and their places are filled again.
            self.stop(self.table.ids());
        }
        let helped = (obstacle.why, turn.taken());
        matches!(helped, (Why::Ring, Some(_)) | (Why::Go | Why::Static, Some(Turned::BySeccomp(_))))
    }

    /// Drops the workers that have ended and that nobody wants any more.
    pub(super) fn drop_stopped(&mut self) {
        self.table.drop_stopped();
    }

    /// Waits for the next thing that happens to a worker, and does what follows from it. A future that is dropped loses
    /// nothing.
    pub(super) async fn next(&mut self) {
        let wake = self.wake();
        tokio::select! {
            (pid, how) = self.processes.next_end(self.table.groups()) => self.ended(pid, how),
            report = self.background.next() => {
                if let Some((instance, input)) = report {
                    self.reported(instance, input);
                }
            }
            Some((worker, seen)) = self.advisor.next() => {
                if !seen.obstacle.as_ref().is_some_and(|obstacle| self.turns(worker, obstacle)) {
                    self.advisor.advise(worker, &seen);
                }
            }
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
        }
    }

    /// When something is due even if nothing happens.
    fn wake(&self) -> Option<Instant> {
        let poll = (!self.table.orphaned().is_empty()).then(|| Instant::now() + GROUP_POLL);
        self.table.deadline().into_iter().chain(poll).chain(self.leftovers.due()).min()
    }

    /// Does what is due by now.
    pub(super) fn tick(&mut self) {
        for (instance, group) in self.table.orphaned() {
            if !processes::has_members(group) {
                self.apply(instance, Input::GroupEmpty(group));
            }
        }
        self.apply_to_all(&Input::Tick);
        self.end_leftovers();
    }

    fn end_leftovers(&mut self) {
        let now = Instant::now();
        if self.leftovers.due().is_none_or(|due| now < due) {
            return;
        }
        let left = self.processes.left(&self.table.groups());
        for to_signal in self.leftovers.look(&left, now) {
            self.processes.signal_left(to_signal);
        }
    }

    /// Waits, but not for long, for what is still under way.
    pub(super) async fn finish(&mut self) {
        if !self.background.finish(FINISH).await {
            tracing::warn!("the front did not take back the last workers' connections in time");
        }
        self.processes.finish().await;
    }

    /// What was said last of why workers do not listen.
    pub(super) async fn last_advice(&mut self) -> Option<&str> {
        self.advisor.last().await
    }

    fn ended(&mut self, pid: Pid, how: Ended) {
        let Died::Child { out_of_memory } = self.processes.ended(pid, how, &self.table.groups()) else {
            return;
        };
        let Some(instance) = self.table.ended(pid, how, out_of_memory) else {
            tracing::debug!(pid = pid.as_raw_pid(), "an adopted process {how}");
            return;
        };
        self.expect_leftovers(instance);
        let others = processes::has_members(pid);
        // A daemon is looked for at once: what is left of a worker does not stay.
        if how == Ended::Code(0) && (others || self.has_left_its_group(instance)) {
            self.table.left(instance);
        }
        self.apply(instance, Input::Ended { group: pid, how, others, chance: chance() });
    }

    fn has_left_its_group(&self, instance: InstanceId) -> bool {
        let process = self.table.get(instance).and_then(|instance| instance.state().process());
        let mark = process.map(|process| self.processes.mark(process.id.launch));
        self.processes.left(&self.table.groups()).iter().any(|(_, of)| *of == mark)
    }

    /// The process that leads this instance has ended. What has left its group is ended in the time that it had itself.
    fn expect_leftovers(&mut self, instance: InstanceId) {
        let Some(instance) = self.table.get(instance) else { return };
        let Some(process) = instance.state().process() else { return };
        let (plan, now) = (instance.plan(), Instant::now());
        let kill_at = match instance.state() {
            State::Stopping { kill_at, .. } => *kill_at,
            State::Killed { .. } => now,
            _ => now + plan.rules.kill_timeout,
        };
        if self.processes.treekill() {
            self.leftovers.add(self.processes.mark(process.id.launch), plan.rules.stop.signal, kill_at, now);
        }
    }

    /// Something that was done beside the task has come to this.
    fn reported(&mut self, instance: InstanceId, input: Input) {
        let has_served_nobody = matches!(input, Input::Forgotten { served: 0, .. });
        if has_served_nobody {
            self.advise_ended(instance);
        }
        self.apply(instance, input);
        if has_served_nobody {
            self.repeat_advice(instance);
        }
    }

    /// Lets this happen to a worker and does what follows from it; to one that is gone nothing happens.
    pub(super) fn apply(&mut self, instance: InstanceId, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            for action in self.step(instance, input) {
                next = self.perform(instance, action).or(next);
            }
        }
    }

    fn step(&mut self, instance: InstanceId, input: Input) -> Vec<Action> {
        let may_be_overdue = input == Input::Tick;
        let asked = self.table.get(instance).filter(|_| may_be_overdue).and_then(asked_to_end);
        let transition = self.table.step(instance, input, Instant::now());
        let Some(Transition { actions, event, group_gone, group_come }) = transition else {
            return Vec::new();
        };
        if let Some((worker, pid)) = asked
            && actions.iter().any(|action| matches!(action, Action::Kill(_)))
        {
            warn!(%worker, pid, "worker did not end in the time that it had after it was asked to; killing it");
        }
        group_gone.into_iter().for_each(|group| self.processes.release(group));
        group_come.into_iter().for_each(|group| self.processes.watch(group));
        event.into_iter().for_each(|kind| self.tell(kind));
        actions
    }

    fn perform(&mut self, id: InstanceId, action: Action) -> Option<Input> {
        self.deeds.0 += 1;
        let instance = self.table.get(id)?;
        match action {
            Action::Launch => return Some(self.try_launch(id)),
            Action::Count(reason) => self.count_restart(instance.slot(), reason),
            Action::Terminate(group, signal) => processes::signal(group, signal),
            Action::SendShutdown(worker) => self.hooks.send_shutdown(worker),
            Action::DisconnectWhenIdle(worker) => self.hooks.disconnect_when_idle(worker),
            Action::Disconnect(worker) => self.hooks.disconnect(worker),
            Action::Kill(group) => processes::signal(group, Signal::KILL),
            Action::Forget(worker) => {
                let output = instance.output().cloned();
                self.background.reclaim((id, worker), self.hooks.gone(worker), output);
            }
            Action::Retire(worker) => {
                let limit = instance.plan().drain_timeout;
                self.background.retire((id, worker), self.hooks.retire(worker), limit);
            }
            Action::AwaitDrained(worker) => {
                let limit = instance.plan().drain_timeout;
                self.background.drain((id, worker), self.hooks.drained(worker), limit);
            }
            Action::Probe(worker) => {
                let limit = instance.plan().rules.ready_timeout;
                self.background.probe((id, worker), self.hooks.probe(worker), limit);
            }
            Action::Release(worker) => self.background.see_to(self.hooks.release(worker)),
            Action::Advise(process) => self.advise_running(id, process.group),
        }
        None
    }

    /// Sends a signal to the process that leads each worker, or the one in this slot. What came of it, for each that has one.
    pub(super) fn signal(&self, slot: Option<Slot>, signal: Signal) -> Vec<io::Result<()>> {
        let is_meant = |instance: &&Instance| slot.is_none_or(|slot| instance.slot() == slot);
        let led = self.table.iter().filter(is_meant).filter_map(|instance| instance.state().process());
        led.map(|process| processes::signal_leader(process.group, signal)).collect()
    }

    /// Counts restarts from 0, of every worker or of the one in this slot.
    pub(super) fn reset_restarts(&mut self, slot: Option<Slot>) {
        self.table.reset_restarts(slot);
    }

    /// Counts a start after the first.
    pub(super) fn count_restart(&mut self, slot: Slot, reason: Reason) {
        self.table.count_restart(slot);
        self.publisher.count_restart(slot, reason);
    }

    fn try_launch(&mut self, instance: InstanceId) -> Input {
        match self.launch(instance) {
            Ok(process) => Input::Launched(process),
            Err(error) => {
                self.table.not_started(instance, &error);
                Input::LaunchFailed { chance: chance() }
            }
        }
    }

    fn launch(&mut self, id: InstanceId) -> Result<Process, StartError> {
        self.deeds.0 += 1;
        self.hooks.launching();
        let instance = self.table.get(id).expect("it is there until it is dropped");
        let wanted = self.table.wanted();
        let leftovers = &self.leftovers;
        let lane =
            self.lanes.lowest_free(|&(group, mark)| processes::has_members(group) || leftovers.has(mark));
        let (process, launched, environment) =
            self.processes.launch(&instance.plan().spec, (instance.slot(), lane), wanted)?;
        self.lanes.give(lane, (process.group, self.processes.mark(process.id.launch)));
        self.table.launched(id, self.hooks.launched(launched), environment);
        Ok(process)
    }

    fn advise_running(&mut self, id: InstanceId, group: Pid) {
        let Some(instance) = self.table.get(id) else { return };
        let (slot, served) = (instance.slot(), instance.listening().to_vec());
        let plan = instance.plan();
        let awaited = match instance.state() {
            State::Launching { missing, .. } if missing.word => Awaited::Word,
            State::Launching { missing, .. } if missing.answer == Answer::Awaited => Awaited::Answer,
            _ => Awaited::Nothing,
        };
        let how = (plan.spec.attach.in_force(), awaited, advise_after(&plan.rules));
        self.advisor.look_at((slot, group), how, instance.missing(), served);
    }

    /// The first of many starts is long ago when the last has failed. If it was the last worker, that is said with it.
    fn repeat_advice(&mut self, id: InstanceId) {
        let given_up = self.table.get(id).filter(|instance| matches!(instance.state(), State::Errored(_)));
        if let Some(slot) = given_up.map(Instance::slot)
            && self.table.verdict().is_none()
        {
            self.advisor.repeat(slot);
        }
    }

    /// Once a streak: the other runs of it are likely to end for the same reason.
    fn advise_ended(&mut self, id: InstanceId) {
        let Some(instance) = self.table.get(id) else { return };
        let State::Settling { went, .. } = instance.state() else { return };
        let End::Ended(how) = went.end else { return };
        let (slot, ring) = (instance.slot(), self.advisor.ring().filter(|_| how != Ended::Code(0)).cloned());
        if let Some(ring) = ring {
            if !self.turns(slot, &ring) {
                self.advisor.blame(slot, &ring);
            }
            return;
        }
        let Some(instance) = self.table.get(id) else { return };
        let State::Settling { went, run, .. } = instance.state() else { return };
        // A job has nothing to listen on, and may end.
        if instance.plan().rules.ports.is_empty() && !instance.left() {
            return;
        }
        // A daemon may have listened before its first process ended, and so may one that ends with its input.
        let has_done_nothing = how == Ended::Code(0) && went.ran < instance.plan().rules.restart.min_uptime;
        if !instance.listening().is_empty() && !instance.left() && !has_done_nothing {
            return;
        }
        if !matches!(*run, Run::FRESH | Run::Trial) {
            return;
        }
        let plan = Arc::clone(instance.plan());
        let (attach, others) = (plan.spec.attach.in_force(), self.table.groups());
        let ended = (slot, how, instance.left());
        self.advisor.look_back_at(ended, plan, (instance.missing(), self.table.served()), (attach, others));
    }
}

fn chance() -> Chance {
    Chance(fastrand::u16(..=1000))
}

/// The worker and its process, if that is to end by now.
fn asked_to_end(instance: &Instance) -> Option<(Slot, i32)> {
    let state = instance.state();
    let is_asked = state.phase() == Phase::Stopping && !matches!(state, State::Killed { .. });
    state.group().filter(|_| is_asked).map(|group| (instance.slot(), group.as_raw_pid()))
}
