//! Connections that are given ahead to workers that take them quickly, and how they come back.

use super::*;

/// With a window, and time enough to open it on a loaded machine.
const EAGER: Limits = Limits { window: 4, slow: Duration::from_secs(2), ..PATIENT };

/// A worker whose window is open for `size` connections.
fn eager_worker(stage: &mut Stage, slot: u32, size: usize) -> Worker {
    let worker = stage.worker(slot);
    for _ in 1..size {
        let client = stage.connect();
        worker.serve();
        assert_eq!(answer(client), slot.to_string());
    }
    worker
}

/// So many clients, all of whose connections lie in the worker's end.
fn given(stage: &Stage, worker: &Worker, count: usize) -> Vec<TcpStream> {
    let clients = (0..count).map(|_| stage.connect()).collect();
    until(|| (untaken(worker) == count).then_some(()));
    clients
}

/// How many connections lie in the worker's end.
fn untaken(worker: &Worker) -> usize {
    let record =
        ToWorker::Connection { peer: Endpoint::V4 { address: [127, 0, 0, 1], port: 1 }, linger: None };
    seqpacket::waiting_bytes(&worker.channel).unwrap() / record.encode(&mut [0; MAX_MESSAGE]).len()
}

#[test]
fn a_busy_worker_is_given_some_ahead_if_it_takes_them_in_time() {
    let mut stage = Stage::new(Limits { window: 3, ..EAGER });
    let worker = eager_worker(&mut stage, 1, 3);
    let clients: Vec<_> = (0..6).map(|_| stage.connect()).collect();
    until(|| (stage.metrics.queue.get() == 2 + 3).then_some(()));
    for _ in &clients {
        assert!(untaken(&worker) <= 3);
        worker.serve();
    }
    for client in clients {
        assert_eq!(answer(client), "1");
    }
    assert_eq!(stage.forget(&worker), 2 + 6);
}

#[test]
fn what_a_worker_was_given_ahead_and_does_not_take_in_time_goes_to_another() {
    let mut stage = Stage::new(EAGER);
    let slow = eager_worker(&mut stage, 1, 4);
    let clients: Vec<_> = (0..4).map(|_| stage.connect()).collect();
    until(|| (stage.metrics.redispatched.get() == 3).then_some(()));
    assert_eq!(untaken(&slow), 1);
    let other = stage.worker(2);
    for client in &clients[..3] {
        other.serve();
        assert_eq!(answer(client), "2");
    }
    slow.serve();
    assert_eq!(answer(&clients[3]), "1");
    // It is given one at a time now, and the other, which is idle, the next.
    let clients: Vec<_> = (0..2).map(|_| stage.connect()).collect();
    for _ in 0..2 {
        let (worker, mut stream) =
            until(|| [&slow, &other].into_iter().find_map(|worker| Some((worker, worker.accept_now()?))));
        stream.write_all(worker.id.slot.to_string().as_bytes()).unwrap();
    }
    let mut answers: Vec<_> = clients.into_iter().map(answer).collect();
    answers.sort();
    assert_eq!(answers, ["1", "2"]);
    assert_eq!((stage.forget(&slow), stage.forget(&other)), (3 + 1 + 1, 3 + 1));
}

#[test]
fn from_a_worker_that_takes_one_late_what_it_was_given_ahead_goes_to_another() {
    let mut stage = Stage::new(EAGER);
    let slow = eager_worker(&mut stage, 1, 4);
    let clients = given(&stage, &slow, 4);
    // Before the next has waited for too long: the clock of each begins with the taking of the one before it.
    std::thread::sleep(EAGER.slow * 3 / 4);
    slow.serve();
    std::thread::sleep(EAGER.slow / 2);
    slow.serve();
    until(|| (stage.metrics.redispatched.get() >= 1).then_some(()));
    assert_eq!(untaken(&slow), 1);
    let other = stage.worker(2);
    other.serve();
    slow.serve();
    let mut answers: Vec<_> = clients.iter().map(answer).collect();
    answers.sort();
    assert_eq!(answers, ["1", "1", "1", "2"]);
}

