//! Addresses that are opened because a server asks to listen there: where no port was named (`port = "off"`).
//!
//! All who ask for the same address share it, as they would a named port. It stays while any process has bound it, and a
//! while longer, so that clients wait while workers are restarted. What Node's cluster module asks for is not here: see
//! [`node`](super::node).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};
use tracing::debug;

use super::bound::BoundChannels;
use super::snapshot::{OpenedSnapshot, OpeningsSnapshot, wrong};
use crate::carry::NotCarried;
use crate::front;
use crate::front::bound::{Bound, BoundAddress};
use crate::ids::ServiceId;
use crate::protocol::wire::Binding;
use crate::settings::Bind;
use crate::sys::acting::with_rights_of_workers;
use crate::sys::process::Credentials;

/// How many there may be; more is a worker gone wild.
const MOST: usize = 1024;

/// How often it is looked whether an address is still bound.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// How long clients wait at an address that no process has bound any more.
const KEEPS: Duration = Duration::from_secs(60);

/// How many addresses that others have may wait to be told of. More are told of the next time that they are asked for.
const MOST_TAKEN: usize = 16;

/// What all who open services share, by whichever way: numbers for them, and whom they tell of what cannot be opened.
#[derive(Clone, Debug)]
pub(crate) struct Openings {
    numbers: Arc<AtomicU64>,
    taken: mpsc::Sender<SocketAddr>,
}

impl Openings {
    /// Beside it come the addresses that workers have asked for in vain, because another process has them.
    pub(crate) fn new() -> (Self, mpsc::Receiver<SocketAddr>) {
        let (taken, heard) = mpsc::channel(MOST_TAKEN);
        (Self { numbers: Arc::default(), taken }, heard)
    }

    /// The numbers that were given, for the next image.
    pub(crate) fn snapshot(&self) -> OpeningsSnapshot {
        OpeningsSnapshot { next: self.numbers.load(Ordering::Relaxed) }
    }

    /// As [`Openings::new`], and goes on with the numbers of another image.
    pub(crate) fn restore(OpeningsSnapshot { next }: OpeningsSnapshot) -> (Self, mpsc::Receiver<SocketAddr>) {
        let (openings, heard) = Self::new();
        openings.numbers.store(next, Ordering::Relaxed);
        (openings, heard)
    }

    /// One that was never used.
    pub(crate) fn next(&self) -> ServiceId {
        ServiceId::Opened(self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// This address could not be opened, for this reason.
    pub(super) fn refused(&self, address: SocketAddr, error: &io::Error) {
        if error.kind() == io::ErrorKind::AddrInUse {
            let _ = self.taken.try_send(address);
        }
    }
}

/// How addresses are opened.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Whom workers run as, if not as clusterd does: an address is bound with those rights.
    pub user: Option<Credentials>,
    /// For listen(2).
    pub backlog: u32,
    /// Numbers for them.
    pub openings: Openings,
}

/// The addresses. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct OnDemand {
    terms: Arc<Terms>,
    opened: Arc<Mutex<Vec<Opened>>>,
}

#[derive(Clone, Debug)]
struct Opened {
    bind: Bind,
    service: ServiceId,
    /// Whether a server was seen to listen there.
    was_listened_on: bool,
    /// Since when no process is seen to have it.
    unused_since: Option<Instant>,
}

