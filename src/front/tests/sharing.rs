//! The front with workers that share its sockets: they accept, and it only keeps and counts.

use std::net::TcpListener;

use super::*;
use crate::front::bound::BoundAddress;
use crate::front::steering::Given;
use crate::sys::network::run_in_its_own;

/// A server that accepts by itself.
pub(super) struct Sharer {
    pub(super) id: WorkerId,
    pub(super) link: LinkId,
    pub(super) listener: TcpListener,
}

impl Stage {
    fn sharing(limits: Limits) -> Self {
        Self::with(limits, Accepts::Workers)
    }

    /// A server that has a copy of the shared socket, and does not listen yet.
    pub(super) fn sharer(&self, slot: u32) -> Sharer {
        self.sharer_of(slot, "0.0.0.0:3000", false)
    }

    pub(super) fn sharer_of(&self, slot: u32, address: &str, only_v6: bool) -> Sharer {
        let address: SocketAddr = address.parse().unwrap();
        self.sharer_with(slot, Binding { only_v6, ..Binding::new(address.into()) }, Given::Listening)
    }

    pub(super) fn sharer_given(&self, slot: u32, given: Given) -> Sharer {
        let address = SocketAddr::from(([0, 0, 0, 0], 3000));
        self.sharer_with(slot, Binding::new(address.into()), given)
    }

    fn sharer_with(&self, slot: u32, binding: Binding, given: Given) -> Sharer {
        let place = self.places.take().unwrap();
        let (id, link) = (WorkerId { slot: Slot(slot), launch: u64::from(slot) }, place.link());
        let handle = self.handle();
        let shared = handle.share((id, 0), ServiceId::Port(PORT), binding, given, place);
        let shared = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, shared).await });
        let listener = TcpListener::from(shared.expect("an answer in time").unwrap());
        Sharer { id, link, listener }
    }

    pub(super) fn listen(&self, sharer: &Sharer) {
        self.runtime.block_on(self.handle().listens(sharer.link)).unwrap();
    }

    /// Waits until so many servers listen.
    pub(super) fn until_listening(&mut self, count: usize) {
        let status = self.reports.status.wait_for(|status| status[0].listening == count);
        let reached = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, status).await.is_ok() });
        assert!(reached, "{count} do not listen in time");
    }
}

#[test]
fn workers_that_share_a_socket_accept_by_themselves() {
    let mut stage = Stage::sharing(PATIENT);
    let early = stage.connect();
    let sharers = [stage.sharer(1), stage.sharer(2)];
    for sharer in &sharers {
        stage.listen(sharer);
        let (worker, service) = (sharer.id, ServiceId::Port(PORT));
        let link = sharer.link;
        assert_eq!(stage.notice(), Notice::Listening { worker, service, link, ready: false });
    }
    stage.until_listening(2);
    let (mut accepted, peer) = until(|| sharers[0].listener.accept().ok());
    assert_eq!(peer, early.local_addr().unwrap());
    accepted.write_all(b"1").unwrap();
    drop(accepted);
    assert_eq!(answer(early), "1");
    assert_eq!(stage.metrics.accepted.get(), 0);
}

#[test]
fn a_server_that_shares_counts_until_it_is_closed_or_its_worker_is_gone() {
    let mut stage = Stage::sharing(PATIENT);
    let [closed, gone, left] = [1, 2, 3].map(|slot| stage.sharer(slot));
    [&closed, &gone, &left].into_iter().for_each(|sharer| stage.listen(sharer));
    stage.until_listening(3);
    stage.runtime.block_on(stage.handle().detach(closed.link));
    stage.until_listening(2);
    stage.runtime.block_on(stage.handle().forget(gone.id));
    stage.until_listening(1);
    drop((closed, gone, left.listener));
    drop(stage.connect());
}

