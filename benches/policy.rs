//! What it costs to choose the worker for a connection, and to hear that it is available again.

use std::hint::black_box;

use clusterd::internal::policy::{Availability, Balancer, Choice, Seat, Slot};
use clusterd::internal::protocol::wire::Endpoint;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const CLIENT: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

const CHOICES: [(&str, Choice); 4] = [
    ("round-robin", Choice::RoundRobin),
    ("least-connections", Choice::LeastConnections),
    ("source-ip", Choice::SourceIp),
    ("random-two", Choice::RandomTwo),
];

fn balancer(choice: Choice, workers: u32) -> Box<dyn Balancer> {
    let mut balancer = choice.balancer();
    for (seat, slot) in (1..=workers).enumerate() {
        balancer.seated(Seat(seat), Slot(slot));
        balancer.stands(Seat(seat), Availability::Idle);
    }
    balancer
}

/// One connection, and one worker that has taken it. For round-robin, the number of workers must not count.
fn turns(criterion: &mut Criterion) {
    for (name, choice) in CHOICES {
        let mut group = criterion.benchmark_group(format!("{name}: one turn among idle workers"));
        for workers in [1, 4, 64, 1024] {
            let mut balancer = balancer(choice, workers);
            let mut open = 0;
            group.bench_function(BenchmarkId::from_parameter(workers), |bencher| {
                bencher.iter(|| {
                    let seat = black_box(&mut balancer).next(&CLIENT).expect("an idle worker");
                    if choice.counts() {
                        open += 1;
                        balancer.open(seat, open % 16);
                    }
                    balancer.stands(seat, Availability::Full);
                    balancer.stands(seat, Availability::Idle);
                });
            });
        }
    }
}

/// Every worker is busy, and one comes back: the usual state under load.
fn turns_when_busy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one turn when all are busy");
    for (name, choice) in CHOICES {
        let mut balancer = balancer(choice, 2);
        (0..2).for_each(|seat| balancer.stands(Seat(seat), Availability::Full));
        let home = balancer.home(&CLIENT).unwrap_or(Seat(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                balancer.stands(black_box(home), Availability::Idle);
                let next = black_box(&mut balancer).next(&CLIENT);
                balancer.stands(home, Availability::Full);
                next
            });
        });
    }
}

criterion_group!(benches, turns, turns_when_busy);
criterion_main!(benches);
