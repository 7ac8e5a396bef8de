//! [`AppBackend`]: what the control socket can ask of an app; and [`SupervisedApp`], the one that this clusterd runs.
//!
//! It carries out nothing itself: commands are the supervisor's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use prometheus::{HistogramVec, IntCounterVec};
use tokio::sync::broadcast::Receiver;
use tokio::sync::watch;
use tokio::time::timeout;

use super::api::{
    Accept, Address, App, Bucket, Code, Connection, Histogram, ListenQueue, Moved, Problem, Tick, Traffic,
    Upgrade, Worker,
};
use super::usage::{GroupUsage, UsageSampler};
use crate::admin::Readiness;
use crate::admin::listen_queues::{ListenQueues, QueueLength};
use crate::admin::open_connections::OpenConnections;
use crate::connections::{self, ConnectionState, OpenConnection};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::logs::WorkerIds;
use crate::metrics::Metrics;
use crate::preload;
use crate::private::{WorkerDialer, exchange};
use crate::protocol::wire::ENV_TOKEN;
use crate::settings::WorkerCommand;
use crate::supervisor::events::{Asker, Event, Time, millis};
use crate::supervisor::lifecycle::Phase;
use crate::supervisor::{self, Command, Environment, Failed, Overview, Refused, Status};
use crate::sys::process;
use crate::sys::processes::members_without;

/// How a command ends: what was done, in a sentence, or why not.
pub(crate) type CommandEnd = BoxFuture<'static, Result<String, Failed>>;

/// How closely workers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// As for a list of many.
    Brief,
    /// What passes through it, too.
    Traffic,
    /// Into each process, too.
    Full,
    /// Also what they were given, which may hold secrets.
    WithEnvironment,
}

/// An app, as the handlers see it.
pub(crate) trait AppBackend: Send + Sync + 'static {
    /// The name of the app.
    fn name(&self) -> &str;

    /// The state of the app and its workers. Reads from the kernel: call it on a thread that may block.
    fn snapshot(&self, detail: Detail) -> App;

    /// Begins a command.
    fn begin(&self, command: Command, by: Asker) -> BoxFuture<'static, Result<CommandEnd, Refused>>;

    /// What is counted now. Takes microseconds.
    fn counts(&self) -> Tick;

    /// How many connections each worker has open, by its number, if anybody knows.
    fn open_connections(&self) -> BoxFuture<'static, Option<BTreeMap<u32, u64>>>;

    /// The events from now on.
    fn events(&self) -> Receiver<Event>;

    /// The last events, the oldest first, and those from now on.
    fn events_with_past(&self) -> (Vec<Event>, Receiver<Event>);

    /// The open connections of its clients, or of one worker's.
    fn connections(&self, worker: Option<Slot>) -> BoxFuture<'static, Result<Vec<Connection>, Problem>>;

    /// Sends a request, whose URI is a path, to one worker: to its listener on `port`, or on its first port.
    fn exchange(
        &self,
        worker: Slot,
        port: Option<WorkerPort>,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, Problem>>;
}

/// The facts that do not change while an app runs.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// The name of the app.
    pub name: String,
    /// The namespace that it is in.
    pub namespace: String,
    /// Where clients connect to.
    pub addresses: Vec<Address>,
    /// When clusterd was started.
    pub started: SystemTime,
    /// What connections move is counted (`--connection-stats`).
    pub counts_moved: bool,
}

/// What is asked for the state of an app.
#[derive(Debug)]
pub(crate) struct AppSources {
    /// Its supervisor.
    pub supervisor: supervisor::Handle,
    /// What is counted.
    pub metrics: Metrics,
    /// Reaches its workers.
    pub dialer: WorkerDialer,
    /// Who has which connection.
    pub connections: connections::Handle,
    /// How many each worker has open.
    pub open: OpenConnections,
    /// The kernel's queues of its addresses.
    pub queues: ListenQueues,
    /// What `/readyz` answers.
    pub readiness: watch::Receiver<Readiness>,
    /// How clusterd was replaced last, if it was.
    pub upgrade: watch::Receiver<Option<Upgrade>>,
    /// The numbers of workers over all apps, if somebody gives them.
    pub ids: Option<WorkerIds>,
}

