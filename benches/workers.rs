//! What a connection costs the data path with a few workers and with many, in one run and in turn.
//!
//! The number of workers must not matter: a connection goes to one of them. In every round, clusterd with each number of
//! workers is measured under three conditions:
//!
//! - *single*: one client at a time, so that all other workers are idle;
//! - *loaded*: some clients, each of which connects again as soon as it was answered;
//! - *burst*: the primary is stopped (SIGSTOP) until a burst of connections fills the kernel's backlog.
//!
//! What counts is CPU time, user's and system's: of the thread `front`; of clusterd, its workers and the clients together;
//! and of the whole machine, which is the only one that has all that the kernel does for a connection, but also whatever
//! else runs. It decides nothing: timings depend on the machine, so it prints them and fails only if a connection does. With `cargo bench` it measures; with `--test` or
//! `--smoke`, and under `cargo test`, it only shows in a moment that everything runs.
//!
//! Environment: `CLUSTERD_BENCH_CONNECTIONS` (a round and condition), `CLUSTERD_BENCH_ROUNDS`, `CLUSTERD_BENCH_CLIENTS`,
//! `CLUSTERD_BENCH_BURST`, `CLUSTERD_BENCH_WORKERS` (numbers, as in `4,64`), and `CLUSTERD_BENCH_PROGRAMS`: paths of
//! `clusterd` programs to compare with each other in turn, with options (`/old/clusterd,/new/clusterd --queue 9`). Without it,
//! there are two: with the default settings, and with `--connection-stats`.

#[path = "handoff/load.rs"]
mod load;
#[path = "handoff/process.rs"]
#[allow(dead_code, reason = "the other benchmark also measures whole processes")]
mod process;
#[path = "handoff/settings.rs"]
mod settings;
#[path = "handoff/worker.rs"]
mod worker;

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Pid;

use load::Exchange;

/// What the workers say.
const EXCHANGE: Exchange = Exchange { request: b"", answer: b"x" };
/// How long a cluster may take to serve its first connection, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// With the default settings, and with those that cost something for each connection.
const PROGRAMS: &str = concat!(
    env!("CARGO_BIN_EXE_clusterd"),
    ",",
    env!("CARGO_BIN_EXE_clusterd"),
    " --metrics 127.0.0.1:0 --connection-stats"
);

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(worker::ROLE) => worker::run(|| {}),
        _ => compare(&Options::of_this_run()?),
    }
}

/// How much is measured.
struct Options {
    connections: usize,
    rounds: usize,
    clients: usize,
    burst: usize,
    workers: Vec<usize>,
    programs: Vec<String>,
}

impl Options {
    fn of_this_run() -> anyhow::Result<Self> {
        let (connections, rounds, workers) =
            if settings::is_short() { (200, 1, "1,4") } else { (10_000, 9, "4,64") };
        Ok(Self {
            connections: settings::number("CLUSTERD_BENCH_CONNECTIONS", connections)?,
            rounds: settings::number("CLUSTERD_BENCH_ROUNDS", rounds)?,
            clients: settings::number("CLUSTERD_BENCH_CLIENTS", 64)?,
            burst: settings::number("CLUSTERD_BENCH_BURST", 2_000)?
                .min(connections)
                .min(process::longest_backlog()),
            workers: settings::list("CLUSTERD_BENCH_WORKERS", workers)?,
            programs: settings::list("CLUSTERD_BENCH_PROGRAMS", PROGRAMS)?,
        })
    }
}

fn compare(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for program in &options.programs {
        for &workers in &options.workers {
            rows.push(Row { cluster: Cluster::start(program, workers)?, samples: Default::default() });
        }
    }
    for round in 0..=options.rounds {
        // Whoever comes first in a round may find the machine in another state, so each does in turn.
        for turn in 0..rows.len() {
            let index = (round + turn) % rows.len();
            for condition in Condition::ALL {
                let sample = rows[index].cluster.measure(condition, options)?;
                // The first round only warms up.
                if round > 0 {
                    rows[index].add(condition, sample);
                }
            }
        }
    }
    report(options, &rows);
    Ok(())
}

/// What the clients do.
#[derive(Clone, Copy)]
enum Condition {
    Single,
    Loaded,
    Burst,
}

impl Condition {
    const ALL: [Condition; 3] = [Condition::Single, Condition::Loaded, Condition::Burst];

    fn name(self) -> &'static str {
        match self {
            Condition::Single => "single",
            Condition::Loaded => "loaded",
            Condition::Burst => "burst",
        }
    }
}

/// Whose CPU time is measured.
#[derive(Clone, Copy)]
enum Consumer {
    Front,
    /// clusterd, its workers and the clients.
    Processes,
    Machine,
}

impl Consumer {
    const ALL: [Consumer; 3] = [Consumer::Front, Consumer::Processes, Consumer::Machine];

