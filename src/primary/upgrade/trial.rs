//! Begins with a snapshot as the next image of clusterd does, for the property that says what no snapshot can do, whatever is
//! in it.
//!
//! Nothing of it reaches anybody: no process is started or signalled, no file is written or removed, and no client is answered.
//! What would do so is left out, and of the rest nothing goes on that had to wait.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock};

use rustix::process::Rlimit;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use super::super::attach_way::Way;
use super::super::descriptor_limits::DescriptorLimits;
use super::super::worker_plan::Base;
use super::super::{bootstrap, data_path, public_sockets, wiring};
use super::restoring;
use super::snapshot::Snapshot;
use crate::admin::Admin;
use crate::attach::bound::BoundChannels;
use crate::attach::node::{Listeners, MessageExchange, NodeContext, NodeSessions};
use crate::attach::on_demand::{OnDemand, Openings, Terms};
use crate::attach::seccomp::InterceptedCalls;
use crate::attach::served::ServedPorts;
use crate::attach::socket::AttachSocket;
use crate::carry::{self, CarriedFd, CarriedFds};
use crate::connections::notes::Notes;
use crate::connections::statistics::Statistics;
use crate::front::{Accepts, Front};
use crate::ids::Slot;
use crate::logs::console::Console;
use crate::logs::look::Look;
use crate::metrics::Metrics;
use crate::preload::DrainPage;
use crate::settings::Config;
use crate::supervisor::events::Time;
use crate::supervisor::exec_context::{ContextSettings, ExecContext};
use crate::supervisor::identity::Users;
use crate::supervisor::turn::Turn;
use crate::supervisor::{AttachEnv, MOST_WORKERS};
use crate::systemd::worker_notify::WorkerNotifications;
use crate::{connections, front};

/// What workers are started with, as far as the system has a say in it.
static CONTEXT: LazyLock<ExecContext> =
    LazyLock::new(|| ExecContext::check(ContextSettings::default(), LIMIT).expect("nothing is asked for"));

const LIMIT: Rlimit = Rlimit { current: Some(1024), maximum: Some(1024) };

/// Begins with what is `written`, whose descriptors `make` has. It ends whatever that is; the reason if it is refused.
pub(crate) fn begin(written: &[u8], make: impl Fn(CarriedFd) -> OwnedFd) -> Result<(), String> {
    restoring::check(written).map_err(|refused| refused.to_string())?;
    let snapshot = Snapshot::read(written).expect("it was read before");
    // There may be several ways to write one thing, and there is one in which it is written.
    let again = serde_json::to_vec(&snapshot).expect("what is read can be written");
    let same = Snapshot::read(&again).expect("what is written can be read");
    assert_eq!(serde_json::to_vec(&same).expect("it was written before"), again);
    let carried = carry::descriptors(&again).expect("JSON");
    CarriedFds::check(&carried).map_err(said)?;
    let fds = CarriedFds::of(carried.iter().map(|&number| (number, make(number))));
    let (_, in_force, _) = restoring::settings(&snapshot).expect("they were read before");
    let trial = Trial { metrics: Metrics::new(), in_force, snapshot, fds };
    trial.counts();
    let rooms = [trial.workers(), trial.connections(), trial.data_path(), trial.hooks(), trial.primary()];
    rooms.into_iter().collect()
}

struct Trial {
    metrics: Metrics,
    in_force: Config,
    snapshot: Snapshot,
    fds: CarriedFds,
}

impl Trial {
    /// Metrics are shown as they go on.
    fn counts(&self) {
        self.metrics.restore(&self.snapshot.metrics);
        let _ = self.metrics.snapshot();
    }

    /// Workers are told of.
    fn workers(&self) -> Result<(), String> {
        let (written, supervisor) = (&self.snapshot.primary, &self.snapshot.supervisor);
        let base = Base {
            ports: Vec::new(),
            attach: AttachEnv {
                socket: "@".into(),
                shim: None,
                drain_page: None,
                node_channel: false,
                listen_fds: None,
                filter: None,
                turn: Turn::new(false, supervisor.turned()),
            },
            colours: false,
            limits: LIMIT,
        };
        let told = (supervisor.inherited(), Arc::new(supervisor.settings().clone()));
        let wanted = base.wanted(&self.in_force, CONTEXT.clone(), told);
        let statuses = supervisor.trial(&wanted.plan).map_err(|wrong| wrong.to_string())?;
        assert!(statuses.len() <= 2 * MOST_WORKERS as usize);
        for since in statuses.iter().filter_map(|status| status.since).chain([written.started]) {
            let _ = Time(since).to_string();
        }
        Ok(())
    }

