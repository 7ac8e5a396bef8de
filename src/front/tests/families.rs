//! Who may come, and to whom: the public sockets as workers listen and cease to.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};

use super::*;
use crate::front::bound::BoundAddress;

impl Stage {
    /// A front whose port is that of every address.
    fn everywhere(limits: Limits) -> Self {
        let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
        Self::at(limits, Accepts::Primary, Bound::Address(bound))
    }

    /// A worker that has bound this address, and listens.
    fn listener(&mut self, slot: u32, address: &str, only_v6: bool) -> Worker {
        let address: SocketAddr = address.parse().unwrap();
        let worker = self.worker_bound_to(slot, Binding { only_v6, ..Binding::new(address.into()) });
        worker.say(FromWorker::Listening);
        assert_eq!(self.notice_beside_slow(), self.listens(&worker));
        worker
    }

    fn client(&self, ip: &str) -> std::io::Result<TcpStream> {
        let address = SocketAddr::new(ip.parse().unwrap(), self.address.port());
        let client = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        client.set_read_timeout(Some(DEADLINE))?;
        Ok(client)
    }

    fn is_refused(&self, ip: &str) -> bool {
        self.client(ip).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    fn until_refused(&self, ip: &str) {
        until(|| self.is_refused(ip).then_some(()));
    }
}

/// What the client is answered by this worker, which serves whoever comes meanwhile.
fn answer_by(worker: &Worker, client: TcpStream) -> String {
    client.set_nonblocking(true).unwrap();
    until(|| {
        if let Some(mut accepted) = worker.accept_now() {
            // Who has only tried whether it is refused is gone.
            let _ = accepted.write_all(worker.id.slot.to_string().as_bytes());
        }
        client.peek(&mut [0; 1]).ok()
    });
    client.set_nonblocking(false).unwrap();
    answer(client)
}

/// The addresses of a connection as its server sees them, without the client's port.
fn seen(stream: &TcpStream) -> (IpAddr, SocketAddr) {
    (stream.peer_addr().unwrap().ip(), stream.local_addr().unwrap())
}

#[test]
fn each_listener_gets_the_connections_that_it_would_get_natively() {
    let (v4, v6) = ("127.0.0.1", "::1");
    let cases = [
        ("0.0.0.0:3000", false, vec![v4]),
        ("127.0.0.1:3000", false, vec![v4]),
        ("[::]:3000", true, vec![v6]),
        ("[::1]:3000", false, vec![v6]),
        ("[::]:3000", false, vec![v4, v6]),
        ("[::ffff:127.0.0.1]:3000", false, vec![v4]),
    ];
    for (address, only_v6, clients) in cases {
        // As without clusterd: at a port of the kernel's.
        let native: SocketAddr = address.parse().unwrap();
        let native = SocketAddr::new(native.ip(), 0);
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(native), socket2::Type::STREAM, None).unwrap();
        if native.is_ipv6() {
            socket.set_only_v6(only_v6).unwrap();
        }
        socket.bind(&native.into()).unwrap();
        socket.listen(8).unwrap();
        let native = TcpListener::from(socket);
        let port = native.local_addr().unwrap().port();

        let mut stage = Stage::everywhere(PATIENT);
        let worker = stage.listener(1, address, only_v6);
        for ip in [v4, v6] {
            let natively = TcpStream::connect((ip, port));
            assert_eq!(natively.is_ok(), clients.contains(&ip), "{ip} at {address} without clusterd");
            if natively.is_err() {
                assert!(stage.is_refused(ip), "{ip} at {address}");
                continue;
            }
            let (expected, _) = native.accept().unwrap();
            let _client = stage.client(ip).unwrap();
            let accepted = worker.accept();
            let ((peer, mut local), expected) = (seen(&accepted), seen(&expected));
            assert_eq!(local.port(), stage.address.port());
            local.set_port(port);
            assert_eq!((peer, local), expected, "{ip} at {address}");
        }
    }
}

#[test]
fn of_two_listeners_each_gets_its_own_family() {
    let mut stage = Stage::everywhere(PATIENT);
    let over_ipv4 = stage.listener(1, "0.0.0.0:3000", false);
    let over_ipv6 = stage.listener(2, "[::]:3000", true);
    for _ in 0..4 {
        let clients = [stage.client("127.0.0.1").unwrap(), stage.client("::1").unwrap()];
        over_ipv4.serve();
        over_ipv6.serve();
        assert_eq!(clients.map(answer), ["1", "2"]);
    }
}