#[test]
fn a_server_that_shares_counts_once_its_worker_is_ready_and_until_it_is_retired() {
    let mut stage = Stage::sharing(Limits { wait_ready: true, ..PATIENT });
    let [late, early] = [stage.sharer(1), stage.sharer(2)];
    stage.runtime.block_on(stage.handle().release(early.id));
    for sharer in [&late, &early] {
        stage.listen(sharer);
        assert!(matches!(stage.notice(), Notice::Listening { ready: false, .. }));
    }
    stage.until_listening(1);
    stage.runtime.block_on(stage.handle().release(late.id));
    stage.until_listening(2);
    let handle = stage.handle();
    let retired = async { tokio::time::timeout(DEADLINE, handle.retire(early.id)).await };
    stage.runtime.block_on(retired).expect("nothing is on its way to it");
    stage.until_listening(1);
}

/// The address of a client over IPv4 as this server sees it; `None` if it does not get it.
fn peer_over_ipv4(stage: &Stage, sharer: &Sharer) -> Option<std::net::IpAddr> {
    let port = stage.address.port();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    until(|| {
        Some(sharer.listener.accept()).filter(
            |accepted| !matches!(accepted, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        )
    })
    .ok()
    .map(|(_, peer)| peer.ip())
}

#[test]
fn each_server_shares_a_socket_of_its_own_kind() {
    let cases = [("0.0.0.0:3000", false, "127.0.0.1"), ("[::]:3000", false, "::ffff:127.0.0.1")];
    for (address, only_v6, seen) in cases {
        let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
        let mut stage = Stage::at(PATIENT, Accepts::Workers, Bound::Address(bound));
        let port = stage.address.port();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens yet");
        let sharer = stage.sharer_of(1, address, only_v6);
        stage.listen(&sharer);
        stage.notice();
        assert_eq!(peer_over_ipv4(&stage, &sharer), Some(seen.parse().unwrap()));
        assert_eq!(TcpStream::connect(("::1", port)).is_ok(), address.starts_with('['));
    }
}

#[test]
fn servers_of_a_version_that_listens_otherwise_share_another_socket() {
    let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
    let mut stage = Stage::at(PATIENT, Accepts::Workers, Bound::Address(bound));
    let old = stage.sharer_of(1, "0.0.0.0:3000", false);
    stage.listen(&old);
    stage.notice();
    let new = stage.sharer_of(2, "[::]:3000", false);
    stage.listen(&new);
    stage.notice();
    stage.runtime.block_on(stage.handle().forget(old.id));
    drop(old);
    let port = stage.address.port();
    let came = until(|| {
        let _client = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), DEADLINE).ok()?;
        new.listener.accept().ok()
    });
    assert_eq!(came.1.ip(), "::ffff:127.0.0.1".parse::<std::net::IpAddr>().unwrap());
    stage.runtime.block_on(stage.handle().app_stopped(true));
    stage.runtime.block_on(stage.handle().forget(new.id));
    drop(new);
    until(|| TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), DEADLINE).err());
}

#[test]
fn the_backlog_is_not_what_a_server_makes_of_it() {
    let mut stage = Stage::sharing(PATIENT);
    let sharer = stage.sharer(1);
    rustix::net::listen(&sharer.listener, 0).unwrap();
    stage.listen(&sharer);
    stage.notice();
    let timeout = Duration::from_millis(900);
    let connect = || TcpStream::connect_timeout(&stage.address, timeout).expect("there is room for it");
    drop([(); 8].map(|()| connect()));
}

