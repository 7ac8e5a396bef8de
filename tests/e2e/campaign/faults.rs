//! What goes wrong in a campaign: one fault after the other, by chance, some of which go on while the next begins.
//!
//! Before a worker is killed it is stopped, so that the connections which it has taken can be read from its descriptors.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::ledger::Kill;
use crate::harness::process::Process;
use crate::harness::{Cluster, Signal, until};

/// A worker that lived for so many seconds is started again at once, as `--min-uptime` is by default.
const LIFETIME: f64 = 1.1;
/// How many workers there are at least and at most.
const FEWEST: usize = 2;
const MOST: usize = 6;

/// Something that goes wrong, or that an operator does at the wrong time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A worker is killed.
    Kill,
    /// A worker is stopped for a while.
    Stop,
    /// A worker gets no descriptor for a while.
    FullWorker,
    /// The primary gets no descriptor for a while.
    FullPrimary,
    /// Every worker is replaced.
    Reload,
    /// One worker more or fewer is wanted.
    Scale,
}

/// Brings them about, and keeps count.
pub(super) struct Faults<'a> {
    cluster: &'a Cluster,
    random: Rng,
    kinds: &'a [Fault],
    /// How long one takes at most, and twice as long as there is at most between two.
    longest: Duration,
    /// A worker that lived for so many seconds is started again at once.
    lifetime: f64,
    pub(super) kills: Vec<Kill>,
    pub(super) counts: BTreeMap<Fault, usize>,
}

impl<'a> Faults<'a> {
    /// Of these kinds.
    pub(super) fn new(cluster: &'a Cluster, kinds: &'a [Fault], longest: Duration, random: Rng) -> Self {
        let (kills, counts) = (Vec::new(), BTreeMap::new());
        Self { cluster, random, kinds, longest, lifetime: LIFETIME, kills, counts }
    }

    /// Workers that lived for so many seconds may be killed: it is what `--min-uptime` says.
    pub(super) fn with_lifetime(self, lifetime: f64) -> Self {
        Self { lifetime, ..self }
    }

    /// The next one, which is over for workers and primary when this returns. Not each finds somebody.
    pub(super) fn next(&mut self) {
        thread::sleep(self.a_while() / 2);
        let Some(&fault) = self.random.choice(self.kinds) else { return };
        let happened = match fault {
            Fault::Kill => self.kill(),
            Fault::Stop => self.stop_for_a_while(),
            Fault::FullWorker => self.somebody().is_some_and(|worker| self.fill(&worker)),
            Fault::FullPrimary => self.is_calm() && self.fill(&self.cluster.primary()),
            Fault::Reload => self.signal_primary(Signal::HUP),
            Fault::Scale => self.scale(),
        };
        *self.counts.entry(fault).or_default() += usize::from(happened);
    }

    /// A worker, be it a new one or one that leaves.
    fn somebody(&mut self) -> Option<Process> {
        let mut workers = self.cluster.workers();
        (!workers.is_empty()).then(|| workers.swap_remove(self.random.usize(..workers.len())))
    }

    fn a_while(&mut self) -> Duration {
        self.longest.mul_f64(self.random.f64())
    }

    /// Stops somebody, who may end before that.
    fn stop(&mut self) -> Option<Process> {
        let worker = self.somebody()?;
        worker.signal(Signal::STOP);
        until("it is stopped, or has ended", || (worker.is_stopped() || !worker.is_alive()).then_some(()));
        thread::sleep(self.a_while());
        Some(worker)
    }

    fn stop_for_a_while(&mut self) -> bool {
        let stopped = self.stop();
        stopped.as_ref().inspect(|worker| worker.signal(Signal::CONT));
        stopped.is_some()
    }

    fn kill(&mut self) -> bool {
        let Some(worker) = self.stop() else { return false };
        // One that ends too soon after its start, again and again, is given up.
        if worker.age().is_none_or(|age| age < self.lifetime) {
            worker.signal(Signal::CONT);
            return false;
        }
        let (pid, taken, at) = (worker.pid(), worker.peers(), Instant::now());
        worker.signal(Signal::KILL);
        until("it is gone", || (!worker.is_alive()).then_some(()));
        self.kills.push(Kill { pid, at, taken });
        true
    }

    /// Leaves the process without a free descriptor for a while.
    fn fill(&mut self, process: &Process) -> bool {
        let pid = Pid::from_raw(process.pid());
        let now = procfs::process::Process::new(process.pid()).and_then(|process| process.limits());
        let Ok(limits) = now else { return false };
        let value = |value| match value {
            procfs::process::LimitValue::Unlimited => None,
            procfs::process::LimitValue::Value(number) => Some(number),
        };
        let maximum = value(limits.max_open_files.hard_limit);
        let usual = Rlimit { current: value(limits.max_open_files.soft_limit), maximum };
        if prlimit(pid, Resource::Nofile, Rlimit { current: Some(3), maximum }).is_err() {
            return false;
        }
        thread::sleep(self.a_while());
        // It may have ended meanwhile.
        let _ = prlimit(pid, Resource::Nofile, usual);
        true
    }

    /// Whether no process is about to be started: without a descriptor none can be, and after some attempts it is given
    /// up.
    fn is_calm(&self) -> bool {
        let workers = self.cluster.metrics();
        let online = workers.count("clusterd_workers", &[("state", "online")]);
        online == workers.count("clusterd_workers", &[]) && !is_reloading(self.cluster)
    }

    fn signal_primary(&self, signal: Signal) -> bool {
        self.cluster.primary().signal(signal);
        true
    }

    fn scale(&mut self) -> bool {
        let workers = self.cluster.workers().len();
        let more = workers <= FEWEST || (workers < MOST && self.random.bool());
        self.signal_primary(if more { Signal::TTIN } else { Signal::TTOU })
    }
}

/// Whether a reload is under way.
pub(super) fn is_reloading(cluster: &Cluster) -> bool {
    let said = |beginning| cluster.stderr.said(&[beginning]).len();
    said("reload started by") != said("reload done") + said("reload failed")
}
