//! The standard `process_*` metrics of clusterd itself, read from the kernel at each scrape.
//!
//! Their names, types and units are those of every Prometheus client library. It knows no workers.

use procfs::process::{LimitValue, Process};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Reads `/proc/self`. What cannot be read is left out.
pub(super) struct OwnProcess {
    /// Never filled: it describes the families to the registry.
    template: Values,
    boot_seconds: Option<u64>,
}

/// One scrape's values.
struct Values {
    cpu: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    resident_memory: Gauge,
    start: Gauge,
    threads: Gauge,
}

impl OwnProcess {
    /// Of the calling process.
    pub(super) fn new() -> Self {
        Self { template: Values::new(), boot_seconds: procfs::boot_time_secs().ok() }
    }
}

impl Values {
    fn new() -> Self {
        let gauge = |name, help| Gauge::new(name, help).expect("a valid metric");
        let cpu = "Total user and system CPU time spent in seconds.";
        Self {
            cpu: Counter::new("process_cpu_seconds_total", cpu).expect("a valid metric"),
            open_fds: gauge("process_open_fds", "Number of open file descriptors."),
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            resident_memory: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            start: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
            threads: gauge("process_threads", "Number of OS threads in the process."),
        }
    }

    fn families(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu,
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.resident_memory,
            &self.start,
            &self.threads,
        ]
    }

    /// Fills in what can be read, and returns the families of that.
    fn read(&self, process: &Process, boot_seconds: Option<u64>) -> Vec<&dyn Collector> {
        let mut read: Vec<&dyn Collector> = Vec::new();
        if let Ok(stat) = process.stat() {
            let ticks = procfs::ticks_per_second() as f64;
            self.cpu.inc_by((stat.utime + stat.stime) as f64 / ticks);
            self.virtual_memory.set(stat.vsize as f64);
            self.resident_memory.set(stat.rss as f64 * procfs::page_size() as f64);
            self.threads.set(stat.num_threads as f64);
            read.extend([
                &self.cpu as &dyn Collector,
                &self.virtual_memory,
                &self.resident_memory,
                &self.threads,
            ]);
            if let Some(boot) = boot_seconds {
                self.start.set(boot as f64 + stat.starttime as f64 / ticks);
                read.push(&self.start);
            }
        }
        if let Ok(count) = process.fd_count() {
            self.open_fds.set(count as f64);
            read.push(&self.open_fds);
        }
        if let Ok(limits) = process.limits() {
            self.max_fds.set(match limits.max_open_files.soft_limit {
                LimitValue::Value(limit) => limit as f64,
                LimitValue::Unlimited => f64::INFINITY,
            });
            read.push(&self.max_fds);
        }
        read
    }
}

impl Collector for OwnProcess {
    fn desc(&self) -> Vec<&Desc> {
        self.template.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(process) = Process::myself() else {
            return Vec::new();
        };
        let values = Values::new();
        values.read(&process, self.boot_seconds).into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use prometheus::Registry;
    use prometheus::proto::MetricType;

    use super::*;

    #[test]
    fn the_standard_metrics_of_a_process_are_there() {
        let registry = Registry::new();
        registry.register(Box::new(OwnProcess::new())).unwrap();
        let families = registry.gather();
        let names: Vec<_> = families.iter().map(|family| (family.name(), family.get_field_type())).collect();
        let expected = [
            ("process_cpu_seconds_total", MetricType::COUNTER),
            ("process_max_fds", MetricType::GAUGE),
            ("process_open_fds", MetricType::GAUGE),
            ("process_resident_memory_bytes", MetricType::GAUGE),
            ("process_start_time_seconds", MetricType::GAUGE),
            ("process_threads", MetricType::GAUGE),
            ("process_virtual_memory_bytes", MetricType::GAUGE),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn values_are_in_base_units() {
        let families = OwnProcess::new().collect();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).expect(name);
            let metric = &family.get_metric()[0];
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started > now - 3600.0 && started < now + 2.0, "{started} at {now}");
        assert!(value("process_cpu_seconds_total") < 3600.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_threads") >= 1.0);
    }
}
