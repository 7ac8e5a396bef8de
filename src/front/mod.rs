//! The data path: from a client's connection to a worker that takes it.
//!
//! It runs on a thread of its own and owns listeners, queues and channels. It knows no processes: the rest of
//! the program reaches it through [`handle::Handle`], and it answers with [`handle::Notice`]s.
//!
//! A connection's way: [`intake`] accepts it from a [`public_socket`], [`routes`] decides which [`group`] of listeners it is
//! for, [`dispatch`] gives it to the worker that the balancer chooses, or puts it into the [`queue`], and its link in
//! [`links`] hands it over. [`link_events`] finds out what the worker makes of it, and [`reclaim`] takes it back if that is
//! nothing. [`service`] is all of these for one port. Which clients may come is decided in [`openness`]. What becomes of
//! each launch of a worker is noted in the [`launches`]. If workers accept, connections do not come this way at all:
//! [`steering`] only gives them their sockets, and sees to whom the kernel steers clients.

mod crowd;
mod dispatch;
mod freed;
mod group;
mod intake;
mod link_events;
mod listener;
mod occupancy;
mod openness;
mod public_socket;
mod queue;
mod reclaim;
mod routes;
mod service;
mod setup;
mod standing;

pub(crate) mod arrival;
pub(crate) mod bound;
pub(crate) mod connection;
pub(crate) mod handle;
pub(crate) mod inheritance;
pub(crate) mod launches;
pub(crate) mod links;
pub(crate) mod private;
pub(crate) mod snapshot;
pub(crate) mod steering;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Sleep;
use tokio_util::sync::PollSender;
use tracing::warn;

use self::bound::Bound;
pub(crate) use self::crowd::about_to_sleep;
use self::freed::Freed;
use self::handle::{Command, Notice, PortStatus};
use self::launches::LaunchTable;
use self::links::Attachment;
use self::occupancy::Occupancy;
use self::private::{Delivery, Undelivered};
use self::service::{Progress, Service};
pub(crate) use self::setup::{Accepts, SLOW, ServiceLimits, Setup};
use self::snapshot::{FrontSnapshot, Restored};
use self::standing::Standing;
use self::steering::{By, Steering};
use crate::carry::NotCarried;
use crate::connections::notes::Notes;
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::metrics::Metrics;
use crate::policy::Choice;

/// The front: one task that owns the whole data path.
#[derive(Debug)]
pub(crate) struct Front {
    services: Vec<Service>,
    steering: Steering,
    accepts: Accepts,
    /// The same, for all who ask.
    workers_accept: Arc<AtomicBool>,
    launches: LaunchTable,
    /// Workers that are to get nothing more, and who is told when that is so.
    retiring: Vec<(WorkerId, oneshot::Sender<()>)>,
    commands: mpsc::Receiver<Command>,
    still: Standing,
    freed: Freed,
    notices: PollSender<Notice>,
    status: watch::Sender<Vec<PortStatus>>,
    waits_for_place: watch::Sender<bool>,
    /// How many listeners each port has, as far as that was published.
    published: Vec<usize>,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    stopping: Stopping,
    limits: ServiceLimits,
    metrics: Metrics,
    notes: Notes,
    /// The ports of what is open, as they are noted.
    ports: Vec<(ServiceId, u16)>,
}

/// How far the stop is.
#[derive(Debug)]
enum Stopping {
    No,
    Draining { done: oneshot::Sender<()> },
    Done,
}

/// By what the kernel is to choose where workers accept.
fn by(choice: Choice) -> By {
    match choice {
        Choice::SourceIp => By::Source,
        Choice::RoundRobin | Choice::LeastConnections | Choice::RandomTwo => By::Chance,
    }
}

impl Front {
    /// Watches the sockets. Must be called on the runtime that will run [`Front::run`].
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn new(setup: Setup, ends: handle::FrontEnds) -> io::Result<Self> {
        let published = vec![0; ends.status.borrow().len()];
        let occupancy = Occupancy::new(setup.limits.choice.counts(), setup.limits.concurrency);
        let accepts = setup.restored.as_ref().map_or(setup.accepts, Restored::accepts);
        let mut front = Self {
            services: Vec::new(),
            steering: Steering::new(
                setup.limits.timeouts.timeout,
                by(setup.limits.choice),
                setup.metrics.clone(),
            ),
            accepts,
            workers_accept: ends.workers_accept,
            launches: LaunchTable::new(setup.holds, setup.recycle, occupancy),
            retiring: Vec::new(),
            commands: ends.commands,
            still: Standing::new(ends.stands),
            freed: ends.freed,
            notices: PollSender::new(ends.notices),
            status: ends.status,
            waits_for_place: ends.waits_for_place,
            published,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            stopping: Stopping::No,
            limits: setup.limits,
            metrics: setup.metrics,
            notes: setup.notes,
            ports: Vec::new(),
        };
        front.workers_accept.store(front.accepts == Accepts::Workers, Ordering::Relaxed);
        match setup.restored {
            None => {
                setup.services.into_iter().try_for_each(|(service, bound)| front.serve(service, bound))?;
            }
            Some(restored) => front.resume(restored, setup.services.into_iter().collect())?,
        }
        Ok(front)
    }

