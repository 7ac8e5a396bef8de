//! One clusterd: wires the rooms together, from the first check to the last process.
//!
//! Read `serve`: it is the table of contents. Decisions are made in the rooms, not here.

mod announce;
mod asking;
mod attach;
mod attend;
mod control;
mod descriptors;
mod failure;
mod folder;
mod hooks;
mod listen;
mod node;
mod notify;
mod orders;
mod plan;
mod reports;
mod shutdown;
mod signals;
mod surroundings;
mod systemd;

use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tracing::{debug, warn};

use self::asking::Asking;
use self::attach::{AttachSocket, Rooms};
use self::descriptors::Limits;
pub use self::failure::Failure;
use self::folder::Folder;
use self::hooks::{Hooks, Shell};
use self::listen::Ports;
use self::node::{Listeners, Nodes};
use self::notify::Notices;
use self::orders::Orders;
use self::plan::Base;
use self::reports::Heard;
use self::shutdown::Shutdown;
use self::signals::Signals;
use self::surroundings::Neighbours;
use crate::admin::{self, Admin, AdminState, Readiness};
use crate::config::Config;
use crate::config::load::CommandLine;
use crate::front::handle::FrontEnds;
use crate::front::ledger::{Hold, Wear};
use crate::front::{self, Front, Setup};
use crate::ids::WorkerPort;
use crate::logs::{self, Output};
use crate::metrics::Metrics;
use crate::preload::{ExposeError, Exposed};
use crate::private::scrape::Scraper;
use crate::protocol::native::Places;
use crate::supervisor::terms::Terms;
use crate::supervisor::{self, AttachEnv, Scope, Spec, guardian};
use crate::sys;

/// How many channels to workers' listeners there may be: so many, or so many a worker.
const CHANNELS: usize = 1024;
const CHANNELS_A_WORKER: usize = 4;

/// How long the last output may take to be written.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Serves until it is told to stop, or until every worker has ended for good. Returns the code to exit with.
///
/// # Errors
/// Why it could not start.
pub fn run(config: Config, command_line: CommandLine) -> Result<u8, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let output = Output::stdio()?;
        logs::messages::install(&output, config.log_format, config.log_level)?;
        let ended = serve(config, command_line, &output).await;
        if output.finish(tokio::time::Instant::now() + LAST_OUTPUT).await.is_err() {
            debug!("nobody reads the output; the rest of it is dropped");
        }
        ended
    })
}

async fn serve(config: Config, command_line: CommandLine, output: &Output) -> Result<u8, Failure> {
    let signals = Signals::new().map_err(Failure::Signals)?;
    let limits = descriptors::prepare().map_err(Failure::Descriptors)?;
    sys::process::become_subreaper().map_err(Failure::Subreaper)?;
    let terms = plan::terms(&config, limits.workers)?;
    let changes = attend::changes(&config)?;
    let metrics = Metrics::new();

    let bound = listen::bind(&config)?;
    let ports = listen::worker_ports(&bound);
    let addresses = listen::addresses(&bound);
    let app = control::profile(&config, &bound);
    let admin = config.metrics.map(Admin::bind).transpose()?;
    announce::listening(&config, &bound, admin.as_ref());

    let folder = Folder::create(terms.identity.as_ref());
    let folder_path = folder.as_ref().map(Folder::path);
    let attach = AttachSocket::bind(folder_path).map_err(Failure::AttachSocket)?;
    let shim = if config.attach.has_shim() { expose_shim(folder_path, &terms)? } else { None };

    let (front, reports, ends) = front::handle::channels(&ports);
    start_front(setup(&config, bound, &metrics, limits), ends).await?;

    let users = terms.users();
    let base = Base {
        ports: ports.clone(),
        attach: AttachEnv {
            socket: attach.name().into(),
            shim: shim.as_ref().map(|shim| shim.path().to_owned()),
            node_channel: config.attach.has_node_channel(),
        },
        limits: limits.workers,
    };
    let spec = Spec {
        app: config.name.clone(),
        wanted: base.wanted(&config)?,
        scope: Scope::Everyone,
        guardian: guardian(&config, folder_path),
    };
    let reread = base.reread(config.clone(), command_line);
    let workers = usize::try_from(config.workers.get()).unwrap_or(usize::MAX);
    let places = Places::new(CHANNELS.max(workers.saturating_mul(CHANNELS_A_WORKER)));
    let ports: Arc<[WorkerPort]> = ports.into();
    let (nodes, words) = Nodes::new(node::Rooms {
        front: front.clone(),
        places: places.clone(),
        ports: Arc::clone(&ports),
        policy: config.policy,
        shim: shim.as_ref().map(|shim| shim.path().into()),
        handoff_timeout: config.handoff_timeout,
        listeners: Arc::new(Mutex::new(Listeners::new(config.policy))),
    });
    let public = addresses.iter().map(std::net::SocketAddr::port).collect();
    let asking = Asking::new(front.clone(), ports[0]);
    let (notices, ready) = Notices::new(users.clone());
    let neighbours = Neighbours {
        output: output.clone(),
        front: front.clone(),
        nodes,
        notices,
        ports: public,
        ready_http: asking.ready_http(&config),
    };
    let (supervisor, task) = supervisor::new(spec, reread, neighbours, metrics.clone());
    asking.start_health(&config, &supervisor, &metrics);
    let scraper = asking.scraper(&config, &supervisor, &metrics);
    let hooks = config.on_event.clone().map(|command| {
        let shell = Shell { command, nofile: limits.workers };
        Hooks::start(shell, supervisor.events(), metrics.clone())
    });

    let (readiness, watched) = watch::channel(reports::readiness(&reports.status.borrow()));
    start_admin(admin, &metrics, scraper, &supervisor, watched.clone())?;
    let systemd = systemd::start(systemd::Sources {
        readiness: watched,
        supervisor: supervisor.clone(),
        front: front.clone(),
    });
    tokio::spawn(notify::pass_on(ready, supervisor.clone()));
    let _control = control::open(app, &supervisor, &metrics, &front);
    tokio::spawn(attach.serve(Rooms {
        supervisor: supervisor.clone(),
        front: front.clone(),
        places,
        ports,
        users,
        policy: config.policy,
    }));
    tokio::spawn(reports::follow(
        Heard { reports, words },
        reports::Told { supervisor: supervisor.clone(), front: front.clone(), readiness: readiness.clone() },
        addresses,
    ));

    attend::attend(&config, changes, &supervisor);
    let mut orders = Orders::new(signals, supervisor.clone(), systemd);
    let shutdown = Shutdown { front, supervisor, readiness, drain_timeout: config.drain_timeout };
    let ended = tokio::select! {
        ended = task.run() => ended,
        never = shutdown.when_told(&mut orders) => match never {},
    };
    if let Some(hooks) = hooks {
        hooks.finish().await;
    }
    Ok(ended?)
}

