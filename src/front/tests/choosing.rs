//! Whom the policies choose, and how many connections a worker may have.

use std::net::SocketAddrV4;
use std::task::{Context, Waker};
use std::time::Instant;

use super::*;
use crate::connections::{self, notes::Note};
use crate::policy::Choice;

/// A client from this address of the loopback network.
fn connect_from(stage: &Stage, last: u8) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddrV4::new([127, 0, 0, last].into(), 0).into()).unwrap();
    socket.connect(&stage.address.into()).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

fn end(stage: &Stage, worker: &Worker, connections: usize) {
    stage.handle().freed(vec![worker.id; connections]);
}

/// Until so many wait in the queue, or in channels behind others.
fn until_waiting(stage: &Stage, count: i64) {
    until(|| (stage.metrics.queue.get() == count).then_some(()));
}

#[test]
fn who_has_the_fewest_open_connections_gets_the_next_ones() {
    for choice in [Choice::LeastConnections, Choice::RandomTwo] {
        let mut stage = Stage::new(Limits { choice, ..PATIENT });
        let old = stage.worker(1);
        for _ in 0..3 {
            let client = stage.connect();
            old.serve();
            assert_eq!(answer(client), "1");
        }
        let new = stage.worker(2);
        for _ in 0..3 {
            let client = stage.connect();
            new.serve();
            assert_eq!(answer(client), "2");
        }
        end(&stage, &old, 2);
        for _ in 0..2 {
            let client = stage.connect();
            old.serve();
            assert_eq!(answer(client), "1");
        }
    }
}

#[test]
fn those_that_come_at_once_go_to_who_has_the_fewest() {
    let mut stage = Stage::new(Limits { choice: Choice::LeastConnections, window: 4, ..PATIENT });
    let old = stage.worker(1);
    for _ in 0..4 {
        let client = stage.connect();
        old.serve();
        assert_eq!(answer(client), "1");
    }
    let new = stage.worker(2);
    let clients: Vec<_> = (0..4).map(|_| stage.connect()).collect();
    until_waiting(&stage, 3);
    clients.into_iter().for_each(|client| {
        new.serve();
        assert_eq!(answer(client), "2");
    });
}

#[test]
fn a_connection_that_came_back_is_not_counted() {
    let mut stage = Stage::new(Limits { choice: Choice::LeastConnections, ..PATIENT });
    let (one, two) = (stage.worker(1), stage.worker(2));
    let client = stage.connect();
    one.accept();
    drop(client);
    // Each has one once this lies in the other's channel, and that one none again.
    let moved = stage.connect();
    until(|| (seqpacket::waiting_bytes(&two.channel).unwrap() > 0).then_some(()));
    stage.retire(&two);
    one.serve();
    assert_eq!(answer(moved), "1");
    let three = stage.worker(3);
    for _ in 0..2 {
        let client = stage.connect();
        three.serve();
        assert_eq!(answer(client), "3");
        stage.at_rest();
    }
}

#[test]
fn a_client_has_its_worker_and_waits_for_nobody_elses() {
    let mut stage = Stage::new(Limits { choice: Choice::SourceIp, ..PATIENT });
    let workers = [stage.worker(1), stage.worker(2)];
    let home = |last| {
        let client = connect_from(&stage, last);
        let (home, mut stream) = until(|| {
            workers.iter().enumerate().find_map(|(home, worker)| Some((home, worker.accept_now()?)))
        });
        stream.write_all(b"x").unwrap();
        drop(stream);
        assert_eq!(answer(client), "x");
        home
    };
    let homes: Vec<_> = (1..=12).map(|last| (last, home(last))).collect();
    homes.iter().for_each(|&(last, known)| assert_eq!(home(last), known, "127.0.0.{last}"));
    let of = |worker: usize| homes.iter().find(|&&(_, home)| home == worker).expect("some client").0;
    let (first, second) = (of(0), of(1));

    let waiting: Vec<_> = (0..3).map(|_| connect_from(&stage, first)).collect();
    until_waiting(&stage, 2);
    for _ in 0..3 {
        let client = connect_from(&stage, second);
        workers[1].serve();
        assert_eq!(answer(client), "2");
    }
    waiting.into_iter().for_each(|client| {
        workers[0].serve();
        assert_eq!(answer(client), "1");
    });

    let client = connect_from(&stage, first);
    until(|| (seqpacket::waiting_bytes(&workers[0].channel).unwrap() > 0).then_some(()));
    let behind = connect_from(&stage, first);
    until_waiting(&stage, 1);
    stage.retire(&workers[0]);
    for client in [client, behind] {
        workers[1].serve();
        assert_eq!(answer(client), "2", "its worker is not to get any more");
    }
}

