//! One clusterd: wires the rooms together, from the first check to the last process.
//!
//! Read `serve`: it is the table of contents. Decisions are made in the rooms, not here.

mod attach_way;
mod bootstrap;
mod connection_metrics;
mod control;
mod data_path;
mod descriptor_limits;
mod error;
mod front_reports;
mod leaving;
mod open_counts;
mod owner;
mod place;
mod pm2_files;
mod primary_user;
mod probes;
mod public_sockets;
mod readiness;
mod runtime_folder;
mod settle;
mod shutdown;
mod signal_actions;
mod signals;
mod stalls;
mod startup_log;
mod taken_ports;
mod triggers;
mod upgrade;
mod wanted_state;
mod wiring;
mod worker_hooks;
mod worker_plan;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::debug;

use self::bootstrap::Bootstrap;
use self::control::Claimed;
pub(crate) use self::descriptor_limits::{affordable_queue, least_to_start};
pub(crate) use self::error::PrimaryError;
use self::front_reports::{Flush, Recipients, ReportSources};
use self::primary_user::GivenUp;
use self::readiness::Listeners;
pub(crate) use self::runtime_folder::RuntimeFolder;
use self::shutdown::Shutdown;
use self::signal_actions::SignalActions;
use self::stalls::Stalls;
pub(crate) use self::upgrade::Restoring;
#[cfg(feature = "internal")]
pub(crate) use self::upgrade::trial;
pub(crate) use self::upgrade::{CHECK_VERB, Handed, check_main, resume_main};
use self::upgrade::{Kept, Opened, Rooms, SettingsSnapshot, TakenOver};
use self::wiring::{CarriedWiring, Dependencies, Wiring};
use crate::admin::listen_queues::{ListenQueues, PublicAddresses};
use crate::admin::open_connections::OpenConnections;
use crate::admin::{self, Admin, AdminState, Readiness, Served};
use crate::connections::{self, notes::Notes};
use crate::control::backend::{AppSources, Profile, SupervisedApp};
use crate::front::handle::Reports;
use crate::front::{self, Accepts};
use crate::home::{Given, Held, Starter};
use crate::hooks::{Hooks, Shell};
use crate::logs::console::Console;
use crate::logs::plan::{LogPlan, Place};
use crate::logs::{self, Output};
use crate::metrics::Metrics;
use crate::preload::Exposed;
use crate::private::WorkerDialer;
use crate::private::scrape::Scraper;
use crate::settings::Config;
use crate::settings::load::Told;
use crate::supervisor;
use crate::supervisor::guardian::Waiting;
use crate::sys::mark::Family;
use crate::sys::{blocking, event_loop};
use crate::systemd::{self, worker_notify};
use crate::tasks;

/// How long the last output may take to be written.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How long the start waits for the numbers of workers, which their first lines may bear.
const NUMBERS: Duration = Duration::from_secs(1);

/// How much longer than workers clusterd may take to start and to stop.
const LONGER: Duration = Duration::from_secs(5);

/// Serves until it is stopped, or until every worker has ended for good. Returns the code to exit with. The app's folder is
/// `held`, if it has one; on a `console` others write, too.
///
/// # Errors
/// Why it could not start.
pub(crate) fn run(
    told: Told,
    (held, given): (Option<&Held>, Given),
    restoring: Option<Box<Restoring>>,
) -> Result<u8, PrimaryError> {
    let Given { console, guardian, numbered, .. } = given;
    // While there is one thread.
    let given_up = match &restoring {
        None => primary_user::give_up(&told, held)?,
        Some(_) => None,
    };
    let privileges = match &restoring {
        None => given_up.as_ref().map(GivenUp::kept),
        Some(restoring) => restoring.privileges(),
    };
    let kept = Kept::of(held, console.as_ref(), numbered, privileges);
    let runtime = match open_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Err(not_begun(error, restoring)),
    };
    let ended = runtime.block_on(async {
        let metrics = Metrics::new();
        let opened = open_output(&told.config, held, console, &metrics);
        let (output, is_started_again) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(not_begun(error, restoring)),
        };
        if restoring.is_some() {
            output.hold();
        }
        given_up.iter().for_each(GivenUp::tell);
        let origin = (held, is_started_again, guardian, kept);
        let ended = match begin(&told, origin, restoring.as_deref(), (&output, &metrics)) {
            Ok(begun) => {
                output.go_on();
                let left = restoring.map(|restoring| restoring.own());
                let claimed = given_up.and_then(|given_up| given_up.control);
                serve(begun, (left, claimed), (&output, metrics)).await
            }
            Err(error) => {
                let error = not_begun(error, restoring);
                output.go_on();
                Err(error)
            }
        };
        if output.finish(tokio::time::Instant::now() + LAST_OUTPUT).await.is_err() {
            debug!("nobody reads the output; the rest of it is dropped");
        }
        ended
    });
    // What a stranger has sent may take long to be closed.
    runtime.shutdown_background();
    ended
}

