//! The clients: so many connections, so many of them at a time, each of which must be answered.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// The longest that no client may get an answer.
const STALL: Duration = Duration::from_secs(20);

/// Makes `total` connections, `at_once` at a time, and returns when all were answered and closed. `opened` is called
/// when the first ones are open.
pub(crate) fn run(
    address: SocketAddr,
    total: usize,
    at_once: usize,
    opened: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut clients = Clients::new(address)?;
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
    epoll: OwnedFd,
    open: Vec<Client>,
    ready: Vec<Event>,
}

struct Client {
    /// `None` once it is closed.
    socket: Option<OwnedFd>,
    answer: usize,
}

impl Clients {
    fn new(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            address,
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
        epoll::add(&self.epoll, &socket, data, EventFlags::IN)?;
        let client = Client { socket: Some(socket), answer: 0 };
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

    /// Reads what has come; at the end of a good answer, closes the client.
    fn is_answered(&mut self, index: usize) -> anyhow::Result<bool> {
        let client = &mut self.open[index];
        let Some(socket) = &client.socket else {
            return Ok(false);
        };
        loop {
            match rustix::io::read(socket, &mut [0; 64]) {
                Ok(0) => break,
                Ok(read) => client.answer += read,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot read an answer"),
            }
        }
        anyhow::ensure!(client.answer == 1, "an answer of {} bytes instead of 1", client.answer);
        client.socket = None;
        Ok(true)
    }
}
