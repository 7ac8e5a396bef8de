//! Connections of clusterd's own, each for one worker.

use super::*;

#[test]
fn a_connection_of_clusterds_own_reaches_its_worker_and_no_other() {
    let mut stage = Stage::new(PATIENT);
    let workers = [stage.worker(1), stage.worker(2), stage.worker(3)];
    for worker in workers.iter().cycle().take(9) {
        let delivered = stage.deliver(worker);
        let mut server = worker.accept();
        assert_eq!(delivered.result(&stage), Ok(()));
        server.write_all(b"hello").unwrap();
        drop(server);
        assert_eq!(answer(&delivered.client), "hello");
    }
    assert!(workers.iter().all(|worker| worker.hear().is_none()));
    let handed = |slot: u32| stage.metrics.handed.with_label_values(&[&slot.to_string()]).get();
    assert_eq!([handed(1), handed(2), handed(3), stage.metrics.accepted.get()], [0; 4]);
    assert_eq!(workers.map(|worker| stage.forget(&worker)), [0; 3]);
}

#[test]
fn a_connection_of_clusterds_own_is_the_next_when_its_worker_has_a_turn() {
    let mut stage = Stage::new(PATIENT);
    let [busy, other] = [stage.worker(1), stage.worker(2)];
    let client = stage.connect();
    let handed = seqpacket_has_record(&busy);
    until(|| handed().then_some(()));
    let delivered = stage.deliver(&busy);
    busy.serve();
    assert_eq!(answer(client), "1");
    drop(busy.accept());
    assert_eq!(delivered.result(&stage), Ok(()));
    // Clients are served in turn as if it had been one of theirs.
    for worker in [&other, &busy, &other] {
        let client = stage.connect();
        worker.serve();
        assert_eq!(answer(client), worker.id.slot.to_string());
    }
}

#[test]
fn a_worker_that_is_held_from_clients_takes_connections_of_clusterds_own() {
    let mut stage = Stage::new(Limits { wait_ready: true, ..PATIENT });
    let unbound = stage.bound_worker(2);
    assert_eq!(stage.deliver(&unbound).result(&stage), Err(Undelivered::NotListening));
    let held = stage.worker(1);
    let client = stage.connect();
    for _ in 0..2 {
        let delivered = stage.deliver(&held);
        drop(held.accept());
        assert_eq!(delivered.result(&stage), Ok(()));
    }
    stage.runtime.block_on(stage.handle().release(held.id));
    held.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn a_connection_of_clusterds_own_that_is_not_taken_is_closed() {
    let mut stage = Stage::new(Limits { handoff_timeout: Duration::from_millis(50), ..PATIENT });
    let [stuck, other] = [stage.worker(1), stage.worker(2)];
    let delivered = stage.deliver(&stuck);
    let waiting = stage.deliver(&stuck);
    assert_eq!(stage.notice_beside_slow(), Notice::Stalled { worker: stuck.id });
    for delivered in [delivered, waiting] {
        assert_eq!(delivered.result(&stage), Err(Undelivered::Stalled));
        assert_eq!(answer(&delivered.client), "");
    }
    assert_eq!(stage.deliver(&stuck).result(&stage), Err(Undelivered::Stalled));
    assert!(other.hear().is_none());

    let delivered = stage.deliver(&other);
    let handed = seqpacket_has_record(&other);
    until(|| handed().then_some(()));
    stage.retire(&other);
    assert_eq!(delivered.result(&stage), Err(Undelivered::Retired));
    assert_eq!(answer(&delivered.client), "");
    assert_eq!(stage.deliver(&other).result(&stage), Err(Undelivered::Retired));
    assert_eq!(stage.metrics.redispatched.get(), 0);

    let third = stage.worker(3);
    let delivered = stage.deliver(&third);
    let handed = seqpacket_has_record(&third);
    until(|| handed().then_some(()));
    stage.forget(&third);
    assert_eq!(delivered.result(&stage), Err(Undelivered::Gone));
    assert_eq!(stage.deliver(&third).result(&stage), Err(Undelivered::Gone));
}

#[test]
fn a_connection_of_clusterds_own_waits_for_its_turn_and_not_longer() {
    let mut stage = Stage::new(PATIENT);
    let busy = stage.worker(1);
    let client = stage.connect();
    let handed = seqpacket_has_record(&busy);
    until(|| handed().then_some(()));
    let late = stage.deliver_within(&busy, Duration::from_millis(20));
    assert_eq!(late.result(&stage), Err(Undelivered::TooLate));
    drop(stage.deliver(&busy));
    let waiting: Vec<_> = (0..8).map(|_| stage.deliver(&busy)).collect();
    busy.serve();
    assert_eq!(answer(client), "1");
    for delivered in waiting {
        drop(busy.accept());
        assert_eq!(delivered.result(&stage), Ok(()));
    }
    assert!(busy.hear().is_none());
}