/// Gives back what another image of clusterd has left, if one has: this is only seen where that cannot be. Nothing may be awaited
/// before: what was begun would go on with what is given back.
fn not_begun(error: PrimaryError, restoring: Option<Box<Restoring>>) -> PrimaryError {
    match restoring {
        Some(restoring) => restoring.give_back(error),
        None => error,
    }
}

fn open_runtime() -> Result<Runtime, PrimaryError> {
    signals::keep_waiting().map_err(PrimaryError::Signals)?;
    blocking::begin().map_err(PrimaryError::Runtime)?;
    event_loop::begin().map_err(PrimaryError::Runtime)
}

/// Opens where everything is written to. Whether the app's primary is started again if it crashes.
fn open_output(
    config: &Config,
    held: Option<&Held>,
    console: Option<Console>,
    metrics: &Metrics,
) -> Result<(Output, bool), PrimaryError> {
    let starter = held.map(|held| held.starter).filter(|starter| starter.keeps_app());
    let background = held.filter(|_| starter.is_some()).map(|held| held.folder.logs());
    let mut plan = LogPlan::of(config, background.as_deref());
    // `up` does so for its apps, the guardian for those in the background, and a service manager for its own.
    let is_started_again = console.is_some() || starter.is_some();
    if console.is_some() {
        plan = plan.beside_others(config);
    }
    if starter == Some(Starter::Service) {
        plan.own = Place::Standard;
    }
    let output = Output::of(plan, console, metrics.lines_dropped.clone())?;
    logs::messages::install(&output, config.log_format, config.log_level.into())?;
    Ok((output, is_started_again))
}

/// What stands before anything runs, but for the data path, which runs already.
struct Begun<'a> {
    config: &'a Config,
    held: Option<&'a Held>,
    kept: Kept,
    bootstrap: Bootstrap,
    wiring: Wiring,
    admin: Option<Served>,
    /// The control socket of the image before.
    control: Option<control::Watched>,
    front: front::handle::Handle,
    reports: Reports,
    connections: connections::Handle,
    notes: Notes,
    app: Profile,
    family: Family,
    addresses: Vec<SocketAddr>,
    listeners: PublicAddresses,
    settings: SettingsSnapshot,
}

/// Opens everything, or takes over what another image of clusterd has left, to which it can be given back until this returns:
/// nothing else runs meanwhile.
fn begin<'a>(
    told: &'a Told,
    (held, is_started_again, guardian, kept): (Option<&'a Held>, bool, Option<Waiting>, Kept),
    restoring: Option<&Restoring>,
    (output, metrics): (&Output, &Metrics),
) -> Result<Begun<'a>, PrimaryError> {
    let Told { config, settings, command_line } = told;
    held.iter().for_each(|held| held.opens(public_sockets::wanted(config)));
    let (mut bootstrap, left) = match restoring {
        None => (Bootstrap::prepare(config)?, None),
        Some(restoring) => {
            let (bootstrap, front) = Bootstrap::restore(config, restoring)?;
            (bootstrap, Some((restoring, front)))
        }
    };
    let (carried, front_left) = CarriedWiring::of(left, (output, metrics))?;
    if restoring.is_none() {
        startup_log::listening(config, &bootstrap.bound, bootstrap.admin.as_ref());
    }
    let started = restoring.map_or_else(SystemTime::now, Restoring::started);
    let app = control::profile(config, &bootstrap.bound, started);
    let (ports, addresses) = (bootstrap.ports(), bootstrap.addresses());
    let bound = std::mem::take(&mut bootstrap.bound);
    let (inherited, listeners) = (public_sockets::bindings(&bound), public_sockets::with_sockets(&bound));
    let family = restoring.map_or_else(Family::random, Restoring::family);
    let notes = Notes::new().map_err(PrimaryError::Connections)?;
    let (front, reports, front_ends) = front::handle::channels(&ports);
    let sockets = (bound, bootstrap.way.accepts, front_left);
    let setup = data_path::setup(config, sockets, bootstrap.limits, (metrics, notes.clone()));
    let workers_accept = bootstrap.way.accepts == Accepts::Workers;
    let noted = restoring.map(|restoring| restoring.noted(&notes));
    let connections = connections::start(notes.clone(), family, workers_accept, noted)
        .map_err(PrimaryError::Connections)?;
    open_counts::keep(config, &connections, &front, reports.waits_for_place.clone())?;
    let dependencies = Dependencies {
        public: addresses.iter().map(SocketAddr::port).collect(),
        bootstrap: &mut bootstrap,
        ports,
        inherited,
        family,
        front: &front,
        connections: &connections,
        output,
        metrics,
        held,
        guardian,
        is_started_again,
        carried,
    };
    let wiring = Wiring::new(config, (command_line.clone(), settings.clone()), dependencies)?;
    let admin = bootstrap.admin.take().map(Admin::watched).transpose().map_err(PrimaryError::Unwatched)?;
    let control = restoring.map(Restoring::control).transpose().map_err(PrimaryError::Carried)?.flatten();
    // The last, for its thread does not end by itself.
    data_path::start(setup, front_ends)?;
    let settings = SettingsSnapshot::of(settings, command_line);
    Ok(Begun {
        config,
        held,
        kept,
        bootstrap,
        wiring,
        admin,
        control,
        front,
        reports,
        connections,
        notes,
        app,
        family,
        addresses,
        listeners,
        settings,
    })
}

