//! What the front and the Node workers report, passed on to those whom it concerns.
//!
//! It decides nothing but what is worth a message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Pid;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, info};

use super::readiness::{Listeners, Verdict};
use super::stalls::Stalls;
use super::startup_log;
use crate::admin::Readiness;
use crate::attach::bound::BoundChannels;
use crate::attach::node::Word;
use crate::front::handle::{Handle, Notice, PortStatus, Reports};
use crate::front::links::Holder;
use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::supervisor::events::{EventKind, ReplaceReason};
use crate::supervisor::{self, process_table};
use crate::tasks;

/// The longest message of a worker that is passed on to those who follow the events, in bytes of JSON: the last of them are
/// kept for those who are slow.
const LONGEST_WORD: usize = 16 * 1024;

/// How many channels may wait to be looked at: more than there can be.
const MOST_SUSPECTS: usize = 4 * 1024;

/// What is passed on.
#[derive(Debug)]
pub(super) struct ReportSources {
    /// What the front tells.
    pub reports: Reports,
    /// What Node workers say.
    pub words: mpsc::Receiver<Word>,
    /// Who waits until all of it is passed on.
    pub flushes: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Waits until all is passed on that was told.
#[derive(Debug)]
pub(super) struct Flush(mpsc::Sender<oneshot::Sender<()>>);

impl Flush {
    /// And where it is waited for.
    pub(super) fn new() -> (Self, mpsc::Receiver<oneshot::Sender<()>>) {
        let (waits, waiting) = mpsc::channel(1);
        (Self(waits), waiting)
    }

    /// Returns when nothing is left to be passed on.
    pub(super) async fn done(&self) {
        let (done, told) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            let _ = told.await;
        }
    }
}

/// Those to whom it is passed on.
#[derive(Debug)]
pub(super) struct Recipients {
    /// Hears of workers.
    pub supervisor: supervisor::Handle,
    /// Hears of channels that nobody holds any more.
    pub front: Handle,
    /// Remembers who has listened.
    pub bound: BoundChannels,
    /// Looks at workers that take no connection.
    pub stalls: Option<Stalls>,
    /// Follows the ports.
    pub readiness: watch::Sender<Readiness>,
    /// Since when launches have listened.
    pub listeners: Listeners,
    /// It was said that clients may come.
    pub greeted: Arc<AtomicBool>,
}

/// Follows the front until it ends.
pub(super) async fn follow(
    mut sources: ReportSources,
    mut recipients: Recipients,
    addresses: Vec<SocketAddr>,
) {
    let (suspects, suspected) = mpsc::channel(MOST_SUSPECTS);
    tasks::spawn(detach_closed(suspected, recipients.front.clone()));
    let mut look_at = None;
    loop {
        let look = tokio::time::sleep_until(look_at.unwrap_or_else(Instant::now));
        tokio::select! {
            // What is said of a worker comes before what follows from it.
            biased;
            Some(notice) = sources.reports.notices.recv() => recipients.pass_on(notice, &suspects).await,
            Ok(()) = sources.reports.status.changed() => {
                // A copy: the front does not wait for this look.
                let ports = sources.reports.status.borrow_and_update().clone();
                look_at = recipients.look(&ports, &addresses);
            }
            () = look, if look_at.is_some() => {
                let ports = sources.reports.status.borrow().clone();
                look_at = recipients.look(&ports, &addresses);
            }
            Some(word) = sources.words.recv() => recipients.pass_on_word(word).await,
            Some(flushed) = sources.flushes.recv() => drop(flushed.send(())),
            else => return,
        }
    }
}

impl Recipients {
    /// Tells whether the app is ready, or when to look again.
    fn look(&mut self, ports: &[PortStatus], addresses: &[SocketAddr]) -> Option<Instant> {
        // One that has ended may not have been missed yet.
        let living = self.running().into_iter().filter(|&(_, pid)| !process_table::has_ended(pid));
        let living: Vec<_> = living.map(|(worker, _)| worker.launch).collect();
        match self.listeners.verdict(ports, &living, Instant::now()) {
            Verdict::LookAgain(at) => self.is_starting().then_some(at),
            Verdict::Known(readiness) => {
                if readiness == Readiness::Ready && !self.greeted.swap(true, Ordering::Relaxed) {
                    startup_log::ready(addresses);
                }
                self.tell(readiness);
                None
            }
        }
    }

