//! The kernel's accept queues of the public addresses: how long they are, how long they may be, and what was dropped there.
//! The kernel is asked at each scrape, and whenever somebody else looks.
//!
//! It has none of the front's sockets: it finds those that listen by their addresses. What the kernel does not tell is not
//! shown.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::sys::sock_diag::{SockDiag, TcpSocket};

/// The public addresses, each with those at which its sockets are bound: some for IPv4 and some for IPv6, several for each
/// where workers accept.
pub(crate) type PublicAddresses = Vec<(SocketAddr, Vec<SocketAddr>)>;

/// The queues. Clones share what was counted.
#[derive(Clone)]
pub(crate) struct ListenQueues(Arc<Inner>);

struct Inner {
    /// What is shown of a socket that is bound there.
    labels: HashMap<(IpAddr, u16), String>,
    ports: Vec<u16>,
    /// Never filled: it describes the families to the registry.
    template: Lengths,
    dropped: IntCounterVec,
    asked: Mutex<Asked>,
}

/// The queues of an address, as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueLength {
    /// The address.
    pub listener: String,
    /// How many connections nobody has accepted yet.
    pub connections: u64,
    /// How many there may be.
    pub limit: u64,
    /// How many packets were dropped there since somebody first looked, if the kernel counts them.
    pub dropped: Option<u64>,
}

/// What lasts from one look to the next.
struct Asked {
    /// It is kept, for when there are no descriptors any more.
    kernel: Option<SockDiag>,
    /// The count of each socket that was there the last time, by its cookie.
    last: HashMap<u64, u32>,
}

impl ListenQueues {
    /// Of these addresses.
    pub(crate) fn new(addresses: &PublicAddresses) -> Self {
        let mut labels = HashMap::new();
        for (public, bound) in addresses {
            labels.extend(bound.iter().map(|address| ((address.ip(), address.port()), public.to_string())));
        }
        let mut ports: Vec<u16> = labels.keys().map(|(_, port)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        let options = Opts::new(
            "clusterd_listen_dropped_packets_total",
            "Packets that the kernel dropped at the listening sockets of the address, first of all handshakes that found \
             the queue full. A client tries again, and counts again.",
        );
        let dropped = IntCounterVec::new(options, &["listener"]).expect("a valid metric");
        let asked = Mutex::new(Asked { kernel: None, last: HashMap::new() });
        Self(Arc::new(Inner { labels, ports, template: Lengths::new(), dropped, asked }))
    }

    /// Shows them at each scrape. The kernel is spoken to from now on, so that there is a descriptor when there are no others.
    ///
    /// # Errors
    /// A metric of one of these names is registered already.
    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).kernel = SockDiag::open().ok();
        registry.register(Box::new(self.clone()))
    }

    /// Asks the kernel, which takes some microseconds for each socket that listens. Nothing where it does not tell.
    pub(crate) fn look(&self) -> Vec<QueueLength> {
        let Ok(sockets) = self.0.ask() else { return Vec::new() };
        let mut queues = BTreeMap::<&str, QueueLength>::new();
        for (label, socket) in &sockets {
            let empty =
                || QueueLength { listener: (*label).to_owned(), connections: 0, limit: 0, dropped: None };
            let queue = queues.entry(label).or_insert_with(empty);
            queue.connections += u64::from(socket.unread);
            queue.limit += u64::from(socket.unacknowledged);
            queue.dropped =
                socket.dropped.map(|_| self.0.dropped.with_label_values(&[label]).get()).or(queue.dropped);
        }
        queues.into_values().collect()
    }
}

impl std::fmt::Debug for ListenQueues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListenQueues")
    }
}

impl Inner {
    /// The sockets, each with what is shown of it. What they have dropped is counted.
    fn ask(&self) -> io::Result<Vec<(&str, TcpSocket)>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let label = |socket: &TcpSocket| self.labels.get(&(socket.local.ip(), socket.local.port()));
        let listed = asked.ask(&self.ports)?.into_iter();
        let sockets: Vec<_> = listed.filter_map(|socket| Some((label(&socket)?.as_str(), socket))).collect();
        asked.count(&sockets, &self.dropped);
        Ok(sockets)
    }
}

