//! The clients of a campaign: most ask and wait, and some do what clients do at their worst.
//!
//! Each writes down what became of its requests, and judges nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use socket2::{Domain, SockRef, Socket, Type};

use super::ledger::{Outcome, Request};
use crate::harness::http;
use crate::harness::wait::PATIENCE;

/// How a client behaves with one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    /// It asks, and reads the answer.
    Plain,
    /// It asks, closes its sending side, and reads the answer.
    HalfClosed,
    /// It asks a few bytes at a time, and reads the answer a few bytes at a time.
    Slow,
    /// It asks, and resets the connection at once.
    Resets,
    /// It resets the connection before it has said anything.
    ResetsUnasked,
    /// It says nothing for a while, and leaves.
    Silent,
}

impl Behaviour {
    fn any(random: &mut Rng) -> Self {
        match random.u8(..100) {
            0..70 => Self::Plain,
            70..80 => Self::HalfClosed,
            80..88 => Self::Slow,
            88..94 => Self::Resets,
            94..98 => Self::ResetsUnasked,
            _ => Self::Silent,
        }
    }
}

/// What all clients share.
pub(super) struct Clients {
    pub(super) address: SocketAddr,
    /// Whether they behave.
    pub(super) are_plain: bool,
    /// How long each rests between two requests: the machine has other things to do.
    pub(super) rest: Duration,
    pub(super) over: AtomicBool,
    pub(super) answered: AtomicU64,
}

impl Clients {
    pub(super) fn of(address: SocketAddr, are_plain: bool, rest: Duration) -> Self {
        Self { address, are_plain, rest, over: AtomicBool::new(false), answered: AtomicU64::new(0) }
    }

    /// One client, until it is over; what became of its requests.
    pub(super) fn run(&self, name: &str, mut random: Rng) -> Vec<Request> {
        let mut requests = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let behaviour = if self.are_plain { Behaviour::Plain } else { Behaviour::any(&mut random) };
            let id = format!("{name}-{}", requests.len());
            requests.push(self.ask(id, behaviour, &mut random));
            thread::sleep(self.rest);
        }
        requests
    }

    fn ask(&self, id: String, behaviour: Behaviour, random: &mut Rng) -> Request {
        let begin = Instant::now();
        let mut client = None;
        let outcome = connect(self.address, random).and_then(|stream| {
            client = Some(stream.local_addr()?);
            // No socket stays behind in TIME_WAIT: they would be as many as the connections.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            exchange(stream, &id, behaviour, random)
        });
        let outcome = outcome.unwrap_or_else(|error| Outcome::Lost(format!("{behaviour:?}: {error}")));
        if matches!(outcome, Outcome::Answered(_)) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        Request { id, client, begin, end: Instant::now(), outcome }
    }
}

/// Connects from one of several addresses, for which a policy may choose other workers.
fn connect(address: SocketAddr, random: &mut Rng) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, random.u8(1..20)], 0)).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

fn exchange(mut stream: TcpStream, id: &str, behaviour: Behaviour, random: &mut Rng) -> io::Result<Outcome> {
    let request = format!("GET /{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    match behaviour {
        Behaviour::Plain => stream.write_all(request.as_bytes())?,
        Behaviour::HalfClosed => {
            stream.write_all(request.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
        }
        Behaviour::Slow => {
            for part in request.as_bytes().chunks(8) {
                stream.write_all(part)?;
                thread::sleep(Duration::from_millis(random.u64(1..20)));
            }
        }
        Behaviour::Resets => {
            stream.write_all(request.as_bytes())?;
            return Ok(Outcome::Left);
        }
        Behaviour::ResetsUnasked => return Ok(Outcome::Left),
        Behaviour::Silent => {
            thread::sleep(Duration::from_millis(random.u64(50..800)));
            return Ok(Outcome::Left);
        }
    }
    let answer = match behaviour {
        Behaviour::Slow => read_slowly(stream)?,
        _ => http::Pending::of(stream).response()?.text(),
    };
    answer.parse().map(Outcome::Answered).map_err(|_| io::Error::other(format!("it was answered {answer:?}")))
}

/// The body of an answer, read to its end.
fn read_slowly(mut stream: TcpStream) -> io::Result<String> {
    let (mut received, mut part) = (Vec::new(), [0; 16]);
    loop {
        match stream.read(&mut part)? {
            0 => break,
            read => received.extend_from_slice(&part[..read]),
        }
        thread::sleep(Duration::from_millis(2));
    }
    let text = String::from_utf8_lossy(&received).into_owned();
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{text:?} is no answer"))),
    }
}
