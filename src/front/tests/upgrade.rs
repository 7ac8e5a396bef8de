//! The front ends at once, and another begins with what it had.

use std::net::TcpListener;

use serde_json::Value;

use super::*;
use crate::carry::testing::carried;
use crate::carry::{CarriedFd, CarriedFds, Still, descriptors};
use crate::front::bound::BoundAddress;
use crate::front::snapshot::FrontSnapshot;
use crate::front::steering::Given;
use crate::front::tests::sharing::Sharer;

impl Stage {
    /// What execve(2) does to the front, in its middle. Its counters begin anew.
    fn upgrade(&mut self) {
        let still = self.stand_still().unwrap();
        self.upgrade_from(still);
    }

    fn upgrade_from(&mut self, still: Still<FrontSnapshot>) {
        let (snapshot, fds) = carried(&still.state);
        self.end.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
        drop(still);
        let (services, mut restored) = snapshot.into_parts(&fds).unwrap();
        assert_eq!(fds.untaken(), [0; 0], "each has an owner");
        drop(fds);
        assert!(services.iter().all(|(_, bound)| bound.first().map(Bound::address) == Some(self.address)));
        restored.permits = ChannelPermits::restored(PLACES, self.places.snapshot());
        let places = restored.permits.clone();
        // Who accepts is not asked any more.
        let accepts = Accepts::Primary;
        let mut next = Stage::begin(self.limits, accepts, (self.address, services), Some(restored));
        (next.wants_drain, next.relayed, next.places) = (self.wants_drain, self.relayed, places);
        *self = next;
        self.at_rest();
    }

    /// The worker is told to listen once more, which does no harm.
    fn hear_again(&mut self, workers: &[&Worker]) {
        for worker in workers {
            assert_eq!(self.notice_beside_slow(), self.listens(worker));
        }
    }

    fn handed(&self, slot: u32) -> u64 {
        self.metrics.handed.with_label_values(&[&slot.to_string()]).get()
    }

    fn stalled_listeners(&self, worker: &Worker) -> i64 {
        self.metrics.stalled.with_label_values(&[&worker.id.slot.to_string()]).get()
    }
}

fn lies(worker: &Worker) -> bool {
    seqpacket::waiting_bytes(&worker.channel).unwrap() > 0
}

/// A client whose connection lies in the end of this worker.
fn client_of(stage: &Stage, worker: &Worker) -> TcpStream {
    let client = stage.connect();
    until(|| lies(worker).then_some(()));
    client
}

fn until_queued(stage: &Stage, count: i64) {
    until(|| (stage.metrics.queue.get() == count).then_some(()));
}

#[test]
fn all_who_wait_are_served_in_turn_and_counted_once() {
    let mut stage = Stage::new(PATIENT);
    let worker = stage.worker(1);
    let mut clients = vec![client_of(&stage, &worker)];
    clients.extend((0..3).map(|_| stage.connect()));
    until_queued(&stage, 3);
    // The next image finds out that this one was taken.
    let still = stage.stand_still().unwrap();
    worker.serve();
    drop(still);
    assert_eq!(answer(clients.remove(0)), "1");
    until_queued(&stage, 2);
    stage.upgrade();
    stage.hear_again(&[&worker]);
    until_queued(&stage, 2);
    // It comes behind them.
    clients.push(stage.connect());
    for client in clients {
        worker.serve();
        assert_eq!(answer(client), "1");
    }
    assert_eq!(stage.forget(&worker), 5, "in its life");
    assert_eq!((stage.handed(1), stage.metrics.accepted.get()), (4, 1), "in this image");
}

#[test]
fn what_a_worker_has_not_taken_goes_to_another_if_it_ends() {
    let mut stage = Stage::new(Limits { window: 3, ..PATIENT });
    let worker = stage.worker(1);
    for _ in 0..2 {
        let client = stage.connect();
        worker.serve();
        assert_eq!(answer(client), "1");
    }
    // Its window is open.
    until(|| (stage.handed(1) == 2).then_some(()));
    let clients: Vec<_> = (0..3).map(|_| stage.connect()).collect();
    until_queued(&stage, 2);
    stage.upgrade();
    until_queued(&stage, 2);
    assert_eq!(stage.forget(&worker), 2);
    let other = stage.worker_after(2, &worker);
    for client in clients {
        other.serve();
        assert_eq!(answer(client), "2");
    }
    assert_eq!(stage.metrics.redispatched.get(), 3);
}

