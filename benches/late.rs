//! How long clients wait when a worker does not take its connection at once, while others have nothing to do.
//!
//! A few clients connect again and again, with pauses, to four workers. In every round each program is measured under
//! three conditions:
//!
//! - *healthy*: every worker answers at once;
//! - *stopped*: one of the workers is stopped (SIGSTOP), another one in each round;
//! - *computing*: one of the workers computes for 200 ms after one of its connections in 100, by chance.
//!
//! What counts is the time from connecting to the answer. It decides nothing: timings depend on the machine, so it prints
//! them and fails only if a connection does. With `cargo bench` it measures; with `--test` or `--smoke`, and under `cargo
//! test`, it only shows in a moment that everything runs.
//!
//! Environment: `CLUSTERD_BENCH_CONNECTIONS` (a round and condition), `CLUSTERD_BENCH_ROUNDS`, `CLUSTERD_BENCH_CLIENTS`,
//! and `CLUSTERD_BENCH_PROGRAMS`: paths of `clusterd` programs to compare with each other in turn
//! (`/old/clusterd,/new/clusterd`).

#[path = "handoff/process.rs"]
#[allow(dead_code, reason = "the other benchmarks also measure CPU time and memory")]
mod process;
#[path = "handoff/settings.rs"]
mod settings;
#[path = "handoff/worker.rs"]
mod worker;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Pid;

/// The first argument of a worker that computes now and then.
const COMPUTING: &str = "role-computing";
/// The first of them does so after one connection in so many, for so long.
const ONE_IN: usize = 100;
const COMPUTES: Duration = Duration::from_millis(200);
/// How long a client rests after an answer.
const REST: Duration = Duration::from_millis(2);
/// How long a cluster may take to serve, or to end, and a client to be answered.
const PATIENCE: Duration = Duration::from_secs(30);
const WORKERS: usize = 4;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(worker::ROLE) => worker::run(|| {}),
        Some(COMPUTING) => {
            let is_first = std::env::var("NODE_APP_INSTANCE").is_ok_and(|instance| instance == "0");
            worker::run(|| {
                if is_first && fastrand::usize(..ONE_IN) == 0 {
                    thread::sleep(COMPUTES);
                }
            })
        }
        _ => compare(&Options::of_this_run()?),
    }
}

/// How much is measured.
struct Options {
    connections: usize,
    rounds: usize,
    clients: usize,
    programs: Vec<String>,
}

impl Options {
    fn of_this_run() -> anyhow::Result<Self> {
        let (connections, rounds) = if settings::is_short() { (100, 1) } else { (4_000, 5) };
        Ok(Self {
            connections: settings::number("CLUSTERD_BENCH_CONNECTIONS", connections)?,
            rounds: settings::number("CLUSTERD_BENCH_ROUNDS", rounds)?,
            clients: settings::number("CLUSTERD_BENCH_CLIENTS", 4)?,
            programs: settings::list("CLUSTERD_BENCH_PROGRAMS", env!("CARGO_BIN_EXE_clusterd"))?,
        })
    }
}

/// What is wrong with the workers.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Healthy,
    Stopped,
    Computing,
}

impl Condition {
    const ALL: [Condition; 3] = [Condition::Healthy, Condition::Stopped, Condition::Computing];
}

/// A program under a condition, and the times that its clients waited.
struct Row<'a> {
    program: &'a str,
    condition: Condition,
    waited: Vec<Duration>,
}

fn compare(options: &Options) -> anyhow::Result<()> {
    let mut rows: Vec<_> = options
        .programs
        .iter()
        .flat_map(|program| Condition::ALL.map(|condition| Row { program, condition, waited: Vec::new() }))
        .collect();
    for round in 0..options.rounds {
        // Whoever comes first in a round may find the machine in another state, so each does in turn.
        for turn in 0..rows.len() {
            let index = (round + turn) % rows.len();
            rows[index].measure(round, options)?;
        }
    }
    report(options, &mut rows);
    Ok(())
}