#[test]
fn all_that_a_worker_was_given_ahead_comes_back_when_it_dies_or_is_stuck_or_retired() {
    for end in ["dead", "stuck", "retired"] {
        let handoff_timeout = if end == "stuck" { 2 * EAGER.slow } else { DEADLINE };
        let mut stage = Stage::new(Limits { handoff_timeout, ..EAGER });
        let doomed = eager_worker(&mut stage, 1, 4);
        let clients: Vec<_> = (0..5).map(|_| stage.connect()).collect();
        until(|| (stage.metrics.accepted.get() == 3 + 5).then_some(()));
        // It has taken one, and will not answer it.
        let taken = doomed.accept();
        match end {
            "dead" => assert_eq!(stage.forget(&doomed), 4),
            "stuck" => {
                until(|| (stage.notice_beside_slow() == Notice::Stalled { worker: doomed.id }).then_some(()))
            }
            _ => stage.retire(&doomed),
        }
        let other = stage.worker(2);
        let port = |stream: &TcpStream| stream.local_addr().unwrap().port();
        let lost = taken.peer_addr().unwrap().port();
        drop(taken);
        for client in clients.iter().filter(|client| port(client) != lost) {
            other.serve();
            assert_eq!(answer(client), "2", "{end}");
        }
        assert_eq!(stage.forget(&other), 4, "{end}");
    }
}

#[test]
fn a_connection_of_clusterds_own_is_on_its_way_alone() {
    let mut stage = Stage::new(EAGER);
    let worker = eager_worker(&mut stage, 1, 4);
    let delivered = stage.deliver(&worker);
    let handed = seqpacket_has_record(&worker);
    until(|| handed().then_some(()));
    let client = stage.connect();
    until(|| (stage.metrics.queue.get() == 1).then_some(()));
    assert_eq!(untaken(&worker), 1);
    worker.serve();
    assert_eq!(delivered.result(&stage), Ok(()));
    worker.serve();
    assert_eq!(answer(client), "1");
    // It waits for those that are ahead of it, and not for those that come later.
    let _early = given(&stage, &worker, 2);
    let delivered = stage.deliver(&worker);
    let _late: Vec<_> = (0..2).map(|_| stage.connect()).collect();
    until(|| (stage.metrics.accepted.get() == 3 + 1 + 4).then_some(()));
    let taken: Vec<_> = (0..3).map(|_| worker.accept()).collect();
    assert_eq!(delivered.result(&stage), Ok(()));
    assert_eq!(taken[2].peer_addr().unwrap(), delivered.client.local_addr().unwrap());
}

#[test]
fn with_a_declined_connection_all_that_were_given_ahead_go_to_others() {
    let mut stage = Stage::new(EAGER);
    let picky = eager_worker(&mut stage, 1, 4);
    let clients = given(&stage, &picky, 3);
    picky.decline();
    let other = stage.worker(2);
    for client in &clients {
        other.serve();
        assert_eq!(answer(client), "2");
    }
    assert!(picky.hear().is_none());
    assert_eq!((stage.forget(&picky), stage.forget(&other)), (3, 3));
}

#[test]
fn without_a_free_descriptor_what_a_dead_worker_had_not_taken_waits() {
    run_alone("front::tests::ahead::alone_with_a_dead_worker");
}

#[test]
#[ignore = "lowers the limits of its process; run by without_a_free_descriptor_what_a_dead_worker_had_not_taken_waits"]
fn alone_with_a_dead_worker() {
    let mut stage = Stage::new(EAGER);
    let doomed = eager_worker(&mut stage, 1, 3);
    let other = stage.bound_worker(2);
    let clients = given(&stage, &doomed, 2);
    let filling = stage.no_descriptor_left();
    assert_eq!(stage.forget(&doomed), 2);
    let begin = Instant::now();
    until(|| (begin.elapsed() > Duration::from_millis(200)).then_some(()));
    assert_eq!(stage.metrics.redispatched.get(), 0);
    drop(filling);
    until(|| (stage.metrics.redispatched.get() == 2).then_some(()));
    other.say(FromWorker::Listening);
    for client in clients {
        other.serve();
        assert_eq!(answer(client), "2");
    }
}