impl OnDemand {
    /// None yet.
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms: Arc::new(terms), opened: Arc::default() }
    }

    /// What the next image goes on with.
    ///
    /// # Errors
    /// An address is being opened: whoever does so was to stand still before.
    pub(crate) fn snapshot(&self) -> Result<Vec<OpenedSnapshot>, NotCarried> {
        let opened = self.opened.try_lock();
        let opened = opened.map_err(|_| NotCarried("an address is being opened for a worker".to_owned()))?;
        Ok(opened.iter().map(Opened::snapshot).collect())
    }

    /// Goes on with what another image had opened. The front has those that listen there.
    ///
    /// # Errors
    /// It is not what [`OnDemand::snapshot`] has told.
    pub(crate) fn restore(terms: Terms, snapshot: Vec<OpenedSnapshot>) -> io::Result<Self> {
        if snapshot.len() > MOST {
            return Err(wrong("more addresses are open than may be"));
        }
        let opened = snapshot.into_iter().map(Opened::restore).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { terms: Arc::new(terms), opened: Arc::new(Mutex::new(opened)) })
    }

    /// The service of this address, which is opened for the first that asks. Clients are refused until a server listens.
    ///
    /// # Errors
    /// Those of bind(2), as the server would get them.
    pub(super) async fn open(
        &self,
        binding: &Binding,
        front: &front::handle::Handle,
    ) -> io::Result<ServiceId> {
        let bind = meant_by(binding);
        let mut opened = self.opened.lock().await;
        if let Some(known) = opened.iter_mut().find(|opened| opened.bind == bind) {
            known.unused_since = None;
            return Ok(known.service);
        }
        if opened.len() >= MOST {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let bind_it = || BoundAddress::new(bind, self.terms.backlog);
        let bound = with_rights_of_workers(self.terms.user.as_ref(), bind_it).inspect_err(|error| {
            // Whoever shares the port may get it all the same.
            if !binding.reuses_port {
                self.terms.openings.refused(bind.address(), error);
            }
        })?;
        let service = self.terms.openings.next();
        front.open(service, Bound::Address(bound)).await;
        opened.push(Opened { bind, service, was_listened_on: false, unused_since: None });
        Ok(service)
    }

    /// Whether an address of this port is open.
    pub(super) async fn has(&self, port: u16) -> bool {
        self.opened.lock().await.iter().any(|opened| opened.bind.address().port() == port)
    }

    /// The ports that are open; none while one is being opened.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let opened = self.opened.try_lock();
        opened
            .map(|opened| opened.iter().map(|opened| opened.bind.address().port()).collect())
            .unwrap_or_default()
    }

    /// Closes what no process has bound for long.
    pub(super) async fn close_unused(
        &self,
        bound: &BoundChannels,
        front: &front::handle::Handle,
        now: Instant,
    ) {
        let mut opened = self.opened.lock().await;
        let mut unused = Vec::new();
        opened.retain_mut(|address| {
            let is_over = address.see(bound.use_of(|binding| meant_by(binding) == address.bind), now);
            if is_over {
                unused.push((address.service, address.bind));
            }
            !is_over
        });
        for (service, bind) in unused {
            debug!(%service, address = %bind.address(), "closing an address that no worker has bound any more");
            front.close(service).await;
        }
    }
}

/// What is seen of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// A process has bound it.
    pub is_bound: bool,
    /// And listens.
    pub is_listened_on: bool,
}

impl Opened {
    fn snapshot(&self) -> OpenedSnapshot {
        let Self { bind, service, was_listened_on, unused_since } = *self;
        let (bind, unused_since) = (bind.into(), unused_since.map(Into::into));
        OpenedSnapshot { bind, service, was_listened_on, unused_since }
    }

    fn restore(snapshot: OpenedSnapshot) -> io::Result<Self> {
        let OpenedSnapshot { bind, service, was_listened_on, unused_since } = snapshot;
        if !matches!(service, ServiceId::Opened(_)) {
            return Err(wrong("a port that is always served was opened for a worker"));
        }
        let (bind, unused_since) = (bind.into(), unused_since.map(Into::into));
        Ok(Self { bind, service, was_listened_on, unused_since })
    }

    /// Whether it is to be closed: at once if nobody has ever listened there, as of one that looked whether it is free.
    fn see(&mut self, Use { is_bound, is_listened_on }: Use, now: Instant) -> bool {
        self.was_listened_on |= is_listened_on;
        if is_bound {
            self.unused_since = None;
            return false;
        }
        let since = *self.unused_since.get_or_insert(now);
        !self.was_listened_on || now.duration_since(since) >= KEEPS
    }
}