#[test]
fn a_stop_leaves_the_backlog_to_the_workers_that_share_it() {
    let mut stage = Stage::sharing(PATIENT);
    let sharer = stage.sharer(1);
    stage.listen(&sharer);
    stage.notice();
    let clients = [(); 3].map(|()| stage.connect());
    let handle = stage.handle();
    let mut stopped = stage.runtime.spawn(async move { handle.stop().await });
    let early = async { tokio::time::timeout(Duration::from_millis(300), &mut stopped).await };
    stage.runtime.block_on(early).expect_err("nobody has taken the connections");
    for client in clients {
        sharer.listener.accept().expect("it is still there").0.write_all(b"1").unwrap();
        assert_eq!(answer(client), "1");
    }
    stage.runtime.block_on(async { tokio::time::timeout(DEADLINE, stopped).await }).unwrap().unwrap();
    let place = stage.places.take().unwrap();
    let handle = stage.handle();
    let binding = Binding::new(SocketAddr::from(([0, 0, 0, 0], 3000)).into());
    let late = handle.share((sharer.id, 0), ServiceId::Port(PORT), binding, Given::Listening, place);
    assert!(stage.runtime.block_on(late).is_err());
    drop(sharer);
    let late = TcpStream::connect(stage.address).unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_server_whose_listen_is_seen_has_clients_refused_until_then() {
    let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
    let mut stage = Stage::at(PATIENT, Accepts::Workers, Bound::Address(bound));
    let sharer = stage.sharer_given(1, Given::Bound);
    let port = stage.address.port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it does not listen yet");
    stage.listen(&sharer);
    assert!(matches!(stage.notice(), Notice::Listening { .. }));
    assert!(peer_over_ipv4(&stage, &sharer).is_some());
}

impl Stage {
    fn steered() -> Self {
        Self::steered_with(PATIENT)
    }

    fn steered_with(limits: Limits) -> Self {
        let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 256).unwrap();
        Self::at(limits, Accepts::Workers, Bound::Address(bound))
    }

    /// Servers that listen, each with a socket of its own.
    fn steered_sharers<const N: usize>(&mut self, slots: [u32; N]) -> [Sharer; N] {
        slots.map(|slot| {
            let sharer = self.sharer_given(slot, Given::Bound);
            self.listen(&sharer);
            assert!(matches!(self.notice_beside_slow(), Notice::Listening { .. }));
            sharer
        })
    }

    fn connect_over_ipv4(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.address.port())).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    }
}

impl Sharer {
    /// Takes all that waits; how many these were.
    fn take(&self) -> usize {
        std::iter::from_fn(|| self.listener.accept().ok()).count()
    }
}

#[test]
fn each_server_gets_its_share() {
    let mut stage = Stage::steered();
    let sharers = stage.steered_sharers([1, 2, 3]);
    let _clients: Vec<_> = (0..90).map(|_| stage.connect_over_ipv4()).collect();
    let taken: Vec<_> = sharers.iter().map(Sharer::take).collect();
    assert_eq!(taken.iter().sum::<usize>(), 90);
    // By chance one of three gets fewer than 8 of 90 once in ten million times.
    assert!(taken.iter().all(|&taken| taken >= 8), "{taken:?}");
}

#[test]
fn a_server_that_takes_nothing_is_left_out_until_it_does() {
    let mut stage = Stage::steered();
    let [stopped, other] = stage.steered_sharers([1, 2]);
    let mut clients = Vec::new();
    // It is asked whether anybody holds the socket once it is left out.
    until(|| {
        clients.push(stage.connect_over_ipv4());
        other.take();
        let notice = stage.runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(1), stage.reports.notices.recv()).await
        });
        matches!(notice, Ok(Some(Notice::Slow { link, .. })) if link == stopped.link).then_some(())
    });
    clients.clear();
    for _ in 0..32 {
        drop(stage.connect_over_ipv4());
        other.take();
    }
    assert!(stopped.take() > 0);
    until(|| {
        drop(stage.connect_over_ipv4());
        other.take();
        (stopped.take() > 0).then_some(())
    });
}

#[test]
fn a_server_that_takes_nothing_for_long_is_stalled_until_it_moves() {
    let mut stage = Stage::steered_with(Limits { handoff_timeout: Duration::from_millis(100), ..PATIENT });
    let [stopped] = stage.steered_sharers([1]);
    let _client = stage.connect_over_ipv4();
    assert_eq!(stage.notice_beside_slow(), Notice::Stalled { worker: stopped.id });
    assert_eq!(stage.metrics.stalled.with_label_values(&["1"]).get(), 1);
    assert_eq!(stopped.take(), 1);
    assert_eq!(stage.notice_beside_slow(), Notice::Moving { worker: stopped.id });
    assert_eq!(stage.metrics.stalled.with_label_values(&["1"]).get(), 0);
}

