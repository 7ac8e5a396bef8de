//! Descriptors that a server had used before it bound its socket: those that epoll instances watch, duplicates, and
//! what it had said of signals.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::{Attached, CLIENT, Natively, Primary, say};
use crate::protocol::wire::ToWorker;

/// The ways to wait for a connection, each with an epoll instance of its own.
const WAYS: [(&str, EventFlags); 6] = [
    ("level", EventFlags::IN),
    ("edge", EventFlags::IN.union(EventFlags::ET).union(EventFlags::PRI)),
    ("oneshot", EventFlags::IN.union(EventFlags::ONESHOT)),
    ("fired", EventFlags::IN.union(EventFlags::ONESHOT)),
    ("exclusive", EventFlags::IN.union(EventFlags::EXCLUSIVE)),
    ("writable", EventFlags::IN.union(EventFlags::OUT)),
];

/// So many other descriptors the first instance watches: their lines do not fit one read.
const OTHERS: u64 = 200;

fn watch(epoll: &OwnedFd, fd: impl AsFd, data: u64, events: EventFlags) {
    epoll::add(epoll, fd, EventData::new_u64(data), events).unwrap();
}

/// What an instance reports within this time: the events, and whose.
fn reported(epoll: &OwnedFd, milliseconds: i64) -> Option<(EventFlags, u64)> {
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 1];
    let time = Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    let count = epoll::wait(epoll, &mut events, Some(&time)).unwrap();
    let Event { flags, data } = events[0];
    (count > 0).then(|| (flags, data.u64()))
}

/// The server: it registers its socket everywhere, binds it, and says what it is told.
pub(super) fn serve(port: u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let duplicate = socket.try_clone().unwrap();
    let instances = WAYS.map(|(_, events)| {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        watch(&epoll, &socket, 0xfeed_0000_0001, events);
        epoll
    });
    let pipes: Vec<_> = (0..OTHERS).map(|_| rustix::pipe::pipe().unwrap()).collect();
    for (at, (end, _)) in pipes.iter().enumerate() {
        watch(&instances[0], end, at as u64, EventFlags::IN);
    }
    watch(&instances[0], &duplicate, 0xfeed_0000_0002, EventFlags::IN);
    let (_, fired) = WAYS.iter().zip(&instances).find(|((way, _), _)| *way == "fired").unwrap();
    println!("@before {}", reported(fired, 0).is_some());
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket.listen(16).unwrap();
    println!("@duplicate {:?}", duplicate.local_addr().unwrap().as_socket().unwrap().port() == port);
    for ((way, _), epoll) in WAYS.iter().zip(&instances) {
        println!("@{way} without a connection {:?}", reported(epoll, 0));
    }
    // Somebody connects now.
    println!("@level with one {:?}", reported(&instances[0], 20_000).map(|(events, _)| events));
    for ((way, _), epoll) in WAYS.iter().zip(&instances).skip(1) {
        println!("@{way} with one {:?}", reported(epoll, 0));
    }
    let listener = TcpListener::from(OwnedFd::from(duplicate));
    drop(listener.accept().unwrap());
    for ((way, _), epoll) in WAYS.iter().zip(&instances) {
        println!("@{way} after it {:?}", reported(epoll, 0));
    }
}

/// Its lines until somebody is to connect, and after that.
const LINES_BEFORE: usize = 2 + WAYS.len();
const LINES_AFTER: usize = 2 * WAYS.len();

#[test]
fn a_socket_that_was_registered_before_bind_reports_as_it_does_natively() {
    let mut natively = Natively::start("registered");
    let mut expected: Vec<_> = (0..LINES_BEFORE).map(|_| natively.line()).collect();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, natively.port)).unwrap();
    expected.extend((0..LINES_AFTER).map(|_| natively.line()));
    drop(client);

    let mut primary = Primary::start("registered");
    let Attached { channel, worker_end: _worker_end, socket: _socket, .. } = primary.welcomed();
    primary.hears_listening(&channel);
    let mut found: Vec<_> = (0..LINES_BEFORE).map(|_| primary.line()).collect();
    let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (accepted, _) = front.accept().unwrap();
    say(&channel, &ToWorker::Connection { peer: CLIENT, linger: None }, Some(accepted.as_fd()));
    found.extend((0..LINES_AFTER).map(|_| primary.line()));
    assert_eq!(found, expected);
}
