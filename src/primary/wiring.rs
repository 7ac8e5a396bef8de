//! The workers and those around them: puts together what the supervisor, the attach socket and the sessions with Node
//! need of each other.
//!
//! It starts nothing.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use super::bootstrap::Bootstrap;
use super::data_path::CarriedFront;
use super::error::PrimaryError;
use super::probes::WorkerProbes;
use super::upgrade::Restoring;
use super::worker_hooks::PrimaryHooks;
use super::worker_plan::Base;
use crate::attach::bound::BoundChannels;
use crate::attach::node::{self, Listeners, MessageExchange, NodeSessions, Word};
use crate::attach::on_demand::{self, OnDemand, Openings};
use crate::attach::seccomp::InterceptedCalls;
use crate::attach::served::ServedPorts;
use crate::attach::socket::AttachContext;
use crate::connections;
use crate::front;
use crate::front::links::ChannelPermits;
use crate::front::snapshot::Registration;
use crate::home::{Held, Starter};
use crate::ids::{WorkerId, WorkerPort};
use crate::logs::{LastLines, Output};
use crate::metrics::Metrics;
use crate::protocol::wire::Binding;
use crate::settings::Config;
use crate::settings::carried::CarriedSettings;
use crate::settings::load::{CommandLine, cpus};
use crate::supervisor::guardian::{Guardian, Waiting};
use crate::supervisor::{
    self, Environment, Handle, MOST_WORKERS, Scope, Spec, Supervisor, UpgradeOrder, guardian,
};
use crate::sys::mark::Family;
use crate::sys::process::Credentials;
use crate::systemd::worker_notify::{Ready, WorkerNotifications};

/// How many channels to listeners there may be for each worker that there may be.
const CHANNELS_A_WORKER: usize = 4;

/// What is there already.
#[derive(Debug)]
pub(super) struct Dependencies<'a> {
    /// What everything stands on.
    pub bootstrap: &'a mut Bootstrap,
    /// The ports that workers ask for.
    pub ports: Vec<WorkerPort>,
    /// The ports that clients connect to.
    pub public: Vec<u16>,
    /// What servers that take their listeners as from systemd would bind.
    pub inherited: Vec<(WorkerPort, Binding)>,
    /// What all that descends from workers is known by.
    pub family: Family,
    /// Knows who has which connection.
    pub connections: &'a connections::Handle,
    /// Hands connections to workers.
    pub front: &'a front::handle::Handle,
    /// Where workers' output goes.
    pub output: &'a Output,
    /// Where things are counted.
    pub metrics: &'a Metrics,
    /// The app's folder, if this process holds one.
    pub held: Option<&'a Held>,
    /// A guardian that waits for its orders.
    pub guardian: Option<Waiting>,
    /// If this process crashes, another is started in its place.
    pub is_started_again: bool,
    /// What another image of clusterd has left, if one has.
    pub carried: Option<CarriedWiring<'a>>,
}

/// What another image of clusterd has left of the workers' side.
#[derive(Debug)]
pub(super) struct CarriedWiring<'a> {
    /// All that it has left.
    pub restoring: &'a Restoring,
    /// What workers have bound.
    pub bound: BoundChannels,
    /// Numbers for channels.
    pub permits: ChannelPermits,
    /// What each launch wrote last.
    pub output: HashMap<WorkerId, LastLines>,
}