    /// Takes over what another image has left.
    fn resume(&mut self, restored: Restored, mut bound: BTreeMap<ServiceId, Vec<Bound>>) -> io::Result<()> {
        let (snapshot, mut legacy) = restored.open();
        let FrontSnapshot { accepts: _, services, steering, launches, ports } = snapshot;
        self.launches.occupancy.resume(&launches.occupied, launches.last_given);
        for snapshot in services {
            let (id, bound) = (snapshot.id, bound.remove(&snapshot.id).unwrap_or_default());
            let (metrics, notes) = (self.metrics.clone(), self.notes.clone());
            let mut service = Service::new(id, bound, self.limits, metrics, notes)?;
            service.resume(snapshot, &self.launches.occupancy, &mut legacy)?;
            self.services.push(service);
        }
        self.steering.resume(steering, bound, &mut legacy)?;
        ports.iter().for_each(|&(_, port)| self.notes.serves(port));
        self.ports = ports;
        // What was told and not heard before the other image ended is lost. Whoever has heard it hears it twice.
        let services = self.services.iter().flat_map(Service::have_listened);
        let listening = services.chain(self.steering.have_listened());
        self.launches.resume(launches, listening);
        self.count_stalled();
        Ok(())
    }

    /// Whoever carries metrics over may know the same.
    fn count_stalled(&self) {
        let mut stalled: BTreeMap<_, i64> = BTreeMap::new();
        let services = self.services.iter().flat_map(Service::stalled);
        services.chain(self.steering.stalled()).for_each(|slot| *stalled.entry(slot).or_default() += 1);
        for (slot, count) in stalled {
            self.metrics.stalled.with_label_values(&[&slot.to_string()]).set(count);
        }
    }

    fn serve(&mut self, id: ServiceId, bound: Vec<Bound>) -> io::Result<()> {
        for port in bound.iter().map(|bound| bound.address().port()) {
            self.notes.serves(port);
            self.ports.push((id, port));
        }
        if self.accepts == Accepts::Workers {
            return bound.into_iter().try_for_each(|bound| self.steering.open(id, bound));
        }
        self.services.push(Service::new(id, bound, self.limits, self.metrics.clone(), self.notes.clone())?);
        Ok(())
    }

    /// Serves until every [`handle::Handle`] is gone.
    ///
    /// The front is alone on its runtime and bounds its own bursts, so tokio's cooperative budget would only
    /// interrupt it.
    pub(crate) async fn run(mut self) {
        tokio::task::unconstrained(poll_fn(|cx| self.poll(cx))).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(stand) = ready!(self.still.poll(cx)) {
            let snapshot = self.snapshot(cx);
            self.still.begin(stand, snapshot);
        }
        if self.poll_commands(cx).is_ready() {
            return Poll::Ready(());
        }
        let commands_wait = self.launches.has_notices();
        self.hear_what_is_freed(cx);
        self.poll_services(cx);
        self.poll_timer(cx);
        self.steering.poll(cx);
        self.publish();
        self.poll_retiring();
        self.poll_stopping();
        self.poll_notices(cx);
        if commands_wait && !self.launches.has_notices() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// What it has, when it has obeyed all that it was told before.
    fn snapshot(&mut self, cx: &mut Context<'_>) -> Result<FrontSnapshot, NotCarried> {
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            self.obey(command);
        }
        self.hear_what_is_freed(cx);
        self.poll_retiring();
        if !matches!(self.stopping, Stopping::No) {
            return Err(NotCarried("clusterd is stopping".to_owned()));
        }
        if let Some((worker, _)) = self.retiring.first() {
            return Err(NotCarried(format!("worker {worker} is being retired, and still takes connections")));
        }
        Ok(FrontSnapshot {
            accepts: self.accepts,
            services: self.services.iter_mut().map(Service::snapshot).collect(),
            steering: self.steering.snapshot(),
            launches: self.launches.snapshot(),
            ports: self.ports.clone(),
        })
    }

