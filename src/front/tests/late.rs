//! Workers that leave a connection untaken for a while: whoever is idle gets it.

use super::*;

/// Late after a moment, and stalled never.
const LATE: Limits = Limits { slow: BRIEF, late: BRIEF, ..PATIENT };
const BRIEF: Duration = Duration::from_millis(20);

/// A client whose connection lies in the end of this worker, which has its turn.
fn client_of(stage: &Stage, worker: &Worker) -> TcpStream {
    let client = stage.connect();
    let handed = seqpacket_has_record(worker);
    until(|| handed().then_some(()));
    client
}

/// Waits until the front knows that the worker is late, which it tells with other things.
fn is_slow(stage: &mut Stage, worker: &Worker) {
    until(|| matches!(stage.notice(), Notice::Slow { link, .. } if link == worker.link).then_some(()));
}

fn late(stage: &Stage, worker: &Worker) -> u64 {
    stage.metrics.late.with_label_values(&[&worker.id.slot.to_string()]).get()
}

fn stalled(stage: &Stage, worker: &Worker) -> i64 {
    stage.metrics.stalled.with_label_values(&[&worker.id.slot.to_string()]).get()
}

#[test]
fn a_late_workers_connection_goes_to_an_idle_one_at_once() {
    let mut stage = Stage::new(LATE);
    let [late_one, idle] = [stage.worker(1), stage.worker(2)];
    let client = client_of(&stage, &late_one);
    idle.serve();
    assert_eq!(answer(client), "2");
    assert_eq!((late(&stage, &late_one), late(&stage, &idle)), (1, 0));
    assert_eq!(stage.metrics.redispatched.get(), 1);
    assert_eq!(stalled(&stage, &late_one), 0, "it is late, and not stalled");
    // It is fed no other until it moves.
    for _ in 0..5 {
        let client = stage.connect();
        idle.serve();
        assert_eq!(answer(client), "2");
    }
    assert_eq!(late_one.hear().map(|(message, _)| message), Some(ToWorker::Wake));
    assert!(late_one.hear().is_none());
    // Now it has moved, and is the only one.
    assert_eq!(stage.forget(&idle), 6);
    let client = stage.connect();
    late_one.serve();
    assert_eq!(answer(client), "1");
    assert_eq!(stage.forget(&late_one), 1);
}

#[test]
fn a_late_workers_connection_goes_to_the_first_that_becomes_idle_later() {
    let mut stage = Stage::new(LATE);
    let late_one = stage.worker(1);
    let client = client_of(&stage, &late_one);
    is_slow(&mut stage, &late_one);
    assert!(seqpacket_has_record(&late_one)(), "while nobody is idle, it stays where it is");
    let other = stage.worker(2);
    other.serve();
    assert_eq!(answer(client), "2");
    assert_eq!(late(&stage, &late_one), 1);
}

#[test]
fn the_oldest_connection_has_the_first_idle_worker_wherever_it_waits() {
    let mut stage = Stage::new(LATE);
    let first = stage.worker(1);
    let mut clients = vec![client_of(&stage, &first)];
    let second = stage.worker(2);
    // The first one's goes there, and so the third is younger than what the first one is given next.
    until(|| (late(&stage, &first) == 1).then_some(()));
    let handed = seqpacket_has_record(&second);
    until(|| handed().then_some(()));
    is_slow(&mut stage, &second);
    assert_eq!(first.hear().map(|(message, _)| message), Some(ToWorker::Wake));
    // The first has moved: it gets back what the second leaves.
    let handed = seqpacket_has_record(&first);
    until(|| handed().then_some(()));
    is_slow(&mut stage, &first);
    clients.extend((0..2).map(|_| stage.connect()));
    until(|| (stage.metrics.queue.get() == 2).then_some(()));
    let third = stage.worker(3);
    let order: Vec<_> = (0..3).map(|_| third.accept()).map(|stream| stream.peer_addr().unwrap()).collect();
    let connected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    assert_eq!(order, connected);
}

#[test]
fn what_waits_longer_than_a_late_workers_connection_comes_first() {
    let mut stage = Stage::new(Limits { window: 2, slow: Duration::from_secs(2), late: BRIEF, ..PATIENT });
    let late_one = stage.worker(1);
    let client = stage.connect();
    late_one.serve();
    assert_eq!(answer(client), "1");
    // Its window is open: both are given to it, and the older of them comes back first.
    let clients: Vec<_> = (0..2).map(|_| stage.connect()).collect();
    is_slow(&mut stage, &late_one);
    until(|| (stage.metrics.queue.get() == 1).then_some(()));
    let other = stage.worker(2);
    for client in clients {
        other.serve();
        assert_eq!(answer(client), "2");
    }
    assert_eq!((stage.forget(&late_one), stage.forget(&other)), (1, 2));
}

