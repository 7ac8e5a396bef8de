//! The clients: one thread that waits in epoll, and counts each request's time from when it was to begin.
//!
//! *Closed*: so many clients, each of which begins again when it has been answered. *Open*: requests begin by a fixed timetable,
//! whether others were answered or not; what finds all clients busy waits for one, and that time counts. It decides nothing
//! about what it has seen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use crate::answer::{Answer, Answered};
use crate::histogram::Histogram;

const ONCE: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
const AGAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
/// How long an answer may come after the last request began; then it is lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client of a closed loop rests after a failure, so that a port that refuses is not asked in a circle.
const REST: Duration = Duration::from_millis(10);
/// The longest wait without a look at the clock.
const GLANCE: Duration = Duration::from_millis(50);
/// Clients of an open loop: so many may be without an answer at a time.
pub(crate) const CROWD: usize = 4096;
/// The timer's place among the sockets.
const TIMER: u64 = u64::MAX;

/// When requests begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    Closed,
    /// So many a second.
    Open(f64),
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) pace: Pace,
    /// Connections at a time, at most.
    pub(crate) clients: usize,
    /// Each client has one connection for all its requests, instead of one for each.
    pub(crate) is_kept: bool,
    pub(crate) lasts: Duration,
}

/// What clients have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Within the time.
    pub(crate) in_time: u64,
    /// Refused, cut, or not answered in time.
    pub(crate) failed: u64,
    pub(crate) took: Histogram,
    /// How long after its time in the timetable each request began: this much of what it took is the clients' own.
    pub(crate) begun_late: Histogram,
    /// Answers of each worker, by its process.
    pub(crate) by_worker: BTreeMap<i32, u64>,
    /// From the first beginning until the time was over.
    pub(crate) lasted: Duration,
}

impl Seen {
    pub(crate) fn answered(&self) -> u64 {
        self.took.total()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.in_time as f64 / self.lasted.as_secs_f64()
    }

    pub(crate) fn milliseconds(&self, share: f64) -> f64 {
        self.took.quantile(share).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}

/// Runs the clients until the time is over and all were answered.
pub(crate) fn run(load: Load) -> anyhow::Result<Seen> {
    run_until(load, &AtomicBool::new(false))
}

/// Runs the clients until the time is over, or somebody has had enough.
pub(crate) fn run_until(load: Load, enough: &AtomicBool) -> anyhow::Result<Seen> {
    let mut clients = Clients::new(load)?;
    loop {
        let now = Instant::now();
        if enough.load(Ordering::Relaxed) {
            clients.over = clients.over.min(now);
        }
        clients.plan(now);
        clients.begin_what_is_due(now)?;
        if now >= clients.over && (clients.pending == 0 || now >= clients.over + PATIENCE) {
            break;
        }
        clients.wait(now)?;
    }
    let mut seen = clients.seen;
    seen.failed += clients.pending as u64;
    seen.lasted = clients.over - clients.start;
    Ok(seen)
}

struct Clients {
    load: Load,
    epoll: OwnedFd,
    timer: OwnedFd,
    clients: Vec<Client>,
    /// Each has its turn, so that all kept connections are used.
    idle: VecDeque<usize>,
    /// When requests are to begin that no client has begun.
    due: BinaryHeap<Reverse<Instant>>,
    /// Begun or due, and not answered.
    pending: usize,
    /// How many the timetable has had.
    planned: u64,
    start: Instant,
    over: Instant,
    ready: Vec<Event>,
    seen: Seen,
}

#[derive(Default)]
struct Client {
    socket: Option<OwnedFd>,
    /// When the request that is not answered was to begin.
    since: Option<Instant>,
    is_asked: bool,
    answer: Answer,
}

impl Clients {
    fn new(load: Load) -> anyhow::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        let start = Instant::now();
        let due: BinaryHeap<_> = match load.pace {
            Pace::Closed => std::iter::repeat_n(Reverse(start), load.clients).collect(),
            Pace::Open(_) => BinaryHeap::new(),
        };
        Ok(Self {
            epoll,
            timer,
            clients: (0..load.clients).map(|_| Client::default()).collect(),
            idle: (0..load.clients).collect(),
            pending: due.len(),
            due,
            planned: 0,
            start,
            over: start + load.lasts,
            ready: Vec::with_capacity(256),
            seen: Seen::default(),
            load,
        })
    }

    /// When the next request of the timetable begins.
    fn next(&self) -> Option<Instant> {
        let Pace::Open(rate) = self.load.pace else { return None };
        let next = self.start + Duration::from_secs_f64(self.planned as f64 / rate);
        (next < self.over).then_some(next)
    }

