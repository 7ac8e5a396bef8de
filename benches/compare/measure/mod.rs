//! What is measured: the list, and what each measure is given and returns. One measure a file.

mod alone;
mod computing;
mod crowd;
mod fraction;
mod kept;
mod killed;
mod memory;
mod neighbours;
mod queued;
mod reload;
mod saturation;
mod start;
mod steady;
mod stopped;

use std::time::Duration;

use crate::load::{self, Load, Pace, Seen};
use crate::plan::Plan;
use crate::report::{Unit, Value};
use crate::running::{Cpu, Running};

pub(crate) use neighbours::{ROLE as NEIGHBOUR, run as run_neighbour};

/// Requests a second where something is wrong: few enough for everybody.
const LIGHT: f64 = 500.0;
/// The same for everybody.
const STEADY: f64 = 2_000.0;
/// For so many slices, clients come before anything is measured: runtimes compile what runs often.
pub(crate) const WARM_UP: f64 = 1.0;
/// An answer that takes longer is late.
const LATE: Duration = Duration::from_millis(100);

/// What a measure is given.
pub(crate) struct Stage<'a> {
    pub(crate) running: &'a Running<'a>,
    pub(crate) plan: Plan,
    pub(crate) round: usize,
    /// New connections a second at saturation, once they are known.
    pub(crate) saturated: Option<f64>,
}

pub(crate) struct Measure {
    pub(crate) name: &'static str,
    /// Above its table.
    pub(crate) says: &'static str,
    /// How many slices of time it takes.
    pub(crate) slices: f64,
    /// Whether the default run has it.
    pub(crate) is_default: bool,
    pub(crate) run: fn(&mut Stage<'_>) -> anyhow::Result<Vec<Value>>,
}

/// In the order in which they run: those after which a contender is not as before come last.
pub(crate) const ALL: &[Measure] = &[
    Measure {
        name: "start",
        says: "From starting it to the first answer, asked for every millisecond.",
        slices: 0.0,
        is_default: true,
        run: start::run,
    },
    Measure {
        name: "saturation",
        says: "A connection for each request, as many as are served: 64 clients, each comes again once it is answered.",
        slices: 1.0,
        is_default: true,
        run: saturation::run,
    },
    Measure {
        name: "tenth",
        says: "A connection for each request, at a tenth of its own saturation.",
        slices: 1.0,
        is_default: false,
        run: fraction::tenth,
    },
    Measure {
        name: "half",
        says: "A connection for each request, at half of its own saturation.",
        slices: 1.0,
        is_default: false,
        run: fraction::half,
    },
    Measure {
        name: "steady",
        says: "A connection for each request, 2,000 a second for everybody.",
        slices: 1.0,
        is_default: true,
        run: steady::run,
    },
    Measure {
        name: "alone",
        says: "A connection for each request, from one client, who comes again once it is answered.",
        slices: 0.5,
        is_default: true,
        run: alone::run,
    },
    Measure {
        name: "kept",
        says: "64 kept connections, each asks again once it is answered.",
        slices: 1.0,
        is_default: true,
        run: kept::run,
    },
    Measure {
        name: "memory",
        says: "Memory of the front after these.",
        slices: 0.0,
        is_default: true,
        run: memory::run,
    },
    Measure {
        name: "stopped",
        says: "500 new connections a second while one worker is stopped (SIGSTOP) for a third of the time.",
        slices: 3.0,
        is_default: true,
        run: stopped::run,
    },
    Measure {
        name: "computing",
        says: "500 new connections a second while a request computes for 200 ms, twice a second.",
        slices: 2.0,
        is_default: false,
        run: computing::run,
    },
    Measure {
        name: "neighbours",
        says: "500 new connections a second, then as many as are served, beside two endless loops on the machine.",
        slices: 2.0,
        is_default: false,
        run: neighbours::measure,
    },
    Measure {
        name: "reload",
        says: "Workers are replaced under 500 requests a second over 64 kept connections, then under 500 new connections a second.",
        slices: 4.0,
        is_default: false,
        run: reload::run,
    },
    Measure {
        name: "queued",
        says: "10,000 clients connect at once while all workers are stopped, which then go on.",
        slices: 1.0,
        is_default: false,
        run: queued::run,
    },
    Measure {
        name: "killed",
        says: "One worker is killed (SIGKILL) under 500 new connections a second.",
        slices: 3.0,
        is_default: false,
        run: killed::run,
    },
    Measure {
        name: "crowd",
        says: "CPU time of a new connection at saturation with 1, 4, 16, 64 and 256 workers (those of Node and others: up to 16).",
        slices: 5.0,
        is_default: false,
        run: crowd::run,
    },
];

impl Stage<'_> {
    pub(crate) fn warm_up(&self) -> anyhow::Result<()> {
        load::run(self.load(Pace::Closed, false, WARM_UP)).map(drop)
    }

    fn load(&self, pace: Pace, is_kept: bool, slices: f64) -> Load {
        let clients = match pace {
            Pace::Open(_) if !is_kept => load::CROWD,
            _ => self.plan.clients,
        };
        let (address, lasts) = (self.running.address, self.plan.slice.mul_f64(slices));
        Load { address, pace, clients, is_kept, lasts }
    }
}

/// Runs the clients, and returns the CPU time meanwhile as well.
fn with_cpu(running: &Running<'_>, load: Load) -> anyhow::Result<(Seen, Cpu)> {
    let before = running.cpu()?;
    let seen = load::run(load)?;
    let after = running.cpu()?;
    Ok((seen, Cpu { front: after.front - before.front, workers: after.workers - before.workers }))
}

/// CPU time of each answer.
fn costs(seen: &Seen, cpu: Cpu) -> Vec<Value> {
    let each = |seconds: f64| seconds * 1e6 / seen.answered() as f64;
    vec![
        Value::new("CPU of front", Unit::Microseconds, each(cpu.front)),
        Value::new("CPU of workers", Unit::Microseconds, each(cpu.workers)),
        Value::new("CPU of both", Unit::Microseconds, each(cpu.front + cpu.workers)),
    ]
}

fn latencies(seen: &Seen) -> Vec<Value> {
    let at = |name, share| Value::new(name, Unit::Milliseconds, seen.milliseconds(share));
    vec![at("p50", 0.5), at("p99", 0.99), at("p99.9", 0.999)]
}

fn failures(seen: &Seen) -> Value {
    Value::new("failed", Unit::Count, seen.failed as f64)
}

fn late(seen: &Seen) -> Value {
    Value::new("over 100 ms", Unit::Count, seen.took.longer_than(LATE) as f64)
}

/// How many times as much as the idlest worker the busiest one has answered; endless if one has answered nothing.
fn spread(running: &Running<'_>, seen: &Seen) -> Value {
    let answers = |worker: &i32| seen.by_worker.get(worker).copied().unwrap_or_default() as f64;
    let (mut most, mut least) = (0.0_f64, f64::INFINITY);
    for answers in running.answering.iter().map(answers) {
        (most, least) = (most.max(answers), least.min(answers));
    }
    Value::new("busiest/idlest", Unit::Times, most / least)
}