/// The app that this clusterd runs.
#[derive(Debug)]
pub(crate) struct SupervisedApp {
    profile: Profile,
    supervisor: supervisor::Handle,
    metrics: Metrics,
    dialer: WorkerDialer,
    connections: connections::Handle,
    open: OpenConnections,
    queues: ListenQueues,
    readiness: watch::Receiver<Readiness>,
    upgrade: watch::Receiver<Option<Upgrade>>,
    ids: Option<WorkerIds>,
    usage: Mutex<UsageSampler>,
}

/// How long a command that has added workers waits for their numbers: a disk may hold them up.
const NUMBERS: Duration = Duration::from_secs(5);

impl SupervisedApp {
    /// The app that these sources tell of.
    pub(crate) fn new(profile: Profile, sources: AppSources) -> Self {
        let AppSources { supervisor, metrics, dialer, connections, open, queues, readiness, upgrade, ids } =
            sources;
        let usage = Mutex::default();
        Self {
            profile,
            supervisor,
            metrics,
            dialer,
            connections,
            open,
            queues,
            readiness,
            upgrade,
            ids,
            usage,
        }
    }

    /// What passes through it.
    fn traffic(&self, slots: impl Iterator<Item = Slot>) -> Traffic {
        let metrics = &self.metrics;
        let counted = Traffic {
            accepted: metrics.accepted.get(),
            rejected: metrics.rejected_of_all_reasons(),
            redispatched: metrics.redispatched.get(),
            queued: queued(metrics),
            queue_wait: histogram(&metrics.counted(&metrics.queue_wait)),
            handoff: histogram(&metrics.counted(&metrics.handoff)),
            listen_queues: self.queues.look().into_iter().map(listen_queue).collect(),
            ..Traffic::default()
        };
        if !self.profile.counts_moved {
            return counted;
        }
        let labels: BTreeSet<String> = slots.map(|slot| slot.to_string()).collect();
        let of_all = &metrics.connections;
        let sum = |counter: &IntCounterVec| {
            Some(labels.iter().map(|worker| counter.with_label_values(&[worker]).get()).sum())
        };
        let together = |of_workers: &HistogramVec| {
            let one = |worker: &String| histogram(&metrics.counted(&of_workers.with_label_values(&[worker])));
            let each = labels.iter().map(one);
            Some(each.fold(Histogram::default(), |all, one| all.plus(&one)))
        };
        Traffic {
            duration: together(&of_all.duration),
            rtt: together(&of_all.rtt),
            received_bytes: sum(&of_all.received),
            sent_bytes: sum(&of_all.sent),
            retransmitted_segments: sum(&of_all.retransmitted),
            ..counted
        }
    }

    /// What the connections of a worker have moved.
    fn moved(&self, slot: Slot) -> Moved {
        let (of_all, worker) = (&self.metrics.connections, slot.to_string());
        let duration = self.metrics.counted(&of_all.duration.with_label_values(&[&worker]));
        Moved {
            connections_ended: duration.get_sample_count(),
            duration_sum_seconds: duration.get_sample_sum(),
            received_bytes: of_all.received.with_label_values(&[&worker]).get(),
            sent_bytes: of_all.sent.with_label_values(&[&worker]).get(),
        }
    }

