//! Servers that ask by connect(2) whether their port is free, and primaries that have closed a channel.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Socket, Type};

use super::{Attached, CLIENT, PATIENCE, Primary, TOKEN, hear, say, served};
use crate::protocol::wire::{FromWorker, Refusal, ToWorker};

/// The server: it asks at each address, blocking and not, then listens, and connects to itself.
pub(super) fn serve(port: u16) {
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for ip in
        [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into(), mapped.into()]
    {
        let to = SocketAddr::new(ip, port);
        println!("@{ip} {:?}", TcpStream::connect(to).map_err(|error| error.kind()).map(drop));
    }
    println!("@later {:?}", later(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap());
    println!("@listening {:?}", connected.map_err(|error| error.kind()).map(drop));
    loop {
        match listener.accept() {
            Ok((connection, _)) => std::io::Write::write_all(&mut &connection, b"hello").unwrap(),
            Err(error) => println!("@accept {error}"),
        }
    }
}

/// How a connect(2) that does not wait begins, and ends.
fn later(to: SocketAddr) -> (Option<ErrorKind>, Option<ErrorKind>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let begin = socket.connect(&to.into()).err();
    let begin =
        begin.filter(|error| error.raw_os_error() != Some(libc::EINPROGRESS)).map(|error| error.kind());
    poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&PATIENCE)).unwrap();
    (begin, socket.take_error().unwrap().map(|error| error.kind()))
}

const REFUSED: &str = "Err(ConnectionRefused)";

#[test]
fn a_server_that_asks_whether_its_port_is_free_is_refused_until_it_listens() {
    let mut primary = Primary::start("asks");
    for ip in ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1"] {
        primary.told_whether_listened(0, &ToWorker::HasListened(false));
        assert_eq!(primary.line(), format!("{ip} {REFUSED}"));
    }
    primary.told_whether_listened(0, &ToWorker::HasListened(false));
    assert_eq!(primary.line(), "later (None, Some(ConnectionRefused))");
    let Attached { channel, .. } = primary.welcomed();
    primary.hears_listening(&channel);
    assert_eq!(primary.line(), "listening Ok(())", "it need not ask whether it listens itself");
    assert_eq!(served(&channel, CLIENT), "hello");
}

#[test]
fn a_server_that_gets_no_answer_connects() {
    let mut primary = Primary::start("asks");
    primary.told_whether_listened(0, &ToWorker::Refuse(Refusal::NotAdmitted));
    assert_eq!(primary.line(), "127.0.0.1 Ok(())");
    primary.told_whether_listened(0, &ToWorker::HasListened(true));
    for ip in ["0.0.0.0", "::ffff:127.0.0.1"] {
        let line = std::iter::repeat_with(|| primary.line()).find(|line| line.starts_with(ip));
        assert_eq!(line.unwrap(), format!("{ip} Ok(())"), "an answer is remembered");
    }
    assert_eq!(primary.line(), "later (None, None)");
}

#[test]
fn a_channel_that_a_living_primary_closed_is_a_closed_listener() {
    let mut primary = Primary::start("v4");
    let Attached { channel, .. } = primary.welcomed();
    primary.hears_listening(&channel);
    primary.line();
    drop(channel);
    for _ in 0..3 {
        let connection = primary.connected();
        assert_eq!(hear(&connection), FromWorker::AskListened { token: TOKEN, port: 0, channel: 0 });
        say(&connection, &ToWorker::HasListened(true), None);
        assert_eq!(primary.line(), format!("accept failed: {}", libc::EINVAL));
    }
    assert!(primary.worker.try_wait().unwrap().is_none(), "nobody ends it");
}

#[test]
fn a_primary_that_hangs_up_while_it_is_asked_is_gone() {
    use std::os::unix::process::ExitStatusExt;
    let mut primary = Primary::start("v4");
    let Attached { channel, .. } = primary.welcomed();
    primary.hears_listening(&channel);
    drop(channel);
    for _ in 0..3 {
        drop(primary.connected());
    }
    assert_eq!(primary.worker.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_refusal_is_heard_although_the_primary_hung_up_before_everything_was_said() {
    for (refusal, errno) in [
        (Refusal::NotAdmitted, libc::EACCES),
        (Refusal::InUse, libc::EADDRINUSE),
        (Refusal::Full, libc::EADDRINUSE),
    ] {
        let mut primary = Primary::start("v4");
        // Before it can have said anything, or while it does: either way it hears the same.
        let channel = primary.connected();
        say(&channel, &ToWorker::Refuse(refusal), None);
        drop(channel);
        assert_eq!(primary.line(), format!("bind failed: {errno}"));
    }
}
