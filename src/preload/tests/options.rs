//! Options of a channel: the server's own socket answers.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Attached, CLIENT, Natively, Primary, TOKEN, hear, say, served};
use crate::protocol::wire::{FromWorker, SocketOption, ToWorker};

/// The server: it asks for and sets what differs between an unbound socket, a listener and a Unix socket.
pub(super) fn serve(port: u16) {
    let listener = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    listener.set_reuse_address(true).unwrap();
    listener.set_ttl_v4(77).unwrap();
    listener.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).unwrap();
    println!("@bound {}", looks(&listener));
    let only_v6 = listener.set_only_v6(true).map_err(|error| error.raw_os_error());
    println!("@only IPv6 {only_v6:?} {:?}", listener.only_v6());
    listener.listen(16).unwrap();
    println!("@listens {}", looks(&listener));
    println!("@ttl {:?}", listener.ttl_v4());
    println!("@buffer {:?} {:?}", listener.set_recv_buffer_size(40_000), listener.recv_buffer_size());
    println!("@nodelay {:?} {:?}", listener.set_tcp_nodelay(true), listener.tcp_nodelay());
    let credentials = listener.set_passcred(true).map_err(|error| error.raw_os_error());
    println!("@passcred {credentials:?} {:?}", listener.passcred());
    let later = |fd: &i32| *fd > listener.as_raw_fd();
    for fd in descriptors().into_iter().filter(later) {
        let _ = nix::unistd::close(fd);
    }
    println!("@after closefrom {:?} {}", listener.tcp_nodelay(), looks(&listener));
    println!("@shutdown {:?}", listener.shutdown(std::net::Shutdown::Write).is_err());
    while let Ok((connection, _)) = listener.accept() {
        std::io::Write::write_all(&mut &connection, b"hello").unwrap();
    }
}

fn looks(socket: &Socket) -> String {
    let (domain, kind) = (socket.domain().unwrap(), socket.r#type().unwrap());
    let tcp = socket.protocol().unwrap() == Some(Protocol::TCP);
    let (listens, error) = (socket.is_listener().unwrap(), socket.take_error().unwrap());
    let state = crate::sys::socket::tcp_info(socket).unwrap().tcpi_state;
    format!("{domain:?} {kind:?} {tcp} {listens} {state} {error:?}")
}

/// The numbers of this process's descriptors.
fn descriptors() -> Vec<i32> {
    let folder = std::fs::read_dir("/proc/self/fd").unwrap();
    folder.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

const LINES: usize = 9;

/// The next question for the socket, answered.
fn fetched(primary: &Primary, nonce: u64, socket: &OwnedFd) {
    let connection = primary.connected();
    assert_eq!(hear(&connection), FromWorker::FetchSocket { token: TOKEN, nonce });
    say(&connection, &ToWorker::Socket, Some(socket.as_fd()));
}

#[test]
fn a_channel_answers_as_a_listener_does_natively() {
    let mut natively = Natively::start("options");
    let expected: Vec<_> = (0..LINES).map(|_| natively.line()).collect();

    let mut primary = Primary::start("options");
    let Attached { channel, binding, nonce, socket, worker_end: _worker_end } = primary.welcomed();
    assert!(binding.reuses_address && !binding.reuses_port && !binding.only_v6);
    // The number of questions shows that the process keeps the socket until somebody closes it.
    fetched(&primary, nonce, &socket);
    primary.hears_listening(&channel);
    let before: Vec<_> = (0..7).map(|_| primary.line()).collect();
    fetched(&primary, nonce, &socket);
    let after = (7..LINES).map(|_| primary.line());
    assert_eq!(before.into_iter().chain(after).collect::<Vec<_>>(), expected);

    let told = |level, name, value: i32| {
        let option = SocketOption::new(level, name, &value.to_ne_bytes()).unwrap();
        assert_eq!(hear(&channel), FromWorker::SetOption(option));
    };
    told(libc::SOL_SOCKET, libc::SO_RCVBUF, 40_000);
    told(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    assert_eq!(served(&channel, CLIENT), "hello");
}
