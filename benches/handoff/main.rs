//! What a connection costs the primary: clusterd against a bare loop and Node's cluster, in one run and in turn.
//!
//! Each primary listens on a loopback port of its own and has workers that give the shortest answer and close. In every
//! round, each is measured under two conditions:
//!
//! - *loaded*: some clients, each of which connects again as soon as it was answered;
//! - *burst*: the primary is stopped (SIGSTOP) until a burst of connections fills the kernel's backlog.
//!
//! The bare loop and clusterd have the very same worker program; Node's cluster has a web server of its own, which clusterd
//! serves too, so that the two are compared with the very same workers. It decides nothing: timings
//! depend on the machine, so it prints them and fails only if a connection does. With `cargo bench` it measures; with
//! `--test` or `--smoke`, and under `cargo test`, it only shows in a moment that everything runs.
//!
//! Environment: `CLUSTERD_BENCH_CONNECTIONS` (a round and condition), `CLUSTERD_BENCH_ROUNDS`,
//! `CLUSTERD_BENCH_WORKERS`, `CLUSTERD_BENCH_CLIENTS`, `CLUSTERD_BENCH_BURST`, and `CLUSTERD_BENCH_PRIMARIES`, which
//! names those to compare (`bare,clusterd,node,clusterd-node`).

mod bare;
mod load;
mod primary;
mod process;
mod report;
mod settings;
mod worker;

use anyhow::Context;

use primary::{Kind, Primary};
use report::{Report, Sample};

/// The names of all primaries.
const PRIMARIES: &str = "bare,clusterd,node,clusterd-node";

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(bare::ROLE) => bare::run(),
        Some(worker::ROLE) => worker::run(|| {}),
        _ => compare(&Options::of_this_run()?),
    }
}

/// How much is measured.
pub(crate) struct Options {
    connections: usize,
    rounds: usize,
    workers: usize,
    clients: usize,
    burst: usize,
    primaries: Vec<Kind>,
}

impl Options {
    fn of_this_run() -> anyhow::Result<Self> {
        let (connections, rounds, burst) =
            if settings::is_short() { (200, 2, 100) } else { (20_000, 7, 2_000) };
        Ok(Self {
            connections: settings::number("CLUSTERD_BENCH_CONNECTIONS", connections)?,
            rounds: settings::number("CLUSTERD_BENCH_ROUNDS", rounds)?,
            workers: settings::number("CLUSTERD_BENCH_WORKERS", 4)?,
            clients: settings::number("CLUSTERD_BENCH_CLIENTS", 64)?,
            // What the backlog does not hold is sent again only after a second.
            burst: settings::number("CLUSTERD_BENCH_BURST", burst)?.min(process::longest_backlog()),
            primaries: settings::list("CLUSTERD_BENCH_PRIMARIES", PRIMARIES)?,
        })
    }
}

fn compare(options: &Options) -> anyhow::Result<()> {
    let mut primaries = Vec::new();
    for &kind in &options.primaries {
        match Primary::start(kind, options)? {
            Some(primary) => primaries.push(primary),
            None => println!("{kind}: not installed, left out"),
        }
    }
    let mut report = Report::new(options, primaries.iter().map(Primary::kind));
    for primary in &primaries {
        loaded(primary, options)?;
    }
    for round in 0..options.rounds {
        // Whoever comes first in a round may find the machine in another state, so each does in turn.
        for turn in 0..primaries.len() {
            let index = (round + turn) % primaries.len();
            let primary = &primaries[index];
            report.loaded(index, loaded(primary, options)?);
            report.burst(index, burst(primary, options)?);
            report.resident(index, process::resident_bytes(primary.pid())?);
        }
    }
    print!("{report}");
    Ok(())
}

fn loaded(primary: &Primary, options: &Options) -> anyhow::Result<Sample> {
    measured(primary, options.connections, || {
        load::run(primary.address(), primary.exchange(), options.connections, options.clients, || Ok(()))
    })
}

fn burst(primary: &Primary, options: &Options) -> anyhow::Result<Sample> {
    let bursts = options.connections.div_ceil(options.burst);
    measured(primary, bursts * options.burst, || {
        for _ in 0..bursts {
            process::stop(primary.pid())?;
            let resume = || process::resume(primary.pid());
            load::run(primary.address(), primary.exchange(), options.burst, options.burst, resume)?;
        }
        Ok(())
    })
}

fn measured(
    primary: &Primary,
    connections: usize,
    load: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let context = || format!("the connections to {}", primary.kind());
    let cpu = process::cpu_time(primary.pid())?;
    let whole = process::cpu_time_of_all(primary.pid())?;
    let start = std::time::Instant::now();
    load().with_context(context)?;
    let wall = start.elapsed();
    let cpu = process::cpu_time(primary.pid())?.saturating_sub(cpu);
    let whole = process::cpu_time_of_all(primary.pid())?.saturating_sub(whole);
    Ok(Sample::new(connections, cpu, whole, wall))
}