    /// Who has which connection.
    fn connections(&self) -> Result<(), String> {
        let notes = Notes::new().map_err(said)?;
        notes.restore(self.snapshot.notes.clone());
        connections::trial(notes, self.snapshot.connections.clone()).map_err(said)?;
        if let Some(counted) = self.snapshot.statistics.clone() {
            let statistics = Statistics::new(self.metrics.clone());
            statistics.restore(counted);
            drop(statistics.stand_still());
        }
        Ok(())
    }

    /// The front goes on for a few turns, and stands still again.
    fn data_path(&self) -> Result<(), String> {
        let (metrics, notes) = (&self.metrics, Notes::new().map_err(said)?);
        let (ports, (opened, mut restored)) =
            bootstrap::public_sockets(self.snapshot.front.clone(), &self.fds).map_err(said)?;
        restored.permits = wiring::permits(self.snapshot.channels);
        let limits = DescriptorLimits { primary: None, workers: LIMIT };
        let (handle, _reports, ends) = front::handle::channels(&public_sockets::worker_ports(&ports));
        let carried = (ports, Accepts::Primary, Some((opened, restored)));
        let setup = data_path::setup(&self.in_force, carried, limits, (metrics, notes));
        runtime().block_on(async {
            let front = Front::new(setup, ends).map_err(said)?;
            let looks_on = async {
                drop(handle.stand_still().await);
                for _ in 0..TURNS {
                    handle.ping().await;
                }
                drop(handle.stand_still().await);
            };
            tokio::select! {
                () = front.run() => {}
                () = looks_on => {}
            }
            Ok(())
        })
    }

    /// What is around workers. None of its tasks runs.
    fn hooks(&self) -> Result<(), String> {
        let (snapshot, fds) = (&self.snapshot, &self.fds);
        let (bound, _registrations) = BoundChannels::restore(snapshot.bound.clone(), fds).map_err(said)?;
        let (openings, _taken) = Openings::restore(snapshot.openings);
        let _ = openings.next();
        let terms = Terms { user: None, backlog: 1, openings: openings.clone() };
        let opened = snapshot.opened.clone();
        let on_demand = opened.map(|opened| OnDemand::restore(terms, opened)).transpose().map_err(said)?;
        let (front, _reports, _ends) = front::handle::channels(&[]);
        let permits = wiring::permits(snapshot.channels);
        let served = ServedPorts { front, permits, ports: Arc::new([]), bound, on_demand };
        runtime().block_on(async {
            let nodes = NodeContext {
                served: served.clone(),
                shim: None,
                handoff_timeout: self.in_force.handoff_timeout,
                listeners: Arc::new(Mutex::new(Listeners::new(None, openings))),
                messages: MessageExchange::new(self.in_force.relay_messages, &self.metrics),
            };
            let hooks = snapshot.hooks.clone();
            let (nodes, _words) = NodeSessions::restore(nodes, hooks.nodes, fds).map_err(said)?;
            let _ = nodes.opened_ports();
            let (mut notices, _ready) = WorkerNotifications::new(Users::of_workers(None));
            hooks.notices.into_iter().try_for_each(|one| notices.restore(one, fds)).map_err(said)?;
            let mut calls = InterceptedCalls::new(served);
            hooks.calls.into_iter().try_for_each(|one| calls.restore(one, fds)).map_err(said)?;
            let page = hooks.leaving.map(|page| DrainPage::restore(page, fds)).transpose().map_err(said)?;
            for (worker, _) in page.iter().flat_map(|_| snapshot.supervisor.running()) {
                let _ = page.iter().try_for_each(|page| page.begin(worker.launch));
            }
            AttachSocket::restore(snapshot.attach.clone(), fds).map(drop).map_err(said)
        })
    }

    /// What the primary was given.
    fn primary(&self) -> Result<(), String> {
        let written = self.snapshot.primary.clone();
        let _ = Way::restore(written.way);
        let console = written.console.map(|console| Console::restore(console, &self.fds));
        if let Some(console) = console.transpose().map_err(said)? {
            let _ = console.label.prefix(Look::Plain, Some(Slot(MOST_WORKERS)));
        }
        self.snapshot.output.trial(&self.fds).map_err(said)?;
        let admin = written.admin.map(|admin| self.fds.take(admin).and_then(Admin::restore));
        admin.transpose().map(drop).map_err(said)
    }
}

/// As many turns of the front are looked at.
const TURNS: usize = 3;

/// Each has its own, with which what was begun ends.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime")
}

fn said(error: io::Error) -> String {
    error.to_string()
}