#[test]
fn a_worker_has_no_more_connections_than_it_may_have() {
    for choice in [Choice::RoundRobin, Choice::LeastConnections, Choice::SourceIp, Choice::RandomTwo] {
        let mut stage = Stage::new(Limits { choice, concurrency: Some(2), window: 16, ..PATIENT });
        let worker = stage.worker(1);
        let mut clients: Vec<_> = (0..5).map(|_| stage.connect()).collect();
        let mut taken = vec![worker.accept(), worker.accept()];
        until_waiting(&stage, 3);
        assert!(worker.accept_now().is_none());
        for _ in 0..3 {
            taken.remove(0).write_all(b"1").unwrap();
            assert_eq!(answer(clients.remove(0)), "1");
            end(&stage, &worker, 1);
            taken.push(worker.accept());
        }
        until_waiting(&stage, 0);
        end(&stage, &worker, 7);
        let client = stage.connect();
        worker.serve();
        assert_eq!(answer(client), "1");
    }
}

#[test]
fn where_connections_are_counted_none_is_given_that_is_not_noted() {
    let mut stage = Stage::new(Limits { concurrency: Some(1), ..PATIENT });
    let worker = stage.worker(1);
    let unread = stage.notes.clone();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    while unread.poll_room(&Context::from_waker(Waker::noop())).is_ready() {
        unread.given(&socket, |cookie| {
            Note::new(cookie, Some(worker.id), stage.address, Instant::now(), Duration::ZERO)
        });
    }
    let client = stage.connect();
    stage.at_rest();
    assert!(worker.accept_now().is_none());
    connections::start(unread, Family::random(), false, None).unwrap();
    worker.serve();
    assert_eq!(answer(client), "1");
}

#[test]
fn a_client_whose_line_is_long_goes_to_its_next_worker_and_keeps_nobody_out() {
    let mut stage =
        Stage::new(Limits { choice: Choice::SourceIp, queue: 8, concurrency: Some(1), ..PATIENT });
    let workers = [stage.worker(1), stage.worker(2), stage.worker(3)];
    let client = connect_from(&stage, 1);
    let home_of = || until(|| (0..3).find_map(|at| Some((at, workers[at].accept_now()?))));
    let (home, _held) = home_of();
    // A quarter of the queue waits, and the next one is not kept behind them.
    let waiting: Vec<_> = (0..3).map(|_| connect_from(&stage, 1)).collect();
    let (next, mut taken) = home_of();
    assert_ne!(next, home);
    until_waiting(&stage, 2);
    taken.write_all(b"x").unwrap();
    drop(taken);
    end(&stage, &workers[next], 1);
    assert_eq!(answer(waiting.into_iter().nth(2).unwrap()), "x");
    drop(client);
}

#[test]
fn a_full_worker_is_full_on_all_of_its_listeners() {
    let mut stage = Stage::new(Limits { concurrency: Some(1), ..PATIENT });
    let worker = stage.worker(1);
    let client = stage.connect();
    let _taken = worker.accept();
    let mut other = stage.worker(1);
    other.id = worker.id;
    let waiting = stage.connect();
    until_waiting(&stage, 1);
    drop(client);
    end(&stage, &worker, 1);
    let served = until(|| [&worker, &other].into_iter().find_map(Worker::accept_now));
    drop(served);
    assert_eq!(answer(waiting), "");
}

#[test]
fn a_full_worker_still_answers_clusterds_own_questions() {
    let mut stage = Stage::new(Limits { concurrency: Some(1), ..PATIENT });
    let worker = stage.worker(1);
    let client = stage.connect();
    let mut taken = worker.accept();
    let probe = stage.deliver(&worker);
    worker.serve();
    assert_eq!(probe.result(&stage), Ok(()));
    taken.write_all(b"1").unwrap();
    drop(taken);
    assert_eq!(answer(client), "1");
}