/// The public address for such a listener.
fn meant_by(binding: &Binding) -> Bind {
    let address = SocketAddr::from(binding.address);
    match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() && !binding.only_v6 => {
            Bind::Everywhere { port: address.port() }
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Bind::Address((ip, address.port()).into()),
            None => Bind::Address(address),
        },
        IpAddr::V4(_) => Bind::Address(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_both_families_is_for_both() {
        let table = [
            ("0.0.0.0:80", false, "0.0.0.0:80"),
            ("127.0.0.1:80", false, "127.0.0.1:80"),
            ("[::]:80", false, "everywhere:80"),
            ("[::]:80", true, "[::]:80"),
            ("[::1]:80", false, "[::1]:80"),
            ("[::ffff:127.0.0.1]:80", false, "127.0.0.1:80"),
        ];
        for (address, only_v6, expected) in table {
            let address: SocketAddr = address.parse().unwrap();
            let binding =
                Binding { address: address.into(), only_v6, reuses_address: false, reuses_port: false };
            let meant = match meant_by(&binding) {
                Bind::Everywhere { port } => format!("everywhere:{port}"),
                Bind::Address(address) => address.to_string(),
            };
            assert_eq!(meant, expected, "{address} {only_v6}");
        }
    }

    fn opened() -> Opened {
        Opened {
            bind: Bind::Everywhere { port: 80 },
            service: ServiceId::Opened(0),
            was_listened_on: false,
            unused_since: None,
        }
    }

    #[test]
    fn an_address_outlives_its_listeners_for_a_while() {
        let mut address = opened();
        let (listens, gone) = (Use { is_bound: true, is_listened_on: true }, Use::default());
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let steps = [
            (0, listens, false),
            (5, gone, false),
            (10, listens, false),
            (20, gone, false),
            (79, gone, false),
        ];
        for (seconds, seen, expected) in steps {
            assert_eq!(address.see(seen, at(seconds)), expected, "{seconds}");
        }
        assert!(address.see(gone, at(80)));
    }

    #[test]
    fn an_address_that_was_only_tried_is_free_soon() {
        let mut address = opened();
        let now = Instant::now();
        assert!(!address.see(Use { is_bound: true, is_listened_on: false }, now));
        assert!(address.see(Use::default(), now));
    }

    fn terms(openings: Openings) -> Terms {
        Terms { user: None, backlog: 16, openings }
    }

    #[tokio::test]
    async fn what_was_opened_is_open_in_the_next_image_and_no_number_is_given_twice() {
        let (openings, _heard) = Openings::new();
        let numbers = [(); 3].map(|()| openings.next());
        let since = Instant::now() - Duration::from_secs(50);
        let address = Bind::Address("127.0.0.1:81".parse().unwrap());
        let known = OnDemand::new(terms(openings.clone()));
        known.opened.lock().await.extend([
            Opened { service: numbers[0], unused_since: Some(since), was_listened_on: true, ..opened() },
            Opened { service: numbers[2], bind: address, ..opened() },
        ]);
        let written = (openings.snapshot(), known.snapshot().unwrap());
        let ((next, snapshot), _) = crate::carry::testing::carried(&written);
        assert_eq!((next, snapshot.clone()), written);
        let (openings, _heard) = Openings::restore(next);
        assert_eq!(openings.next(), ServiceId::Opened(3));
        let restored = OnDemand::restore(terms(openings), snapshot).unwrap();
        assert_eq!(restored.ports(), [80, 81]);
        let mut opened = restored.opened.lock().await;
        assert_eq!((opened[0].service, opened[1].service), (numbers[0], numbers[2]));
        assert_eq!(opened[1].bind, address);
        let gone = Use::default();
        assert!(!opened[0].see(gone, since + KEEPS - Duration::from_secs(1)));
        assert!(opened[0].see(gone, since + KEEPS), "its time goes on");
        assert!(restored.snapshot().is_err(), "somebody is about to change it");
    }

    #[test]
    fn what_no_image_has_written_is_refused() {
        let service = |service| OpenedSnapshot { service, ..opened().snapshot() };
        let port = vec![service(ServiceId::Port(crate::ids::WorkerPort(80)))];
        let many = vec![service(ServiceId::Opened(1)); MOST + 1];
        for wrong in [port, many] {
            assert!(OnDemand::restore(terms(Openings::new().0), wrong).is_err());
        }
    }
}