    /// Ready when nobody can give commands any more. While notices wait to be fetched no command is taken, so that
    /// neither grows without bound.
    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.launches.has_notices() {
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
            Command::Share(sharing) => self.steering.share(sharing, &mut self.launches),
            Command::Listens { link, reply } => {
                let _ = reply.send(self.steering.listens(link, &mut self.launches));
            }
            Command::Steer { reply } => {
                let _ = reply.send(self.steer());
            }
            Command::Open { service, bound } => self.open(service, bound),
            Command::Close { service, done } => {
                self.close(service);
                let _ = done.send(());
            }
            Command::Release(worker) => {
                self.launches.release(worker);
                self.steering.release(worker);
                for service in &mut self.services {
                    service.release(worker);
                }
            }
            Command::Detach(link) => self.detach(link),
            Command::HowToArrive { worker, service, reply } => {
                let service = self.services.iter().find(|candidate| candidate.id() == service);
                let _ = reply.send(service.and_then(|service| service.how_to_arrive(worker)));
            }
            Command::Deliver(delivery) => self.deliver(delivery),
            Command::Retire { worker, done } => {
                self.launches.retire(worker);
                self.steering.retire(worker, Instant::now());
                for service in &mut self.services {
                    service.retire(worker, &mut self.launches.occupancy);
                }
                self.retiring.push((worker, done));
            }
            Command::Forget { worker, done } => {
                let _ = done.send(self.forget(worker));
            }
            Command::AppStopped(is_stopped) => {
                let now = Instant::now();
                self.services.iter_mut().for_each(|service| service.app_stopped(is_stopped, now));
                if is_stopped {
                    self.steering.app_stopped(now);
                }
            }
            Command::Hold(ports) => {
                let now = Instant::now();
                for (port, arrivals) in ports {
                    let services = self.services.iter_mut();
                    let held = services.filter(|service| service.id() == ServiceId::Port(port));
                    held.for_each(|service| service.hold(arrivals, now));
                }
            }
            Command::ShowOpen { done } => {
                let open = self.services.iter().filter_map(|service| match service.id() {
                    ServiceId::Port(port) => Some((port, service.open())),
                    ServiceId::Opened(_) => None,
                });
                let _ = done.send(open.collect());
            }
            Command::Ping { done } => drop(done.send(())),
            Command::Stop { done } => {
                self.stop(Instant::now());
                self.stopping = Stopping::Draining { done };
            }
        }
    }

    fn attach(&mut self, attachment: Attachment) {
        let Attachment { worker, service: id, binding, .. } = attachment;
        let Some(service) = self.services.iter_mut().find(|service| service.id() == id) else {
            return;
        };
        let gate = self.launches.attaches(worker);
        if let Err(error) = service.attach(attachment, gate, &self.launches.occupancy) {
            warn!(%worker, service = %id, address = ?binding.address, %error, "cannot watch a worker's channel");
        }
    }

    /// Workers accept from now on. What is open then refuses clients until one of them listens.
    fn steer(&mut self) -> io::Result<()> {
        if !self.services.iter().all(Service::has_one_address) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.accepts = Accepts::Workers;
        self.workers_accept.store(true, Ordering::Relaxed);
        for service in std::mem::take(&mut self.services) {
            let (id, bound) = service.give_up(&mut self.launches);
            bound.into_iter().try_for_each(|bound| self.steering.open(id, bound))?;
        }
        if !matches!(self.stopping, Stopping::No) {
            self.stop(Instant::now());
        }
        Ok(())
    }

    /// What is opened once the stop has begun is told to stop like all else.
    fn open(&mut self, id: ServiceId, bound: Bound) {
        if let Err(error) = self.serve(id, vec![bound]) {
            warn!(service = %id, %error, "cannot watch a listener");
        }
        if !matches!(self.stopping, Stopping::No) {
            self.stop(Instant::now());
        }
    }

    fn close(&mut self, id: ServiceId) {
        self.steering.close(id);
        self.services.retain(|service| service.id() != id);
        let closed = self.ports.extract_if(.., |(service, _)| *service == id);
        closed.for_each(|(_, port)| self.notes.serves_no_more(port));
    }

    fn stop(&mut self, now: Instant) {
        self.steering.stop(now);
        for service in &mut self.services {
            service.stop(now);
        }
    }

    fn detach(&mut self, link: LinkId) {
        self.steering.drop_servers(|server, _| server == link, &mut self.launches);
        for service in &mut self.services {
            service.detach(link, &mut self.launches);
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let service = self.services.iter_mut().find(|service| service.id() == delivery.service);
        let refused = match (service, self.accepts) {
            (Some(service), _) if self.launches.knows(delivery.worker) => return service.deliver(delivery),
            (Some(_), _) => Undelivered::Gone,
            (None, Accepts::Workers) => Undelivered::Shared,
            (None, Accepts::Primary) => Undelivered::NotListening,
        };
        let _ = delivery.reply.send(Err(refused));
    }

    /// Returns how many connections the worker has taken.
    fn forget(&mut self, worker: WorkerId) -> u64 {
        // First of all, so that nothing is told of it any more.
        let mut taken = self.launches.forget(worker);
        self.steering.forget(worker, &mut self.launches);
        for service in &mut self.services {
            taken += service.forget(worker, &mut self.launches);
        }
        taken
    }

    fn poll_services(&mut self, cx: &mut Context<'_>) {
        for index in 0..self.services.len() {
            self.tell_who_has_how_many();
            if self.services[index].poll(cx, &mut self.launches) == Progress::More {
                cx.waker().wake_by_ref();
            }
        }
        if self.launches.occupancy.has_room_again() {
            self.tell_who_has_how_many();
            cx.waker().wake_by_ref();
        }
    }

    /// Each service chooses by what workers have of all.
    fn tell_who_has_how_many(&mut self) {
        for (worker, occupied) in self.launches.occupancy.changes() {
            self.services.iter_mut().for_each(|service| service.occupied(worker, occupied));
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
            self.steering.tick(now, &mut self.launches);
            for service in &mut self.services {
                service.tick(now, &mut self.launches);
            }
            self.launches.tick(now);
            self.poll_services(cx);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let services = self.services.iter().filter_map(Service::deadline);
        services.chain(self.steering.deadline()).chain(self.launches.deadline()).min()
    }

    fn poll_retiring(&mut self) {
        let (services, steering) = (&self.services, &self.steering);
        let mut index = 0;
        while let Some(&(worker, _)) = self.retiring.get(index) {
            let is_giving = services.iter().any(|service| service.is_giving_to(worker));
            if is_giving || steering.is_giving_to(worker) {
                index += 1;
                continue;
            }
            let (_, done) = self.retiring.swap_remove(index);
            let _ = done.send(());
        }
    }

    fn poll_stopping(&mut self) {
        if !matches!(self.stopping, Stopping::Draining { .. }) {
            return;
        }
        let is_done = self.steering.is_done() && self.services.iter().all(Service::is_done);
        if is_done && let Stopping::Draining { done } = std::mem::replace(&mut self.stopping, Stopping::Done)
        {
            let _ = done.send(());
        }
    }

    /// Nothing is asked for where nothing is counted.
    fn hear_what_is_freed(&mut self, cx: &Context<'_>) {
        let occupancy = &mut self.launches.occupancy;
        if occupancy.is_counted() {
            for (worker, connections) in self.freed.hear(cx.waker()) {
                occupancy.ended(worker, connections);
            }
        }
    }

    /// The ports that are always served come first, and what was opened beside them is nobody's readiness.
    fn publish(&mut self) {
        let waiting: usize = self.services.iter().map(Service::waiting).sum();
        self.metrics.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.publish_who_waits();
        let listening = self.services.iter().map(Service::listening).chain(self.steering.listening());
        let mut is_news = false;
        for (published, listening) in self.published.iter_mut().zip(listening) {
            is_news |= *published != listening;
            *published = listening;
        }
        if is_news {
            let published = &self.published;
            self.status.send_modify(|status| {
                status
                    .iter_mut()
                    .zip(published)
                    .for_each(|(status, &listening)| status.listening = listening);
            });
        }
    }

    /// Whoever knows when a connection ends looks more closely then.
    fn publish_who_waits(&self) {
        if self.launches.occupancy.has_limit() {
            let waits = self.services.iter().any(|service| service.waits_for_place(&self.launches.occupancy));
            self.waits_for_place.send_if_modified(|before| std::mem::replace(before, waits) != waits);
        }
    }

    fn poll_notices(&mut self, cx: &mut Context<'_>) {
        while self.launches.has_notices() {
            match self.notices.poll_reserve(cx) {
                Poll::Ready(Ok(())) => {
                    if let Some(notice) = self.launches.next_notice() {
                        let _ = self.notices.send_item(notice);
                    }
                }
                Poll::Ready(Err(_)) => while self.launches.next_notice().is_some() {},
                Poll::Pending => return,
            }
        }
    }
}
