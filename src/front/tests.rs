//! The front with real sockets: clients over loopback, and workers that are played by the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::arrival::Arrival;
use super::bound::{Bound, ListeningSocket};
use super::handle::{self, Handle, Notice, Reports};
use super::launches::RecycleLimits;
use super::private::Undelivered;
use super::setup::PublicSockets;
use super::snapshot::Restored;
use super::{Accepts, Front, ServiceLimits, Setup};
use crate::connections::notes::Notes;
use crate::front::connection::Connection;
use crate::front::links::{Attachment, ChannelPermits, Holder, Timeouts};
use crate::ids::{LinkId, ServiceId, Slot, WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::policy::Choice;
use crate::protocol::wire::{Binding, Endpoint, FromWorker, MAX_MESSAGE, SocketOption, ToWorker};
use crate::settings::Bind;
use crate::sys::mark::Family;
use crate::sys::scarcity::{self, run_alone};
use crate::sys::seqpacket;
use tokio::sync::oneshot;

mod ahead;
mod choosing;
mod families;
mod late;
mod options;
mod private;
mod reclaim;
mod sharing;
mod standing;
mod upgrade;

const PORT: WorkerPort = WorkerPort(3000);
const DEADLINE: Duration = Duration::from_secs(20);
const PLACES: usize = 512;

/// A front on a thread of its own.
struct Stage {
    handle: Option<Handle>,
    reports: Reports,
    address: SocketAddr,
    metrics: Metrics,
    notes: Notes,
    thread: Option<JoinHandle<()>>,
    /// Ends the front at once, as execve(2) would.
    end: Option<oneshot::Sender<()>>,
    limits: Limits,
    runtime: tokio::runtime::Runtime,
    places: ChannelPermits,
    wants_drain: bool,
    relayed: bool,
}

#[derive(Clone, Copy)]
struct Limits {
    choice: Choice,
    concurrency: Option<usize>,
    queue: usize,
    queue_timeout: Duration,
    window: usize,
    slow: Duration,
    late: Duration,
    handoff_timeout: Duration,
    wait_ready: bool,
    recycle: RecycleLimits,
}

const PATIENT: Limits = Limits {
    choice: Choice::RoundRobin,
    concurrency: None,
    queue: 64,
    queue_timeout: DEADLINE,
    window: 1,
    slow: super::SLOW,
    late: DEADLINE,
    handoff_timeout: DEADLINE,
    wait_ready: false,
    recycle: RecycleLimits { max_connections: None, stuck_timeout: None },
};

fn setup(
    limits: Limits,
    accepts: Accepts,
    services: PublicSockets,
    restored: Option<Restored>,
    (metrics, notes): (Metrics, Notes),
) -> Setup {
    Setup {
        services,
        accepts,
        limits: ServiceLimits {
            choice: limits.choice,
            concurrency: limits.concurrency.and_then(NonZeroUsize::new),
            queue: NonZeroUsize::new(limits.queue).unwrap(),
            queue_timeout: limits.queue_timeout,
            window: NonZeroUsize::new(limits.window).unwrap(),
            timeouts: Timeouts { slow: limits.slow, late: limits.late, timeout: limits.handoff_timeout },
        },
        holds: limits.wait_ready,
        recycle: limits.recycle,
        metrics,
        notes,
        restored,
    }
}

impl Stage {
    fn new(limits: Limits) -> Self {
        Self::with(limits, Accepts::Primary)
    }

    fn with(limits: Limits, accepts: Accepts) -> Self {
        Self::at(limits, accepts, listening())
    }

    /// A front that serves this public address.
    fn at(limits: Limits, accepts: Accepts, bound: Bound) -> Self {
        let address = bound.address();
        let services = vec![(ServiceId::Port(PORT), vec![bound])];
        Self::begin(limits, accepts, (address, services), None)
    }

    fn begin(
        limits: Limits,
        accepts: Accepts,
        (address, services): (SocketAddr, PublicSockets),
        restored: Option<Restored>,
    ) -> Self {
        let (handle, reports, ends) = handle::channels(&[PORT]);
        let metrics = Metrics::new();
        let notes = Notes::new().unwrap();
        let setup = setup(limits, accepts, services, restored, (metrics.clone(), notes.clone()));
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let front = Front::new(setup, ends).unwrap().run();
                tokio::select! {
                    () = front => {}
                    Ok(()) = ended => {}
                }
            });
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            handle: Some(handle),
            reports,
            address,
            metrics,
            notes,
            thread: Some(thread),
            end: Some(end),
            limits,
            runtime,
            places: ChannelPermits::new(PLACES),
            wants_drain: !limits.wait_ready,
            relayed: false,
        }
    }

    fn handle(&self) -> Handle {
        self.handle.clone().unwrap()
    }

    /// A worker that has attached and does not listen yet.
    fn bound_worker(&mut self, slot: u32) -> Worker {
        self.worker_bound_to(slot, Binding::new(SocketAddr::from(([0, 0, 0, 0], 3000)).into()))
    }

    fn worker_bound_to(&mut self, slot: u32, binding: Binding) -> Worker {
        self.worker_with(slot, binding, Vec::new())
    }

    fn worker_with(&mut self, slot: u32, binding: Binding, options: Vec<SocketOption>) -> Worker {
        let id = WorkerId { slot: Slot(slot), launch: u64::from(slot) };
        self.launch_with(id, binding, options)
    }

    fn launch_with(&mut self, id: WorkerId, binding: Binding, options: Vec<SocketOption>) -> Worker {
        let (channel, own_end) = seqpacket::pair().unwrap();
        let place = self.places.take().unwrap();
        let link = place.link();
        let attachment = Attachment {
            worker: id,
            service: ServiceId::Port(PORT),
            binding,
            options,
            registration: None,
            channel: channel.into(),
            worker_end: own_end.try_clone().unwrap().into(),
            holder: Holder { inode: 0, pid: 0 },
            wants_drain: self.wants_drain,
            relayed: self.relayed,
            permit: place,
        };
        self.runtime.block_on(self.handle().attach(attachment));
        Worker { id, link, channel: own_end }
    }

    /// A worker that listens, once the front knows it.
    fn worker(&mut self, slot: u32) -> Worker {
        let worker = self.bound_worker(slot);
        worker.say(FromWorker::Listening);
        assert_eq!(self.notice_beside_slow(), self.listens(&worker));
        worker
    }

    /// What is told of a worker that listens.
    fn listens(&self, worker: &Worker) -> Notice {
        let (service, link) = (ServiceId::Port(PORT), worker.link);
        Notice::Listening { worker: worker.id, service, link, ready: self.wants_drain }
    }

    fn notice(&mut self) -> Notice {
        let next = async { tokio::time::timeout(DEADLINE, self.reports.notices.recv()).await };
        self.runtime.block_on(next).expect("a notice in time").unwrap()
    }

    /// The next notice that is not about a slow hand-off, which a loaded machine may bring about at any time.
    fn notice_beside_slow(&mut self) -> Notice {
        loop {
            match self.notice() {
                Notice::Slow { .. } => {}
                notice => return notice,
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    }

    fn forget(&self, worker: &Worker) -> u64 {
        self.runtime.block_on(self.handle().forget(worker.id))
    }

    /// Waits until the front has heard of all that was done, and has done all that followed.
    fn at_rest(&self) {
        self.runtime.block_on(self.handle().ping());
    }

    /// Takes every descriptor that this process may still have, until it is dropped. The front is at rest first: a worker can
    /// see its connection before the front has closed its own copy, which would leave room for one.
    fn no_descriptor_left(&self) -> Vec<OwnedFd> {
        self.at_rest();
        scarcity::no_descriptor_left()
    }

    /// Gives a worker a connection of clusterd's own.
    fn deliver(&self, worker: &Worker) -> Delivered {
        self.deliver_within(worker, DEADLINE)
    }

    fn deliver_within(&self, worker: &Worker, time: Duration) -> Delivered {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let (server, peer) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let now = Instant::now();
        let (socket, peer, arrival) = (OwnedFd::from(server).into(), Endpoint::from(peer), Arrival::V4);
        let connection = Connection { socket, peer, arrival, accepted: now };
        let (handle, worker) = (self.handle(), worker.id);
        let (tell, told) = std::sync::mpsc::channel();
        let delivering = self.runtime.spawn(async move {
            let delivered = handle.deliver(worker, ServiceId::Port(PORT), connection, now + time).await;
            // A test that has given it up hears nothing.
            let _ = tell.send(delivered);
        });
        // The front has been told of it when this is answered.
        let elsewhere = WorkerId { slot: Slot(9), launch: 9 };
        self.runtime.block_on(async {
            tokio::task::yield_now().await;
            self.handle().forget(elsewhere).await;
        });
        Delivered { client, told, delivering: delivering.abort_handle() }
    }

    fn retire(&self, worker: &Worker) {
        let retired = async { tokio::time::timeout(DEADLINE, self.handle().retire(worker.id)).await };
        self.runtime.block_on(retired).expect("retired in time");
    }

    fn rejected(&self, reason: &str) -> u64 {
        self.metrics.rejected.with_label_values(&[reason]).get()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.handle = None;
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// A connection of clusterd's own on its way to a worker; given up if dropped.
struct Delivered {
    client: TcpStream,
    told: std::sync::mpsc::Receiver<Result<(), Undelivered>>,
    delivering: tokio::task::AbortHandle,
}

impl Delivered {
    fn result(&self, stage: &Stage) -> Result<(), Undelivered> {
        until(|| {
            stage.runtime.block_on(tokio::task::yield_now());
            self.told.try_recv().ok()
        })
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        self.delivering.abort();
    }
}

/// The other end of a channel.
struct Worker {
    id: WorkerId,
    link: LinkId,
    channel: OwnedFd,
}

impl Worker {
    fn say(&self, message: FromWorker) {
        seqpacket::send(&self.channel, message.encode(&mut [0; MAX_MESSAGE]), None).unwrap();
    }

    fn hear(&self) -> Option<(ToWorker, Option<OwnedFd>)> {
        let mut buffer = [0; MAX_MESSAGE];
        match seqpacket::receive(&self.channel, &mut buffer) {
            Ok(record) => Some((ToWorker::decode(&buffer[..record.len]).unwrap(), record.fd)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("the channel failed: {error}"),
        }
    }

    /// Declines the next connection, and leaves it in the channel.
    fn decline(&self) {
        let mut buffer = [0; MAX_MESSAGE];
        let seen = until(|| seqpacket::peek(&self.channel, &mut buffer).ok());
        let message = ToWorker::decode(&buffer[..seen.len]);
        let Ok(ToWorker::Connection { peer, .. }) = message else { panic!("{message:?}") };
        let (decline, fd) = (FromWorker::Decline { peer, pause: false }, seen.fd.unwrap());
        seqpacket::send(&self.channel, decline.encode(&mut buffer), Some(fd.as_fd())).unwrap();
    }

    fn accept_now(&self) -> Option<TcpStream> {
        let (message, fd) = self.hear()?;
        assert!(matches!(message, ToWorker::Connection { .. }), "{message:?}");
        let stream = TcpStream::from(fd.expect("a descriptor"));
        stream.set_nonblocking(false).unwrap();
        Some(stream)
    }

    fn accept(&self) -> TcpStream {
        until(|| self.accept_now())
    }

    /// Accepts a connection and answers with the worker's slot.
    fn serve(&self) {
        self.accept().write_all(self.id.slot.to_string().as_bytes()).unwrap();
    }
}

fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "nothing happened in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A public socket that listens whether workers do or not.
fn listening() -> Bound {
    let bind = Bind::Address("127.0.0.1:0".parse().unwrap());
    Bound::Socket(ListeningSocket::new(bind, 64).unwrap())
}

/// The CPU time that this process has used.
fn cpu_milliseconds() -> u64 {
    let stat = procfs::process::Process::myself().unwrap().stat().unwrap();
    (stat.utime + stat.stime) * 1000 / procfs::ticks_per_second()
}

fn answer(mut client: impl Read) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn idle_workers_are_served_in_turn() {
    let mut stage = Stage::new(PATIENT);
    let workers = [stage.worker(1), stage.worker(2), stage.worker(3)];
    let mut answers = String::new();
    for turn in 0..9 {
        let client = stage.connect();
        let server = until(|| workers.iter().find_map(|worker| Some((worker, worker.accept_now()?))));
        let (worker, mut stream) = server;
        stream.write_all(worker.id.slot.to_string().as_bytes()).unwrap();
        drop(stream);
        answers.push_str(&answer(client));
        // The worker is idle again once it is counted.
        until(|| {
            let handed: u64 =
                (1..=3).map(|slot| stage.metrics.handed.with_label_values(&[&slot.to_string()]).get()).sum();
            (handed == turn + 1).then_some(())
        });
    }
    assert_eq!(answers, "123123123");
}

#[test]
fn a_worker_gets_nothing_before_it_listens() {
    let mut stage = Stage::new(PATIENT);
    let early = stage.bound_worker(1);
    let client = stage.connect();
    stage.worker(2).serve();
    assert_eq!(answer(client), "2");
    assert!(early.hear().is_none());
}

#[test]
fn a_worker_that_is_waited_for_gets_nothing_before_it_is_ready() {
    let mut stage = Stage::new(Limits { wait_ready: true, ..PATIENT });
    let [slow, quick] = [stage.worker(1), stage.bound_worker(2)];
    let client = stage.connect();
    stage.runtime.block_on(stage.handle().release(quick.id));
    assert_eq!(stage.reports.status.borrow()[0].listening, 0);
    quick.say(FromWorker::Listening);
    assert_eq!(stage.notice(), stage.listens(&quick));
    quick.serve();
    assert_eq!(answer(client), "2");
    assert!(slow.hear().is_none());
    assert_eq!(stage.reports.status.borrow()[0].listening, 1);
    stage.forget(&quick);
    let client = stage.connect();
    stage.runtime.block_on(stage.handle().release(slow.id));
    slow.serve();
    assert_eq!(answer(client), "1");
    assert_eq!(stage.reports.status.borrow()[0].listening, 1);
}

#[test]
fn a_worker_that_has_taken_its_share_is_worn() {
    let recycle = RecycleLimits { max_connections: NonZeroU64::new(3), stuck_timeout: None };
    let mut stage = Stage::new(Limits { recycle, ..PATIENT });
    let worker = stage.worker(1);
    for _ in 0..3 {
        let client = stage.connect();
        worker.serve();
        assert_eq!(answer(client), "1");
    }
    assert_eq!(stage.notice_beside_slow(), Notice::ReplaceReason { worker: worker.id, connections: 3 });
}

#[test]
fn without_a_worker_connections_wait_and_beyond_the_queue_the_kernel_holds_them() {
    let mut stage = Stage::new(Limits { queue: 2, ..PATIENT });
    let clients: Vec<_> = (0..6).map(|_| stage.connect()).collect();
    until(|| (stage.metrics.queue.get() == 2).then_some(()));
    assert_eq!(stage.metrics.accepted.get(), 2);
    let worker = stage.worker(1);
    for client in clients {
        worker.serve();
        assert_eq!(answer(client), "1");
    }
    assert_eq!(stage.metrics.accepted.get(), 6);
}

#[test]
fn a_connection_that_waits_too_long_is_closed_and_counted() {
    let stage = Stage::new(Limits { queue_timeout: Duration::from_millis(50), ..PATIENT });
    let mut client = stage.connect();
    assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
    until(|| (stage.rejected("queue_timeout") == 1).then_some(()));
}

/// Whether a record lies in the worker's end, without taking it.
fn seqpacket_has_record(worker: &Worker) -> impl Fn() -> bool + use<> {
    let channel = worker.channel.try_clone().unwrap();
    move || {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&channel, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }
}

#[test]
fn an_option_of_a_workers_listener_holds_for_every_connection() {
    let mut stage = Stage::new(PATIENT);
    let early = stage.connect();
    let worker = stage.bound_worker(1);
    let nodelay = SocketOption::new(libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32.to_ne_bytes()).unwrap();
    worker.say(FromWorker::SetOption(nodelay));
    worker.say(FromWorker::Listening);
    stage.notice();
    assert!(worker.accept().nodelay().unwrap(), "accepted before the option was known");
    let late = stage.connect();
    assert!(worker.accept().nodelay().unwrap(), "accepted after the option was known");
    drop((early, late));
}

#[test]
fn a_stop_serves_whoever_is_connected_and_then_tells_the_workers() {
    let mut stage = Stage::new(Limits { queue: 1, ..PATIENT });
    let clients: Vec<_> = (0..4).map(|_| stage.connect()).collect();
    let handle = stage.handle();
    let stopped = stage.runtime.spawn(async move { handle.stop().await });
    let worker = stage.worker(1);
    for client in clients {
        worker.serve();
        assert_eq!(answer(client), "1");
    }
    stage.runtime.block_on(async { tokio::time::timeout(DEADLINE, stopped).await }).unwrap().unwrap();
    stage.retire(&worker);
    assert_eq!(until(|| worker.hear()).0, ToWorker::Drain);
    let late = TcpStream::connect(stage.address).unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(stage.rejected("shutdown"), 0);
}

#[test]
fn what_is_opened_once_the_stop_has_begun_accepts_nothing() {
    let stage = Stage::new(PATIENT);
    stage.runtime.block_on(stage.handle().stop());
    let bound = listening();
    let address = bound.address();
    stage.runtime.block_on(stage.handle().open(ServiceId::Opened(0), bound));
    let late = until(|| TcpStream::connect(address).err());
    assert_eq!(late.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_nobody_served_is_counted_at_the_end() {
    let stage = Stage::new(PATIENT);
    let metrics = stage.metrics.clone();
    let _client = stage.connect();
    until(|| (stage.metrics.queue.get() == 1).then_some(()));
    drop(stage);
    assert_eq!(metrics.rejected.with_label_values(&["shutdown"]).get(), 1);
}
