use std::net::SocketAddr;

use socket2::{Protocol, SockAddr, Socket};

use super::*;
use crate::carry::testing::carried;
use crate::ids::Slot;

const WORKER: WorkerId = WorkerId { slot: Slot(1), launch: 7 };

/// Addresses of which every kind overlaps with some of the others.
const ADDRESSES: [&str; 9] = [
    "0.0.0.0",
    "127.0.0.1",
    "127.0.0.2",
    "::",
    "::1",
    "::ffff:0.0.0.0",
    "::ffff:127.0.0.1",
    "::ffff:127.0.0.3",
    "::2",
];

fn bound(address: &str, port: u16, [only_v6, reuses_address, reuses_port]: [bool; 3]) -> Bound {
    let address = SocketAddr::new(address.parse().unwrap(), port).into();
    Bound { worker: WORKER, uid: 0, binding: Binding { address, only_v6, reuses_address, reuses_port } }
}

/// The same, by the kernel; `None` if it does not even make the socket.
fn bind(Bound { binding, .. }: &Bound) -> Option<io::Result<Socket>> {
    let address = SocketAddr::from(binding.address);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).ok()?;
    if address.is_ipv6() {
        socket.set_only_v6(binding.only_v6).unwrap();
    }
    socket.set_reuse_address(binding.reuses_address).unwrap();
    socket.set_reuse_port(binding.reuses_port).unwrap();
    match socket.bind(&SockAddr::from(address)) {
        Ok(()) => Some(Ok(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Some(Err(error)),
        // This machine has no such address, or no such family.
        Err(_) => None,
    }
}

#[test]
fn a_second_bind_fails_where_the_kernel_lets_it_fail() {
    let flags = (0..8).map(|bits| [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0]);
    let all = ADDRESSES.iter().flat_map(|address| flags.clone().map(move |flags| (address, flags)));
    let mut compared = 0;
    for (old, new) in all.clone().flat_map(|old| all.clone().map(move |new| (old, new))) {
        // A new port for each pair: the kernel remembers of a port who shared it last.
        let Some(first) = bind(&bound(old.0, 0, old.1)) else { continue };
        let first = first.unwrap();
        first.listen(1).unwrap();
        let port = first.local_addr().unwrap().as_socket().unwrap().port();
        let (old, new) = (bound(old.0, port, old.1), bound(new.0, port, new.1));
        let Some(second) = bind(&new) else { continue };
        drop(first);
        // Another process of this machine may have the port at another address.
        let is_anothers = second.is_err() && bind(&new).is_some_and(|again| again.is_err());
        if is_anothers {
            continue;
        }
        assert_eq!(conflicts(&new, &old), second.is_err(), "{new:?} beside {old:?}");
        compared += 1;
    }
    assert!(compared > 500, "{compared} pairs were compared");
}

#[test]
fn another_launch_user_port_or_interface_is_another_listener() {
    let old = bound("0.0.0.0", 80, [false, false, true]);
    assert!(!conflicts(&old, &old), "they share the port");
    assert!(conflicts(&Bound { uid: 1, ..old }, &old));
    let other = WorkerId { launch: 8, ..WORKER };
    let alone = bound("0.0.0.0", 80, [false; 3]);
    assert!(conflicts(&alone, &alone));
    assert!(!conflicts(&Bound { worker: other, ..alone }, &alone));
    assert!(!conflicts(&bound("0.0.0.0", 81, [false; 3]), &alone));
    let link_local = |scope| {
        let mut octets = [0; 16];
        (octets[0], octets[1], octets[15]) = (0xfe, 0x80, 1);
        let address = Endpoint::V6 { address: octets, port: 80, scope };
        Bound { binding: Binding::new(address), ..alone }
    };
    assert!(conflicts(&link_local(1), &link_local(1)));
    assert!(!conflicts(&link_local(1), &link_local(2)));
}

#[tokio::test]
async fn a_channel_is_of_launch_as_long_as_the_front_has_it() {
    let table = BoundChannels::new();
    let listener = bound("127.0.0.1", 80, [false; 3]);
    let place = Place { link: LinkId(3), holder: Holder { inode: 5, pid: 6 }, nonce: 9, given: false };
    let registration = table.register(listener, place, None);
    let found = table.of_launch(&bound("0.0.0.0", 80, [false; 3]));
    assert_eq!(found.iter().map(|(_, place)| place.link).collect::<Vec<_>>(), [LinkId(3)]);
    assert!(table.socket_of(WORKER, 8).is_none(), "there is no such channel");
    assert!(!table.channel_listens(WORKER, 9));
    table.listened(WORKER, ServiceId::Port(WorkerPort(80)), LinkId(3));
    assert!(table.channel_listens(WORKER, 9) && !table.channel_listens(WORKER, 8));
    let [one, again] = [(); 2].map(|()| table.socket_of(WORKER, 9).unwrap().unwrap());
    assert!(is_tcp(&one));
    socket2::SockRef::from(&one).set_tcp_nodelay(true).unwrap();
    assert!(socket2::SockRef::from(&again).tcp_nodelay().unwrap(), "it is the same socket");
    let other = WorkerId { launch: 8, ..WORKER };
    assert!(table.socket_of(other, 9).is_none(), "it is another's");
    drop(registration);
    assert!(table.of_launch(&listener).is_empty());
    assert!(table.socket_of(WORKER, 9).is_none());
}

#[tokio::test]
async fn a_listening_socket_is_on_its_way_until_its_process_hangs_up() {
    let (table, (front, ..)) = (BoundChannels::new(), front::handle::channels(&[]));
    let (ours, processs) = seqpacket::pair().unwrap();
    let listener = bound("127.0.0.1", 80, [false; 3]);
    let place = Place { link: LinkId(3), holder: Holder { inode: 5, pid: 6 }, nonce: 9, given: false };
    table.claim(listener, &front).await.unwrap().register_socket(place, Some(ours.into()));
    assert_eq!(table.socket_with(WORKER, 9), Some(LinkId(3)));
    assert_eq!(table.socket_with(WORKER, 8), None, "there is no such socket");
    assert!(table.is_on_its_way(LinkId(3)));
    let again = table.claim(listener, &front).await;
    assert!(matches!(again, Err(Refusal::InUse { .. })), "nobody has it yet, but somebody will");
    drop(again);
    drop(processs);
    assert!(!table.is_on_its_way(LinkId(3)));
    table.forget(WORKER);
    assert_eq!(table.socket_with(WORKER, 9), None);
}

#[tokio::test]
async fn of_one_socket_for_all_a_server_that_does_not_listen_yet_is_meant() {
    let (table, (front, ..)) = (BoundChannels::new(), front::handle::channels(&[]));
    let shares = bound("127.0.0.1", 80, [false, false, true]);
    // Nobody hangs up, so that none of them counts as closed.
    let pairs = [(); 2].map(|()| seqpacket::pair().unwrap());
    for (link, (ours, _)) in (3..).zip(&pairs) {
        let holder = Holder { inode: 5, pid: 6 };
        let place = Place { link: LinkId(link), holder, nonce: 9, given: false };
        let way = Some(ours.try_clone().unwrap().into());
        table.claim(shares, &front).await.unwrap().register_socket(place, way);
    }
    assert_eq!(table.socket_with(WORKER, 9), Some(LinkId(3)));
    table.listened(WORKER, ServiceId::Port(WorkerPort(80)), LinkId(3));
    assert!(table.listens(LinkId(3)) && !table.listens(LinkId(4)));
    assert_eq!(table.socket_with(WORKER, 9), Some(LinkId(4)));
}

#[test]
fn a_listener_is_made_as_the_servers_own_and_not_as_a_former_one() {
    let new = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let (own, listener) = (new(), new());
    own.set_tcp_nodelay(true).unwrap();
    own.set_recv_buffer_size(60_000).unwrap();
    listener.set_keepalive(true).unwrap();
    set_as_on(&own, &listener);
    assert!(listener.tcp_nodelay().unwrap() && !listener.keepalive().unwrap());
    assert_eq!(listener.recv_buffer_size().unwrap(), own.recv_buffer_size().unwrap());
    assert_eq!(in_which_differs(&own, &listener, OF_ONES_OWN).count(), 0);
}

#[tokio::test]
async fn who_has_listened_is_known_until_the_launch_is_gone() {
    let table = BoundChannels::new();
    let (port, other) = (WorkerPort(80), WorkerPort(81));
    assert!(!table.has_listened(WORKER, port));
    table.listened(WORKER, ServiceId::Port(port), LinkId(3));
    assert!(table.has_listened(WORKER, port) && !table.has_listened(WORKER, other));
    table.forget(WORKER);
    assert!(!table.has_listened(WORKER, port));
}

#[tokio::test]
async fn a_channel_of_a_port_that_was_opened_on_demand_listens_too() {
    let table = BoundChannels::new();
    let place = Place { link: LinkId(3), holder: Holder { inode: 5, pid: 6 }, nonce: 9, given: false };
    let _registration = table.register(bound("127.0.0.1", 80, [false; 3]), place, None);
    table.listened(WORKER, ServiceId::Opened(0), LinkId(3));
    assert!(table.channel_listens(WORKER, 9));
    assert!(table.has_listened(WORKER, WorkerPort(80)));
    assert!(!table.has_listened(WORKER, WorkerPort(0)));
}

#[tokio::test]
async fn who_asks_hears_at_once_of_a_server_that_begins_to_listen() {
    let table = BoundChannels::new();
    let port = WorkerPort(80);
    let asking = table.clone();
    let asked = tokio::spawn(async move {
        let has_listened = || asking.has_listened(WORKER, port);
        asking.becomes(Duration::from_secs(60), has_listened).await
    });
    tokio::task::yield_now().await;
    table.listened(WORKER, ServiceId::Port(port), LinkId(3));
    assert!(asked.await.unwrap());
    assert!(!table.becomes(Duration::ZERO, || table.has_listened(WORKER, WorkerPort(81))).await);
}

#[tokio::test]
async fn what_is_bound_is_so_in_the_next_image_too() {
    let (table, (front, ..)) = (BoundChannels::new(), front::handle::channels(&[]));
    let place =
        |link, nonce| Place { link: LinkId(link), holder: Holder { inode: 5, pid: 6 }, nonce, given: false };
    let shares = bound("127.0.0.1", 80, [false, false, true]);
    // First: of the others nobody would be seen to hold any.
    let (ours, processs) = seqpacket::pair().unwrap();
    table.claim(shares, &front).await.unwrap().register_socket(place(6, 16), Some(ours.into()));
    table.claim(shares, &front).await.unwrap().register_socket(place(7, 17), None);
    let own = ForeignFd::from(OwnedFd::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()));
    socket2::SockRef::from(&own).set_tcp_nodelay(true).unwrap();
    let _with_socket = table.register(shares, place(3, 13), Some(own));
    let _without = table.register(shares, Place { given: true, ..place(4, 14) }, None);
    drop(table.register(shares, place(5, 15), None));
    table.listened(WORKER, ServiceId::Port(WorkerPort(80)), LinkId(3));
    table.table().told.insert(Slot(4));
    let written = table.snapshot();
    let links: Vec<_> = written.entries.iter().map(|entry| entry.link.0).collect();
    assert_eq!(links, [6, 7, 3, 4], "nobody has the other one any more");
    let (snapshot, fds) = carried(&written);
    assert_eq!(snapshot, written);
    drop((table, _with_socket, _without));
    let (table, registrations) = BoundChannels::restore(snapshot, &fds).unwrap();
    assert_eq!(fds.untaken(), [0; 0]);
    drop(fds);
    let mut links: Vec<_> = registrations.keys().map(|link| link.0).collect();
    links.sort_unstable();
    assert_eq!(links, [3, 4]);
    assert!(table.channel_listens(WORKER, 13) && !table.channel_listens(WORKER, 14));
    assert!(table.has_listened(WORKER, WorkerPort(80)));
    assert!(table.table().told.contains(&Slot(4)));
    let own = table.socket_of(WORKER, 13).unwrap().unwrap();
    assert!(socket2::SockRef::from(&own).tcp_nodelay().unwrap(), "it is the server's own");
    assert!(table.is_on_its_way(LinkId(6)) && !table.is_on_its_way(LinkId(7)));
    drop(processs);
    assert!(!table.is_on_its_way(LinkId(6)));
    assert_eq!(table.socket_with(WORKER, 17), Some(LinkId(7)));
    drop(registrations);
    assert!(table.socket_of(WORKER, 13).is_none(), "the front has it no more");
    table.forget(WORKER);
    assert_eq!(table.snapshot().entries, []);
}

#[test]
fn of_two_listeners_with_one_channel_nothing_is_made() {
    let table = BoundChannels::new();
    let place = Place { link: LinkId(3), holder: Holder { inode: 5, pid: 6 }, nonce: 9, given: false };
    let _registration = table.register(bound("127.0.0.1", 80, [false; 3]), place, None);
    let mut snapshot = table.snapshot();
    snapshot.entries.extend(snapshot.entries.clone());
    let (snapshot, fds) = carried(&snapshot);
    assert!(BoundChannels::restore(snapshot, &fds).is_err());
}
