//! The front stands still, and goes on as if nothing had been.

use super::*;
use crate::carry::{NotCarried, Still};
use crate::front::snapshot::FrontSnapshot;

impl Stage {
    /// The front stands still until this is dropped.
    pub(super) fn stand_still(&self) -> Result<Still<FrontSnapshot>, NotCarried> {
        let handle = self.handle();
        let stands = async { tokio::time::timeout(DEADLINE, handle.stand_still()).await };
        self.runtime.block_on(stands).expect("it stands still in time")
    }
}

#[test]
fn nothing_happens_meanwhile_and_everything_does_afterwards() {
    let timeout = Duration::from_millis(50);
    let mut stage = Stage::new(Limits { handoff_timeout: timeout, ..PATIENT });
    let (one, other) = (stage.worker(1), stage.bound_worker(2));
    let lies = stage.connect();
    until(|| (seqpacket::waiting_bytes(&one.channel).unwrap() > 0).then_some(()));
    let still = stage.stand_still().unwrap();
    other.say(FromWorker::Listening);
    let clients = [stage.connect(), stage.connect()];
    let (handle, id) = (stage.handle(), other.id);
    let released = stage.runtime.spawn(async move {
        handle.release(id).await;
        handle.ping().await;
    });
    // The hand-off timeout passes, too.
    let begun = Instant::now();
    until(|| {
        stage.runtime.block_on(tokio::task::yield_now());
        (begun.elapsed() > 2 * timeout).then_some(())
    });
    assert!(other.hear().is_none() && !released.is_finished());
    assert_eq!((stage.metrics.accepted.get(), stage.reports.status.borrow()[0].listening), (1, 1));
    drop(still);
    stage.until_listening(2);
    stage.runtime.block_on(released).unwrap();
    // What was not taken in time goes to whoever is idle.
    (0..3).for_each(|_| other.serve());
    for client in [lies].into_iter().chain(clients) {
        assert_eq!(answer(client), "2");
    }
    assert_eq!(one.hear().map(|(message, _)| message), Some(ToWorker::Wake));
}

#[test]
fn what_it_was_told_before_is_done_first() {
    let mut stage = Stage::new(Limits { wait_ready: true, ..PATIENT });
    let worker = stage.worker(1);
    let handle = stage.handle();
    let still = stage.runtime.block_on(async {
        handle.release(worker.id).await;
        handle.stand_still().await.unwrap()
    });
    let written = serde_json::to_value(&still.state).unwrap();
    assert_eq!(written["launches"]["launches"][0]["is_released"], true);
    assert_eq!(written["services"][0]["groups"][0]["links"][0]["state"]["gate"], "Open");
}

#[test]
fn it_stands_still_though_nobody_fetches_what_it_tells() {
    const MANY: u32 = 400;
    let mut stage = Stage::new(PATIENT);
    let workers: Vec<_> = (1..=MANY).map(|slot| stage.bound_worker(slot)).collect();
    workers.iter().for_each(|worker| worker.say(FromWorker::Listening));
    stage.until_listening(MANY as usize);
    let still = stage.stand_still().unwrap();
    let written = serde_json::to_value(&still.state).unwrap();
    let waiting = written["launches"]["notices"].as_array().unwrap().len();
    assert!(waiting > 0 && waiting < MANY as usize, "{waiting}");
    drop(still);
    let mut heard: Vec<_> = (0..MANY).map(|_| stage.notice_beside_slow()).collect();
    let mut expected: Vec<_> = workers.iter().map(|worker| stage.listens(worker)).collect();
    let order = |notice: &Notice| format!("{notice:?}");
    heard.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(heard, expected);
}

#[test]
fn it_goes_on_if_whoever_asked_has_given_up() {
    let stage = Stage::new(PATIENT);
    let handle = stage.handle();
    stage.runtime.block_on(async {
        tokio::select! {
            biased;
            still = handle.stand_still() => panic!("{still:?}"),
            () = std::future::ready(()) => {}
        }
        tokio::time::timeout(DEADLINE, handle.ping()).await.expect("it goes on");
    });
}

#[test]
fn a_worker_that_is_retired_and_a_stop_are_waited_for() {
    let mut stage = Stage::new(PATIENT);
    let worker = stage.worker(1);
    stage.relayed = true;
    let relayed = stage.worker(2);
    let (client, second) = (stage.connect(), stage.connect());
    worker.serve();
    until(|| (seqpacket::waiting_bytes(&relayed.channel).unwrap() > 0).then_some(()));
    let (handle, id) = (stage.handle(), relayed.id);
    let retired = stage.runtime.spawn(async move { handle.retire(id).await });
    stage.runtime.block_on(tokio::task::yield_now());
    assert!(stage.stand_still().unwrap_err().to_string().contains("worker 2 is being retired"));
    relayed.serve();
    stage.runtime.block_on(retired).unwrap();
    drop(stage.stand_still().unwrap());
    assert_eq!([answer(client), answer(second)], ["1", "2"]);
    let handle = stage.handle();
    stage.runtime.block_on(async { tokio::time::timeout(DEADLINE, handle.stop()).await }).unwrap();
    assert!(stage.stand_still().unwrap_err().to_string().contains("stopping"));
}