impl Stage {
    /// A worker that listens, after what is told once more of this one.
    fn worker_after(&mut self, slot: u32, known: &Worker) -> Worker {
        self.hear_again(&[known]);
        self.worker(slot)
    }
}

#[test]
fn a_window_stays_as_wide_as_it_was() {
    let mut stage = Stage::new(Limits { window: 3, ..PATIENT });
    let worker = stage.worker(1);
    for handed in 1..=2 {
        let client = stage.connect();
        worker.serve();
        assert_eq!(answer(client), "1");
        until(|| (stage.handed(1) == handed).then_some(()));
    }
    stage.upgrade();
    let clients: Vec<_> = (0..3).map(|_| stage.connect()).collect();
    until_queued(&stage, 2);
    let all_lie = || seqpacket::waiting_bytes(&worker.channel).unwrap() >= 3 * 20;
    until(|| all_lie().then_some(()));
    for client in clients {
        worker.serve();
        assert_eq!(answer(client), "1");
    }
}

#[test]
fn idle_workers_go_on_in_turn() {
    for choice in [Choice::RoundRobin, Choice::LeastConnections] {
        let mut stage = Stage::new(Limits { choice, ..PATIENT });
        let workers = [1, 2, 3].map(|slot| stage.worker(slot));
        let serve = |stage: &mut Stage, handed: u64| {
            let client = stage.connect();
            let (worker, mut stream) =
                until(|| workers.iter().find_map(|worker| Some((worker, worker.accept_now()?))));
            stream.write_all(worker.id.slot.to_string().as_bytes()).unwrap();
            drop(stream);
            until(|| ((1..=3).map(|slot| stage.handed(slot)).sum::<u64>() == handed).then_some(()));
            answer(client)
        };
        let mut turns: String = (1..=2).map(|handed| serve(&mut stage, handed)).collect();
        stage.upgrade();
        turns.extend((1..=4).map(|handed| serve(&mut stage, handed)));
        assert_eq!(turns, "123123", "{choice:?}");
    }
}

#[test]
fn a_client_keeps_its_worker_and_of_two_launches_the_older_one() {
    let mut stage = Stage::new(Limits { choice: Choice::SourceIp, ..PATIENT });
    let [older, younger] = [2, 1].map(|launch| {
        let binding = Binding::new(SocketAddr::from(([0, 0, 0, 0], 3000)).into());
        let worker = stage.launch_with(WorkerId { slot: Slot(1), launch }, binding, Vec::new());
        worker.say(FromWorker::Listening);
        assert_eq!(stage.notice_beside_slow(), stage.listens(&worker));
        worker
    });
    let serve = |stage: &Stage| {
        let client = stage.connect();
        let accepted = until(|| {
            older
                .accept_now()
                .map(|it| (it, "older"))
                .or_else(|| younger.accept_now().map(|it| (it, "younger")))
        });
        drop((client, accepted.0));
        accepted.1
    };
    let before = serve(&stage);
    // One waits for that worker alone.
    let (lying, waiting) = (client_of(&stage, &older), stage.connect());
    until_queued(&stage, 1);
    stage.upgrade();
    until_queued(&stage, 1);
    for client in [lying, waiting] {
        older.serve();
        assert_eq!(answer(client), "1");
    }
    assert_eq!((before, serve(&stage)), ("older", "older"));
}

