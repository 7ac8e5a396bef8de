//! The task that owns everything: one inbox, and one thing after the other.
//!
//! It decides nothing by itself but the order of things. Whether a command is accepted is decided in
//! [`accept`](super::accept), what becomes of a worker in [`lifecycle`](super::lifecycle), how all are replaced in
//! [`rollout`](super::rollout).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::accept::{Accepted, Clients, Mode, Order, Situation, accept};
use super::command::{FAST, Refused, Stop, Underway};
use super::ends::Reason;
use super::event_bus::EventBus;
use super::events::{Asker, EventKind};
use super::handle::Request;
use super::jobs::{self, Goal, Jobs};
use super::lifecycle::Input;
use super::pace::Pace;
use super::plan::Carried;
use super::processes::Processes;
use super::processes::guardian::{Guardian, Waiting};
use super::publisher::Publisher;
use super::replacement::{self, Replacements};
use super::restart::Run;
use super::rollout::InstanceId;
use super::signal_name::NamedSignal;
use super::snapshot::{self, AskedSupervisor, SupervisorSnapshot};
use super::workers::{Deeds, Workers, WorkersSnapshot};
use super::{DesiredState, Overview, Spec, StartError, WorkerHooks};
use crate::carry::NotCarried;
use crate::ids::Slot;
use crate::metrics::Metrics;
use crate::settings::carried::CarriedSettings;

/// How often everybody else has a turn between two starts: a process is admitted in several steps.
const TURNS: usize = 4;

/// A supervisor that has started nothing yet. See [`super::new`].
pub(crate) struct Supervisor {
    task: Task,
    waiting_guardian: Option<Waiting>,
    /// What another image of this process has left, with its guardian.
    left: Option<(Box<SupervisorSnapshot>, Option<Guardian>)>,
}

/// The supervisor's ends of the ways to the rest of the program.
pub(super) struct Ends {
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) overview: watch::Sender<Arc<Overview>>,
    pub(super) events: EventBus,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").finish_non_exhaustive()
    }
}

impl Supervisor {
    /// # Errors
    /// What another image has left cannot be gone on with, or the ends of children would not be noticed.
    pub(super) fn new(
        spec: Spec,
        hooks: Box<dyn WorkerHooks>,
        metrics: Metrics,
        ends: Ends,
    ) -> Result<Self, StartError> {
        let Spec {
            wanted,
            cpus,
            starts,
            holds,
            scope,
            app,
            guardian,
            waiting_guardian,
            family,
            treekill,
            carried,
        } = spec;
        let processes = Processes::new(scope, guardian, (family, treekill))?;
        let publisher = Publisher::new(app, ends.events, ends.overview, metrics);
        let (workers, runs, (is_stopped, is_held), left) = match carried {
            None => {
                let workers = Workers::new(wanted.workers.get(), processes, hooks, publisher);
                (workers, starts, (!starts, holds), None)
            }
            Some(Carried { snapshot, output, guardian }) => {
                let SupervisorSnapshot { runs, is_stopped, is_held, .. } = snapshot;
                publisher.restore(snapshot.events.clone());
                let around = (processes, hooks, publisher);
                let workers = Workers::restore(snapshot.clone(), &wanted.plan, output, around)?;
                (workers, runs, (is_stopped, is_held), Some((Box::new(snapshot), guardian)))
            }
        };
        let task = Task {
            inbox: ends.inbox,
            still: None,
            mode: if runs { Mode::Running } else { Mode::Stopped },
            is_stopped,
            is_held,
            wanted,
            workers,
            pace: Pace::new(cpus),
            next_start: None,
            replacements: Replacements::default(),
            jobs: Jobs::default(),
        };
        Ok(Self { task, waiting_guardian, left })
    }

    /// Starts the workers and keeps them running. Returns when they were stopped and all are gone, or when each of
    /// them has ended for good, with the code to exit with.
    ///
    /// Workers are tied to the calling thread: run it on the main thread's own runtime.
    ///
    /// # Errors
    /// The first worker cannot be started; nothing runs then. A start that fails later is tried again.
    pub(crate) async fn run(self) -> Result<u8, StartError> {
        let Self { mut task, waiting_guardian, left } = self;
        let is_new = left.is_none();
        if is_new && task.mode == Mode::Running {
            // Before the guardian, whose start takes a millisecond: meanwhile the worker's process comes up.
            if let Err(error) = task.start_first() {
                task.workers.finish().await;
                return Err(error);
            }
        }
        task.workers.guard(waiting_guardian);
        if let Some((snapshot, guardian)) = left {
            task.workers.take_over(&snapshot, guardian);
        }
        task.run().await
    }
}

