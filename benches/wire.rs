//! What it costs to write and read the attach protocol's messages.

use std::hint::black_box;

use clusterd::internal::protocol::wire::{Binding, Endpoint, FromWorker, MAX_MESSAGE, ToWorker, Token};
use criterion::{Criterion, criterion_group, criterion_main};

const PEER: Endpoint = Endpoint::V6 {
    address: [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    port: 40_000,
    scope: 0,
};

/// Once for each connection, on either side.
fn connection(criterion: &mut Criterion) {
    let message = ToWorker::Connection { peer: PEER, linger: None };
    let mut buffer = [0; MAX_MESSAGE];
    let record = message.encode(&mut buffer).to_vec();
    criterion.bench_function("write a connection", |bencher| {
        bencher.iter(|| black_box(&message).encode(&mut buffer).len());
    });
    criterion.bench_function("read a connection", |bencher| {
        bencher.iter(|| ToWorker::decode(black_box(&record)));
    });
}

/// Once for each listener.
fn attach(criterion: &mut Criterion) {
    let message = FromWorker::Attach {
        token: Token([7; 16]),
        binding: Binding::new(PEER),
        wants_drain: true,
        brings_socket: false,
    };
    let mut buffer = [0; MAX_MESSAGE];
    let record = message.encode(&mut buffer).to_vec();
    criterion.bench_function("write an attach", |bencher| {
        bencher.iter(|| black_box(&message).encode(&mut buffer).len());
    });
    criterion.bench_function("read an attach", |bencher| {
        bencher.iter(|| FromWorker::decode(black_box(&record)));
    });
}

criterion_group!(benches, connection, attach);
criterion_main!(benches);
