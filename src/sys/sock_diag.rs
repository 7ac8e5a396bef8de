//! The TCP sockets of this network namespace, as the kernel lists them (sock_diag(7)), and news of those that it destroys.
//!
//! Neither needs any privilege. Which process has a socket is not told here, only whether any has.

mod bytecode;
mod message;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sockopt};
use socket2::SockRef;

use self::message::{Part, Parts};
pub(crate) use self::message::{TcpFigures, TcpSocket};
use super::socket;

/// States of TCP, as tcp_states.h numbers them.
pub(crate) mod state {
    /// Both sides may send.
    pub(crate) const ESTABLISHED: u8 = 1;
    /// The handshake has begun.
    pub(crate) const SYN_RECV: u8 = 3;
    /// Closed on this side, and the other has not acknowledged that.
    pub(crate) const FIN_WAIT1: u8 = 4;
    /// Closed on this side.
    pub(crate) const FIN_WAIT2: u8 = 5;
    /// Closed by the other side.
    pub(crate) const CLOSE_WAIT: u8 = 8;
    /// Closed by both, and the other side has not acknowledged that.
    pub(crate) const LAST_ACK: u8 = 9;
    /// It listens.
    pub(crate) const LISTEN: u8 = 10;
    /// Closed on both sides at the same time.
    pub(crate) const CLOSING: u8 = 11;
}

/// The connections that somebody has, or the kernel still has something to do for: without TIME-WAIT, without those of a
/// handshake, and without listeners.
const CONNECTIONS: u32 = 1 << state::ESTABLISHED
    | 1 << state::FIN_WAIT1
    | 1 << state::FIN_WAIT2
    | 1 << state::CLOSE_WAIT
    | 1 << state::LAST_ACK
    | 1 << state::CLOSING;

/// How often a list is begun anew because it changed while the kernel wrote it.
const TRIES: usize = 4;

/// How long an answer is waited for. The kernel writes it while it is asked, so this is never needed.
const PATIENCE: Duration = Duration::from_secs(1);

/// More than the kernel puts into one answer.
const ANSWER: usize = 64 * 1024;

/// How many events are read at a time.
const EVENTS: usize = 64 * 1024;

/// How much may lie unread of events; each takes about a kilobyte of it (socket(7), SO_RCVBUF).
const UNREAD_EVENTS: usize = 4 * 1024 * 1024;