#[test]
fn a_full_worker_is_full_until_a_connection_of_its_ends() {
    let mut stage = Stage::new(Limits { concurrency: Some(1), ..PATIENT });
    let worker = stage.worker(1);
    let client = stage.connect();
    worker.serve();
    assert_eq!(answer(client), "1");
    let client = stage.connect();
    until_queued(&stage, 1);
    stage.upgrade();
    until_queued(&stage, 1);
    until(|| stage.reports.waits_for_place.borrow().then_some(()));
    assert!(!lies(&worker));
    stage.handle().freed(vec![worker.id]);
    worker.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn who_is_stalled_stays_so_until_it_moves_and_is_stuck_when_that_was_due() {
    let timeout = Duration::from_millis(50);
    let recycle = RecycleLimits { max_connections: None, stuck_timeout: Some(Duration::from_millis(300)) };
    let mut stage = Stage::new(Limits { handoff_timeout: timeout, recycle, ..PATIENT });
    let worker = stage.worker(1);
    let client = client_of(&stage, &worker);
    until(|| (stage.notice() == Notice::Stalled { worker: worker.id }).then_some(()));
    let stalled = Instant::now();
    stage.upgrade();
    assert_eq!(stage.stalled_listeners(&worker), 1);
    stage.hear_again(&[&worker]);
    let Notice::Stuck { worker: stuck, time } = stage.notice_beside_slow() else { panic!("it is stuck") };
    assert!(stuck == worker.id && time >= Duration::from_millis(300) && stalled.elapsed() < DEADLINE);
    assert_eq!(worker.hear().map(|(message, _)| message), Some(ToWorker::Wake));
    until(|| (stage.notice() == Notice::Moving { worker: worker.id }).then_some(()));
    assert_eq!(stage.stalled_listeners(&worker), 0);
    worker.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn who_was_bypassed_gets_nothing_until_it_moves() {
    const BRIEF: Duration = Duration::from_millis(20);
    let mut stage = Stage::new(Limits { slow: BRIEF, late: BRIEF, ..PATIENT });
    let [late, idle] = [stage.worker(1), stage.worker(2)];
    let client = client_of(&stage, &late);
    idle.serve();
    assert_eq!(answer(client), "2");
    stage.upgrade();
    let client = stage.connect();
    idle.serve();
    assert_eq!(answer(client), "2");
    assert_eq!(late.hear().map(|(message, _)| message), Some(ToWorker::Wake));
    // Now it has moved.
    stage.forget(&idle);
    let client = stage.connect();
    late.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn who_rests_or_has_paused_does_so_on_and_what_was_declined_waits() {
    let mut stage = Stage::new(PATIENT);
    stage.relayed = true;
    let worker = stage.worker(1);
    let client = client_of(&stage, &worker);
    let mut buffer = [0; MAX_MESSAGE];
    let seen = seqpacket::peek(&worker.channel, &mut buffer).unwrap();
    let Ok(ToWorker::Connection { peer, .. }) = ToWorker::decode(&buffer[..seen.len]) else { panic!() };
    let pause = FromWorker::Decline { peer, pause: true };
    seqpacket::send(&worker.channel, pause.encode(&mut buffer), Some(seen.fd.unwrap().as_fd())).unwrap();
    until(|| (stage.notice() == Notice::Stalled { worker: worker.id }).then_some(()));
    drop(worker.hear());
    until_queued(&stage, 1);
    stage.upgrade();
    assert_eq!(stage.stalled_listeners(&worker), 1);
    stage.hear_again(&[&worker]);
    until_queued(&stage, 1);
    assert!(!lies(&worker));
    worker.say(FromWorker::Listening);
    assert_eq!(stage.notice_beside_slow(), Notice::Moving { worker: worker.id });
    worker.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn what_is_decided_of_a_launch_stays_and_a_retired_one_is_told_once() {
    let recycle = RecycleLimits { max_connections: NonZeroU64::new(3), stuck_timeout: None };
    let mut stage = Stage::new(Limits { wait_ready: true, recycle, ..PATIENT });
    stage.wants_drain = true;
    let [released, held, retired] = [1, 2, 3].map(|slot| stage.worker(slot));
    stage.runtime.block_on(stage.handle().release(released.id));
    stage.retire(&retired);
    assert_eq!(retired.hear().map(|(message, _)| message), Some(ToWorker::Drain));
    for _ in 0..2 {
        let client = stage.connect();
        released.serve();
        assert_eq!(answer(client), "1");
    }
    until(|| (stage.handed(1) == 2).then_some(()));
    stage.upgrade();
    stage.hear_again(&[&released, &held, &retired]);
    let client = stage.connect();
    released.serve();
    assert_eq!(answer(client), "1");
    let worn = Notice::ReplaceReason { worker: released.id, connections: 3 };
    assert_eq!(stage.notice_beside_slow(), worn);
    assert_eq!(stage.reports.status.borrow()[0].listening, 1);
    stage.runtime.block_on(stage.handle().release(held.id));
    stage.forget(&released);
    let client = stage.connect();
    held.serve();
    assert_eq!(answer(client), "2");
    // Another listener of a launch that is to end is told, and is named as none before.
    let late = stage.bound_worker(3);
    assert!(late.link > retired.link);
    assert_eq!(until(|| late.hear()).0, ToWorker::Drain);
    assert!(retired.hear().is_none());
}

#[test]
fn a_connection_of_clusterds_own_that_is_under_way_is_nobody_elses() {
    let mut stage = Stage::new(PATIENT);
    let worker = stage.worker(1);
    let first = stage.deliver(&worker);
    let second = stage.deliver(&worker);
    until(|| lies(&worker).then_some(()));
    stage.upgrade();
    // Those who have asked for it are no more.
    drop(second);
    worker.serve();
    assert_eq!(answer(&first.client), "1");
    drop(first);
    until(|| {
        let written = serde_json::to_value(&stage.stand_still().unwrap().state).unwrap();
        let link = &written["services"][0]["groups"][0]["links"][0];
        (link["state"]["phase"] == "Idle" && link["gives_private"] == false).then_some(())
    });
    assert!(!lies(&worker));
    assert_eq!((stage.handed(1), stage.forget(&worker)), (0, 0));

    let worker = stage.worker_after(2, &worker);
    let delivered = stage.deliver(&worker);
    until(|| lies(&worker).then_some(()));
    stage.upgrade();
    assert_eq!(stage.forget(&worker), 0);
    assert_eq!(answer(&delivered.client), "", "it was closed, and waits for nobody");
    until_queued(&stage, 0);
}

#[test]
fn what_there_was_no_room_to_take_back_is_taken_back() {
    run_alone("front::tests::upgrade::alone_without_room_to_take_back");
}

#[test]
#[ignore = "run in a process of its own by the one above"]
fn alone_without_room_to_take_back() {
    let mut stage = Stage::new(PATIENT);
    let worker = stage.worker(1);
    let client = client_of(&stage, &worker);
    let filling = stage.no_descriptor_left();
    assert_eq!(stage.forget(&worker), 0);
    let still = stage.stand_still().unwrap();
    let written = serde_json::to_value(&still.state).unwrap();
    assert_eq!(written["services"][0]["groups"][0]["gone"].as_array().unwrap().len(), 1);
    drop(filling);
    stage.upgrade_from(still);
    stage.worker(2).serve();
    assert_eq!(answer(client), "2");
}

#[test]
fn public_sockets_stand_as_they_stood() {
    let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
    let mut stage = Stage::at(PATIENT, Accepts::Primary, Bound::Address(bound));
    let refuses = |stage: &Stage, ip: &str| {
        let address = SocketAddr::new(ip.parse().unwrap(), stage.address.port());
        TcpStream::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    stage.address = SocketAddr::new([127, 0, 0, 1].into(), stage.address.port());
    let everywhere = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, stage.address.port()));
    let upgrade = |stage: &mut Stage| {
        stage.address = everywhere;
        stage.upgrade();
        stage.address = SocketAddr::new([127, 0, 0, 1].into(), everywhere.port());
    };
    upgrade(&mut stage);
    assert!(refuses(&stage, "127.0.0.1"), "nobody listens yet");
    let worker = stage.bound_worker(1);
    worker.say(FromWorker::Listening);
    until(|| (!refuses(&stage, "127.0.0.1")).then_some(()));
    upgrade(&mut stage);
    assert!(refuses(&stage, "::1"), "it listens over IPv4 alone");
    // Nobody else can have the port meanwhile.
    assert!(TcpListener::bind(("127.0.0.1", stage.address.port())).is_err());
    let client = stage.connect();
    client.set_nonblocking(true).unwrap();
    until(|| {
        // Who has only tried whether it is refused is gone.
        worker.accept_now().into_iter().for_each(|mut accepted| drop(accepted.write_all(b"1")));
        client.peek(&mut [0; 1]).ok()
    });
    // While the app is stopped clients are refused; it closes over an upgrade, and opens after another.
    stage.runtime.block_on(stage.handle().app_stopped(true));
    upgrade(&mut stage);
    until(|| refuses(&stage, "127.0.0.1").then_some(()));
    upgrade(&mut stage);
    assert!(refuses(&stage, "127.0.0.1"));
    stage.runtime.block_on(stage.handle().app_stopped(false));
    until(|| (!refuses(&stage, "127.0.0.1")).then_some(()));
}

#[test]
fn those_who_wait_for_another_listener_wait_for_it_on() {
    let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
    let mut stage = Stage::at(PATIENT, Accepts::Primary, Bound::Address(bound));
    let dual = Binding::new(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 3000)).into());
    let worker = stage.worker_bound_to(1, dual);
    worker.say(FromWorker::Listening);
    let client = until(|| TcpStream::connect(("::1", stage.address.port())).ok());
    until(|| lies(&worker).then_some(()));
    stage.forget(&worker);
    until_queued(&stage, 1);
    stage.upgrade();
    until_queued(&stage, 1);
    let other = stage.worker_bound_to(2, dual);
    other.say(FromWorker::Listening);
    until(|| other.accept_now()).write_all(b"2").unwrap();
    assert_eq!(answer(client), "2");
}

#[test]
fn options_of_workers_are_on_what_comes_later() {
    let nodelay = SocketOption::new(libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32.to_ne_bytes()).unwrap();
    let linger = SocketOption::new(
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        &[1_i32.to_ne_bytes(), 7_i32.to_ne_bytes()].concat(),
    );
    let mut stage = Stage::new(PATIENT);
    let binding = Binding::new(SocketAddr::from(([0, 0, 0, 0], 3000)).into());
    let worker = stage.worker_with(1, binding, vec![nodelay, linger.unwrap()]);
    worker.say(FromWorker::Listening);
    assert_eq!(stage.notice_beside_slow(), stage.listens(&worker));
    stage.upgrade();
    let client = stage.connect();
    let (message, fd) = until(|| worker.hear());
    assert!(matches!(message, ToWorker::Connection { linger: Some(_), .. }), "{message:?}");
    assert!(TcpStream::from(fd.unwrap()).nodelay().unwrap());
    drop(client);
    // Those who listen later have another.
    stage.upgrade();
    let written = serde_json::to_value(&stage.stand_still().unwrap().state).unwrap();
    let listener = &written["services"][0]["intake"]["addresses"][0]["Listening"]["listener"];
    assert_eq!(listener["options"].as_array().unwrap().len(), 1, "{listener}");
}

impl Stage {
    /// Has a server accept until nobody is left for it, and tell each that it is there.
    fn serve_all(&self, sharer: &Sharer) {
        while let Ok((mut stream, _)) = sharer.listener.accept() {
            stream.write_all(sharer.id.slot.to_string().as_bytes()).unwrap();
        }
    }

    fn answer_of(&self, client: &TcpStream, sharers: &[&Sharer]) -> String {
        client.set_nonblocking(true).unwrap();
        until(|| {
            sharers.iter().for_each(|sharer| self.serve_all(sharer));
            client.peek(&mut [0; 1]).ok()
        });
        client.set_nonblocking(false).unwrap();
        answer(client)
    }

    /// A server that listens, once that was told.
    fn listening_sharer(&mut self, slot: u32) -> Sharer {
        let sharer = self.sharer(slot);
        self.listen(&sharer);
        assert!(matches!(self.notice_beside_slow(), Notice::Listening { link, .. } if link == sharer.link));
        sharer
    }
}

#[test]
fn workers_that_accept_are_steered_to_as_before() {
    let bound = BoundAddress::new(Bind::Address("127.0.0.1:0".parse().unwrap()), 64).unwrap();
    let mut stage = Stage::at(PATIENT, Accepts::Workers, Bound::Address(bound));
    let [one, two] = [1, 2].map(|slot| stage.listening_sharer(slot));
    let later = stage.sharer_given(3, Given::Bound);
    let early: Vec<_> = (0..8).map(|_| stage.connect()).collect();
    stage.upgrade();
    assert!(stage.handle().workers_accept());
    for sharer in [&one, &two] {
        assert!(matches!(stage.notice(), Notice::Listening { link, .. } if link == sharer.link));
    }
    stage.until_listening(2);
    early.iter().for_each(|client| drop(stage.answer_of(client, &[&one, &two])));
    let answers = |stage: &Stage, sharers: &[&Sharer]| {
        let clients = (0..32).map(|_| stage.answer_of(&stage.connect(), sharers));
        clients.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<String>()
    };
    assert_eq!(answers(&stage, &[&one, &two]), "12");
    stage.listen(&later);
    stage.until_listening(3);
    assert_eq!(answers(&stage, &[&one, &two, &later]), "123");
    // What one leaves is for the next.
    stage.runtime.block_on(stage.handle().forget(one.id));
    let heir = stage.sharer(4);
    let same = |sharer: &Sharer| rustix::net::sockopt::socket_cookie(&sharer.listener).unwrap();
    assert_eq!(same(&heir), same(&one));
    drop(one);
    stage.listen(&heir);
    stage.upgrade();
    stage.until_listening(3);
    assert_eq!(answers(&stage, &[&heir, &two, &later]), "234");
}

#[test]
fn a_server_that_accepts_by_itself_and_is_stalled_stays_so_until_it_moves() {
    let timeout = Duration::from_millis(50);
    let mut stage = Stage::with(Limits { handoff_timeout: timeout, ..PATIENT }, Accepts::Workers);
    let sharer = stage.listening_sharer(1);
    let client = stage.connect();
    assert_eq!(stage.notice_beside_slow(), Notice::Stalled { worker: sharer.id });
    stage.upgrade();
    let stalled = |stage: &Stage| stage.metrics.stalled.with_label_values(&["1"]).get();
    assert_eq!(stalled(&stage), 1);
    assert!(matches!(stage.notice_beside_slow(), Notice::Listening { link, .. } if link == sharer.link));
    assert_eq!(stage.answer_of(&client, &[&sharer]), "1");
    assert_eq!(stage.notice_beside_slow(), Notice::Moving { worker: sharer.id });
    assert_eq!(stalled(&stage), 0);
}

/// The places of all leaves of a document.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found))
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

/// A front begins with this, if it can be read, and is used for a moment.
fn try_to_begin(written: Value, known: &[CarriedFd], limits: Limits) -> bool {
    let Ok(snapshot) = serde_json::from_value::<FrontSnapshot>(written) else { return false };
    let fds = CarriedFds::copies(known);
    let Ok((services, mut restored)) = snapshot.into_parts(&fds) else { return false };
    restored.permits = ChannelPermits::restored(PLACES, 100);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (handle, mut reports, ends) = handle::channels(&[PORT]);
    runtime.block_on(async {
        let setup = setup(
            limits,
            Accepts::Primary,
            services,
            Some(restored),
            (Metrics::new(), Notes::new().unwrap()),
        );
        let Ok(front) = Front::new(setup, ends) else { return false };
        let front = tokio::spawn(front.run());
        handle.release(WorkerId { slot: Slot(1), launch: 1 }).await;
        handle.ping().await;
        handle.forget(WorkerId { slot: Slot(1), launch: 1 }).await;
        while reports.notices.try_recv().is_ok() {}
        let stands = handle.stand_still().await;
        drop((handle, stands));
        front.await.expect("it does not panic");
        true
    })
}

/// A front that has something of everything is written down, changed at each place, and read.
fn try_changes(stage: &Stage) {
    let still = stage.stand_still().unwrap();
    let written = serde_json::to_value(&still.state).unwrap();
    let known = descriptors(written.to_string().as_bytes()).unwrap();
    assert!(try_to_begin(written.clone(), &known, stage.limits));
    let mut places = Vec::new();
    leaves(&written, "", &mut places);
    let others = [Value::Null, u64::MAX.into(), i64::MIN.into(), 0.into(), 3.into(), "".into(), true.into()];
    let mut begun = 0;
    for place in places {
        for other in &others {
            let mut changed = written.clone();
            *changed.pointer_mut(&place).unwrap() = other.clone();
            begun += usize::from(try_to_begin(changed, &known, stage.limits));
        }
    }
    assert!(begun > 0);
    let mut unknown = written;
    unknown["launches"]["later"] = 1.into();
    assert!(!try_to_begin(unknown, &known, stage.limits));
}

#[test]
fn what_cannot_be_is_refused_or_does_no_harm() {
    let recycle = RecycleLimits { max_connections: NonZeroU64::new(100), stuck_timeout: Some(DEADLINE) };
    let limits = Limits { recycle, window: 3, choice: Choice::LeastConnections, ..PATIENT };
    let bound = BoundAddress::new(Bind::Everywhere { port: 0 }, 64).unwrap();
    let mut stage = Stage::at(limits, Accepts::Primary, Bound::Address(bound));
    let worker = stage.bound_worker(1);
    worker.say(FromWorker::Listening);
    let address = SocketAddr::from(([127, 0, 0, 1], stage.address.port()));
    let _clients: Vec<_> = (0..5).map(|_| until(|| TcpStream::connect(address).ok())).collect();
    until_queued(&stage, 4);
    try_changes(&stage);

    let stage = Stage::with(PATIENT, Accepts::Workers);
    let sharers = [1, 2].map(|slot| stage.sharer(slot));
    sharers.iter().for_each(|sharer| stage.listen(sharer));
    try_changes(&stage);
}
