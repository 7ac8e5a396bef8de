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
use self::control::{Claimed, ControlSocket};
pub(crate) use self::descriptor_limits::{affordable_queue, least_to_start};
pub(crate) use self::error::PrimaryError;
use self::front_reports::{Flush, Recipients, ReportSources};
use self::pm2_files::PidFiles;
use self::primary_user::GivenUp;
use self::readiness::Listeners;
pub(crate) use self::runtime_folder::RuntimeFolder;
use self::shutdown::Shutdown;
use self::signal_actions::SignalActions;
pub(crate) use self::upgrade::Restoring;
#[cfg(feature = "internal")]
pub(crate) use self::upgrade::trial;
pub(crate) use self::upgrade::{CHECK_VERB, Handed, check_main, resume_main};
use self::upgrade::{Kept, Opened, Rooms, SettingsSnapshot, TakenOver};
use self::wiring::{CarriedWiring, Dependencies, Wiring};
use crate::admin::listen_queues::{ListenQueues, PublicAddresses};
use crate::admin::open_connections::OpenConnections;
use crate::admin::{self, Admin, AdminState, Readiness, Served};
use crate::carry::CarriedFd;
use crate::connections;
use crate::connections::notes::Notes;
use crate::connections::statistics::Statistics;
use crate::control::api::Upgrade;
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
use crate::supervisor::guardian::Waiting;
use crate::supervisor::{self, Supervisor};
use crate::sys::mark::Family;
use crate::sys::{blocking, event_loop};
use crate::systemd::{self, Systemd, worker_notify};
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
    mut begun: Begun<'_>,
    (taken_over, claimed): (Option<TakenOver>, Option<Claimed>),
    (output, metrics): (&Output, Metrics),
) -> Result<u8, PrimaryError> {
    begun.bootstrap.own();
    // From now on they go with whom they belong to.
    begun.wiring.listeners.lock().await.leave_paths(false);
    let is_new = taken_over.is_none();
    let mut before = taken_over.unwrap_or_default();
    let (mended, again) = watch::channel(());
    let _pid_files = begun.keep_files(is_new, output, again).await;
    let observed = begun.observe(&mut before, &metrics, output)?;
    let control = begun.listen_for_commands(&observed, claimed, mended);
    let (systemd, hooks) = begun.attend(&observed, &metrics);
    let asked = (control.clone(), hooks.as_ref().map(Hooks::under_way));
    let LetIn { supervisor, shutdown, origin, _places } =
        let_in(begun, observed, asked, before.has_greeted, (output, metrics));
    if let Some(event) = before.event {
        shutdown.supervisor.tell(event).await;
    }

    let mut orders = SignalActions::new(origin, shutdown.supervisor.clone(), systemd, output.clone());
    let ended = tokio::select! {
        ended = supervisor.run() => ended,
        never = shutdown.when_told(&mut orders) => match never {},
    };
    if let Some(hooks) = hooks {
        hooks.finish().await;
    }
    control.close();
    Ok(ended?)
}

/// What is left once workers are let in: to run, to listen to signals, and to shut down.
struct LetIn {
    supervisor: Supervisor,
    shutdown: Shutdown,
    origin: signal_actions::Origin,
    /// Dropping these removes where workers attach, and what they load.
    _places: (Option<RuntimeFolder>, Option<Exposed>),
}

/// Workers are let in from now on, what they and the front report is passed on, and another image of clusterd may take over.
fn let_in(
    begun: Begun<'_>,
    observed: Observed,
    (control, on_event): (ControlSocket, Option<watch::Receiver<usize>>),
    has_greeted: bool,
    (output, metrics): (&Output, Metrics),
) -> LetIn {
    let Begun { config, kept, bootstrap, wiring, front, reports, connections, notes, .. } = begun;
    let Begun { family, addresses, settings, app, .. } = begun;
    let Wiring { supervisor, task, upgrades, attach_context, bound, words, .. } = wiring;
    let Wiring { openings, on_demand, permits, ready, taken, .. } = wiring;
    let Observed { statistics, readiness, upgraded, admin, .. } = observed;
    tasks::spawn(taken_ports::tell(taken));
    tasks::spawn(worker_notify::pass_on(ready, supervisor.clone()));
    let greeted = Arc::new(AtomicBool::new(has_greeted));
    let (flush, flushes) = Flush::new();
    let recipients = Recipients {
        supervisor: supervisor.clone(),
        front: front.clone(),
        bound: bound.clone(),
        stalls: bootstrap.stalls(),
        readiness: readiness.clone(),
        listeners: Listeners::default(),
        greeted: Arc::clone(&greeted),
    };
    tasks::spawn(front_reports::follow(ReportSources { reports, words, flushes }, recipients, addresses));
    let primary = Opened {
        kept,
        family,
        started: app.started,
        way: bootstrap.way,
        open_files: bootstrap.limits.workers,
        outlives_terminal: bootstrap.terminal.is_outlived(),
        folder: bootstrap.folder().map(ToOwned::to_owned),
        shim: bootstrap.shim.as_ref().map(Exposed::snapshot),
        admin,
        front: front.clone(),
        control,
        readiness: readiness.subscribe(),
        greeted,
    };
    let rooms = Rooms {
        supervisor: supervisor.clone(),
        front: front.clone(),
        connections,
        notes,
        statistics,
        attach: bootstrap.attach.handle(),
        bound,
        on_demand,
        openings,
        permits,
        output: output.clone(),
        metrics,
        flush,
        on_event,
        primary,
        settings,
    };
    tasks::spawn(bootstrap.attach.serve(attach_context));
    tasks::spawn(upgrade::carry_out(upgrades, rooms, upgraded));
    let (stop_delay, drain_timeout) = (config.stop_delay, config.drain_timeout);
    let shutdown = Shutdown { front, supervisor, readiness, stop_delay, drain_timeout };
    LetIn {
        supervisor: task,
        shutdown,
        origin: (bootstrap.signals, bootstrap.terminal),
        _places: (bootstrap.folder, bootstrap.shim),
    }
}