    fn running(&self) -> Vec<(WorkerId, Pid)> {
        self.supervisor.status().borrow().workers.iter().filter_map(|worker| worker.running).collect()
    }

    /// What is ready stays so until a port has no worker.
    fn is_starting(&self) -> bool {
        matches!(*self.readiness.borrow(), Readiness::Starting { .. })
    }

    /// Once the stop has begun, nothing else is told.
    fn tell(&self, now: Readiness) {
        self.readiness.send_if_modified(|readiness| {
            let changes = *readiness != Readiness::Stopping && *readiness != now;
            if changes {
                *readiness = now;
            }
            changes
        });
    }

    async fn listens(&mut self, worker: WorkerId, service: ServiceId, ready: bool) {
        match service {
            ServiceId::Port(port) => {
                self.listeners.listens(worker.launch, port, Instant::now());
                // The supervisor tells of a launch before that can have listened.
                let running = self.running().into_iter().map(|(worker, _)| worker.launch);
                self.listeners.keep(&running.collect::<Vec<_>>());
                self.supervisor.listening(worker, port).await;
                if ready {
                    self.supervisor.ready(worker).await;
                }
            }
            ServiceId::Opened(_) => info!(%worker, %service, "worker listens"),
        }
    }

    async fn pass_on(&mut self, notice: Notice, suspects: &mpsc::Sender<(LinkId, Holder)>) {
        match notice {
            Notice::Listening { worker, service, link, ready } => {
                self.bound.listened(worker, service, link);
                self.listens(worker, service, ready).await;
            }
            // A channel that is not looked at stalls.
            Notice::Slow { link, holder } => {
                self.stalls.iter_mut().for_each(|stalls| stalls.slow(holder));
                let _ = suspects.try_send((link, holder));
            }
            Notice::Stalled { worker } => {
                self.supervisor.tell(EventKind::WorkerStalled { worker: worker.slot.0 }).await;
                if let Some(group) = self.group_of(worker)
                    && let Some(stalls) = &mut self.stalls
                {
                    stalls.stalled(worker, group, &self.supervisor);
                }
            }
            Notice::Moving { worker } => {
                self.supervisor.tell(EventKind::WorkerMoves { worker: worker.slot.0 }).await;
            }
            Notice::Stuck { worker, time } => {
                self.supervisor.replace(worker, ReplaceReason::Stuck(time)).await
            }
            Notice::ReplaceReason { worker, connections } => {
                self.supervisor.replace(worker, ReplaceReason::Connections(connections)).await;
            }
        }
    }

    fn group_of(&self, worker: WorkerId) -> Option<Pid> {
        self.running().into_iter().find(|(id, _)| *id == worker).map(|(_, group)| group)
    }

    async fn pass_on_word(&self, word: Word) {
        match word {
            Word::Ready(worker) => self.supervisor.ready(worker).await,
            Word::Speaks(worker, on_channel) => self.supervisor.speaks(worker, on_channel).await,
            Word::Says(worker, message) => {
                let parsed =
                    (message.get().len() <= LONGEST_WORD).then(|| serde_json::from_str(message.get()));
                if let Some(Ok(message)) = parsed {
                    self.supervisor.tell(EventKind::WorkerSays { worker: worker.slot.0, message }).await;
                }
            }
        }
    }
}

/// Detaches the channels that nobody holds any more. Beside the notices, for the front takes no command while it has
/// notices that nobody fetches.
async fn detach_closed(mut suspects: mpsc::Receiver<(LinkId, Holder)>, front: Handle) {
    while let Some((link, holder)) = suspects.recv().await {
        if !process_table::may_be_held(holder).await {
            debug!(?link, "a worker has closed its listener");
            front.detach(link).await;
        }
    }
}