async fn serve(
    begun: Begun<'_>,
    (taken_over, claimed): (Option<TakenOver>, Option<Claimed>),
    (output, metrics): (&Output, Metrics),
) -> Result<u8, PrimaryError> {
    let Begun { config, held, kept, mut bootstrap, wiring, front, reports, connections, notes, .. } = begun;
    let Begun { app, family, addresses, listeners, settings, admin, control: left_control, .. } = begun;
    bootstrap.own();
    // From now on they go with whom they belong to.
    wiring.listeners.lock().await.leave_paths(false);
    let Wiring { supervisor, task, upgrades, attach_context, bound: channels, words, .. } = wiring;
    let Wiring { openings, on_demand, permits, ready, probes, taken, .. } = wiring;
    let (workers_accept, inherits) = (bootstrap.way.accepts == Accepts::Workers, bootstrap.way.inherits);
    let (is_new, started) = (taken_over.is_none(), app.started);
    let before = taken_over.unwrap_or_default();
    tasks::spawn(taken_ports::tell(taken));

    let (mended, again) = watch::channel(());
    if let Some(held) = held {
        let ids = output.worker_ids();
        // Before there is a worker that writes. Another process may hold the numbers up; it is tried again below, then.
        if is_new {
            let numbered = wanted_state::number(&held.folder, config.workers.get(), ids);
            let _ = tokio::time::timeout(NUMBERS, numbered).await;
        }
        let app = (held.folder.clone(), held.starter);
        if is_new && held.has_clients_wait() && !workers_accept {
            wanted_state::hold_again(&held.folder, &front).await;
        }
        let (status, again) = (supervisor.status(), again.clone());
        tasks::spawn(wanted_state::keep(app, status, again, ids.clone(), front.clone()));
    }
    let _pid_files = pm2_files::keep(config, held, supervisor.status(), again);
    let at_start = match before.was_ready {
        true => Readiness::Ready,
        false => readiness::at_start(&reports.status.borrow()),
    };
    let (upgraded, upgrade) = watch::channel(before.outcome);
    let (readiness, watched) = watch::channel(at_start);
    let scraper = probes.scraper(config, &supervisor, &metrics);
    let statistics = connection_metrics::start_statistics(config.connection_stats, &connections, &metrics);
    if let (Some(statistics), Some(left)) = (&statistics, before.statistics) {
        statistics.restore(left);
    }
    let open =
        OpenConnections::new(connection_metrics::ask(connections.clone(), &supervisor, statistics.clone()));
    let sources = AppSources {
        supervisor: supervisor.clone(),
        metrics: metrics.clone(),
        dialer: WorkerDialer::new(front.clone()),
        connections: connections.clone(),
        open: open.clone(),
        queues: ListenQueues::new(&listeners),
        readiness: watched.clone(),
        upgrade,
        ids: held.is_some().then(|| output.worker_ids().clone()),
    };
    let queues = sources.queues.clone();
    let app = Arc::new(SupervisedApp::new(app, sources));
    let admin_sources = (scraper, open, queues, app.clone());
    let carried_admin = admin.as_ref().map(Served::carried);
    start_admin(admin, &metrics, admin_sources, &supervisor, watched.clone())?;
    tasks::spawn(settle::settle(watched.clone()));
    let patience = systemd::Patience {
        start: config.ready_timeout + LONGER,
        stop: config.drain_timeout + config.kill_timeout + LONGER,
    };
    let systemd = systemd::start(systemd::Sources {
        readiness: watched.clone(),
        patience,
        supervisor: supervisor.clone(),
        front: front.clone(),
    });
    let hooks = config.on_event.clone().map(|command| {
        let folder = config.start_folder.clone();
        let shell = Shell { command, nofile: bootstrap.limits.workers, folder };
        Hooks::start(shell, supervisor.events(), metrics.clone())
    });
    let control = control::open(app, left_control.or_else(|| control::watched(claimed?).ok()));
    let keeper = held.and_then(|held| held.keeper(public_sockets::wanted(config)));
    tasks::spawn(place::keep(control.clone(), keeper, (supervisor.status(), readiness.subscribe()), mended));
    if config.start_folder.is_some() {
        // A release that is removed is not held by clusterd. Nothing relative is opened from here on.
        leave_folder();
    }
    probes.start_health(config, &supervisor, &metrics);
    triggers::attend(config, bootstrap.changes.take(), &supervisor);
    tasks::spawn(worker_notify::pass_on(ready, supervisor.clone()));
    let greeted = Arc::new(AtomicBool::new(before.has_greeted));
    let opened = Opened {
        kept,
        family,
        started,
        way: bootstrap.way,
        open_files: bootstrap.limits.workers,
        outlives_terminal: bootstrap.terminal.is_outlived(),
        folder: bootstrap.folder().map(ToOwned::to_owned),
        shim: bootstrap.shim.as_ref().map(Exposed::snapshot),
        admin: carried_admin,
        front: front.clone(),
        control: control.clone(),
        readiness: watched,
        greeted: Arc::clone(&greeted),
    };
    let (flush, flushes) = Flush::new();
    let recipients = Recipients {
        supervisor: supervisor.clone(),
        front: front.clone(),
        bound: channels.clone(),
        stalls: (!workers_accept || inherits)
            .then(|| Stalls::new(bootstrap.shim.as_ref().map(|shim| shim.path().to_owned()), inherits)),
        readiness: readiness.clone(),
        listeners: Listeners::default(),
        greeted,
    };
    tasks::spawn(front_reports::follow(ReportSources { reports, words, flushes }, recipients, addresses));
    let rooms = Rooms {
        supervisor: supervisor.clone(),
        front: front.clone(),
        connections,
        notes,
        statistics,
        attach: bootstrap.attach.handle(),
        bound: channels,
        on_demand,
        openings,
        permits,
        output: output.clone(),
        metrics,
        flush,
        on_event: hooks.as_ref().map(Hooks::under_way),
        primary: opened,
        settings,
    };
    tasks::spawn(bootstrap.attach.serve(attach_context));
    tasks::spawn(upgrade::carry_out(upgrades, rooms, upgraded));
    if let Some(event) = before.event {
        supervisor.tell(event).await;
    }

    let origin = (bootstrap.signals, bootstrap.terminal);
    let mut orders = SignalActions::new(origin, supervisor.clone(), systemd, output.clone());
    let shutdown = Shutdown {
        front,
        supervisor,
        readiness,
        stop_delay: config.stop_delay,
        drain_timeout: config.drain_timeout,
    };
    let ended = tokio::select! {
        ended = task.run() => ended,
        never = shutdown.when_told(&mut orders) => match never {},
    };
    if let Some(hooks) = hooks {
        hooks.finish().await;
    }
    control.close();
    Ok(ended?)
}

