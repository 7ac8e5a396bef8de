//! What the kernel counts of listening sockets for the whole network namespace (proc_pid_net(5), `netstat`), read at each
//! scrape.
//!
//! Whose sockets these are is not told there: `listen_queues` has clusterd's own.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, Opts};

/// The metrics. What cannot be read is left out.
pub(super) struct NetworkNamespace {
    /// Never filled: it describes the families to the registry.
    template: Counts,
}

/// One scrape's values.
struct Counts {
    overflows: IntCounter,
    drops: IntCounter,
}

impl NetworkNamespace {
    /// Of the one in which this process is.
    pub(super) fn new() -> Self {
        Self { template: Counts::new() }
    }
}

impl Counts {
    fn new() -> Self {
        let overflows = Opts::new(
            "clusterd_netns_listen_overflows_total",
            "Packets of handshakes that found an accept queue full, at any socket of the network namespace, not at \
             clusterd's alone (TcpExtListenOverflows).",
        );
        let drops = Opts::new(
            "clusterd_netns_listen_drops_total",
            "Packets of handshakes that were dropped for any reason, at any socket of the network namespace, not at \
             clusterd's alone (TcpExtListenDrops).",
        );
        Self {
            overflows: IntCounter::with_opts(overflows).expect("a valid metric"),
            drops: IntCounter::with_opts(drops).expect("a valid metric"),
        }
    }

    fn families(&self) -> [(&str, &IntCounter); 2] {
        [("ListenOverflows", &self.overflows), ("ListenDrops", &self.drops)]
    }
}

impl Collector for NetworkNamespace {
    fn desc(&self) -> Vec<&Desc> {
        self.template.families().into_iter().flat_map(|(_, counter)| counter.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let netstat = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
        let counts = Counts::new();
        let mut families = Vec::new();
        for (name, counter) in counts.families() {
            if let Some(count) = tcp_ext(&netstat, name) {
                counter.inc_by(count);
                families.extend(counter.collect());
            }
        }
        families
    }
}

/// A number of the protocol `TcpExt`: a line has the names, and the next one the numbers.
fn tcp_ext(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(found, _)| *found == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_name() {
        let netstat = "IpExt: ListenDrops\nIpExt: 1\nTcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 7 8 9\n";
        let found = |name| tcp_ext(netstat, name);
        assert_eq!(
            [found("ListenOverflows"), found("ListenDrops"), found("Other")],
            [Some(8), Some(9), None]
        );
        assert_eq!(tcp_ext("TcpExt: ListenDrops\n", "ListenDrops"), None);
        assert_eq!(tcp_ext("", "ListenDrops"), None);
    }

    #[test]
    fn this_kernel_tells_both() {
        let families = NetworkNamespace::new().collect();
        let names: Vec<_> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(names, ["clusterd_netns_listen_overflows_total", "clusterd_netns_listen_drops_total"]);
    }
}
