//! The clients: so many connections, so many of them at a time, each of which must be answered.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// The longest that no client may get an answer.
const STALL: Duration = Duration::from_secs(20);

/// What a client says, if anything, and how the answer begins.
#[derive(Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) request: &'static [u8],
    pub(crate) answer: &'static [u8],
}

/// Makes `total` connections, `at_once` at a time, and returns when all were answered and closed. `opened` is called
/// when the first ones are open.
pub(crate) fn run(
    address: SocketAddr,
    exchange: Exchange,
    total: usize,
    at_once: usize,
    opened: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut clients = Clients::new(address, exchange)?;
    for _ in 0..at_once.min(total) {
        clients.open(None)?;
    }
    opened()?;
    let mut to_open = total - at_once.min(total);
    let mut to_close = total;
    let mut last_answer = Instant::now();
    let mut events = Vec::with_capacity(64);
    while to_close > 0 {
        clients.wait(&mut events)?;
        for index in events.drain(..) {
            if !clients.is_answered(index)? {
                continue;
            }
            last_answer = Instant::now();
            to_close -= 1;
            if to_open > 0 {
                to_open -= 1;
                clients.open(Some(index))?;
            }
        }
        anyhow::ensure!(last_answer.elapsed() < STALL, "{to_close} were not answered within {STALL:?}");
    }
    Ok(())
}

struct Clients {
    address: SocketAddr,
    exchange: Exchange,
    epoll: OwnedFd,
    open: Vec<Client>,
    ready: Vec<Event>,
}

struct Client {
    /// `None` once it is closed.
    socket: Option<OwnedFd>,
    is_asked: bool,
    is_answered: bool,
}

impl Clients {
    fn new(address: SocketAddr, exchange: Exchange) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            exchange,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            open: Vec::new(),
            ready: Vec::with_capacity(64),
        })
    }

    /// Connects in the place of a closed client, or in a new one.
    fn open(&mut self, place: Option<usize>) -> anyhow::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("cannot connect"),
        }
        let index = place.unwrap_or(self.open.len());
        let data = EventData::new_u64(index as u64);
        let is_asked = self.is_asked(&socket)?;
        let events = if is_asked { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        epoll::add(&self.epoll, &socket, data, events)?;
        let client = Client { socket: Some(socket), is_asked, is_answered: false };
        match place {
            Some(place) => self.open[place] = client,
            None => self.open.push(client),
        }
        Ok(())
    }

    /// Waits, for a second at most, and puts those that have something to read into `events`.
    fn wait(&mut self, events: &mut Vec<usize>) -> anyhow::Result<()> {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let ready = rustix::buffer::spare_capacity(&mut self.ready);
        match epoll::wait(&self.epoll, ready, Some(&second)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        events.extend(self.ready.drain(..).map(|event| event.data.u64() as usize));
        Ok(())
    }

    /// Sends the request, unless the connection is not there yet.
    fn is_asked(&self, socket: &OwnedFd) -> anyhow::Result<bool> {
        if self.exchange.request.is_empty() {
            return Ok(true);
        }
        match rustix::net::send(socket, self.exchange.request, SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent == self.exchange.request.len()),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error).context("cannot send a request"),
        }
    }

    /// Sends what could not be sent before, and reads what has come; at the end of a good answer, closes the client.
    fn is_answered(&mut self, index: usize) -> anyhow::Result<bool> {
        let Some(socket) = &self.open[index].socket else {
            return Ok(false);
        };
        if !self.open[index].is_asked {
            if self.is_asked(socket)? {
                epoll::modify(&self.epoll, socket, EventData::new_u64(index as u64), EventFlags::IN)?;
                self.open[index].is_asked = true;
            }
            return Ok(false);
        }
        let (mut part, mut is_answered) = ([0; 512], self.open[index].is_answered);
        loop {
            match rustix::io::read(socket, &mut part) {
                Ok(0) => break,
                Ok(read) => is_answered |= part[..read].starts_with(self.exchange.answer),
                Err(Errno::AGAIN) => {
                    self.open[index].is_answered = is_answered;
                    return Ok(false);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot read an answer"),
            }
        }
        anyhow::ensure!(is_answered, "a connection was closed without an answer");
        self.open[index].socket = None;
        Ok(true)
    }
}