/// A question's way to the kernel.
#[derive(Debug)]
pub(crate) struct SockDiag {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl SockDiag {
    /// # Errors
    /// Those of socket(2): the kernel, or a filter of system calls, does not offer it.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::RAW;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG))?;
        // Without it an answer is waited for as long as it takes.
        let _ = sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE));
        Ok(Self { socket, buffer: Vec::new(), sequence: 0 })
    }

    /// The connections of both families with one of these local ports, each once.
    ///
    /// # Errors
    /// Those of netlink(7). `NotFound` if the kernel has no inet_diag.
    pub(crate) fn connections(&mut self, ports: &[u16]) -> io::Result<Vec<TcpSocket>> {
        self.of_both_families(CONNECTIONS, ports)
    }

    /// The handshakes that clients have begun at these local ports, and not ended yet.
    ///
    /// # Errors
    /// As [`SockDiag::connections`].
    pub(crate) fn handshakes(&mut self, ports: &[u16]) -> io::Result<Vec<TcpSocket>> {
        self.of_both_families(1 << state::SYN_RECV, ports)
    }

    /// The sockets that listen at these local ports.
    ///
    /// # Errors
    /// As [`SockDiag::connections`].
    pub(crate) fn listeners(&mut self, ports: &[u16]) -> io::Result<Vec<TcpSocket>> {
        self.of_both_families(1 << state::LISTEN, ports)
    }

    fn of_both_families(&mut self, states: u32, ports: &[u16]) -> io::Result<Vec<TcpSocket>> {
        let mut found = Vec::new();
        if ports.is_empty() {
            return Ok(found);
        }
        self.dump(libc::AF_INET, states, ports, &mut found)?;
        match self.dump(libc::AF_INET6, states, ports, &mut found) {
            // Without IPv6 nobody answers for it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
        // A socket may be listed twice when others come and go meanwhile.
        found.sort_unstable_by_key(|socket| socket.cookie);
        found.dedup_by_key(|socket| socket.cookie);
        // What it takes after a thousand connections is not kept for ever.
        self.buffer = Vec::new();
        Ok(found)
    }

    fn dump(
        &mut self,
        family: i32,
        states: u32,
        ports: &[u16],
        found: &mut Vec<TcpSocket>,
    ) -> io::Result<()> {
        let filter = bytecode::local_ports(ports);
        for attempt in 1..=TRIES {
            let already = found.len();
            self.sequence = self.sequence.wrapping_add(1);
            let request = message::dump_request(self.sequence, family, states, &filter);
            self.send(&request)?;
            let is_whole = self.receive(ports, found)?;
            if is_whole || attempt == TRIES {
                break;
            }
            found.truncate(already);
        }
        Ok(())
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        loop {
            match rustix::net::send(&self.socket, request, SendFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Whether the list did not change while it was written.
    fn receive(&mut self, ports: &[u16], found: &mut Vec<TcpSocket>) -> io::Result<bool> {
        let mut is_whole = true;
        self.buffer.resize(ANSWER, 0);
        loop {
            let size = match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                other => other?.0,
            };
            let answer = self.buffer.get(..size).unwrap_or_default();
            for part in Parts::new(answer) {
                if part.sequence != self.sequence {
                    continue;
                }
                is_whole &= !part.is_interrupted;
                match part.content {
                    Part::Socket(socket) if ports.contains(&socket.local.port()) => found.push(socket),
                    Part::Socket(_) | Part::Other => {}
                    Part::Done(Ok(())) => return Ok(is_whole),
                    Part::Done(Err(error)) => return Err(error),
                }
            }
        }
    }
}

/// News of TCP sockets that the kernel destroys: no process has them any more, and what they had to send is acknowledged.
#[derive(Debug)]
pub(crate) struct DestroyedSockets {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What came of reading news.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// These are all that there were.
    All,
    /// Some were lost: the kernel had no room for them.
    SomeLost,
}

impl DestroyedSockets {
    /// Listens from now on for sockets with these local ports; for others too, where the kernel attaches no filter.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2): the kernel tells no such news, or a filter of system calls forbids it.
    pub(crate) fn listen(ports: &[u16]) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::RAW;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG))?;
        // The first is for the privileged, and beyond what net.core.rmem_max permits.
        if sockopt::set_socket_recv_buffer_size_force(&socket, UNREAD_EVENTS).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, UNREAD_EVENTS);
        }
        let events = Self { socket, buffer: Vec::new() };
        events.only(ports);
        rustix::net::bind(&events.socket, &SocketAddrNetlink::new(0, message::DESTROY_GROUPS))?;
        Ok(events)
    }

    /// Listens for these local ports from now on.
    pub(crate) fn only(&self, ports: &[u16]) {
        let filter = bytecode::event_filter(ports);
        let attached = !filter.is_empty() && socket::attach_filter(&self.socket, &filter).is_ok();
        if !attached {
            // There may be none.
            let _ = SockRef::from(&self.socket).detach_filter();
        }
    }

    /// Reads all that there is, without waiting.
    ///
    /// # Errors
    /// Those of recv(2).
    pub(crate) fn read(&mut self, mut each: impl FnMut(TcpSocket)) -> io::Result<News> {
        let mut news = News::All;
        self.buffer.resize(EVENTS, 0);
        loop {
            let size = match recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(news),
                Err(Errno::NOBUFS) => {
                    news = News::SomeLost;
                    continue;
                }
                other => other?.0,
            };
            for part in Parts::new(self.buffer.get(..size).unwrap_or_default()) {
                if let Part::Socket(socket) = part.content {
                    each(socket);
                }
            }
        }
    }
}

