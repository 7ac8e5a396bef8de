//! What clusterd stands on: everything that is looked up, opened and bound before anything runs.
//!
//! What the system refuses it refuses here, so that a start that fails leaves nothing behind.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tracing::warn;

use super::attach_way::Way;
use super::data_path::CarriedFront;
use super::descriptor_limits::{self, DescriptorLimits};
use super::error::PrimaryError;
use super::leaving::LeavingNotes;
use super::public_sockets::{self, Ports};
use super::runtime_folder::{FolderKeeper, RuntimeFolder};
use super::signals::{self, SignalAction};
use super::stalls::Stalls;
use super::upgrade::Restoring;
use super::{triggers, worker_plan};
use crate::admin::Admin;
use crate::attach::listen_fds;
use crate::attach::socket::AttachSocket;
use crate::carry::CarriedFds;
use crate::front::Accepts;
use crate::front::snapshot::FrontSnapshot;
use crate::ids::{ServiceId, WorkerPort};
use crate::preload::{ExposeError, Exposed};
use crate::settings::Config;
use crate::supervisor::AttachEnv;
use crate::supervisor::exec_context::ExecContext;
use crate::supervisor::triggers::watch::Changes;
use crate::supervisor::turn::{Turn, Turned};
use crate::sys;
use crate::sys::signal_queue::SignalQueue;
use crate::sys::terminal::Terminal;

/// All of it.
#[derive(Debug)]
pub(super) struct Bootstrap {
    /// Where clusterd was started.
    pub terminal: Terminal,
    /// The signals, from the first moment.
    pub signals: SignalQueue<SignalAction>,
    /// How many descriptors there may be.
    pub limits: DescriptorLimits,
    /// What workers run as and with.
    pub context: ExecContext,
    /// How they get their connections.
    pub way: Way,
    /// The files that are watched, if any.
    pub changes: Option<Changes>,
    /// The public sockets.
    pub bound: Ports,
    /// Where metrics and probes are served, if anywhere.
    pub admin: Option<Admin>,
    /// The runtime folder, where there is one.
    pub folder: Option<RuntimeFolder>,
    /// Where workers attach.
    pub attach: AttachSocket,
    /// The shim, if workers get one.
    pub shim: Option<Exposed>,
    /// Where the shim is told of drains, until the workers' hooks have it.
    pub leaving: Option<LeavingNotes>,
    /// Whether launches have turned to another way in the image before.
    pub turned: Option<Turned>,
}

impl Bootstrap {
    /// Prepares everything.
    ///
    /// # Errors
    /// The first thing that is refused.
    pub(super) fn prepare(config: &Config) -> Result<Self, PrimaryError> {
        // A signal that is blocked or ignored would never arrive, neither here nor in a worker that waits for it.
        let inherited = sys::signals::reset_ignored();
        let terminal = Terminal::at_start(inherited.ignores_hup);
        let signals = signals::listen().map_err(PrimaryError::Signals)?;
        let limits = descriptor_limits::prepare().map_err(PrimaryError::Descriptors)?;
        sys::process::become_subreaper().map_err(PrimaryError::Subreaper)?;
        let context = worker_plan::exec_context(config, limits.workers)?;
        let is_for_others = context.identity.as_ref().is_some_and(|workers| workers.is_other_user);
        let may_intercept_later = !(context.primary.is_some() && is_for_others);
        let way = Way::of(config)?.turning_if(may_intercept_later);
        let changes = triggers::changes(config)?;
        if config.tcp_migrate {
            sys::reuseport::migrate().map_err(PrimaryError::TcpMigrate)?;
        }
        let bound = public_sockets::bind(config, way.accepts)?;
        let admin = config.metrics.map(Admin::bind).transpose()?;
        let folder = RuntimeFolder::create(context.identity.as_ref());
        let path = folder.as_ref().map(RuntimeFolder::path);
        let attach = AttachSocket::bind(path).map_err(PrimaryError::AttachSocket)?;
        let shim = if way.shim { expose_shim(path, &context)? } else { None };
        let leaving = shim.is_some().then(|| {
            let ports: Vec<_> = public_sockets::addresses(&bound).iter().map(SocketAddr::port).collect();
            LeavingNotes::new(path, &ports)
        });
        Ok(Self {
            terminal,
            signals,
            limits,
            context,
            way,
            changes,
            bound,
            admin,
            folder,
            attach,
            shim,
            leaving,
            turned: None,
        })
    }