    fn find(&self, slot: Slot, port: Option<WorkerPort>) -> Result<(WorkerId, WorkerPort), Problem> {
        let overview = Arc::clone(&self.supervisor.status().borrow());
        let worker = find(&overview, slot)?;
        let ports = || self.profile.addresses.iter().map(|address| WorkerPort(address.worker_port));
        match port {
            None => ports().next().map(|first| (worker, first)),
            Some(port) => ports().find(|known| *known == port).map(|port| (worker, port)),
        }
        .ok_or_else(|| {
            let known: Vec<_> = ports().map(|port| port.to_string()).collect();
            Problem::new(Code::NotFound, "workers do not serve on that port")
                .help(format!("they serve on {}", known.join(", ")))
        })
    }
}

impl AppBackend for SupervisedApp {
    fn name(&self) -> &str {
        &self.profile.name
    }

    fn snapshot(&self, detail: Detail) -> App {
        let overview = Arc::clone(&self.supervisor.status().borrow());
        let now = SystemTime::now();
        let groups: Vec<_> = overview
            .workers
            .iter()
            .filter_map(|worker| {
                Some((worker.running?.1, worker.since.map_or(Duration::ZERO, |at| ago(at, now))))
            })
            .collect();
        // A sample that has panicked has remembered nothing wrong.
        let used = self.usage.lock().unwrap_or_else(PoisonError::into_inner).sample(&groups);
        let workers = overview.workers.iter().map(|status| {
            let used = status.running.and_then(|(_, pid)| used.get(&pid).copied());
            let taken = self.metrics.handed.with_label_values(&[&status.slot.to_string()]).get();
            let without_shim = match detail {
                Detail::Brief | Detail::Traffic => Vec::new(),
                Detail::Full | Detail::WithEnvironment => without_shim(&overview, status),
            };
            let environment = status.environment.as_ref().filter(|_| detail == Detail::WithEnvironment);
            let environment = environment.map(texts);
            let is_asked = detail == Detail::Traffic && self.profile.counts_moved;
            let moved = is_asked.then(|| self.moved(status.slot));
            Worker { without_shim, environment, moved, ..worker(status, used, taken, now) }
        });
        let slots = overview.workers.iter().map(|worker| worker.slot);
        App {
            upgrade: self.upgrade.borrow().clone(),
            traffic: (detail == Detail::Traffic).then(|| self.traffic(slots)),
            ready: self.readiness.borrow().is_ready(),
            accept: if self.dialer.workers_accept() { Accept::Workers } else { Accept::Primary },
            ..app(&self.profile, &overview, workers.collect(), now)
        }
    }