#[test]
fn a_late_worker_that_does_not_move_is_stalled_after_the_hand_off_timeout() {
    let timeout = Duration::from_millis(300);
    let recycle = RecycleLimits { max_connections: None, stuck_timeout: Some(timeout) };
    let mut stage = Stage::new(Limits { handoff_timeout: timeout, recycle, ..LATE });
    let [hung, idle] = [stage.worker(1), stage.worker(2)];
    let begin = Instant::now();
    let client = client_of(&stage, &hung);
    idle.serve();
    assert_eq!(answer(client), "2");
    assert_eq!(stage.notice_beside_slow(), Notice::Stalled { worker: hung.id });
    assert!(begin.elapsed() >= timeout);
    assert_eq!(stalled(&stage, &hung), 1);
    let notice = stage.notice_beside_slow();
    assert!(matches!(notice, Notice::Stuck { worker, .. } if worker == hung.id), "{notice:?}");
    assert_eq!(hung.hear().map(|(message, _)| message), Some(ToWorker::Wake));
    assert!(hung.hear().is_none(), "one is enough");
    until(|| match stage.notice_beside_slow() {
        Notice::Moving { worker } => (worker == hung.id).then_some(()),
        Notice::Stuck { .. } => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(stalled(&stage, &hung), 0);
}

#[test]
fn a_late_worker_that_moves_in_time_is_never_told_to_be_stalled() {
    let timeout = Duration::from_secs(2);
    let mut stage = Stage::new(Limits { handoff_timeout: timeout, ..LATE });
    let [slow, idle] = [stage.worker(1), stage.worker(2)];
    let client = client_of(&stage, &slow);
    idle.serve();
    assert_eq!(answer(client), "2");
    let woken = until(|| slow.hear());
    assert_eq!(woken.0, ToWorker::Wake);
    // The next that leaves one untaken is told of, and the first is not.
    assert_eq!(stage.forget(&slow), 0);
    let client = stage.connect();
    assert_eq!(stage.notice_beside_slow(), Notice::Stalled { worker: idle.id });
    drop(client);
}

#[test]
fn a_connection_of_clusterds_own_stays_with_its_worker_however_late_that_is() {
    let mut stage = Stage::new(LATE);
    let [late_one, idle] = [stage.worker(1), stage.worker(2)];
    let delivered = stage.deliver(&late_one);
    let handed = seqpacket_has_record(&late_one);
    until(|| handed().then_some(()));
    is_slow(&mut stage, &late_one);
    let client = stage.connect();
    idle.serve();
    assert_eq!(answer(client), "2");
    late_one.serve();
    assert_eq!(delivered.result(&stage), Ok(()));
    assert_eq!((stage.metrics.redispatched.get(), late(&stage, &late_one)), (0, 0));
}

#[test]
fn what_a_relay_has_is_not_taken_from_it() {
    let mut stage = Stage::new(LATE);
    stage.relayed = true;
    let relayed = stage.worker(1);
    stage.relayed = false;
    let idle = stage.worker(2);
    let client = client_of(&stage, &relayed);
    let others = stage.connect();
    idle.serve();
    assert_eq!(answer(others), "2");
    let begin = Instant::now();
    until(|| (begin.elapsed() > 3 * BRIEF).then_some(()));
    relayed.serve();
    assert_eq!(answer(client), "1");
    assert_eq!(stage.metrics.redispatched.get(), 0);
}

#[test]
fn without_a_free_descriptor_a_late_workers_connection_stays_where_it_is() {
    run_alone("front::tests::late::alone_with_a_late_worker");
}

#[test]
#[ignore = "lowers the limits of its process; run by without_a_free_descriptor_a_late_workers_connection_stays_where_it_is"]
fn alone_with_a_late_worker() {
    // Long enough to use up all descriptors meanwhile, also on a busy machine.
    let late = Duration::from_secs(6);
    let mut stage = Stage::new(Limits { late, ..LATE });
    let [late_one, idle] = [stage.worker(1), stage.worker(2)];
    let (begin, used) = (Instant::now(), cpu_milliseconds());
    let client = client_of(&stage, &late_one);
    let filling = stage.no_descriptor_left();
    // Nothing of this process runs meanwhile that would count as the front's.
    std::thread::sleep((late + Duration::from_millis(300)).saturating_sub(begin.elapsed()));
    assert_eq!((stage.metrics.redispatched.get(), stage.rejected("queue_timeout")), (0, 0));
    drop(filling);
    assert!(cpu_milliseconds() - used < 500, "it spins");
    let next = stage.connect();
    for client in [client, next] {
        idle.serve();
        assert_eq!(answer(client), "2");
    }
    assert_eq!(stage.metrics.redispatched.get(), 1);
}
