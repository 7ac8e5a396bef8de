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
        dependencies: Dependencies<'_>,
    ) -> Result<Self, PrimaryError> {
        let Dependencies { bootstrap, ports, public, inherited, family, mut carried, .. } = dependencies;
        let Dependencies { connections, front, output, metrics, held, is_started_again, .. } = dependencies;
        let restoring = carried.as_ref().map(|carried| carried.restoring);
        let users = bootstrap.context.users();
        let attach = bootstrap.attach_env();
        let colours = output.has_colours();
        let base = Base { ports: ports.clone(), attach, colours, limits: bootstrap.limits.workers };
        let spec = Spec {
            app: config.name.clone(),
            wanted: match restoring {
                None => {
                    let inherited = Environment::of_this_process();
                    base.wanted(config, bootstrap.context.clone(), (inherited, Arc::new(settings)))
                }
                Some(Restoring { snapshot, in_force, .. }) => {
                    let settings = Arc::new(snapshot.supervisor.settings().clone());
                    let inherited = snapshot.supervisor.inherited();
                    base.wanted(in_force, bootstrap.context.clone(), (inherited, settings))
                }
            },
            cpus: cpus(),
            scope: Scope::Everyone,
            starts: held.is_none_or(Held::wants_workers),
            holds: held.is_some_and(Held::has_clients_wait),
            guardian: guardian(config, family, bootstrap.folder(), (held, is_started_again)),
            waiting_guardian: dependencies.guardian,
            family,
            treekill: config.treekill,
            carried: carried
                .as_mut()
                .map(CarriedWiring::supervisor)
                .transpose()
                .map_err(PrimaryError::Carried)?,
        };
        let permits = match &carried {
            None => permits(0),
            Some(carried) => carried.permits.clone(),
        };
        let probes = WorkerProbes::new(front.clone(), ports.first().copied());
        let ports: Arc<[WorkerPort]> = ports.into();
        let user = bootstrap.context.identity.as_ref().map(|identity| identity.credentials.clone());
        let bound = carried.as_ref().map_or_else(BoundChannels::new, |carried| carried.bound.clone());
        let (openings, taken) = match restoring {
            None => Openings::new(),
            Some(restoring) => Openings::restore(restoring.snapshot.openings),
        };
        let terms = on_demand::Terms {
            user: user.clone(),
            backlog: config.backlog.get(),
            openings: openings.clone(),
        };
        let opened = restoring.and_then(|restoring| restoring.snapshot.opened.clone());
        let on_demand = match opened {
            Some(opened) => Some(OnDemand::restore(terms, opened).map_err(PrimaryError::Carried)?),
            None => ports.is_empty().then(|| OnDemand::new(terms)),
        };
        let served = ServedPorts {
            front: front.clone(),
            permits: permits.clone(),
            ports,
            bound: bound.clone(),
            on_demand: on_demand.clone(),
        };
        let listeners = Arc::new(Mutex::new(Listeners::new(user, openings.clone())));
        let nodes = node::NodeContext {
            served: served.clone(),
            shim: bootstrap.shim.as_ref().map(|shim| shim.path().into()),
            handoff_timeout: config.handoff_timeout,
            listeners: Arc::clone(&listeners),
            messages: MessageExchange::new(config.relay_messages, metrics),
        };
        let (nodes, words) = match restoring {
            None => NodeSessions::new(nodes),
            Some(Restoring { snapshot, fds, .. }) => {
                NodeSessions::restore(nodes, snapshot.hooks.nodes.clone(), fds)
                    .map_err(PrimaryError::Carried)?
            }
        };
        let (mut notices, ready) = WorkerNotifications::new(users);
        let mut calls = InterceptedCalls::new(served.clone());
        if let Some(Restoring { snapshot, fds, .. }) = restoring {
            let hooks = &snapshot.hooks;
            let heard = hooks.notices.iter().try_for_each(|one| notices.restore(one.clone(), fds));
            let mut called = || hooks.calls.iter().try_for_each(|one| calls.restore(one.clone(), fds));
            heard.and_then(|()| called()).map_err(PrimaryError::Carried)?;
        }
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