    fn begin(&self, command: Command, by: Asker) -> BoxFuture<'static, Result<CommandEnd, Refused>> {
        let (supervisor, ids) = (self.supervisor.clone(), self.ids.clone());
        Box::pin(async move {
            let mut status = supervisor.status();
            let before = status.borrow().wanted;
            let underway = supervisor.begin(command, by).await?;
            let end = async move {
                let done = underway.done().await?;
                let has_more = status.borrow().wanted > before;
                if let Some(ids) = ids.filter(|_| has_more) {
                    // Who has waited for the end may name a new worker by its number.
                    let _ = timeout(NUMBERS, all_have_numbers(&ids, &mut status)).await;
                }
                Ok(done)
            };
            Ok(Box::pin(end) as CommandEnd)
        })
    }

    fn counts(&self) -> Tick {
        let overview = Arc::clone(&self.supervisor.status().borrow());
        let taken = |slot: Slot| self.metrics.handed.with_label_values(&[&slot.to_string()]).get();
        let slots: BTreeSet<Slot> = overview.workers.iter().map(|worker| worker.slot).collect();
        Tick {
            pid: std::process::id(),
            uptime_ms: millis(ago(self.profile.started, SystemTime::now())),
            accepted: self.metrics.accepted.get(),
            rejected: self.metrics.rejected_of_all_reasons(),
            redispatched: self.metrics.redispatched.get(),
            queued: queued(&self.metrics),
            taken: slots.into_iter().map(|slot| (slot.0, taken(slot))).collect(),
        }
    }

    fn open_connections(&self) -> BoxFuture<'static, Option<BTreeMap<u32, u64>>> {
        let open = self.open.clone();
        Box::pin(async move {
            let counts = open.counts().await?;
            Some(counts.into_iter().map(|(slot, count)| (slot.0, count as u64)).collect())
        })
    }

    fn events(&self) -> Receiver<Event> {
        self.supervisor.events()
    }

    fn events_with_past(&self) -> (Vec<Event>, Receiver<Event>) {
        self.supervisor.events_with_past()
    }

    fn connections(&self, worker: Option<Slot>) -> BoxFuture<'static, Result<Vec<Connection>, Problem>> {
        let overview = Arc::clone(&self.supervisor.status().borrow());
        let connections = self.connections.clone();
        Box::pin(async move {
            if let Some(worker) = worker
                && overview.workers.iter().all(|status| status.slot != worker)
            {
                return Err(no_worker(worker));
            }
            let open = connections.snapshot().await.map_err(|error| {
                Problem::new(Code::Failed, format!("cannot list the connections: {error}"))
            })?;
            let is_meant =
                |open: &&OpenConnection| worker.is_none() || open.worker.map(|of| of.slot) == worker;
            Ok(open.iter().filter(is_meant).map(connection).collect())
        })
    }

    fn exchange(
        &self,
        worker: Slot,
        port: Option<WorkerPort>,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, Problem>> {
        let (found, dialer) = (self.find(worker, port), self.dialer.clone());
        Box::pin(async move {
            let (launch, port) = found?;
            let answer = exchange::exchange(&dialer, launch, port, request).await.map_err(|error| {
                Problem::new(Code::Unreachable, format!("worker {worker} does not answer: {error}"))
            })?;
            // As a stream, the body has no length that anybody could make up a header from.
            Ok(answer.map(|body| Body::from_stream(body.into_data_stream())))
        })
    }
}

/// Returns when all workers have their numbers that are wanted by then.
async fn all_have_numbers(ids: &WorkerIds, status: &mut watch::Receiver<Arc<Overview>>) {
    loop {
        let workers = status.borrow_and_update().wanted;
        tokio::select! {
            () = ids.are_given(workers) => return,
            Ok(()) = status.changed() => {}
            else => return,
        }
    }
}

/// The process of a worker; the one that serves, while it is replaced.
fn find(overview: &Overview, slot: Slot) -> Result<WorkerId, Problem> {
    let launches = || overview.workers.iter().filter(|worker| worker.slot == slot);
    if launches().next().is_none() {
        return Err(no_worker(slot));
    }
    let running = || launches().filter_map(|worker| Some((worker.phase, worker.running?.0)));
    let online = running().find(|(phase, _)| *phase == Phase::Online);
    online
        .or_else(|| running().next())
        .map(|(_, worker)| worker)
        .ok_or_else(|| Problem::new(Code::Unreachable, format!("worker {slot} is not running")))
}

/// Where no shim is given to workers, that says enough.
fn without_shim(overview: &Overview, status: &Status) -> Vec<String> {
    let Some((_, group)) = status.running.filter(|_| asks_to_leave(overview)) else {
        return Vec::new();
    };
    members_without(group, preload::FILE_NAME).iter().map(ToString::to_string).collect()
}

fn asks_to_leave(overview: &Overview) -> bool {
    overview.plan.as_ref().is_some_and(|plan| plan.spec.asks_to_leave())
}

fn no_worker(slot: Slot) -> Problem {
    Problem::new(Code::NotFound, format!("there is no worker {slot}"))
}

