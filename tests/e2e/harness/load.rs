//! Clients that ask a cluster again and again, so that what happens to its workers happens under load.
//!
//! They look only whether an answer is there and whole, unless the test gives them an exchange of its own.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use socket2::SockRef;

use super::Cluster;
use super::http::{self, Kept, Pending, Response};
use super::wait::until;

/// How many clients ask at a time.
const CLIENTS: usize = 4;
/// How long a client rests after an answer: the machine has other things to do, such as to start workers.
const REST: Duration = Duration::from_millis(3);
/// How many further answers show that the cluster serves.
const SOME: u64 = 20;
/// A load with so many failures has nothing more to tell.
const ENOUGH: usize = 20;

/// The clients; dropping it ends them.
pub(crate) struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    over: AtomicBool,
    answered: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

/// A request without an answer.
struct Failure {
    /// The client's port, if the connection was made for this request.
    client: Option<u16>,
    error: io::Error,
    after: Duration,
}

impl Load {
    /// Clients that connect for each request.
    pub(crate) fn of_requests(cluster: &Cluster) -> Self {
        let address = cluster.address();
        Self::of(|| {
            move |client| {
                let stream = http::connect(address)?;
                *client = Some(stream.local_addr()?.port());
                // No socket stays behind in TIME_WAIT: they would be as many as the requests.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                http::send_on(stream, "GET", "/").and_then(Pending::response).and_then(is_good)
            }
        })
    }

    /// Clients that connect for each exchange, which says whether the answer was right.
    pub(crate) fn of_exchanges<Exchange>(address: SocketAddr, exchange: Exchange) -> Self
    where
        Exchange: Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    {
        Self::of(|| {
            let exchange = exchange.clone();
            move |client| {
                let stream = http::connect(address)?;
                *client = Some(stream.local_addr()?.port());
                exchange(stream)
            }
        })
    }

    /// Clients that keep their connections, and open another when the server has closed one between two requests.
    pub(crate) fn of_kept_connections(cluster: &Cluster) -> Self {
        let address = cluster.address();
        Self::of(|| {
            let mut kept = Kept::new(address);
            move |_| kept.get("/").and_then(is_good)
        })
    }

    fn of<Ask>(client: impl Fn() -> Ask) -> Self
    where
        Ask: FnMut(&mut Option<u16>) -> io::Result<()> + Send + 'static,
    {
        let tally = Arc::new(Tally::default());
        let clients = (0..CLIENTS).map(|_| {
            let (tally, ask) = (Arc::clone(&tally), client());
            thread::spawn(move || tally.count(ask))
        });
        let load = Self { clients: clients.collect(), tally };
        load.goes_on();
        load
    }

    /// Waits until some more requests were answered.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        self.goes_on_for(SOME);
    }

    /// Waits until so many more requests were answered.
    #[track_caller]
    pub(crate) fn goes_on_for(&self, requests: u64) {
        let before = self.tally.answered.load(Ordering::Relaxed);
        until("the cluster serves on", || {
            let failures = self.tally.failures();
            assert!(failures.len() < ENOUGH, "requests fail: {failures:#?}");
            (self.tally.answered.load(Ordering::Relaxed) >= before + requests).then_some(())
        });
    }

    /// The cluster replaces its workers meanwhile, by which no request is lost.
    #[track_caller]
    pub(crate) fn loses_nothing_by_a_reload(self, cluster: &Cluster) {
        let before = cluster.pids();
        cluster.reload().unwrap_or_else(|reason| panic!("{reason}"));
        self.goes_on();
        self.lost_nothing();
        let now = cluster.pids();
        assert!(before.is_disjoint(&now), "workers were not replaced: before {before:?}, now {now:?}");
    }

    /// Ends the clients; each of their requests must have been answered.
    #[track_caller]
    pub(crate) fn lost_nothing(mut self) {
        self.end();
        let failures = self.tally.failures();
        let answered = self.tally.answered.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "beside {answered} that were answered, requests failed: {failures:#?}");
    }

    /// Ends the clients, and returns the ports of those that had no answer.
    pub(crate) fn lost(mut self) -> BTreeSet<u16> {
        self.end();
        self.tally.failures().iter().filter_map(|failure| failure.client).collect()
    }

    fn end(&mut self) {
        self.tally.over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // One that has panicked has said so.
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Tally {
    fn count(&self, mut ask: impl FnMut(&mut Option<u16>) -> io::Result<()>) {
        while !self.over.load(Ordering::Relaxed) && self.failures().len() < ENOUGH {
            let (begin, mut client) = (Instant::now(), None);
            match ask(&mut client) {
                Ok(()) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(REST);
                }
                Err(error) => self.failures().push(Failure { client, error, after: begin.elapsed() }),
            }
        }
    }

    fn failures(&self) -> MutexGuard<'_, Vec<Failure>> {
        self.failures.lock().expect("no client panics while it holds the failures")
    }
}

fn is_good(response: Response) -> io::Result<()> {
    match response.status {
        200 => Ok(()),
        status => Err(io::Error::other(format!("status {status}"))),
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, error, after } = self;
        write!(f, "{error} after {after:?} (port {client:?})")
    }
}
