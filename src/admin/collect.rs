//! Metrics that are read from the kernel at each scrape; those of the workers' processes are here.
//!
//! It counts nothing itself, and does not know what a worker's state is: only which process fills which slot.

use procfs::process::{ProcState, Process};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, IntGaugeVec, Opts, Registry};
use rustix::process::Pid;

use super::listen_queues::ListenQueues;
use super::network_namespace::NetworkNamespace;
use super::own_process::OwnProcess;
use crate::ids::Slot;

/// Tells the main process of each worker that has one now.
pub(crate) type Processes = Box<dyn Fn() -> Vec<(Slot, Pid)> + Send + Sync>;

/// Registers the metrics of these workers' processes, the `process_*` of the calling one, and those of these queues in the
/// kernel.
///
/// # Errors
/// A metric of one of these names is registered already.
pub(crate) fn register(
    registry: &Registry,
    workers: Processes,
    queues: &ListenQueues,
) -> Result<(), prometheus::Error> {
    registry.register(Box::new(WorkerProcesses::new(workers)))?;
    queues.register(registry)?;
    registry.register(Box::new(NetworkNamespace::new()))?;
    registry.register(Box::new(OwnProcess::new()))
}

/// One scrape's values, filled anew each time so that a worker that is gone leaves none behind.
struct Values {
    cpu: CounterVec,
    memory: GaugeVec,
    fds: IntGaugeVec,
    start: GaugeVec,
}

impl Values {
    fn new() -> Self {
        let labels = &["worker"];
        let cpu = Opts::new(
            "clusterd_worker_cpu_seconds_total",
            "User and system CPU time of the worker's main process.",
        );
        let memory = Opts::new(
            "clusterd_worker_resident_memory_bytes",
            "Resident memory of the worker's main process.",
        );
        let fds =
            Opts::new("clusterd_worker_open_fds", "Open file descriptors of the worker's main process.");
        let start = Opts::new(
            "clusterd_worker_start_time_seconds",
            "When the worker's main process started, in seconds since the Unix epoch.",
        );
        Self {
            cpu: CounterVec::new(cpu, labels).expect("a valid metric"),
            memory: GaugeVec::new(memory, labels).expect("a valid metric"),
            fds: IntGaugeVec::new(fds, labels).expect("a valid metric"),
            start: GaugeVec::new(start, labels).expect("a valid metric"),
        }
    }

    fn families(&self) -> [&dyn Collector; 4] {
        [&self.cpu, &self.memory, &self.fds, &self.start]
    }

    /// Leaves out what cannot be read: the process ended meanwhile, or runs as another user.
    fn read(&self, slot: Slot, pid: Pid, boot_seconds: Option<u64>) {
        let Ok(process) = Process::new(pid.as_raw_nonzero().get()) else {
            return;
        };
        let Ok(stat) = process.stat() else {
            return;
        };
        if matches!(stat.state(), Ok(ProcState::Zombie | ProcState::Dead)) {
            return;
        }
        let slot = slot.to_string();
        let ticks = procfs::ticks_per_second() as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        self.cpu.with_label_values(&[&slot]).inc_by(cpu);
        let memory = stat.rss as f64 * procfs::page_size() as f64;
        self.memory.with_label_values(&[&slot]).set(memory);
        if let Some(boot) = boot_seconds {
            let start = boot as f64 + stat.starttime as f64 / ticks;
            self.start.with_label_values(&[&slot]).set(start);
        }
        if let Ok(count) = process.fd_count() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.fds.with_label_values(&[&slot]).set(count);
        }
    }
}

struct WorkerProcesses {
    workers: Processes,
    /// Never filled: it describes the families to the registry.
    template: Values,
    boot_seconds: Option<u64>,
}

impl WorkerProcesses {
    fn new(workers: Processes) -> Self {
        Self { workers, template: Values::new(), boot_seconds: procfs::boot_time_secs().ok() }
    }
}

impl Collector for WorkerProcesses {
    fn desc(&self) -> Vec<&Desc> {
        self.template.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = Values::new();
        for (slot, pid) in (self.workers)() {
            values.read(slot, pid, self.boot_seconds);
        }
        values.families().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    const SLOT: Slot = Slot(3);

    /// The value of each family for a worker with this process.
    fn values(pid: Pid) -> BTreeMap<String, f64> {
        let registry = Registry::new();
        register(&registry, Box::new(move || vec![(SLOT, pid)]), &queues()).unwrap();
        let mut values = BTreeMap::new();
        for family in registry.gather() {
            for metric in family.get_metric() {
                let labels = metric.get_label();
                if labels.iter().any(|label| label.value() == SLOT.to_string()) {
                    let value = metric.get_counter().get_value() + metric.get_gauge().get_value();
                    values.insert(family.name().to_owned(), value);
                }
            }
        }
        values
    }

    fn queues() -> ListenQueues {
        ListenQueues::new(&Vec::new())
    }

    #[test]
    fn a_process_is_described_in_base_units() {
        let values = values(rustix::process::getpid());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = values["clusterd_worker_start_time_seconds"];
        assert!(started > now - 3600.0 && started < now + 2.0, "{started} at {now}");
        assert!(values["clusterd_worker_resident_memory_bytes"] > 100_000.0);
        assert!(values["clusterd_worker_open_fds"] >= 3.0);
        assert!(values["clusterd_worker_cpu_seconds_total"] < 3600.0);
        assert_eq!(values.len(), 4);
    }

    #[test]
    fn a_process_that_ended_is_left_out() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert_eq!(values(pid).len(), 4);
        child.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !values(pid).is_empty() {
            assert!(Instant::now() < deadline, "a process that waits to be reaped is no worker");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(values(pid).is_empty());
    }

    #[test]
    fn two_collectors_cannot_share_a_registry() {
        let registry = Registry::new();
        register(&registry, Box::new(Vec::new), &queues()).unwrap();
        assert!(register(&registry, Box::new(Vec::new), &queues()).is_err());
    }
}