/// The running supervisor.
struct Task {
    inbox: mpsc::Receiver<Request>,
    /// It was asked to stand still.
    still: Option<(Deeds, AskedSupervisor)>,
    mode: Mode,
    /// A command has stopped it. That clusterd itself ends changes nothing about it.
    is_stopped: bool,
    /// And clients wait meanwhile.
    is_held: bool,
    /// What is in force.
    wanted: DesiredState,
    workers: Workers,
    pace: Pace,
    /// When the next start may be, while a slot is empty.
    next_start: Option<Instant>,
    replacements: Replacements,
    jobs: Jobs,
}

impl Task {
    fn start_first(&mut self) -> Result<(), StartError> {
        self.workers.start_first(Arc::clone(&self.wanted.plan))?;
        self.pace.started(Instant::now());
        Ok(())
    }

    async fn run(mut self) -> Result<u8, StartError> {
        let code = loop {
            self.reconcile();
            self.publish();
            if let Some(code) = self.over() {
                break code;
            }
            self.stand_still().await;
            self.next().await;
            self.workers.tick();
        };
        if self.mode == Mode::Running {
            let advice = self.workers.last_advice().await;
            match advice.map(|advice| format!("\nhint: {advice}")) {
                // As jobs do that have done their work.
                None if code == 0 => tracing::info!("every worker has ended for good; exiting with code 0"),
                why => {
                    let why = why.unwrap_or_default();
                    tracing::error!("every worker has ended for good; exiting with code {code}{why}");
                }
            }
        }
        self.workers.finish().await;
        Ok(code)
    }

    /// If it was asked to, tells what there is and changes nothing until it may go on.
    async fn stand_still(&mut self) {
        if let Some((since, asked)) = self.still.take() {
            let snapshot = self.snapshot(since).map(Box::new);
            let stands = snapshot.is_ok();
            let may_go_on = asked.with(snapshot);
            if stands {
                may_go_on.await;
            }
        }
    }

    /// How things stand, if nothing was done `since` then.
    fn snapshot(&self, since: Deeds) -> Result<SupervisorSnapshot, NotCarried> {
        let under_way = |what: &str| Err(NotCarried(format!("{what} is under way")));
        match self.mode {
            Mode::Closing | Mode::Ending => return under_way("the stop of clusterd"),
            Mode::Running | Mode::Stopped => {}
        }
        if self.replacements.reload_by().is_some() {
            return under_way("a reload");
        }
        if !self.replacements.is_empty() {
            return under_way("the replacement of a worker");
        }
        if !self.jobs.is_empty() {
            return under_way("a command");
        }
        if self.workers.deeds() != since {
            return under_way("the start or end of a worker");
        }
        let WorkersSnapshot { table, processes, lanes, events } = self.workers.snapshot()?;
        let spec = &self.wanted.plan.spec;
        Ok(SupervisorSnapshot {
            runs: self.mode == Mode::Running,
            is_stopped: self.is_stopped,
            is_held: self.is_held,
            settings: CarriedSettings::clone(&self.wanted.settings),
            inherited: snapshot::variables(&spec.inherited),
            turned: spec.attach.turn.taken().map(Into::into),
            table,
            processes,
            lanes,
            events,
        })
    }

    /// Waits for the next thing that happens.
    async fn next(&mut self) {
        if self.next_start.is_some_and(|due| due <= Instant::now()) {
            return self.give_turns().await;
        }
        let goes_on = self.replacements.deadline(&self.workers).into_iter().chain(self.next_start).min();
        tokio::select! {
            () = self.workers.next() => {}
            Some(request) = self.inbox.recv() => self.answer(request),
            () = tokio::time::sleep_until(goes_on.unwrap_or_else(Instant::now).into()), if goes_on.is_some() => {}
        }
    }

