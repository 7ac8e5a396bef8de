//! [`AppBackend`]: what the control socket can ask of an app; and [`SupervisedApp`], the one that this clusterd runs.
//!
//! It carries out nothing itself: commands are the supervisor's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use prometheus::core::Metric as _;
use tokio::sync::broadcast::Receiver;
use tokio::sync::watch;

use super::api::{Accept, Address, App, Bucket, Code, Connection, Histogram, Problem, Traffic, Worker};
use super::usage::{GroupUsage, UsageSampler};
use crate::admin::Readiness;
use crate::connections::{self, ConnectionState, OpenConnection};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::preload;
use crate::private::{WorkerDialer, exchange};
use crate::settings::WorkerCommand;
use crate::supervisor::events::{Asker, Event, Time, millis};
use crate::supervisor::lifecycle::Phase;
use crate::supervisor::{self, Command, Environment, Failed, Overview, Refused, Status};
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

    /// The events from now on.
    fn events(&self) -> Receiver<Event>;

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
}

/// The app that this clusterd runs.
#[derive(Debug)]
pub(crate) struct SupervisedApp {
    profile: Profile,
    supervisor: supervisor::Handle,
    metrics: Metrics,
    dialer: WorkerDialer,
    connections: connections::Handle,
    readiness: watch::Receiver<Readiness>,
    usage: Mutex<UsageSampler>,
}

impl SupervisedApp {
    /// The app of this supervisor; the dialer reaches its workers.
    pub(crate) fn new(
        profile: Profile,
        supervisor: supervisor::Handle,
        metrics: Metrics,
        dialer: WorkerDialer,
        connections: connections::Handle,
        readiness: watch::Receiver<Readiness>,
    ) -> Self {
        Self { profile, supervisor, metrics, dialer, connections, readiness, usage: Mutex::default() }
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
            Worker { without_shim, environment, ..worker(status, used, taken, now) }
        });
        App {
            traffic: (detail == Detail::Traffic).then(|| traffic(&self.metrics)),
            ready: self.readiness.borrow().is_ready(),
            accept: if self.dialer.workers_accept() { Accept::Workers } else { Accept::Primary },
            ..app(&self.profile, &overview, workers.collect(), now)
        }
    }

    fn begin(&self, command: Command, by: Asker) -> BoxFuture<'static, Result<CommandEnd, Refused>> {
        let supervisor = self.supervisor.clone();
        Box::pin(async move {
            let underway = supervisor.begin(command, by).await?;
            Ok(Box::pin(underway.done()) as CommandEnd)
        })
    }

    fn events(&self) -> Receiver<Event> {
        self.supervisor.events()
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

/// The counters of the data path.
fn traffic(metrics: &Metrics) -> Traffic {
    Traffic {
        accepted: metrics.accepted.get(),
        rejected: metrics.rejected_of_all_reasons(),
        redispatched: metrics.redispatched.get(),
        queued: u64::try_from(metrics.queue.get()).unwrap_or_default(),
        queue_wait: histogram(&metrics.queue_wait),
        handoff: histogram(&metrics.handoff),
    }
}

fn histogram(histogram: &prometheus::Histogram) -> Histogram {
    let metric = histogram.metric();
    let counted = metric.get_histogram();
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
        listening: status.listening.iter().map(|port| port.0).collect(),
        without_shim: Vec::new(),
        last_end: status.last_end.clone(),
        last_lines: status.last_lines.clone(),
        environment: None,
    }
}

fn texts(environment: &Environment) -> BTreeMap<String, String> {
    let text = |bytes: &OsString| bytes.to_string_lossy().into_owned();
    environment.iter().map(|(name, value)| (text(name), text(value))).collect()
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
