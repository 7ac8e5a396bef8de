//! The socket options that connections inherit: each is on them as it would be without clusterd.

use std::net::TcpListener;

use super::*;
use crate::front::bound::BoundAddress;
use crate::front::inheritance::INHERITED;
use crate::sys::socket;

/// A value that is not the default.
fn value(level: i32, name: i32) -> Vec<u8> {
    let number = |value: i32| value.to_ne_bytes().to_vec();
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_LINGER) => [1_i32, 7].map(i32::to_ne_bytes).concat(),
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => {
            [3_i64, 0].map(i64::to_ne_bytes).concat()
        }
        (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF) => number(50_000),
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE | libc::SO_SNDBUFFORCE) => number(60_000),
        (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE) => number(100_000_000),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => number(0x18),
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => b"reno".to_vec(),
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => number(900),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT | libc::TCP_SYNCNT) => number(3),
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP) => number(20_000),
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK) => number(0),
        // A connection that is to wait for data would make the test wait, too.
        (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => number(0),
        (libc::IPPROTO_TCP, _) if name > 43 => number(20_000),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT | libc::TCP_NOTSENT_LOWAT) => number(9_000),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE | libc::TCP_KEEPINTVL | libc::TCP_LINGER2) => number(33),
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => number(33),
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => number(0x10),
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER) | (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER) => {
            number(0)
        }
        (libc::IPPROTO_IPV6, libc::IPV6_ADDR_PREFERENCES) => number(2),
        // It pauses what is sent, for so many microseconds.
        (libc::IPPROTO_TCP, 37) => number(1),
        _ => number(1),
    }
}

fn natively(address: SocketAddr, only_v6: bool) -> TcpListener {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(only_v6).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

fn told(socket: impl AsFd, level: i32, name: i32) -> Option<Vec<u8>> {
    let mut value = [0; SocketOption::MAX_LEN];
    Some(socket::option(socket, level, name, &mut value).ok()?.to_vec())
}

#[test]
fn each_option_is_on_connections_as_it_would_be_without_clusterd() {
    for (address, only_v6, client) in
        [("0.0.0.0:0", false, "127.0.0.1"), ("[::]:0", true, "::1"), ("[::]:0", false, "127.0.0.1")]
    {
        let address: SocketAddr = address.parse().unwrap();
        let native = natively(address, only_v6);
        let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
        let mut stage = Stage::at(PATIENT, Accepts::Primary, Bound::Address(bound));
        let (mut slot, mut compared) = (0, 0);
        for &(level, name) in INHERITED {
            let value = value(level, name);
            if socket::set_option(&native, level, name, &value).is_err() {
                continue;
            }
            slot += 1;
            let option = SocketOption::new(level, name, &value).unwrap();
            let binding = Binding { only_v6, ..Binding::new(address.into()) };
            let worker = stage.worker_with(slot, binding, vec![option]);
            worker.say(FromWorker::Listening);
            assert_eq!(stage.notice_beside_slow(), stage.listens(&worker));
            let connect = |port| TcpStream::connect((client, port)).unwrap();
            let _clients = [connect(native.local_addr().unwrap().port()), connect(stage.address.port())];
            let (expected, accepted) = (native.accept().unwrap().0, worker.accept());
            assert_eq!(
                told(&accepted, level, name),
                told(&expected, level, name),
                "level {level}, option {name} on {address}"
            );
            compared += 1;
            stage.forget(&worker);
        }
        assert!(compared > 40, "only {compared} options can be set on {address}");
    }
}

#[test]
fn an_option_is_for_the_connections_of_the_listeners_that_have_it() {
    let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
    let mut stage = Stage::at(PATIENT, Accepts::Primary, Bound::Address(bound));
    let nodelay = SocketOption::new(libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32.to_ne_bytes()).unwrap();
    let v4 = Binding::new(SocketAddr::from(([0, 0, 0, 0], 3000)).into());
    let v6 = Binding::new("[::1]:3000".parse::<SocketAddr>().unwrap().into());
    let workers = [stage.worker_with(1, v4, vec![nodelay]), stage.worker_with(2, v6, Vec::new())];
    for worker in &workers {
        worker.say(FromWorker::Listening);
        stage.notice_beside_slow();
    }
    let _clients = ["127.0.0.1", "::1"].map(|ip| TcpStream::connect((ip, stage.address.port())).unwrap());
    assert_eq!(workers.map(|worker| worker.accept().nodelay().unwrap()), [true, false]);
}