impl Asked {
    fn ask(&mut self, ports: &[u16]) -> io::Result<Vec<TcpSocket>> {
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => SockDiag::open()?,
        };
        let listed = kernel.listeners(ports)?;
        // One that has failed may have an answer left unread.
        self.kernel = Some(kernel);
        Ok(listed)
    }

    /// Sockets come and go, and the sum of their counts would fall: what each has dropped since the last time is added.
    fn count(&mut self, sockets: &[(&str, TcpSocket)], counter: &IntCounterVec) {
        let last = std::mem::take(&mut self.last);
        for (label, socket) in sockets {
            let Some(dropped) = socket.dropped else { continue };
            let before = last.get(&socket.cookie).copied().unwrap_or(0);
            let since = u64::from(dropped.wrapping_sub(before));
            counter.with_label_values(&[label]).inc_by(since);
            self.last.insert(socket.cookie, dropped);
        }
    }
}

/// One scrape's values.
struct Lengths {
    connections: IntGaugeVec,
    limit: IntGaugeVec,
    fullest: GaugeVec,
}

impl Lengths {
    fn new() -> Self {
        let labels = &["listener"];
        let connections = Opts::new(
            "clusterd_listen_queue_connections",
            "Connections in the accept queues of the kernel for the address: nobody has accepted them yet.",
        );
        let limit = Opts::new(
            "clusterd_listen_queue_limit",
            "How many connections the accept queues may have: --backlog, or net.core.somaxconn if that is less, for each \
             listening socket.",
        );
        let fullest = Opts::new(
            "clusterd_listen_queue_fullest_ratio",
            "How full the fullest accept queue of the address is; at 1 the kernel drops handshakes.",
        );
        Self {
            connections: IntGaugeVec::new(connections, labels).expect("a valid metric"),
            limit: IntGaugeVec::new(limit, labels).expect("a valid metric"),
            fullest: GaugeVec::new(fullest, labels).expect("a valid metric"),
        }
    }

    fn show(&self, sockets: &[(&str, TcpSocket)]) {
        let mut fullest = BTreeMap::<&str, f64>::new();
        for (label, socket) in sockets {
            self.connections.with_label_values(&[label]).add(socket.unread.into());
            self.limit.with_label_values(&[label]).add(socket.unacknowledged.into());
            // The kernel takes one more than the limit (`sk_acceptq_is_full` of net/sock.h).
            let ratio = f64::from(socket.unread) / (f64::from(socket.unacknowledged) + 1.0);
            let most = fullest.entry(label).or_default();
            *most = most.max(ratio);
        }
        for (label, ratio) in fullest {
            self.fullest.with_label_values(&[label]).set(ratio);
        }
    }

    fn families(&self) -> [&dyn Collector; 3] {
        [&self.connections, &self.limit, &self.fullest]
    }
}