    /// What it has used so far, for this clusterd.
    fn cpu_time(self, primary: Pid) -> anyhow::Result<Duration> {
        match self {
            Consumer::Front => front_cpu_time(primary),
            Consumer::Processes => {
                let clients = process::cpu_time(rustix::process::getpid())?;
                Ok(process::cpu_time_of_all(primary)? + clients)
            }
            Consumer::Machine => machine_cpu_time(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Consumer::Front => "the front",
            Consumer::Processes => "clusterd, its workers and the clients",
            Consumer::Machine => "the whole machine",
        }
    }
}

/// A running clusterd with its workers, ended when it is dropped.
struct Cluster {
    program: String,
    workers: usize,
    child: Child,
    address: SocketAddr,
}

impl Cluster {
    /// Starts it and waits until every worker serves.
    fn start(program: &str, workers: usize) -> anyhow::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut words = program.split(' ');
        let child = Command::new(words.next().context("no program")?)
            .env("CLUSTERD_LOG_LEVEL", "warn")
            .args(words)
            .args(["--bind", &address.to_string(), "--workers", &workers.to_string(), "--"])
            .arg(std::env::current_exe()?)
            .arg(worker::ROLE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let cluster = Self { program: program.to_owned(), workers, child, address };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            anyhow::ensure!(Instant::now() < deadline, "{cluster} serves nothing within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        // One for each, and some for those that start late.
        load::run(address, EXCHANGE, workers * 16, workers, || Ok(()))?;
        Ok(cluster)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The CPU time of each consumer a connection, in microseconds.
    fn measure(&self, condition: Condition, options: &Options) -> anyhow::Result<[f64; 3]> {
        let context = || format!("the connections to {self}");
        let mut used = [Duration::ZERO; 3];
        for (used, consumer) in used.iter_mut().zip(Consumer::ALL) {
            *used = consumer.cpu_time(self.pid())?;
        }
        let connections = self.load(condition, options).with_context(context)?;
        let mut sample = [0.0; 3];
        for ((sample, before), consumer) in sample.iter_mut().zip(used).zip(Consumer::ALL) {
            let used = consumer.cpu_time(self.pid())?.saturating_sub(before);
            *sample = used.as_secs_f64() * 1e6 / connections as f64;
        }
        Ok(sample)
    }

    /// Returns how many connections there were.
    fn load(&self, condition: Condition, options: &Options) -> anyhow::Result<usize> {
        let run = |total, at_once| load::run(self.address, EXCHANGE, total, at_once, || Ok(()));
        match condition {
            Condition::Single => run(options.connections, 1)?,
            Condition::Loaded => run(options.connections, options.clients)?,
            Condition::Burst => {
                let bursts = options.connections.div_ceil(options.burst);
                for _ in 0..bursts {
                    process::stop(self.pid())?;
                    let resume = || process::resume(self.pid());
                    load::run(self.address, EXCHANGE, options.burst, options.burst, resume)?;
                }
                return Ok(bursts * options.burst);
            }
        }
        Ok(options.connections)
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} workers", self.program, self.workers)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        process::end(&mut self.child, PATIENCE);
    }
}

/// The CPU time of the thread that moves connections, to the nanosecond (the first number of `schedstat`,
/// Documentation/scheduler/sched-stats.rst).
fn front_cpu_time(pid: Pid) -> anyhow::Result<Duration> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim_end() == "front" {
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds = schedstat.split_whitespace().next().context("schedstat is empty")?;
            return Ok(Duration::from_nanos(nanoseconds.parse()?));
        }
    }
    anyhow::bail!("process {pid} has no thread that is called front")
}

/// The time for which the processors were not idle, in ticks of 10 ms (proc_stat(5)).
fn machine_cpu_time() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line =
        stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat has no cpu")?;
    let fields = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq.
    let ticks: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&index| fields.get(index)).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64))
}

/// What was measured of one cluster, by consumer and condition.
struct Row {
    cluster: Cluster,
    samples: [[Vec<f64>; 3]; 3],
}

impl Row {
    fn add(&mut self, condition: Condition, sample: [f64; 3]) {
        for (samples, value) in self.samples.iter_mut().zip(sample) {
            samples[condition as usize].push(value);
        }
    }
}

/// Medians over the rounds. Each is also shown as a multiple of what the same program needs with the first number of
/// workers, and of what the first program needs with the same number.
fn report(options: &Options, rows: &[Row]) {
    println!(
        "{} rounds of {} connections; loaded: {} clients; burst: {} at once",
        options.rounds, options.connections, options.clients, options.burst
    );
    println!(
        "CPU time a connection in microseconds: median (least-most), and the median as a multiple of that with the"
    );
    println!("first number of workers, and of that of the first program");
    for consumer in Consumer::ALL {
        println!("\nof {}:", consumer.name());
        let heads = Condition::ALL.map(|condition| format!("{:>28} {:>5} {:>5}", condition.name(), "w", "p"));
        println!("{:>7} {}  program", "workers", heads.join(" "));
        for (index, row) in rows.iter().enumerate() {
            let number = index % options.workers.len();
            let of_few = &rows[index - number].samples[consumer as usize];
            let of_first = &rows[number].samples[consumer as usize];
            print!("{:>7}", row.cluster.workers);
            for condition in Condition::ALL.map(|condition| condition as usize) {
                let samples = &row.samples[consumer as usize][condition];
                let ratio = |other: &Vec<f64>| median(samples) / median(other);
                let (few, first) = (ratio(&of_few[condition]), ratio(&of_first[condition]));
                print!(" {:>28} {few:>5.2} {first:>5.2}", spread(samples));
            }
            println!("  {}", row.cluster.program);
        }
    }
}

fn spread(samples: &[f64]) -> String {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(samples))
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
