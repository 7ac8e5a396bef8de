//! The workers and those around them: puts together what the supervisor, the attach socket and the sessions with Node
//! need of each other.
//!
//! It starts nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use super::bootstrap::Bootstrap;
use super::probes::WorkerProbes;
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
use crate::home::{Held, Starter};
use crate::ids::WorkerPort;
use crate::logs::Output;
use crate::metrics::Metrics;
use crate::protocol::wire::Binding;
use crate::settings::Config;
use crate::settings::load::CommandLine;
use crate::supervisor::guardian::Waiting;
use crate::supervisor::{self, Environment, Handle, MOST_WORKERS, Scope, Spec, Supervisor, guardian};
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
}

/// The workers' side of clusterd.
#[derive(Debug)]
pub(super) struct Wiring {
    /// What others ask the supervisor.
    pub supervisor: Handle,
    /// The supervisor itself.
    pub task: Supervisor,
    /// What the attach socket depends on.
    pub attach_context: AttachContext,
    /// What workers have bound.
    pub bound: BoundChannels,
    /// What Node workers say.
    pub words: mpsc::Receiver<Word>,
    /// Who says to be ready.
    pub ready: mpsc::Receiver<Ready>,
    /// Asks workers over private connections.
    pub probes: WorkerProbes,
    /// The addresses that workers ask for and others have.
    pub taken: mpsc::Receiver<SocketAddr>,
}

impl Wiring {
    /// Puts it together.
    pub(super) fn new(config: &Config, command_line: CommandLine, dependencies: Dependencies<'_>) -> Self {
        let Dependencies { bootstrap, ports, public, inherited, family, .. } = dependencies;
        let Dependencies { connections, front, output, metrics, held, is_started_again, .. } = dependencies;
        let users = bootstrap.context.users();
        let attach = bootstrap.attach_env();
        let colours = output.has_colours();
        let base = Base { ports: ports.clone(), attach, colours, limits: bootstrap.limits.workers };
        let spec = Spec {
            app: config.name.clone(),
            wanted: base.wanted(config, bootstrap.context.clone(), Environment::of_this_process()),
            scope: Scope::Everyone,
            starts: held.is_none_or(Held::wants_workers),
            holds: held.is_some_and(Held::has_clients_wait),
            guardian: guardian(config, family, bootstrap.folder(), (held, is_started_again)),
            waiting_guardian: dependencies.guardian,
            family,
            treekill: config.treekill,
        };
        let permits = ChannelPermits::new(MOST_WORKERS as usize * CHANNELS_A_WORKER);
        let probes = WorkerProbes::new(front.clone(), ports.first().copied());
        let ports: Arc<[WorkerPort]> = ports.into();
        let user = bootstrap.context.identity.as_ref().map(|identity| identity.credentials.clone());
        let bound = BoundChannels::new();
        let (openings, taken) = Openings::new();
        let terms = on_demand::Terms {
            user: user.clone(),
            backlog: config.backlog.get(),
            openings: openings.clone(),
        };
        let on_demand = ports.is_empty().then(|| OnDemand::new(terms));
        let served = ServedPorts {
            front: front.clone(),
            permits,
            ports,
            bound: bound.clone(),
            on_demand: on_demand.clone(),
        };
        let (nodes, words) = NodeSessions::new(node::NodeContext {
            served: served.clone(),
            shim: bootstrap.shim.as_ref().map(|shim| shim.path().into()),
            handoff_timeout: config.handoff_timeout,
            listeners: Arc::new(Mutex::new(Listeners::new(user, openings))),
            messages: MessageExchange::new(config.relay_messages, metrics),
        });
        let (notices, ready) = WorkerNotifications::new(users);
        let neighbours = PrimaryHooks {
            folder: bootstrap.folder_keeper(),
            leaving: bootstrap.leaving.take(),
            output: output.clone(),
            front: front.clone(),
            connections: connections.clone(),
            nodes,
            notices,
            ports: public,
            on_demand,
            bound: bound.clone(),
            ready_http: probes.ready_http(config),
            calls: InterceptedCalls::new(served.clone()),
        };
        let reread = base.reread(config.clone(), command_line);
        let (supervisor, task) = supervisor::new(spec, reread, neighbours, metrics.clone());
        let attach_context =
            AttachContext { supervisor: supervisor.clone(), served, inherited: inherited.into() };
        Self { supervisor, task, attach_context, bound, words, ready, probes, taken }
    }
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