impl Collector for ListenQueues {
    fn desc(&self) -> Vec<&Desc> {
        let families = self.0.template.families().into_iter().chain([&self.0.dropped as &dyn Collector]);
        families.flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let sockets = match self.0.ask() {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::debug!(%error, "the kernel does not tell of the accept queues for a scrape");
                return Vec::new();
            }
        };
        let lengths = Lengths::new();
        lengths.show(&sockets);
        let families = lengths.families().into_iter().chain([&self.0.dropped as &dyn Collector]);
        families.flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    fn listener(backlog: i32) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, backlog).unwrap();
        listener
    }

    fn registry(addresses: &PublicAddresses) -> Registry {
        let registry = Registry::new();
        ListenQueues::new(addresses).register(&registry).unwrap();
        registry
    }

    /// What is shown of each listener: connections, limit, fullest, and what was dropped.
    fn shown(registry: &Registry) -> BTreeMap<String, [f64; 4]> {
        let mut shown = BTreeMap::<String, [f64; 4]>::new();
        for family in registry.gather() {
            let place = match family.name() {
                "clusterd_listen_queue_connections" => 0,
                "clusterd_listen_queue_limit" => 1,
                "clusterd_listen_queue_fullest_ratio" => 2,
                "clusterd_listen_dropped_packets_total" => 3,
                other => panic!("{other}"),
            };
            for metric in family.get_metric() {
                let values = shown.entry(metric.get_label()[0].value().to_owned()).or_default();
                values[place] = metric.get_gauge().get_value() + metric.get_counter().get_value();
            }
        }
        shown
    }

    /// Waits until this is shown of the one listener. What the kernel does for a client may come a moment after connect(2).
    fn wait(registry: &Registry, is_it: impl Fn([f64; 4]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let shown = shown(registry);
            let [one] = shown.into_values().collect::<Vec<_>>()[..] else { panic!("not one listener") };
            if is_it(one) {
                break;
            }
            assert!(Instant::now() < deadline, "{one:?}");
        }
    }

    #[test]
    fn an_address_has_the_queues_of_all_its_sockets_and_of_no_others() {
        let (first, second, other) = (listener(1), listener(3), listener(5));
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let (public, silent) = ("[::]:3000".parse().unwrap(), "[::]:4000".parse().unwrap());
        let nobody = "127.0.0.1:9".parse().unwrap();
        let sockets = vec![(public, vec![address(&first), address(&second)]), (silent, vec![nobody])];
        let registry = registry(&sockets);
        assert_eq!(shown(&registry), BTreeMap::from([("[::]:3000".to_owned(), [0.0, 4.0, 0.0, 0.0])]));

        let connect = |to: &TcpListener| TcpStream::connect(address(to)).unwrap();
        let _waiting = [connect(&first), connect(&second), connect(&second), connect(&other)];
        wait(&registry, |shown| shown == [3.0, 4.0, 0.5, 0.0]);

        let _last = connect(&first);
        wait(&registry, |shown| shown == [4.0, 4.0, 1.0, 0.0]);
        let late = TcpStream::connect_timeout(&address(&first), Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        wait(&registry, |[connections, limit, fullest, dropped]| {
            [connections, limit, fullest] == [4.0, 4.0, 1.0] && dropped > 0.0
        });

        drop(first);
        wait(&registry, |[connections, limit, fullest, dropped]| {
            // A counter does not fall when a socket is gone.
            [connections, limit, fullest] == [2.0, 3.0, 0.5] && dropped > 0.0
        });
        drop(second);
        let shown: Vec<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(shown, ["clusterd_listen_dropped_packets_total"], "what is not there has no length");
    }

    fn socket(cookie: u64, dropped: Option<u32>) -> TcpSocket {
        let address = ([127, 0, 0, 1], 1).into();
        TcpSocket {
            cookie,
            inode: 1,
            state: crate::sys::sock_diag::state::LISTEN,
            local: address,
            remote: address,
            unread: 0,
            unacknowledged: 0,
            dropped,
            figures: None,
        }
    }

    #[test]
    fn what_was_dropped_is_counted_once_while_sockets_come_and_go() {
        let queues = ListenQueues::new(&Vec::new());
        let mut asked = Asked { kernel: None, last: HashMap::new() };
        let mut count = |sockets: &[(u64, u32)]| {
            let sockets: Vec<_> =
                sockets.iter().map(|&(cookie, dropped)| ("a", socket(cookie, Some(dropped)))).collect();
            asked.count(&sockets, &queues.0.dropped);
            queues.0.dropped.with_label_values(&["a"]).get()
        };
        assert_eq!(count(&[(1, 5), (2, u32::MAX)]), 5 + u64::from(u32::MAX));
        let before = count(&[(1, 5), (2, 1)]);
        assert_eq!(before, 7 + u64::from(u32::MAX), "the kernel's count goes round");
        assert_eq!(count(&[(2, 1)]), before);
        assert_eq!(count(&[(2, 1), (3, 4)]), before + 4);
        assert_eq!(count(&[]), before + 4);
    }

    #[test]
    fn a_kernel_that_does_not_count_shows_no_zero() {
        let queues = ListenQueues::new(&Vec::new());
        let mut asked = Asked { kernel: None, last: HashMap::new() };
        asked.count(&[("a", socket(1, None))], &queues.0.dropped);
        assert!(queues.0.dropped.collect().iter().all(|family| family.get_metric().is_empty()));
    }
}