    fn plan(&mut self, now: Instant) {
        while let Some(next) = self.next().filter(|next| *next <= now) {
            self.due.push(Reverse(next));
            self.planned += 1;
            self.pending += 1;
        }
    }

    fn begin_what_is_due(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(&Reverse(since)) = self.due.peek() {
            if since > now {
                break;
            }
            if now >= self.over && matches!(self.load.pace, Pace::Closed) {
                self.pending -= self.due.len();
                self.due.clear();
                break;
            }
            let Some(index) = self.idle.pop_front() else { break };
            self.due.pop();
            if matches!(self.load.pace, Pace::Open(_)) {
                self.seen.begun_late.add(since.elapsed());
            }
            self.begin(index, since)?;
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, since: Instant) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        client.since = Some(since);
        client.is_asked = false;
        client.answer.clear();
        if client.socket.is_none() {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            match rustix::net::connect(&socket, &self.load.address) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(Errno::CONNREFUSED | Errno::CONNRESET) => return self.failed(index),
                Err(error) => return Err(error).context("cannot connect"),
            }
            epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)?;
            client.socket = Some(socket);
        }
        self.ask(index)
    }

    /// Sends the request, or has epoll say when the connection is there.
    fn ask(&mut self, index: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        let Some(socket) = &client.socket else { return Ok(()) };
        let request = if self.load.is_kept { AGAIN } else { ONCE };
        let data = EventData::new_u64(index as u64);
        match rustix::net::send(socket, request, SendFlags::NOSIGNAL) {
            Ok(_) => client.is_asked = true,
            Err(Errno::AGAIN) => {
                epoll::modify(&self.epoll, socket, data, EventFlags::IN | EventFlags::OUT)?;
            }
            Err(_) => return self.failed(index),
        }
        Ok(())
    }

    /// Waits until a client has something to hear, or a request is to begin.
    fn wait(&mut self, now: Instant) -> anyhow::Result<()> {
        let due = self.due.peek().map(|due| due.0).filter(|due| *due > now);
        let over = Some(self.over).filter(|over| *over > now);
        let next = self.next().into_iter().chain(due).chain(over).min();
        let wait = next.map_or(GLANCE, |next| next - now).min(GLANCE).max(Duration::from_nanos(1));
        let spec = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(wait) };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        for event in std::mem::take(&mut self.ready) {
            match event.data.u64() {
                // Setting it again clears it.
                TIMER => {}
                index => self.hear(index as usize)?,
            }
        }
        self.ready.reserve(256);
        Ok(())
    }

    fn hear(&mut self, index: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        let Some(socket) = &client.socket else { return Ok(()) };
        let mut part = [0; 4096];
        let read = match rustix::io::read(socket, &mut part) {
            Err(Errno::AGAIN) if !client.is_asked && client.since.is_some() => {
                epoll::modify(&self.epoll, socket, EventData::new_u64(index as u64), EventFlags::IN)?;
                return self.ask(index);
            }
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => 0,
            Ok(read) => read,
        };
        match (read, client.since) {
            (0, Some(_)) => self.failed(index),
            // A kept connection that the server closes meanwhile is only opened again.
            (0, None) => {
                self.clients[index].socket = None;
                if !self.load.is_kept {
                    self.rest(index, Instant::now());
                }
                Ok(())
            }
            (read, Some(since)) => match client.answer.add(&part[..read]) {
                Answered::NotYet => Ok(()),
                Answered::Badly => self.failed(index),
                Answered::By { worker, closes } => {
                    self.answered(index, since, worker, closes);
                    Ok(())
                }
            },
            (_, None) => Ok(()),
        }
    }

    /// A client without a kept connection is free once the server has closed, so that its port can be used again.
    fn answered(&mut self, index: usize, since: Instant, worker: i32, closes: bool) {
        let now = Instant::now();
        self.seen.took.add(now.saturating_duration_since(since));
        *self.seen.by_worker.entry(worker).or_default() += 1;
        self.seen.in_time += u64::from(now < self.over);
        self.pending -= 1;
        let client = &mut self.clients[index];
        client.since = None;
        if self.load.is_kept {
            if closes {
                client.socket = None;
            }
            self.rest(index, now);
        }
    }

    fn failed(&mut self, index: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        client.socket = None;
        client.since = None;
        self.seen.failed += 1;
        self.pending -= 1;
        self.rest(index, Instant::now() + REST);
        Ok(())
    }

    /// A client is free; in a closed loop, it is to begin again at this time.
    fn rest(&mut self, index: usize, again: Instant) {
        self.idle.push_back(index);
        if matches!(self.load.pace, Pace::Closed) && again < self.over {
            self.due.push(Reverse(again));
            self.pending += 1;
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