#[test]
fn what_a_worker_leaves_is_for_its_heir() {
    let mut stage = Stage::steered();
    let [ended, other] = stage.steered_sharers([1, 2]);
    let clients: Vec<_> = (0..16).map(|_| stage.connect_over_ipv4()).collect();
    stage.runtime.block_on(stage.handle().forget(ended.id));
    drop(ended.listener);
    drop(stage.connect_over_ipv4());
    let heir = stage.sharer_given(1, Given::Bound);
    stage.listen(&heir);
    stage.notice_beside_slow();
    assert_eq!(heir.take() + other.take(), clients.len() + 1);
}

#[test]
fn a_worker_that_is_to_end_takes_first_what_came_to_it() {
    let mut stage = Stage::steered();
    let [old, new] = stage.steered_sharers([1, 2]);
    let _clients: Vec<_> = until(|| {
        let clients: Vec<_> = (0..16).map(|_| stage.connect_over_ipv4()).collect();
        (crate::sys::socket::backlog_len(&old.listener).unwrap() > 0).then_some(clients)
    });
    let handle = stage.handle();
    let id = old.id;
    let mut retired = stage.runtime.spawn(async move { handle.retire(id).await });
    let early = async { tokio::time::timeout(Duration::from_millis(100), &mut retired).await };
    stage.runtime.block_on(early).expect_err("it has not taken what waits");
    let taken = old.take();
    assert!(taken > 0);
    stage.runtime.block_on(async { tokio::time::timeout(DEADLINE, retired).await }).unwrap().unwrap();
    let _late: Vec<_> = (0..16).map(|_| stage.connect_over_ipv4()).collect();
    assert_eq!(old.take(), 0, "nothing new comes to it");
    assert!(new.take() >= 16);
    stage.runtime.block_on(stage.handle().forget(old.id));
    // Nobody's copy listens from then on: clients cannot come to a socket that nobody has.
    until(|| (!crate::sys::reuseport::status(&old.listener).unwrap().listens).then_some(()));
    drop(stage.connect_over_ipv4());
    assert_eq!(new.take(), 1);
}

#[test]
fn a_server_that_shuts_its_socket_is_missed() {
    let mut stage = Stage::steered();
    let [shut, other] = stage.steered_sharers([1, 2]);
    stage.until_listening(2);
    rustix::net::shutdown(&shut.listener, rustix::net::Shutdown::Read).unwrap();
    stage.until_listening(1);
    for _ in 0..8 {
        drop(stage.connect_over_ipv4());
    }
    assert_eq!(other.take(), 8);
}

#[test]
fn a_front_that_has_accepted_leaves_that_to_workers() {
    let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
    let mut stage = Stage::at(PATIENT, Accepts::Primary, Bound::Address(bound));
    let fed = stage.worker(1);
    let untaken = stage.connect_over_ipv4();
    until(|| (stage.metrics.accepted.get() == 1).then_some(()));
    stage.runtime.block_on(stage.handle().accept_by_workers()).unwrap();
    drop(fed);
    let refused = TcpStream::connect(("127.0.0.1", stage.address.port()));
    assert!(refused.is_err(), "nobody listens any more");
    assert_eq!(answer(untaken), "", "it was closed");
    let [sharer] = stage.steered_sharers([1]);
    assert!(peer_over_ipv4(&stage, &sharer).is_some());
    stage.runtime.block_on(stage.handle().accept_by_workers()).unwrap();
    assert!(peer_over_ipv4(&stage, &sharer).is_some());
    assert_eq!(stage.rejected("shutdown"), 1);
}

#[test]
fn where_the_kernel_passes_connections_on_a_worker_leaves_none() {
    run_in_its_own("front::tests::sharing::alone_where_the_kernel_passes_connections_on");
}

