//! Connections that come back from workers that do not take them.

use super::*;

#[test]
fn a_retired_worker_gets_nothing_more_and_what_it_had_not_taken_goes_to_another() {
    let mut stage = Stage::new(PATIENT);
    let retired = stage.worker(1);
    let client = stage.connect();
    let handed = seqpacket_has_record(&retired);
    until(|| handed().then_some(()));
    stage.retire(&retired);
    assert_eq!(retired.hear().map(|(message, _)| message), Some(ToWorker::Drain));
    assert_eq!(stage.reports.status.borrow()[0].listening, 0);
    let late = stage.worker(1);
    assert_eq!(late.hear().map(|(message, _)| message), Some(ToWorker::Drain));
    let other = stage.worker(2);
    other.serve();
    assert_eq!(answer(client), "2");
    for _ in 0..3 {
        let client = stage.connect();
        other.serve();
        assert_eq!(answer(client), "2");
    }
    assert_eq!((retired.hear().is_none(), late.hear().is_none()), (true, true));
    assert_eq!(stage.metrics.redispatched.get(), 1);
    assert_eq!((stage.forget(&retired), stage.forget(&other)), (0, 4));
    // Only that launch was retired.
    let client = stage.connect();
    stage.worker(1).serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn what_a_relay_has_offered_is_not_taken_back_from_a_retired_worker() {
    let mut stage = Stage::new(PATIENT);
    stage.relayed = true;
    let relayed = stage.worker(1);
    let client = stage.connect();
    let handed = seqpacket_has_record(&relayed);
    until(|| handed().then_some(()));
    let handle = stage.handle();
    let id = relayed.id;
    let mut retired = stage.runtime.spawn(async move { handle.retire(id).await });
    // What is told later is answered, so that the retirement is known to the front.
    let elsewhere = WorkerId { slot: Slot(9), launch: 9 };
    stage.runtime.block_on(async {
        tokio::task::yield_now().await;
        stage.handle().forget(elsewhere).await;
    });
    assert!(!retired.is_finished());
    relayed.serve();
    assert_eq!(answer(client), "1");
    stage.runtime.block_on(async { tokio::time::timeout(DEADLINE, &mut retired).await }).unwrap().unwrap();
    assert_eq!(stage.forget(&relayed), 1);
}

#[test]
fn a_stuck_workers_connection_goes_to_another_and_it_gets_no_more_until_it_moves() {
    let mut stage = Stage::new(Limits { handoff_timeout: Duration::from_millis(50), ..PATIENT });
    let stuck = stage.worker(1);
    let client = stage.connect();
    assert_eq!(stage.notice_beside_slow(), Notice::Stalled { worker: stuck.id });
    let busy = stage.worker(2);
    busy.serve();
    assert_eq!(answer(client), "2");
    for _ in 0..5 {
        let client = stage.connect();
        busy.serve();
        assert_eq!(answer(client), "2");
    }
    assert_eq!(stuck.hear().map(|(message, _)| message), Some(ToWorker::Wake));
    assert_eq!(stage.notice_beside_slow(), Notice::Moving { worker: stuck.id });
    assert_eq!(stage.metrics.redispatched.get(), 1);
    stage.forget(&busy);
    let client = stage.connect();
    stuck.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn a_worker_that_stays_stalled_is_stuck() {
    let brief = Duration::from_millis(50);
    let recycle = RecycleLimits { max_connections: None, stuck_timeout: Some(brief) };
    let mut stage = Stage::new(Limits { handoff_timeout: brief, recycle, ..PATIENT });
    let stuck = stage.worker(1);
    let _client = stage.connect();
    assert_eq!(stage.notice_beside_slow(), Notice::Stalled { worker: stuck.id });
    let notice = stage.notice_beside_slow();
    assert!(
        matches!(notice, Notice::Stuck { worker, time } if worker == stuck.id && time >= brief),
        "{notice:?}"
    );
    assert_eq!(stuck.hear().map(|(message, _)| message), Some(ToWorker::Wake));
    until(|| match stage.notice_beside_slow() {
        Notice::Moving { .. } => Some(()),
        Notice::Stuck { .. } => None,
        other => panic!("{other:?}"),
    });
}

#[test]
fn what_a_dead_worker_had_not_taken_is_served_by_another() {
    let mut stage = Stage::new(PATIENT);
    let doomed = stage.worker(1);
    let client = stage.connect();
    let handed = seqpacket_has_record(&doomed);
    until(|| handed().then_some(()));
    let forgotten = doomed.id;
    drop(doomed);
    stage.runtime.block_on(stage.handle().forget(forgotten));
    stage.worker(2).serve();
    assert_eq!(answer(client), "2");
    assert_eq!(stage.metrics.redispatched.get(), 1);
}

#[test]
fn a_listener_that_its_server_closed_loses_nothing() {
    let mut stage = Stage::new(PATIENT);
    let closed = stage.worker(1);
    let client = stage.connect();
    assert_eq!(stage.notice(), Notice::Slow { link: closed.link, holder: Holder { inode: 0, pid: 0 } });
    stage.runtime.block_on(stage.handle().detach(closed.link));
    stage.worker(1).serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn a_channel_with_garbage_in_it_is_closed_and_loses_nothing() {
    let mut stage = Stage::new(PATIENT);
    let bad = stage.worker(1);
    let client = stage.connect();
    let handed = seqpacket_has_record(&bad);
    until(|| handed().then_some(()));
    seqpacket::send(&bad.channel, b"garbage", None).unwrap();
    stage.worker(2).serve();
    assert_eq!(answer(client), "2");
}

#[test]
fn a_declined_connection_goes_to_another_and_the_worker_rests() {
    let mut stage = Stage::new(PATIENT);
    // Those alone are asked whether they have declined before they have taken it.
    stage.relayed = true;
    let picky = stage.worker(1);
    let client = stage.connect();
    picky.decline();
    drop(picky.hear());
    let other = stage.worker(2);
    other.serve();
    assert_eq!(answer(client), "2");
    stage.forget(&other);
    let client = stage.connect();
    picky.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn without_a_free_descriptor_a_declined_connection_waits() {
    run_alone("front::tests::reclaim::alone_without_a_free_descriptor");
}

#[test]
#[ignore = "lowers the limits of its process; run by without_a_free_descriptor_a_declined_connection_waits"]
fn alone_without_a_free_descriptor() {
    let mut stage = Stage::new(PATIENT);
    stage.relayed = true;
    let [picky, other] = [stage.worker(1), stage.bound_worker(2)];
    let client = stage.connect();
    let mut buffer = [0; MAX_MESSAGE];
    let seen = until(|| seqpacket::peek(&picky.channel, &mut buffer).ok());
    let Ok(ToWorker::Connection { peer, .. }) = ToWorker::decode(&buffer[..seen.len]) else { panic!() };
    let used = cpu_milliseconds();
    let filling = stage.no_descriptor_left();
    let decline = FromWorker::Decline { peer, pause: false };
    seqpacket::send(&picky.channel, decline.encode(&mut buffer), seen.fd.as_ref().map(AsFd::as_fd)).unwrap();
    drop(picky.hear());
    let begin = Instant::now();
    until(|| (begin.elapsed() > Duration::from_millis(300)).then_some(()));
    assert_eq!(stage.metrics.redispatched.get(), 0);
    drop((filling, seen));
    assert!(cpu_milliseconds() - used < 150, "it spins");
    until(|| (stage.metrics.redispatched.get() == 1).then_some(()));
    other.say(FromWorker::Listening);
    other.serve();
    assert_eq!(answer(client), "2");
}