impl<'a> CarriedWiring<'a> {
    /// All of it, and what the front begins with, which keeps some of it.
    ///
    /// # Errors
    /// It cannot be taken over.
    pub(super) fn of(
        left: Option<(&'a Restoring, CarriedFront)>,
        (output, metrics): (&Output, &Metrics),
    ) -> Result<(Option<Self>, Option<CarriedFront>), PrimaryError> {
        let Some((restoring, (opened, mut front))) = left else { return Ok((None, None)) };
        let (snapshot, fds) = (&restoring.snapshot, &restoring.fds);
        metrics.restore(&snapshot.metrics);
        let bound = BoundChannels::restore(snapshot.bound.clone(), fds).map_err(PrimaryError::Carried)?;
        let (bound, registrations) = bound;
        front
            .registrations
            .extend(registrations.into_iter().map(|(link, kept)| (link, kept as Registration)));
        front.permits = permits(snapshot.channels);
        let output = output.restore(snapshot.output.clone(), fds).map_err(PrimaryError::Carried)?;
        let wiring = Self { restoring, bound, permits: front.permits.clone(), output };
        Ok((Some(wiring), Some((opened, front))))
    }

    /// For the supervisor.
    fn supervisor(&mut self) -> io::Result<supervisor::Carried> {
        let snapshot = self.restoring.snapshot.supervisor.clone();
        let guardian = snapshot.guardian().map(|guardian| Guardian::restore(guardian, &self.restoring.fds));
        Ok(supervisor::Carried {
            guardian: guardian.transpose()?,
            output: std::mem::take(&mut self.output),
            snapshot,
        })
    }
}

/// The workers' side of clusterd.
#[derive(Debug)]
pub(super) struct Wiring {
    /// What others ask the supervisor.
    pub supervisor: Handle,
    /// The supervisor itself.
    pub task: Supervisor,
    /// Orders to replace clusterd itself.
    pub upgrades: mpsc::Receiver<UpgradeOrder>,
    /// What the attach socket depends on.
    pub attach_context: AttachContext,
    /// What workers have bound.
    pub bound: BoundChannels,
    /// What Node workers say.
    pub words: mpsc::Receiver<Word>,
    /// What is shared with those who stand still.
    pub openings: Openings,
    /// The addresses that are opened for workers, if any is.
    pub on_demand: Option<OnDemand>,
    /// What Node workers listen on.
    pub listeners: Arc<Mutex<Listeners>>,
    /// Numbers for channels.
    pub permits: ChannelPermits,
    /// Who says to be ready.
    pub ready: mpsc::Receiver<Ready>,
    /// Asks workers over private connections.
    pub probes: WorkerProbes,
    /// The addresses that workers ask for and others have.
    pub taken: mpsc::Receiver<SocketAddr>,
}

impl Wiring {
    /// Puts it together.
    ///
    /// # Errors
    /// What another image of clusterd has left cannot be taken over, or the ends of workers would not be noticed.
    pub(super) fn new(
        config: &Config,
        (command_line, settings): (CommandLine, CarriedSettings),
        mut dependencies: Dependencies<'_>,
    ) -> Result<Self, PrimaryError> {
        let base = dependencies.base();
        let spec = dependencies.spec(config, &base, settings).map_err(PrimaryError::Carried)?;
        let around = Around::new(config, &dependencies).map_err(PrimaryError::Carried)?;
        let Dependencies { bootstrap, ports, public, inherited, connections, front, output, metrics, .. } =
            dependencies;
        let Around { served, openings, taken, listeners, nodes, words, notices, ready, calls } = around;
        let ServedPorts { permits, bound, on_demand, .. } = served.clone();
        let probes = WorkerProbes::new(front.clone(), ports.first().copied());
        let neighbours = PrimaryHooks {
            folder: bootstrap.folder_keeper(),
            leaving: bootstrap.leaving.take(),
            output: output.clone(),
            front: front.clone(),
            connections: connections.clone(),
            nodes,
            notices,
            ports: public,
            on_demand: on_demand.clone(),
            bound: bound.clone(),
            ready_http: probes.ready_http(config),
            calls,
        };
        let reread = base.reread(config.clone(), command_line);
        let (supervisor, task, upgrades) = supervisor::new(spec, reread, neighbours, metrics.clone())?;
        let attach_context =
            AttachContext { supervisor: supervisor.clone(), served, inherited: inherited.into() };
        Ok(Self {
            supervisor,
            task,
            upgrades,
            attach_context,
            bound,
            words,
            openings,
            on_demand,
            listeners,
            permits,
            ready,
            probes,
            taken,
        })
    }
}

impl Dependencies<'_> {
    fn restoring(&self) -> Option<&Restoring> {
        self.carried.as_ref().map(|carried| carried.restoring)
    }

    /// What each launch is given.
    fn base(&self) -> Base {
        Base {
            ports: self.ports.clone(),
            attach: self.bootstrap.attach_env(),
            colours: self.output.has_colours(),
            limits: self.bootstrap.limits.workers,
        }
    }

    /// What the supervisor is to run.
    fn spec(&mut self, config: &Config, base: &Base, settings: CarriedSettings) -> io::Result<Spec> {
        let context = self.bootstrap.context.clone();
        let wanted = match self.restoring() {
            None => base.wanted(config, context, (Environment::of_this_process(), Arc::new(settings))),
            Some(Restoring { snapshot, in_force, .. }) => {
                let settings = Arc::new(snapshot.supervisor.settings().clone());
                base.wanted(in_force, context, (snapshot.supervisor.inherited(), settings))
            }
        };
        let (held, family) = (self.held, self.family);
        Ok(Spec {
            app: config.name.clone(),
            wanted,
            cpus: cpus(),
            scope: Scope::Everyone,
            starts: held.is_none_or(Held::wants_workers),
            holds: held.is_some_and(Held::has_clients_wait),
            guardian: guardian(config, family, self.bootstrap.folder(), (held, self.is_started_again)),
            waiting_guardian: self.guardian.take(),
            family,
            treekill: config.treekill,
            carried: self.carried.as_mut().map(CarriedWiring::supervisor).transpose()?,
        })
    }
}