/// Without a shim for this processor there are still workers that use the library.
fn expose_shim(folder: Option<&Path>, terms: &Terms) -> Result<Option<Exposed>, ExposeError> {
    let is_for_others = terms.identity.as_ref().is_some_and(|identity| identity.is_other_user);
    match Exposed::new(folder, is_for_others) {
        Err(error @ ExposeError::Unsupported) => {
            warn!("{error}");
            Ok(None)
        }
        exposed => exposed.map(Some),
    }
}

/// As PID 1 there is no need for one: when that process dies, the kernel kills everything in its namespace.
fn guardian(config: &Config, folder: Option<&Path>) -> Option<guardian::Orders> {
    let grace = config.drain_timeout + config.kill_timeout;
    let orders = || guardian::Orders { grace, folder: folder.map(ToOwned::to_owned) };
    (std::process::id() != 1).then(orders)
}

fn setup(config: &Config, ports: Ports, metrics: &Metrics, limits: Limits) -> Setup {
    let workers = config.workers.get();
    let queue = descriptors::affordable_queue(config.queue, limits.primary, workers, ports.len());
    if queue < config.queue {
        warn!(
            "the limit of open files has room for a queue of {queue}, not {}: raise it (ulimit -n) \
             or lower --queue; further connections wait in the kernel's backlog",
            config.queue
        );
    }
    Setup {
        ports,
        policy: config.policy,
        queue,
        queue_timeout: config.queue_timeout,
        handoff_timeout: config.handoff_timeout,
        hold: Hold { word: config.wait_ready, probe: config.ready_http.is_some() },
        wear: Wear {
            max_connections: config.max_connections.map(NonZeroU64::from),
            stuck_timeout: config.stuck_timeout,
        },
        metrics: metrics.clone(),
    }
}

/// Starts the data path on a thread of its own, which ends with the program.
async fn start_front(setup: Setup, ends: FrontEnds) -> Result<(), Failure> {
    let (started, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("front".to_owned());
    thread.spawn(move || run_front(setup, ends, started)).map_err(Failure::Front)?;
    told.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(Failure::Front)
}

fn run_front(setup: Setup, ends: FrontEnds, started: oneshot::Sender<io::Result<()>>) {
    // Before it sleeps, the front lets others run: under load workers have then taken several connections by the time
    // that it looks again, and it sleeps and wakes half as often. On an idle machine it costs a system call.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().on_thread_park(std::thread::yield_now).build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error))),
    };
    runtime.block_on(async {
        match Front::new(setup, ends) {
            Ok(front) => {
                let _ = started.send(Ok(()));
                front.run().await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    });
}

/// Serves metrics and probes, if they are wanted, for as long as the program runs.
fn start_admin(
    admin: Option<Admin>,
    metrics: &Metrics,
    scraper: Option<Scraper>,
    supervisor: &supervisor::Handle,
    readiness: watch::Receiver<Readiness>,
) -> Result<(), Failure> {
    let Some(admin) = admin else { return Ok(()) };
    let status = supervisor.status();
    let processes = move || {
        let status = status.borrow();
        status.workers.iter().filter_map(|worker| Some((worker.slot, worker.running?.1))).collect()
    };
    admin::collect::register(&metrics.registry, Box::new(processes)).map_err(Failure::Metrics)?;
    let state = AdminState { registry: metrics.registry.clone(), scraper, readiness };
    tokio::spawn(async move {
        if let Err(error) = admin.serve(state, std::future::pending()).await {
            warn!(%error, "metrics and probes are not served any more");
        }
    });
    Ok(())
}