impl Row<'_> {
    fn measure(&mut self, round: usize, options: &Options) -> anyhow::Result<()> {
        let role = if matches!(self.condition, Condition::Computing) { COMPUTING } else { worker::ROLE };
        let cluster = Cluster::start(self.program, role)?;
        let stopped = match self.condition {
            Condition::Stopped => Some(cluster.workers(role)?[round % WORKERS]),
            Condition::Healthy | Condition::Computing => None,
        };
        stopped.map(process::stop).transpose()?;
        let waited = load(cluster.address, options);
        stopped.map(process::resume).transpose()?;
        self.waited
            .extend(waited.with_context(|| format!("{} with {:?} workers", self.program, self.condition))?);
        Ok(())
    }
}

/// The clients; returns how long each connection waited for its answer.
fn load(address: SocketAddr, options: &Options) -> anyhow::Result<Vec<Duration>> {
    let share = options.connections.div_ceil(options.clients);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..options.clients)
            .map(|_| {
                scope.spawn(move || {
                    (0..share)
                        .map(|_| {
                            thread::sleep(REST);
                            answered(address)
                        })
                        .collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        let mut waited = Vec::with_capacity(options.connections);
        for client in clients {
            waited.extend(client.join().expect("no client panics")?);
        }
        Ok(waited)
    })
}

fn answered(address: SocketAddr) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).context("a connection was not answered")?;
    Ok(begin.elapsed())
}

/// A running clusterd with its workers, ended when it is dropped.
struct Cluster {
    child: Child,
    address: SocketAddr,
}

impl Cluster {
    /// Starts it and waits until every worker serves.
    fn start(program: &str, role: &str) -> anyhow::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new(program)
            .env("CLUSTERD_LOG_LEVEL", "error")
            .args(["--bind", &address.to_string(), "--workers", &WORKERS.to_string(), "--"])
            .arg(std::env::current_exe()?)
            .arg(role)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let cluster = Self { child, address };
        let deadline = Instant::now() + PATIENCE;
        while cluster.workers(role)?.len() < WORKERS || answered(address).is_err() {
            anyhow::ensure!(Instant::now() < deadline, "{program} serves nothing within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(10));
        }
        // Some for those that start late.
        for _ in 0..WORKERS * 16 {
            answered(address)?;
        }
        Ok(cluster)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The processes of its workers.
    fn workers(&self, role: &str) -> anyhow::Result<Vec<Pid>> {
        let parent = self.pid().as_raw_nonzero().get();
        let is_worker = |process: &procfs::process::Process| {
            process.stat().is_ok_and(|stat| stat.ppid == parent)
                && process.cmdline().is_ok_and(|words| words.get(1).is_some_and(|word| word == role))
        };
        let all = procfs::process::all_processes()?.filter_map(Result::ok);
        Ok(all.filter(is_worker).filter_map(|process| Pid::from_raw(process.pid())).collect())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        process::end(&mut self.child, PATIENCE);
    }
}

/// Quantiles, and each as a multiple of what the same program's clients wait with healthy workers.
fn report(options: &Options, rows: &mut [Row<'_>]) {
    println!(
        "{} rounds of {} connections, {} clients, {WORKERS} workers; milliseconds, and ratio to healthy",
        options.rounds, options.connections, options.clients
    );
    println!("{:>10} {:>9} {:>9} {:>6} {:>9} {:>6}  program", "workers", "p50", "p99", "", "slowest", "");
    for of_program in rows.chunks_mut(Condition::ALL.len()) {
        of_program.iter_mut().for_each(|row| row.waited.sort_unstable());
        let at = |row: &Row<'_>, share: f64| {
            let index = (row.waited.len() as f64 * share) as usize;
            row.waited[index.min(row.waited.len() - 1)].as_secs_f64() * 1e3
        };
        for row in &*of_program {
            let condition = format!("{:?}", row.condition).to_lowercase();
            let [p99, slowest] =
                [0.99, 1.0].map(|share| (at(row, share), at(row, share) / at(&of_program[0], share)));
            println!(
                "{condition:>10} {:>9.2} {:>9.2} {:>6.2} {:>9.2} {:>6.2}  {}",
                at(row, 0.5),
                p99.0,
                p99.1,
                slowest.0,
                slowest.1,
                row.program
            );
        }
    }
}