/// Goes where daemon(3) goes: workers and hooks are started in folders with names.
fn leave_folder() {
    if let Err(error) = std::env::set_current_dir("/") {
        debug!(%error, "cannot leave the folder in which clusterd was started");
    }
}

/// Serves metrics and probes, if they are wanted, for as long as the program runs.
fn start_admin(
    admin: Option<Served>,
    metrics: &Metrics,
    (scraper, open_connections, queues, app): (
        Option<Scraper>,
        OpenConnections,
        ListenQueues,
        Arc<SupervisedApp>,
    ),
    supervisor: &supervisor::Handle,
    readiness: watch::Receiver<Readiness>,
) -> Result<(), PrimaryError> {
    let Some(admin) = admin else { return Ok(()) };
    let status = supervisor.status();
    let processes = move || {
        let status = status.borrow();
        status.workers.iter().filter_map(|worker| Some((worker.slot, worker.running?.1))).collect()
    };
    admin::collect::register(&metrics.registry, Box::new(processes), &queues)
        .map_err(PrimaryError::Metrics)?;
    open_connections.register(&metrics.registry).map_err(PrimaryError::Metrics)?;
    let state = AdminState { registry: metrics.registry.clone(), scraper, open_connections, readiness, app };
    tasks::spawn(admin.serve(state, std::future::pending()));
    Ok(())
}