fn app(profile: &Profile, overview: &Overview, workers: Vec<Worker>, now: SystemTime) -> App {
    App {
        name: profile.name.clone(),
        namespace: profile.namespace.clone(),
        command: overview.plan.as_ref().map(|plan| words(&plan.spec.command)).unwrap_or_default(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        outdated: !process::runs_what_is_on_disk(),
        upgrade: None,
        started: Time(profile.started),
        uptime_ms: millis(ago(profile.started, now)),
        addresses: profile.addresses.clone(),
        wanted: overview.wanted,
        stopped: overview.is_stopped,
        ready: false,
        accept: Accept::Primary,
        asks_to_leave: asks_to_leave(overview),
        reload: overview.reload.as_ref().map(ToString::to_string),
        traffic: None,
        workers,
    }
}

fn queued(metrics: &Metrics) -> u64 {
    u64::try_from(metrics.queue.get()).unwrap_or_default()
}

fn listen_queue(queue: QueueLength) -> ListenQueue {
    let QueueLength { listener, connections, limit, dropped } = queue;
    ListenQueue { listener, connections, limit, dropped }
}

fn histogram(counted: &prometheus::proto::Histogram) -> Histogram {
    let bucket = |bucket: &prometheus::proto::Bucket| Bucket {
        seconds: bucket.upper_bound(),
        count: bucket.cumulative_count(),
    };
    Histogram {
        count: counted.get_sample_count(),
        sum_seconds: counted.get_sample_sum(),
        buckets: counted.get_bucket().iter().map(bucket).collect(),
    }
}

/// What workers run, word by word; empty for the built-in demo.
fn words(command: &WorkerCommand) -> Vec<String> {
    match command {
        WorkerCommand::Demo => Vec::new(),
        WorkerCommand::Program { program, arguments } => {
            let words = std::iter::once(program).chain(arguments);
            words.map(|word| word.to_string_lossy().into_owned()).collect()
        }
    }
}

fn worker(status: &Status, used: Option<GroupUsage>, taken: u64, now: SystemTime) -> Worker {
    Worker {
        worker: status.slot.0,
        state: status.phase.label().to_owned(),
        pid: status.running.map(|(_, pid)| pid.as_raw_pid()),
        started: status.since.map(Time),
        uptime_ms: status.since.map(|since| millis(ago(since, now))),
        restarts: status.restarts,
        cpu_percent: used.map(|used| used.cpu_percent),
        memory_bytes: used.map(|used| used.memory),
        connections_taken: taken,
        connections_open: None,
        moved: None,
        listening: status.listening.iter().map(|port| port.0).collect(),
        without_shim: Vec::new(),
        last_end: status.last_end.clone(),
        last_lines: status.last_lines.clone(),
        environment: None,
    }
}

fn texts(environment: &Environment) -> BTreeMap<String, String> {
    let text = |bytes: &OsString| bytes.to_string_lossy().into_owned();
    // The token is the worker's secret, which makes connections its own.
    let told = environment.iter().filter(|(name, _)| *name != ENV_TOKEN);
    told.map(|(name, value)| (text(name), text(value))).collect()
}

fn connection(open: &OpenConnection) -> Connection {
    let seconds = |time: Duration| time.as_secs_f64();
    let figures = open.figures;
    Connection {
        client: canonical(open.client),
        local: canonical(open.local),
        worker: open.worker.map(|worker| worker.slot.0),
        state: state(open.state).to_owned(),
        age_seconds: open.age.map(seconds),
        idle_seconds: figures.map(|figures| seconds(figures.idle)),
        received_bytes: figures.map(|figures| figures.received),
        sent_bytes: figures.map(|figures| figures.sent),
        rtt_seconds: figures.map(|figures| seconds(figures.rtt)),
        rtt_variation_seconds: figures.map(|figures| seconds(figures.rtt_variation)),
        retransmitted_segments: figures.map(|figures| figures.retransmitted),
        queued_seconds: open.queued_for.map(seconds),
    }
}

fn state(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Established => "established",
        ConnectionState::CloseWait => "close-wait",
        ConnectionState::FinWait1 => "fin-wait-1",
        ConnectionState::FinWait2 => "fin-wait-2",
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Nothing, if the clock was set back.
fn ago(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}