    /// Has everybody else go on before the next start.
    async fn give_turns(&mut self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            while let Ok(request) = self.inbox.try_recv() {
                self.answer(request);
            }
        }
    }

    /// The code to exit with, when nothing runs and nothing will.
    fn over(&self) -> Option<u8> {
        if !self.workers.left_nothing() {
            return None;
        }
        match self.mode {
            Mode::Stopped | Mode::Closing => None,
            Mode::Ending => self.workers.table().ids().is_empty().then_some(0),
            Mode::Running if self.next_start.is_some() => None,
            Mode::Running => self.workers.table().verdict(),
        }
    }

    /// Starts what is missing, goes on with what is replaced, and drops what is gone.
    fn reconcile(&mut self) {
        self.replacements.advance(&mut self.workers, &mut self.wanted);
        self.workers.drop_stopped();
        self.fill_next();
        self.jobs.finish(self.workers.table());
    }

    /// Starts who is missing, if it is their turn. One at a time: a start takes a millisecond or two, in which others may have
    /// come up who wait to be let in.
    fn fill_next(&mut self) {
        self.next_start = None;
        let vacant = if self.mode.fills_slots() { self.workers.table().vacant() } else { Vec::new() };
        let Some(&slot) = vacant.first() else { return };
        let table = self.workers.table();
        let now = Instant::now();
        let due = self.pace.next(table.launching(), table.wanted()).unwrap_or(now);
        if due <= now {
            self.workers.start(slot, Run::FRESH, Arc::clone(&self.wanted.plan));
            self.pace.started(now);
        }
        self.next_start = (due > now || vacant.len() > 1).then_some(due);
    }

    fn publish(&self) {
        self.workers.publish(Overview {
            plan: Some(Arc::clone(&self.wanted.plan)),
            is_stopped: self.is_stopped,
            is_held: self.is_held,
            reload: self.replacements.reload_by().cloned(),
            ..Overview::default()
        });
    }

    /// Whoever has asked may have given up meanwhile.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Admit { token, reply } => drop(reply.send(self.workers.table().holder_of(token))),
            Request::Listening { worker, port } => self.workers.listening(worker, port),
            Request::HasRing(ring) => self.workers.has_ring(ring),
            Request::Turns { worker, obstacle, reply } => {
                let _ = reply.send(self.workers.turns(worker, &obstacle));
            }
            Request::Ready { worker } => self.workers.apply_to(worker, Input::Ready(worker)),
            Request::Speaks { worker, on_channel } => {
                self.workers.apply_to_running(worker, Input::Speaks { id: worker, on_channel });
            }
            Request::Catches { token, signals, reply } => {
                let worker = self.workers.table().run_by(token);
                if let Some(id) = worker {
                    self.workers.apply_to_running(id, Input::Catches { id, signals });
                }
                let _ = reply.send(worker);
            }
            Request::Do { order, by, reply } => drop(reply.send(self.obey(order, by))),
            Request::Replace { worker, reason } => {
                if self.mode == Mode::Running {
                    self.replacements.plan(&self.workers, worker, reason);
                }
            }
            Request::Tell(kind) => self.workers.tell(kind),
            Request::IsQuiet { reply } => {
                drop(reply.send(self.snapshot(self.workers.deeds()).map(drop)));
            }
            Request::HooksStandStill { reply } => drop(reply.send(self.workers.hooks_stand_still())),
            Request::StandStill { since, asked } => self.still = Some((since, asked)),
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

    /// Begins what a user asks for.
    fn obey(&mut self, order: Order<DesiredState>, by: Asker) -> Result<Underway, Refused> {
        let situation = Situation {
            mode: self.mode,
            workers: self.workers.table().wanted(),
            reload_by: self.replacements.reload_by().cloned(),
        };
        Ok(match accept(order, &situation)? {
            Accepted::Reload(wanted) => {
                self.replacements.reload(&mut self.workers, &self.wanted, (wanted, by))
            }
            Accepted::RestartOne(slot) => {
                self.workers.fill(slot);
                let done = format!("worker {slot} is online again");
                self.restart(vec![slot], done)
            }
            Accepted::RestartAll(wanted) => self.restart_all(wanted),
            Accepted::Scale(workers) => self.scale(workers, &by),
            Accepted::Stop(clients) => self.stop(clients, &by),
            Accepted::StopOne(slot) => self.stop_one(slot, &by),
            Accepted::Start => self.start(&by),
            Accepted::StartOne(slot) => self.start_one(slot),
            Accepted::StartWith(wanted) => self.start_with(wanted, &by),
            Accepted::Signal(slot, signal) => self.signal(slot, signal, &by),
            Accepted::Reset(slot) => self.reset(slot),
        })
    }

    /// With what is wanted now, also of their number.
    fn restart_all(&mut self, wanted: DesiredState) -> Underway {
        let count = replacement::count_after(&self.workers, &self.wanted, &wanted);
        self.wanted = wanted;
        self.workers.fill_all();
        let surplus: Vec<Slot> = (count + 1..=self.workers.resize(count)).map(Slot).collect();
        self.workers.stop(self.workers.table().ids_in(&surplus));
        let done = format!("{} online again", jobs::workers(count));
        self.restart(self.workers.table().slots(), done)
    }

    /// Every slot that becomes empty is filled again.
    fn restart(&mut self, slots: Vec<Slot>, done: String) -> Underway {
        self.replacements.give_up(&mut self.workers, "it is restarted");
        for &slot in &slots {
            self.workers.count_restart(slot, Reason::Command);
        }
        self.workers.stop(self.workers.table().ids_in(&slots));
        self.jobs.begin(Goal::Online(slots), done)
    }

    fn scale(&mut self, wanted: u32, by: &Asker) -> Underway {
        let before = self.workers.resize(wanted);
        self.workers.tell(EventKind::Scaled { workers: wanted, by: by.to_string() });
        let goal = if wanted >= before {
            Goal::Online(self.workers.table().slots())
        } else {
            let surplus: Vec<Slot> = (wanted + 1..=before).map(Slot).collect();
            self.retire(self.workers.table().ids_in(&surplus))
        };
        self.jobs.begin(goal, format!("scaled to {} (was {before})", jobs::workers(wanted)))
    }

    fn stop(&mut self, clients: Clients, by: &Asker) -> Underway {
        self.workers.tell(EventKind::AppStopping { by: by.to_string() });
        self.mode = Mode::Stopped;
        self.is_stopped = true;
        self.is_held = clients == Clients::Wait;
        self.overtake(&format!("stopped by {by}"));
        self.workers.app_stopped(clients == Clients::Refused);
        let goal = self.retire(self.workers.table().ids());
        let done = match clients {
            // What is opened on demand may be open or not.
            _ if self.wanted.plan.spec.ports.is_empty() => "stopped",
            Clients::Refused => "stopped; the ports are kept, and refuse clients",
            Clients::Wait => "stopped; the ports are kept, and clients wait",
        };
        self.jobs.begin(goal, done.to_owned())
    }

    /// Its slot stays empty over reloads and restarts, until it is started. The last one takes the app with it.
    fn stop_one(&mut self, slot: Slot, by: &Asker) -> Underway {
        if self.workers.table().slots().iter().all(|other| *other == slot) {
            return self.stop(Clients::Refused, by);
        }
        self.workers.keep_empty(slot);
        let goal = self.retire(self.workers.table().ids_in(&[slot]));
        self.jobs.begin(goal, format!("worker {slot} stopped"))
    }

    /// Has these leave; the goal is that they are gone.
    fn retire(&mut self, leaving: Vec<InstanceId>) -> Goal {
        self.workers.retire(leaving.clone());
        Goal::Gone(leaving)
    }

    fn start_one(&mut self, slot: Slot) -> Underway {
        self.workers.fill(slot);
        self.workers.start_settled(Some(slot));
        self.jobs.begin(Goal::Online(vec![slot]), format!("worker {slot} online"))
    }

    fn start(&mut self, by: &Asker) -> Underway {
        self.workers.tell(EventKind::AppStarted { by: by.to_string() });
        self.mode = Mode::Running;
        (self.is_stopped, self.is_held) = (false, false);
        self.workers.fill_all();
        self.workers.app_stopped(false);
        self.workers.start_settled(None);
        let table = self.workers.table();
        let done = format!("{} online", jobs::workers(table.wanted()));
        self.jobs.begin(Goal::Online(table.slots()), done)
    }

    fn start_with(&mut self, wanted: DesiredState, by: &Asker) -> Underway {
        let count = replacement::count_after(&self.workers, &self.wanted, &wanted);
        self.wanted = wanted;
        self.workers.resize(count);
        self.start(by)
    }

    fn signal(&self, slot: Option<Slot>, signal: NamedSignal, by: &Asker) -> Underway {
        let sent = self.workers.signal(slot, signal.signal());
        let to = jobs::workers(u32::try_from(sent.len()).unwrap_or(u32::MAX));
        tracing::info!("signal {signal} sent to {to} by {by}");
        Underway::ended(match &sent[..] {
            [] => Err("no worker is running".to_owned()),
            sent => match sent.iter().find_map(|sent| sent.as_ref().err()) {
                Some(error) => Err(format!("cannot send signal {signal}: {error}")),
                None => Ok(format!("signal {signal} sent to {to}")),
            },
        })
    }

    /// What is counted for the metrics goes on: a counter that goes back is a restart of clusterd (Prometheus).
    fn reset(&mut self, slot: Option<Slot>) -> Underway {
        self.workers.reset_restarts(slot);
        Underway::ended(Ok("restarts are counted from 0".to_owned()))
    }

    /// Begins the end: what was asked for is given up, and nothing more is taken on.
    fn close(&mut self) {
        self.overtake("clusterd is stopping");
        self.mode = self.mode.closed();
        self.workers.all_leaving();
    }

    /// Ends everything for good. A stronger stop may follow a weaker one.
    fn end(&mut self, stop: Stop) {
        self.mode = Mode::Ending;
        self.overtake("clusterd is stopping");
        match stop {
            Stop::Graceful { until } => self.workers.apply_to_all(&Input::Retire { until }),
            Stop::Fast => self.workers.stop_all(Instant::now() + FAST),
        }
    }

    /// Whatever was asked for before is not done any more.
    fn overtake(&mut self, reason: &str) {
        self.replacements.give_up(&mut self.workers, reason);
        self.jobs.give_up(reason);
    }
}