#[test]
#[ignore = "changes its network's settings; run by where_the_kernel_passes_connections_on_a_worker_leaves_none"]
fn alone_where_the_kernel_passes_connections_on() {
    crate::sys::reuseport::migrate().unwrap();
    let mut stage = Stage::steered();
    let [ended, stuck, other] = stage.steered_sharers([1, 2, 3]);
    let clients: Vec<_> = (0..60).map(|_| stage.connect_over_ipv4()).collect();
    stage.runtime.block_on(stage.handle().forget(ended.id));
    let mut taken = 0;
    let mut all = |expected: usize, from: &Sharer| {
        until(|| {
            taken += from.take();
            (taken == expected).then_some(())
        });
    };
    until(|| (!crate::sys::reuseport::status(&ended.listener).unwrap().listens).then_some(()));
    // It is retired, and takes nothing of what waits for it.
    stage.runtime.block_on(stage.handle().retire(stuck.id));
    until(|| (!crate::sys::reuseport::status(&stuck.listener).unwrap().listens).then_some(()));
    all(clients.len(), &other);
    assert_eq!(stage.rejected("backlog"), 0);
}

/// An inherited socket stands alone; others join it.
#[test]
fn an_inherited_socket_is_one_of_a_group() {
    for is_anothers in [false, true] {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        if is_anothers && rustix::fs::fchown(&socket, Some(rustix::fs::Uid::from_raw(65534)), None).is_err() {
            continue;
        }
        let address = socket.local_addr().unwrap();
        let bound = Bound::Socket(ListeningSocket::inherited(socket.into(), address));
        let mut stage = Stage::at(PATIENT, Accepts::Workers, bound);
        let sharers = [1, 2].map(|slot| {
            let sharer = stage.sharer_with(slot, Binding::new(address.into()), Given::Bound);
            stage.listen(&sharer);
            sharer
        });
        stage.until_listening(2);
        let cookie = |sharer: &Sharer| rustix::net::sockopt::socket_cookie(&sharer.listener).unwrap();
        // Another user's address cannot be shared: both get the one socket.
        assert_eq!(cookie(&sharers[0]) == cookie(&sharers[1]), is_anothers);
        let _clients: Vec<_> = (0..40).map(|_| stage.connect()).collect();
        let taken = [sharers[0].take(), sharers[1].take()];
        assert_eq!(taken.iter().sum::<usize>(), 40);
        assert!(is_anothers || taken.iter().all(|&taken| taken > 0), "{taken:?}");
    }
}

#[test]
fn once_the_stop_has_begun_no_server_begins_to_listen() {
    let mut stage = Stage::steered();
    let late = stage.sharer_given(1, Given::Bound);
    stage.runtime.block_on(stage.handle().stop());
    stage.runtime.block_on(stage.handle().listens(late.link)).unwrap_err();
    assert!(TcpStream::connect(("127.0.0.1", stage.address.port())).is_err());
    stage.until_listening(0);
}

#[test]
fn what_waits_at_a_listener_that_a_worker_has_closed_beside_others_is_given_up_at_once() {
    let mut stage = Stage::steered();
    let [closed, kept, other] = stage.steered_sharers([1, 1, 2]);
    let clients: Vec<_> = (0..48).map(|_| stage.connect_over_ipv4()).collect();
    let taken = kept.take() + other.take();
    drop(closed.listener);
    let begin = Instant::now();
    stage.runtime.block_on(stage.handle().detach(closed.link));
    // The kernel's setting is that of all tests.
    if crate::sys::reuseport::migrates() {
        return;
    }
    let lost = u64::try_from(clients.len() - taken).unwrap();
    until(|| (stage.rejected("backlog") == lost).then_some(()));
    // A worker's end has its heir waited for, for 10 s.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    for _ in 0..8 {
        drop(stage.connect_over_ipv4());
    }
    assert_eq!(kept.take() + other.take(), 8);
}

#[test]
fn what_nobody_comes_for_is_lost_and_counted() {
    let mut stage = Stage::steered();
    let [ended, other] = stage.steered_sharers([1, 2]);
    let clients: Vec<_> = (0..32).map(|_| stage.connect_over_ipv4()).collect();
    let taken = other.take();
    stage.runtime.block_on(stage.handle().forget(ended.id));
    drop(ended.listener);
    // The kernel's setting is that of all tests.
    if crate::sys::reuseport::migrates() {
        return;
    }
    let lost = u64::try_from(clients.len() - taken).unwrap();
    until(|| (stage.rejected("backlog") == lost).then_some(()));
    drop(stage.connect_over_ipv4());
    assert_eq!(other.take(), 1);
}