/// Those whom workers speak to.
struct Around {
    served: ServedPorts,
    openings: Openings,
    taken: mpsc::Receiver<SocketAddr>,
    listeners: Arc<Mutex<Listeners>>,
    nodes: NodeSessions,
    words: mpsc::Receiver<Word>,
    notices: WorkerNotifications,
    ready: mpsc::Receiver<Ready>,
    calls: InterceptedCalls,
}

impl Around {
    fn new(config: &Config, dependencies: &Dependencies<'_>) -> io::Result<Self> {
        let (bootstrap, restoring) = (&dependencies.bootstrap, dependencies.restoring());
        let (openings, taken) = match restoring {
            None => Openings::new(),
            Some(restoring) => Openings::restore(restoring.snapshot.openings),
        };
        let user = bootstrap.context.identity.as_ref().map(|identity| identity.credentials.clone());
        let served = served(config, dependencies, (user.clone(), openings.clone()))?;
        let listeners = Arc::new(Mutex::new(Listeners::new(user, openings.clone())));
        let context = node::NodeContext {
            served: served.clone(),
            shim: bootstrap.shim.as_ref().map(|shim| shim.path().into()),
            handoff_timeout: config.handoff_timeout,
            listeners: Arc::clone(&listeners),
            messages: MessageExchange::new(config.relay_messages, dependencies.metrics),
        };
        let (mut notices, ready) = WorkerNotifications::new(bootstrap.context.users());
        let mut calls = InterceptedCalls::new(served.clone());
        let (nodes, words) = match restoring {
            None => NodeSessions::new(context),
            Some(Restoring { snapshot, fds, .. }) => {
                let hooks = &snapshot.hooks;
                hooks.notices.iter().try_for_each(|one| notices.restore(one.clone(), fds))?;
                hooks.calls.iter().try_for_each(|one| calls.restore(one.clone(), fds))?;
                NodeSessions::restore(context, hooks.nodes.clone(), fds)?
            }
        };
        Ok(Self { served, openings, taken, listeners, nodes, words, notices, ready, calls })
    }
}

/// The ports that workers ask for; without any, those that they turn out to listen on are opened by `openings`, as this user.
fn served(
    config: &Config,
    dependencies: &Dependencies<'_>,
    (user, openings): (Option<Credentials>, Openings),
) -> io::Result<ServedPorts> {
    let Dependencies { ports, front, carried, .. } = dependencies;
    let terms = on_demand::Terms { user, backlog: config.backlog.get(), openings };
    let opened = dependencies.restoring().and_then(|restoring| restoring.snapshot.opened.clone());
    let on_demand = match opened {
        Some(opened) => Some(OnDemand::restore(terms, opened)?),
        None => ports.is_empty().then(|| OnDemand::new(terms)),
    };
    let (permits, bound) = match carried {
        None => (permits(0), BoundChannels::new()),
        Some(carried) => (carried.permits.clone(), carried.bound.clone()),
    };
    Ok(ServedPorts { front: (*front).clone(), permits, ports: ports.as_slice().into(), bound, on_demand })
}

/// For as many channels as there may be; so many numbers were given before.
pub(super) fn permits(given: u64) -> ChannelPermits {
    ChannelPermits::restored(MOST_WORKERS as usize * CHANNELS_A_WORKER, given)
}

/// As PID 1 there is no need for one: when that process dies, the kernel kills everything in its namespace.
fn guardian(
    config: &Config,
    family: Family,
    folder: Option<&Path>,
    (held, is_started_again): (Option<&Held>, bool),
) -> Option<guardian::Orders> {
    let grace = config.drain_timeout + config.kill_timeout;
    let orders = || guardian::Orders {
        grace,
        family: config.treekill.then_some(family),
        frees_ports: is_started_again,
        folder: folder.map(ToOwned::to_owned),
        app: held.filter(|held| held.starter == Starter::Detached).map(|held| held.folder.path()),
    };
    (std::process::id() != 1).then(orders)
}