/// Who looks at the app, and what they see.
struct Observed {
    app: Arc<SupervisedApp>,
    statistics: Option<Arc<Statistics>>,
    readiness: watch::Sender<Readiness>,
    /// How clusterd was replaced last.
    upgraded: watch::Sender<Option<Upgrade>>,
    /// The listener of `--metrics`.
    admin: Option<CarriedFd>,
}

impl Begun<'_> {
    /// Gives workers their numbers, and has files follow the app until what is returned is dropped; anew when `again` is told.
    async fn keep_files(
        &self,
        is_new: bool,
        output: &Output,
        again: watch::Receiver<()>,
    ) -> Option<PidFiles> {
        let (supervisor, front) = (&self.wiring.supervisor, &self.front);
        if let Some(held) = self.held {
            let ids = output.worker_ids();
            // Before there is a worker that writes. Another process may hold the numbers up; it is tried again below, then.
            if is_new {
                let numbered = wanted_state::number(&held.folder, self.config.workers.get(), ids);
                let _ = tokio::time::timeout(NUMBERS, numbered).await;
            }
            if is_new && held.has_clients_wait() && self.bootstrap.way.accepts != Accepts::Workers {
                wanted_state::hold_again(&held.folder, front).await;
            }
            let (app, status) = ((held.folder.clone(), held.starter), supervisor.status());
            tasks::spawn(wanted_state::keep(app, status, again.clone(), ids.clone(), front.clone()));
        }
        pm2_files::keep(self.config, self.held, supervisor.status(), again)
    }

    /// Counts, asks and tells how the app is; serves metrics and probes, if they are wanted.
    fn observe(
        &mut self,
        before: &mut TakenOver,
        metrics: &Metrics,
        output: &Output,
    ) -> Result<Observed, PrimaryError> {
        let (config, supervisor, connections) = (self.config, &self.wiring.supervisor, &self.connections);
        let at_start = match before.was_ready {
            true => Readiness::Ready,
            false => readiness::at_start(&self.reports.status.borrow()),
        };
        let (readiness, watched) = watch::channel(at_start);
        let (upgraded, upgrade) = watch::channel(before.outcome.take());
        let statistics = connection_metrics::start_statistics(config.connection_stats, connections, metrics);
        if let (Some(statistics), Some(left)) = (&statistics, before.statistics.take()) {
            statistics.restore(left);
        }
        let counts = connection_metrics::ask(connections.clone(), supervisor, statistics.clone());
        let (open, queues) = (OpenConnections::new(counts), ListenQueues::new(&self.listeners));
        let sources = AppSources {
            supervisor: supervisor.clone(),
            metrics: metrics.clone(),
            dialer: WorkerDialer::new(self.front.clone()),
            connections: connections.clone(),
            open: open.clone(),
            queues: queues.clone(),
            readiness: watched.clone(),
            upgrade,
            ids: self.held.map(|_| output.worker_ids().clone()),
        };
        let app = Arc::new(SupervisedApp::new(self.app.clone(), sources));
        let scraper = self.wiring.probes.scraper(config, supervisor, metrics);
        let admin = self.admin.take();
        let carried = admin.as_ref().map(Served::carried);
        let sources = (scraper, open, queues, app.clone());
        start_admin(admin, metrics, sources, supervisor, watched.clone())?;
        tasks::spawn(settle::settle(watched));
        Ok(Observed { app, statistics, readiness, upgraded, admin: carried })
    }

    /// Commands reach the app from now on. Where its folder or socket was removed, it is made again, and `mended` is told.
    fn listen_for_commands(
        &mut self,
        observed: &Observed,
        claimed: Option<Claimed>,
        mended: watch::Sender<()>,
    ) -> ControlSocket {
        let claimed = self.control.take().or_else(|| control::watched(claimed?).ok());
        let control = control::open(observed.app.clone(), claimed);
        let keeper = self.held.and_then(|held| held.keeper(public_sockets::wanted(self.config)));
        let states = (self.wiring.supervisor.status(), observed.readiness.subscribe());
        tasks::spawn(place::keep(control.clone(), keeper, states, mended));
        control
    }

    /// What besides commands has workers replaced, and who is told what happens: the service manager, and `--on-event`.
    fn attend(&mut self, observed: &Observed, metrics: &Metrics) -> (Systemd, Option<Hooks>) {
        let (config, supervisor) = (self.config, &self.wiring.supervisor);
        let systemd = systemd::start(systemd::Sources {
            readiness: observed.readiness.subscribe(),
            patience: systemd::Patience {
                start: config.ready_timeout + LONGER,
                stop: config.drain_timeout + config.kill_timeout + LONGER,
            },
            supervisor: supervisor.clone(),
            front: self.front.clone(),
        });
        let hooks = config.on_event.clone().map(|command| {
            let folder = config.start_folder.clone();
            let shell = Shell { command, nofile: self.bootstrap.limits.workers, folder };
            Hooks::start(shell, supervisor.events(), metrics.clone())
        });
        if config.start_folder.is_some() {
            // A release that is removed is not held by clusterd. Nothing relative is opened from here on.
            leave_folder();
        }
        self.wiring.probes.start_health(config, supervisor, metrics);
        triggers::attend(config, self.bootstrap.changes.take(), supervisor);
        (systemd, hooks)
    }
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