    /// Everything as another image of clusterd has left it, and what its front goes on with.
    ///
    /// # Errors
    /// The first thing that is refused.
    pub(super) fn restore(
        config: &Config,
        restoring: &Restoring,
    ) -> Result<(Self, CarriedFront), PrimaryError> {
        let (snapshot, fds) = (&restoring.snapshot, &restoring.fds);
        let carried = |error| PrimaryError::Carried(error);
        let written = snapshot.primary.clone();
        sys::signals::reset_ignored();
        let terminal = Terminal::at_start(written.outlives_terminal);
        let signals = signals::listen().map_err(PrimaryError::Signals)?;
        let limits = descriptor_limits::restore(written.open_files);
        sys::process::become_subreaper().map_err(PrimaryError::Subreaper)?;
        let context = worker_plan::exec_context(&restoring.in_force, limits.workers)?;
        let changes = triggers::changes(config)?;
        let (bound, front) = public_sockets(snapshot.front.clone(), fds).map_err(carried)?;
        let admin = written.admin.map(|fd| fds.take(fd).and_then(Admin::restore));
        let shim = written.shim.map(|shim| Exposed::restore(shim, fds)).transpose().map_err(carried)?;
        let leaving = snapshot.hooks.leaving.clone().map(|page| LeavingNotes::restore(Some(page), fds));
        let bootstrap = Self {
            terminal,
            signals,
            limits,
            context,
            way: Way::restore(written.way),
            changes,
            bound,
            admin: admin.transpose().map_err(carried)?,
            folder: written.folder.map(|folder| RuntimeFolder::restore(folder.into())),
            attach: AttachSocket::restore(snapshot.attach.clone(), fds).map_err(carried)?,
            shim,
            leaving: leaving.transpose().map_err(carried)?,
            turned: snapshot.supervisor.turned(),
        };
        Ok((bootstrap, front))
    }

    /// Another image of clusterd has left this, and does not go on with it.
    pub(super) fn own(&mut self) {
        self.folder.iter_mut().for_each(RuntimeFolder::own);
    }

    /// The ports that workers ask for.
    pub(super) fn ports(&self) -> Vec<WorkerPort> {
        public_sockets::worker_ports(&self.bound)
    }

    /// Where clients connect to.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        public_sockets::addresses(&self.bound)
    }

    /// The runtime folder.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(RuntimeFolder::path)
    }

    /// What keeps the runtime folder whole.
    pub(super) fn folder_keeper(&self) -> Option<FolderKeeper> {
        let folder = self.folder()?;
        let shim = self.shim.as_ref().filter(|shim| shim.path().starts_with(folder));
        Some(FolderKeeper::new(folder, self.attach.rebind(folder), shim.map(Exposed::path)))
    }

    /// Who looks at workers that leave connections untaken, where workers take them from the front.
    pub(super) fn stalls(&self) -> Option<Stalls> {
        let inherits = self.way.inherits;
        let is_wanted = self.way.accepts != Accepts::Workers || inherits;
        is_wanted.then(|| Stalls::new(self.shim.as_ref().map(|shim| shim.path().to_owned()), inherits))
    }

    /// How workers get their connections.
    pub(super) fn attach_env(&self) -> AttachEnv {
        AttachEnv {
            socket: self.attach.name().into(),
            shim: self.shim.as_ref().map(|shim| shim.path().to_owned()),
            drain_page: self.leaving.as_ref().and_then(LeavingNotes::path).map(ToOwned::to_owned),
            node_channel: self.way.node_channel,
            listen_fds: self.way.inherits.then_some(listen_fds::VERB),
            filter: self.way.filter,
            turn: Turn::new(self.way.may_turn, self.turned),
        }
    }
}

/// The public sockets that another image of clusterd has left, and what its front goes on with.
///
/// # Errors
/// It cannot be taken over.
pub(super) fn public_sockets(front: FrontSnapshot, fds: &CarriedFds) -> io::Result<(Ports, CarriedFront)> {
    let (services, restored) = front.into_parts(fds)?;
    let (mut bound, mut opened) = (Ports::new(), Vec::new());
    for (service, sockets) in services {
        match service {
            ServiceId::Port(port) => bound.push((port, sockets)),
            ServiceId::Opened(_) => opened.push((service, sockets)),
        }
    }
    Ok((bound, (opened, restored)))
}

/// Without a shim for this processor there are still workers that use the library.
fn expose_shim(folder: Option<&Path>, context: &ExecContext) -> Result<Option<Exposed>, ExposeError> {
    let is_for_others = context.identity.as_ref().is_some_and(|identity| identity.is_other_user);
    match Exposed::new(folder, is_for_others) {
        Err(error @ ExposeError::Unsupported) => {
            warn!("{error}");
            Ok(None)
        }
        exposed => exposed.map(Some),
    }
}
