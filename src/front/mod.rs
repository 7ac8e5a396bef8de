//! The data path: from a client's connection to a worker that takes it.
//!
//! It runs on a thread of its own and owns listeners, queues and channels. It knows no processes: the rest of
//! the program reaches it through [`handle::Handle`], and it answers with [`handle::Notice`]s.
//!
//! A connection's way: [`listener`] accepts it, [`service`] gives it to the next idle worker or puts it into the
//! [`queue`], and [`crate::front::links`] hands it over. What becomes of each launch of a worker is noted in the
//! [`launches`]. With the shared policy connections do not come this way at all: [`shared`] only keeps the sockets.

pub mod connection;
pub mod handle;
pub mod launches;
pub mod links;
pub mod listener;
pub mod private;
pub mod queue;
pub mod service;
pub mod shared;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Sleep;
use tokio_util::sync::PollSender;
use tracing::warn;

use self::handle::{Command, Notice, PortStatus};
use self::launches::{LaunchTable, RecycleLimits};
use self::listener::{Bound, Listener};
use self::private::{Delivery, Undelivered};
use self::queue::Queue;
use self::service::{Progress, Service};
use self::shared::SharedSockets;
use crate::front::links::{Attachment, Link, Timeouts};
use crate::ids::{LinkId, ServiceId, WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::policy::window::Window;
use crate::settings::Policy;

/// A hand-off that takes longer than this may have gone to a listener that its server has closed, or to a worker that is
/// busy for long: what was given to it ahead is taken back.
pub const SLOW: Duration = Duration::from_millis(20);

/// What the front needs to begin.
#[derive(Debug)]
pub struct Setup {
    /// The public sockets of each worker port; a single one for each if they are shared.
    pub ports: Vec<(WorkerPort, Vec<Bound>)>,
    /// Who accepts: the front, or the workers.
    pub policy: Policy,
    /// How many connections may wait, for each worker port.
    pub queue: NonZeroUsize,
    /// How long each may wait.
    pub queue_timeout: Duration,
    /// How many connections may be on their way to one listener of a worker that takes them quickly.
    pub window: NonZeroUsize,
    /// How long a worker may leave a connection untaken: [`SLOW`], and the hand-off timeout.
    pub timeouts: Timeouts,
    /// Whether clients are kept from a worker that listens until it is released.
    pub holds: bool,
    /// When a launch of a worker is to be looked after.
    pub recycle: RecycleLimits,
    /// Where it counts.
    pub metrics: Metrics,
}

/// The front: one task that owns the whole data path.
#[derive(Debug)]
pub struct Front {
    services: Vec<Service>,
    shared: SharedSockets,
    policy: Policy,
    launches: LaunchTable,
    /// Workers that are to get nothing more, and who is told when that is so.
    retiring: Vec<(WorkerId, oneshot::Sender<()>)>,
    commands: mpsc::Receiver<Command>,
    notices: PollSender<Notice>,
    status: watch::Sender<Vec<PortStatus>>,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    stopping: Stopping,
    limits: Limits,
    metrics: Metrics,
}

/// What every service is bounded by.
#[derive(Clone, Copy, Debug)]
struct Limits {
    queue: NonZeroUsize,
    queue_timeout: Duration,
    window: NonZeroUsize,
    timeouts: Timeouts,
}

impl Limits {
    fn service(&self, id: ServiceId, bound: Vec<Bound>, metrics: &Metrics) -> io::Result<Service> {
        let mut listeners = Vec::new();
        for address in bound {
            listeners.extend(Listener::watch(address)?);
        }
        let queue = Queue::new(self.queue, self.queue_timeout);
        let window = Window::new(self.window, self.timeouts.slow);
        Ok(Service::new(id, listeners, queue, window, metrics.clone()))
    }
}

/// How far the stop is.
#[derive(Debug)]
enum Stopping {
    No,
    Draining { done: oneshot::Sender<()> },
    Done,
}

impl Front {
    /// Watches the sockets. Must be called on the runtime that will run [`Front::run`].
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn new(setup: Setup, ends: handle::FrontEnds) -> io::Result<Self> {
        let limits = Limits {
            queue: setup.queue,
            queue_timeout: setup.queue_timeout,
            window: setup.window,
            timeouts: setup.timeouts,
        };
        let (mut services, mut shared) = (Vec::new(), SharedSockets::default());
        for (port, bound) in setup.ports {
            let id = ServiceId::Port(port);
            match setup.policy {
                Policy::RoundRobin => services.push(limits.service(id, bound, &setup.metrics)?),
                Policy::Shared => bound.into_iter().for_each(|bound| shared.open(id, bound)),
            }
        }
        Ok(Self {
            services,
            shared,
            policy: setup.policy,
            launches: LaunchTable::new(setup.holds, setup.recycle),
            retiring: Vec::new(),
            commands: ends.commands,
            notices: PollSender::new(ends.notices),
            status: ends.status,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            stopping: Stopping::No,
            limits,
            metrics: setup.metrics,
        })
    }

    /// Serves until every [`handle::Handle`] is gone.
    ///
    /// The front is alone on its runtime and bounds its own bursts, so tokio's cooperative budget would only
    /// interrupt it.
    pub async fn run(mut self) {
        tokio::task::unconstrained(poll_fn(|cx| self.poll(cx))).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_commands(cx).is_ready() {
            return Poll::Ready(());
        }
        let commands_wait = !self.launches.notices.is_empty();
        self.poll_services(cx);
        self.poll_timer(cx);
        self.publish();
        self.poll_retiring();
        self.poll_stopping();
        self.poll_notices(cx);
        if commands_wait && self.launches.notices.is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Ready when nobody can give commands any more. While notices wait to be fetched no command is taken, so that
    /// neither grows without bound.
    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.launches.notices.is_empty() {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => self.obey(command),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Attach(attachment) => self.attach(attachment),
            Command::Share(sharing) => self.shared.share(sharing, &mut self.launches),
            Command::Listens(link) => self.shared.listens(link, &mut self.launches),
            Command::Open { service, bound } => self.open(service, bound),
            Command::Close { service, done } => {
                self.shared.close(service);
                self.services.retain(|candidate| candidate.id() != service);
                let _ = done.send(());
            }
            Command::Release(worker) => {
                self.launches.release(worker);
                self.shared.release(worker);
                for service in &mut self.services {
                    service.release(worker);
                }
            }
            Command::Detach(link) => self.detach(link),
            Command::Deliver(delivery) => self.deliver(delivery),
            Command::Retire { worker, done } => {
                self.launches.retire(worker);
                self.shared.retire(worker);
                for service in &mut self.services {
                    service.retire(worker);
                }
                self.retiring.push((worker, done));
            }
            Command::Forget { worker, done } => {
                let _ = done.send(self.forget(worker));
            }
            Command::Ping { done } => drop(done.send(())),
            Command::Stop { done } => {
                self.stop(Instant::now());
                self.stopping = Stopping::Draining { done };
            }
        }
    }

    fn attach(&mut self, attachment: Attachment) {
        let (worker, id) = (attachment.worker, attachment.service);
        let Some(service) = self.services.iter_mut().find(|service| service.id() == id) else {
            return;
        };
        let gate = self.launches.attaches(worker);
        match Link::new(attachment, self.limits.timeouts, gate) {
            Ok(link) => service.attach(link),
            Err(error) => warn!(%worker, service = %id, %error, "cannot watch a worker's channel"),
        }
    }

    /// What is opened once the stop has begun is told to stop like all else.
    fn open(&mut self, id: ServiceId, bound: Bound) {
        match self.policy {
            Policy::Shared => self.shared.open(id, bound),
            Policy::RoundRobin => match self.limits.service(id, vec![bound], &self.metrics) {
                Ok(service) => self.services.push(service),
                Err(error) => warn!(service = %id, %error, "cannot watch a listener"),
            },
        }
        if !matches!(self.stopping, Stopping::No) {
            self.stop(Instant::now());
        }
    }

    fn stop(&mut self, now: Instant) {
        self.shared.stop(now);
        for service in &mut self.services {
            service.stop(now);
        }
    }

    fn detach(&mut self, link: LinkId) {
        self.shared.drop_members(|member, _| member == link);
        for service in &mut self.services {
            service.drop_links(|candidate| candidate.id() == link, &mut self.launches);
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let service = self.services.iter_mut().find(|service| service.id() == delivery.service);
        let refused = match (service, self.policy) {
            (Some(service), _) if self.launches.knows(delivery.worker) => return service.deliver(delivery),
            (Some(_), _) => Undelivered::Gone,
            (None, Policy::Shared) => Undelivered::Shared,
            (None, Policy::RoundRobin) => Undelivered::NotListening,
        };
        let _ = delivery.reply.send(Err(refused));
    }

    /// Returns how many connections the worker has taken.
    fn forget(&mut self, worker: WorkerId) -> u64 {
        // First of all, so that nothing is told of it any more.
        let mut taken = self.launches.forget(worker);
        self.shared.drop_members(|_, member| member == worker);
        for service in &mut self.services {
            taken += service.drop_links(|link| link.worker() == worker, &mut self.launches);
        }
        taken
    }

    fn poll_services(&mut self, cx: &mut Context<'_>) {
        for service in &mut self.services {
            if service.poll(cx, &mut self.launches) == Progress::More {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Lets the services do what is due, and sets the timer for what will be.
    ///
    /// A timer that rings too early costs less than setting it anew for every connection, so it is only ever set
    /// to an earlier time, or after it rang.
    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        while let Some(next) = self.deadline() {
            if self.armed.is_none_or(|armed| next < armed) {
                self.timer.as_mut().reset(next.into());
                self.armed = Some(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.armed = None;
            let now = Instant::now();
            self.shared.tick(now);
            for service in &mut self.services {
                service.tick(now, &mut self.launches);
            }
            self.launches.tick(now);
            self.poll_services(cx);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let services = self.services.iter().filter_map(Service::deadline);
        services.chain(self.shared.deadline()).chain(self.launches.deadline()).min()
    }

    fn poll_retiring(&mut self) {
        let services = &self.services;
        let mut index = 0;
        while let Some(&(worker, _)) = self.retiring.get(index) {
            if services.iter().any(|service| service.is_giving_to(worker)) {
                index += 1;
                continue;
            }
            let (_, done) = self.retiring.swap_remove(index);
            let _ = done.send(());
        }
    }

    fn poll_stopping(&mut self) {
        let is_done = self.shared.is_done() && self.services.iter().all(Service::is_done);
        if !is_done || !matches!(self.stopping, Stopping::Draining { .. }) {
            return;
        }
        if let Stopping::Draining { done } = std::mem::replace(&mut self.stopping, Stopping::Done) {
            let _ = done.send(());
        }
    }

    /// The ports that are always served come first, and what was opened beside them is nobody's readiness.
    fn publish(&mut self) {
        let waiting: usize = self.services.iter().map(Service::waiting).sum();
        self.metrics.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.status.send_if_modified(|status| {
            let mut changed = false;
            let listening = self.services.iter().map(Service::listening).chain(self.shared.listening());
            for (status, listening) in status.iter_mut().zip(listening) {
                changed |= status.listening != listening;
                status.listening = listening;
            }
            changed
        });
    }

    fn poll_notices(&mut self, cx: &mut Context<'_>) {
        while !self.launches.notices.is_empty() {
            match self.notices.poll_reserve(cx) {
                Poll::Ready(Ok(())) => {
                    if let Some(notice) = self.launches.notices.pop_front() {
                        let _ = self.notices.send_item(notice);
                    }
                }
                Poll::Ready(Err(_)) => self.launches.notices.clear(),
                Poll::Pending => return,
            }
        }
    }
}
