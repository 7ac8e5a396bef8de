//! An app as the control socket sees it: what can be asked of it, and the one that this clusterd runs.
//!
//! It carries nothing out itself: commands are the supervisor's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast::Receiver;

use super::api::{Address, App, Worker};
use super::usage::{Looks, Used};
use crate::metrics::Metrics;
use crate::supervisor::events::{Asker, Event, Time};
use crate::supervisor::{self, Command, Failed, Overview, Refused, Status};

/// Something that will be known.
pub type Soon<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a command ends: what was done, in a sentence, or why not.
pub type Ending = Soon<Result<String, Failed>>;

/// What can be asked of an app.
pub trait Controlled: Send + Sync + 'static {
    /// What it is called.
    fn name(&self) -> &str;

    /// How it stands. Reads from the kernel: not on a thread that serves.
    fn look(&self) -> App;

    /// Begins a command.
    fn begin(&self, command: Command, by: Asker) -> Soon<Result<Ending, Refused>>;

    /// What happens from now on.
    fn events(&self) -> Receiver<Event>;
}

/// What does not change while an app runs.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    /// What its workers run; empty for the built-in demo.
    pub command: Vec<String>,
    /// Where clients connect to.
    pub addresses: Vec<Address>,
    /// When clusterd was started.
    pub started: SystemTime,
}

/// The app that this clusterd runs.
#[derive(Debug)]
pub struct Running {
    profile: Profile,
    supervisor: supervisor::Handle,
    metrics: Metrics,
    looks: Mutex<Looks>,
}

impl Running {
    /// The app of this supervisor.
    pub fn new(profile: Profile, supervisor: supervisor::Handle, metrics: Metrics) -> Self {
        Self { profile, supervisor, metrics, looks: Mutex::default() }
    }
}

impl Controlled for Running {
    fn name(&self) -> &str {
        &self.profile.name
    }

    fn look(&self) -> App {
        let overview = Arc::clone(&self.supervisor.status().borrow());
        let now = SystemTime::now();
        let groups: Vec<_> = overview
            .workers
            .iter()
            .filter_map(|worker| {
                Some((worker.running?.1, worker.since.map_or(Duration::ZERO, |at| ago(at, now))))
            })
            .collect();
        // A look that has panicked has remembered nothing wrong.
        let used = self.looks.lock().unwrap_or_else(PoisonError::into_inner).look(&groups);
        let workers = overview.workers.iter().map(|status| {
            let used = status.running.and_then(|(_, pid)| used.get(&pid).copied());
            let taken = self.metrics.handed.with_label_values(&[&status.slot.to_string()]).get();
            worker(status, used, taken, now)
        });
        app(&self.profile, &overview, workers.collect(), now)
    }

    fn begin(&self, command: Command, by: Asker) -> Soon<Result<Ending, Refused>> {
        let supervisor = self.supervisor.clone();
        Box::pin(async move {
            let underway = supervisor.begin(command, by).await?;
            Ok(Box::pin(underway.done()) as Ending)
        })
    }

    fn events(&self) -> Receiver<Event> {
        self.supervisor.events()
    }
}

fn app(profile: &Profile, overview: &Overview, workers: Vec<Worker>, now: SystemTime) -> App {
    App {
        name: profile.name.clone(),
        command: profile.command.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: Time(profile.started),
        uptime_ms: millis(ago(profile.started, now)),
        addresses: profile.addresses.clone(),
        wanted: overview.wanted,
        stopped: overview.is_stopped,
        reload: overview.reload.as_ref().map(ToString::to_string),
        workers,
    }
}

fn worker(status: &Status, used: Option<Used>, taken: u64, now: SystemTime) -> Worker {
    Worker {
        worker: status.slot.0,
        state: status.phase.label().to_owned(),
        pid: status.running.map(|(_, pid)| pid.as_raw_pid()),
        started: status.since.map(Time),
        uptime_ms: status.since.map(|since| millis(ago(since, now))),
        restarts: status.restarts,
        cpu_percent: used.map(|used| used.cpu_percent),
        memory_bytes: used.map(|used| used.memory),
        connections: taken,
        listening: status.listening.iter().map(|port| port.0).collect(),
        last_end: status.last_end.clone(),
        last_lines: status.last_lines.clone(),
    }
}

/// Nothing, if the clock was set back.
fn ago(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