impl AsFd for DestroyedSockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    fn cookie(socket: impl AsFd) -> u64 {
        sockopt::socket_cookie(socket).unwrap()
    }

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    fn listener(address: &str) -> Option<TcpListener> {
        TcpListener::bind(address).ok()
    }

    #[test]
    fn connections_are_listed_by_local_port_with_what_the_kernel_knows_of_them() {
        use std::io::{Read, Write};
        for (address, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let Some(listener) = listener(address) else { continue };
            let other = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut client = TcpStream::connect((to, port)).unwrap();
            let (mut server, peer) = listener.accept().unwrap();
            client.write_all(b"question").unwrap();
            server.read_exact(&mut [0; 8]).unwrap();
            let waiting = TcpStream::connect((to, port)).unwrap();

            let ports = [other.local_addr().unwrap().port(), port];
            let mut found = SockDiag::open().unwrap().connections(&ports).unwrap();
            found.sort_by_key(|socket| socket.inode == 0);

            let [accepted, in_backlog] = &found[..] else { panic!("{found:?}") };
            assert_eq!(accepted.cookie, cookie(&server));
            assert_eq!(accepted.inode, inode(&server));
            assert_eq!((accepted.local, accepted.remote), (server.local_addr().unwrap(), peer));
            assert_eq!(accepted.state, state::ESTABLISHED);
            let figures = accepted.figures.expect("TCP has them");
            assert_eq!((figures.received, figures.acknowledged), (8, 0));
            assert!(figures.round_trip < Duration::from_secs(1));
            assert_eq!(in_backlog.remote.port(), waiting.local_addr().unwrap().port());
        }
    }

    #[test]
    fn many_connections_and_many_ports_are_all_listed() {
        let listeners: Vec<_> = (0..40).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let pairs: Vec<_> = (0..400)
            .map(|number| {
                let listener = &listeners[number % listeners.len()];
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap().0)
            })
            .collect();
        let mut diag = SockDiag::open().unwrap();
        for ports in [ports.clone(), (1..=1000).chain(ports).collect()] {
            let found = diag.connections(&ports).unwrap();
            let listed = |server: &TcpStream| {
                found.binary_search_by_key(&cookie(server), |socket| socket.cookie).is_ok()
            };
            assert!(pairs.iter().all(|(_, server)| listed(server)));
        }
    }

    #[test]
    fn a_listener_is_listed_with_its_queue_and_what_it_had_no_room_for() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some(listener) = listener(address) else { continue };
            rustix::net::listen(&listener, 1).unwrap();
            let address = listener.local_addr().unwrap();
            // What the kernel does for a client may come a moment after connect(2).
            let wait = |is_it: fn(u32, Option<u32>) -> bool| {
                let deadline = Instant::now() + Duration::from_secs(20);
                loop {
                    let found = SockDiag::open().unwrap().listeners(&[address.port()]).unwrap();
                    let [told] = &found[..] else { panic!("{found:?}") };
                    assert_eq!((told.cookie, told.local), (cookie(&listener), address));
                    assert_eq!((told.state, told.unacknowledged), (state::LISTEN, 1));
                    if is_it(told.unread, told.dropped) {
                        break;
                    }
                    assert!(Instant::now() < deadline, "{told:?}");
                }
            };
            wait(|waiting, dropped| (waiting, dropped) == (0, Some(0)));
            // One more than may wait are taken; the next one's handshake is dropped, again and again.
            let _waiting: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
            wait(|waiting, dropped| (waiting, dropped) == (2, Some(0)));
            let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
            wait(|waiting, dropped| waiting == 2 && dropped > Some(0));
        }
    }

    #[test]
    fn a_connection_that_only_the_kernel_has_has_no_inode() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        let cookie = cookie(&server);
        drop(server);
        let found = SockDiag::open().unwrap().connections(&[listener.local_addr().unwrap().port()]).unwrap();
        let closed = found.iter().find(|socket| socket.cookie == cookie).expect("the client has not closed");
        assert_eq!(closed.inode, 0);
        assert!(matches!(closed.state, state::FIN_WAIT1 | state::FIN_WAIT2), "{closed:?}");
        drop(client);
    }

    #[test]
    fn a_socket_that_is_destroyed_is_told_once_with_its_figures() {
        use std::io::{Read, Write};
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some(listener) = listener(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let Ok(mut events) = DestroyedSockets::listen(&[1, port]) else { continue };
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut server = listener.accept().unwrap().0;
            let cookie = cookie(&server);
            server.write_all(b"an answer").unwrap();
            client.read_exact(&mut [0; 9]).unwrap();
            drop(client);
            server.read_to_end(&mut Vec::new()).unwrap();
            drop(server);
            let mut heard = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(20);
            while heard.is_empty() {
                assert!(Instant::now() < deadline, "not in time");
                assert_eq!(events.read(|socket| heard.push(socket)).unwrap(), News::All);
            }
            let [ended] = &heard[..] else { panic!("{heard:?}") };
            assert_eq!((ended.cookie, ended.local.port()), (cookie, port));
            // The end that is told to the other side counts as a byte.
            assert!(matches!(ended.figures.unwrap().acknowledged, 9 | 10), "{ended:?}");
        }
    }

    #[test]
    fn news_that_found_no_room_are_known_to_be_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let Ok(mut events) = DestroyedSockets::listen(&[address.port()]) else { return };
        sockopt::set_socket_recv_buffer_size(&events.socket, 1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for _ in 0..50 {
                drop(TcpStream::connect(address).unwrap());
                drop(listener.accept().unwrap());
            }
            // A thread of the kernel tells of them some time later: whoever read all the time would have room for each.
            std::thread::sleep(Duration::from_millis(20));
            if events.read(|_| ()).unwrap() != News::All {
                break;
            }
            assert!(Instant::now() < deadline, "nothing is lost");
        }
    }
}
