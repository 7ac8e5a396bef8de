//! What it costs to pick the worker for a connection and to put it back into the free pool.

use std::hint::black_box;

use clusterd::internal::policy::round_robin::RoundRobin;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn pool(workers: u64) -> RoundRobin<u64> {
    let mut pool = RoundRobin::new();
    (1..=workers).for_each(|worker| pool.release(worker));
    pool
}

/// One connection, and one worker that has taken it. Putting back looks through the pool, so its size counts.
fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one turn among idle workers");
    for workers in [1, 4, 64] {
        let mut pool = pool(workers);
        group.bench_function(BenchmarkId::from_parameter(workers), |bencher| {
            bencher.iter(|| {
                let worker = black_box(&mut pool).take().expect("an idle worker");
                pool.release(worker);
            });
        });
    }
}

/// Every worker is busy, and one comes back: the usual state under load.
fn turns_when_busy(criterion: &mut Criterion) {
    let mut pool = RoundRobin::new();
    criterion.bench_function("one turn when all are busy", |bencher| {
        bencher.iter(|| {
            pool.release(black_box(1_u64));
            black_box(&mut pool).take()
        });
    });
}

criterion_group!(benches, turns, turns_when_busy);
criterion_main!(benches);