#[test]
fn the_most_specific_listener_gets_it() {
    let mut stage = Stage::everywhere(PATIENT);
    let every = stage.listener(1, "0.0.0.0:3000", false);
    let one = stage.listener(2, "127.0.0.2:3000", false);
    let clients = [stage.client("127.0.0.1").unwrap(), stage.client("127.0.0.2").unwrap()];
    every.serve();
    one.serve();
    assert_eq!(clients.map(answer), ["1", "2"]);
    stage.forget(&one);
    let client = stage.client("127.0.0.2").unwrap();
    every.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn clients_are_refused_before_a_worker_listens_and_wait_while_it_is_gone() {
    let mut stage = Stage::everywhere(PATIENT);
    let early = stage.bound_worker(1);
    assert!(stage.is_refused("127.0.0.1") && stage.is_refused("::1"));
    early.say(FromWorker::Listening);
    stage.notice_beside_slow();
    stage.forget(&early);
    let waiting = stage.client("127.0.0.1").unwrap();
    assert!(stage.is_refused("::1"));
    until(|| (stage.metrics.queue.get() == 1).then_some(()));
    stage.worker(2).serve();
    assert_eq!(answer(waiting), "2");
}

#[test]
fn clients_come_to_a_worker_that_is_not_ready_and_wait() {
    let mut stage = Stage::everywhere(Limits { wait_ready: true, ..PATIENT });
    let worker = stage.worker(1);
    let waiting = stage.client("127.0.0.1").unwrap();
    stage.runtime.block_on(stage.handle().release(worker.id));
    worker.serve();
    assert_eq!(answer(waiting), "1");
}

#[test]
fn a_version_that_listens_otherwise_takes_over_without_a_client_lost() {
    let mut stage = Stage::everywhere(PATIENT);
    for (slot, address) in [(1, "0.0.0.0:3000"), (2, "[::]:3000"), (3, "0.0.0.0:3000"), (4, "[::]:3000")] {
        let worker = stage.listener(slot, address, false);
        let first = stage.client("127.0.0.1").unwrap();
        if slot > 1 {
            let old = WorkerId { slot: Slot(slot - 1), launch: u64::from(slot - 1) };
            stage.runtime.block_on(stage.handle().retire(old));
            stage.runtime.block_on(stage.handle().forget(old));
        }
        let clients: Vec<_> = (0..8).map(|_| stage.client("127.0.0.1").unwrap()).collect();
        for client in clients.into_iter().chain([first]) {
            assert_eq!(answer_by(&worker, client), slot.to_string());
        }
        // In the end, the addresses are those of its family.
        let is_native =
            |stream: &TcpStream| stream.peer_addr().unwrap().is_ipv6() == (address == "[::]:3000");
        until(|| {
            let _client = stage.client("127.0.0.1").unwrap();
            is_native(&worker.accept()).then_some(())
        });
    }
}

#[test]
fn a_family_that_is_left_alone_is_refused_in_the_end() {
    let mut stage = Stage::everywhere(PATIENT);
    let dual = stage.listener(1, "[::]:3000", false);
    let over_ipv4 = stage.listener(2, "0.0.0.0:3000", false);
    stage.forget(&dual);
    stage.until_refused("::1");
    let client = stage.client("127.0.0.1").unwrap();
    over_ipv4.serve();
    assert_eq!(answer(client), "2");
}

#[test]
fn an_app_that_is_stopped_refuses_until_a_worker_listens_again() {
    let mut stage = Stage::everywhere(PATIENT);
    let worker = stage.worker(1);
    stage.runtime.block_on(stage.handle().app_stopped(true));
    stage.until_refused("127.0.0.1");
    stage.retire(&worker);
    stage.forget(&worker);
    stage.runtime.block_on(stage.handle().app_stopped(false));
    assert!(stage.is_refused("127.0.0.1"));
    let worker = stage.worker(2);
    let client = stage.client("127.0.0.1").unwrap();
    assert_eq!(answer_by(&worker, client), "2");
}

/// Whether any other socket can be had that gets clients of this port.
fn rivals(port: u16) -> Vec<String> {
    let mut found = Vec::new();
    for (ip, only_v6) in [
        ("0.0.0.0", false),
        ("127.0.0.1", false),
        ("::", false),
        ("::", true),
        ("::1", true),
        ("::ffff:0.0.0.0", false),
    ] {
        for (address, shares) in [(false, false), (true, false), (false, true), (true, true)] {
            let target = SocketAddr::new(ip.parse().unwrap(), port);
            let (domain, kind) = (socket2::Domain::for_address(target), socket2::Type::STREAM);
            let socket = socket2::Socket::new(domain, kind, None).unwrap();
            socket.set_reuse_address(address).unwrap();
            socket.set_reuse_port(shares).unwrap();
            if target.is_ipv6() {
                socket.set_only_v6(only_v6).unwrap();
            }
            if socket.bind(&target.into()).and_then(|()| socket.listen(1)).is_ok() {
                found.push(format!(
                    "{ip}, IPV6_V6ONLY {only_v6}, SO_REUSEADDR {address}, SO_REUSEPORT {shares}"
                ));
            }
        }
    }
    found
}

#[test]
fn nobody_else_gets_the_port_whether_it_is_listened_on_or_not() {
    let mut stage = Stage::everywhere(PATIENT);
    let port = stage.address.port();
    let none = || Vec::<String>::new();
    assert_eq!(rivals(port), none(), "before anybody listens");
    let over_ipv4 = stage.listener(1, "0.0.0.0:3000", false);
    assert_eq!(rivals(port), none(), "while IPv4 is listened on");
    let dual = stage.listener(2, "[::]:3000", false);
    assert_eq!(rivals(port), none(), "while all is");
    stage.forget(&over_ipv4);
    until(|| {
        let _client = stage.client("127.0.0.1").unwrap();
        dual.accept().peer_addr().unwrap().is_ipv6().then_some(())
    });
    assert_eq!(rivals(port), none(), "while IPv6 is, for both families");
    stage.runtime.block_on(stage.handle().app_stopped(true));
    stage.until_refused("127.0.0.1");
    stage.until_refused("::1");
    assert_eq!(rivals(port), none(), "while the app is stopped");
    stage.forget(&dual);
    stage.runtime.block_on(stage.handle().app_stopped(false));
    let over_ipv4 = stage.listener(3, "0.0.0.0:3000", false);
    assert_eq!(rivals(port), none(), "while IPv4 is again");
    stage.forget(&over_ipv4);
    assert_eq!(rivals(port), none(), "while the worker is gone");
}

#[test]
fn a_port_is_free_for_the_next_clusterd_when_connections_have_just_ended() {
    let mut stage = Stage::everywhere(PATIENT);
    let port = stage.address.port();
    let workers = [stage.listener(1, "0.0.0.0:3000", false), stage.listener(2, "[::]:3000", true)];
    for (worker, ip) in workers.iter().zip(["127.0.0.1", "::1"]) {
        let client = stage.client(ip).unwrap();
        // Its server closes it first, and so keeps its address for a while (TIME_WAIT).
        drop(worker.accept());
        assert_eq!(answer(client), "");
    }
    drop(stage);
    BoundAddress::new(Bind::Everywhere { port }, 64).unwrap();
}

#[test]
fn a_port_that_somebody_else_listens_on_is_refused_at_the_start() {
    for address in ["0.0.0.0:0", "[::]:0", "[::1]:0"] {
        let other = TcpListener::bind(address).unwrap();
        let port = other.local_addr().unwrap().port();
        let error = BoundAddress::new(Bind::Everywhere { port }, 64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{address}");
    }
}

#[test]
fn a_socket_that_was_inherited_is_served_by_whom_there_is() {
    let (v4, dual) = ("0.0.0.0:0", "[::]:0");
    for (inherited, worker) in [(v4, v4), (v4, dual), (dual, v4), (dual, dual)] {
        let socket = TcpListener::bind(inherited).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let bound = Bound::Socket(ListeningSocket::inherited(socket.into(), address));
        let mut stage = Stage::at(PATIENT, Accepts::Primary, bound);
        let early = stage.client("127.0.0.1").expect("it listens from the start");
        let listener = stage.listener(1, worker, false);
        listener.serve();
        assert_eq!(answer(early), "1", "{worker} at {inherited}");
        if inherited == v4 {
            continue;
        }
        let mut client = stage.client("::1").unwrap();
        if worker == dual {
            listener.serve();
            assert_eq!(answer(client), "1");
        } else {
            assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0, "nobody listens for it");
        }
    }
}
