//! What it costs to choose the worker for a connection, and to hear that it is available again.

use std::hint::black_box;

use clusterd::internal::policy::{Balancer, Choice, Seat};
use clusterd::internal::protocol::wire::Endpoint;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const CLIENT: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

fn balancer(workers: usize) -> Box<dyn Balancer> {
    let mut balancer = Choice::RoundRobin.balancer();
    (0..workers).for_each(|seat| balancer.joined(Seat(seat)));
    balancer
}

/// One connection, and one worker that has taken it. The number of workers must not count.
fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one turn among idle workers");
    for workers in [1, 4, 64, 1024] {
        let mut balancer = balancer(workers);
        group.bench_function(BenchmarkId::from_parameter(workers), |bencher| {
            bencher.iter(|| {
                let seat = black_box(&mut balancer).next(&CLIENT).expect("an idle worker");
                balancer.left(seat);
                balancer.joined(seat);
            });
        });
    }
}

/// Every worker is busy, and one comes back: the usual state under load.
fn turns_when_busy(criterion: &mut Criterion) {
    let mut balancer = balancer(0);
    criterion.bench_function("one turn when all are busy", |bencher| {
        bencher.iter(|| {
            balancer.joined(black_box(Seat(1)));
            let next = black_box(&mut balancer).next(&CLIENT);
            balancer.left(Seat(1));
            next
        });
    });
}

criterion_group!(benches, turns, turns_when_busy);
criterion_main!(benches);
