//! Which worker gets the next connection, and how many at a time: pure bookkeeping, no I/O.
//!
//! It does not know why a worker can be given a connection, nor through which channel it is reached.

pub(crate) mod least_connections;
pub(crate) mod random_two;
pub(crate) mod round_robin;
pub(crate) mod source_ip;
pub(crate) mod window;

use self::least_connections::LeastConnections;
use self::random_two::RandomTwo;
use self::round_robin::RoundRobin;
use self::source_ip::SourceIp;
use crate::ids::Slot;
use crate::protocol::wire::Endpoint;

/// A worker as a balancer knows it: a small number, used again when the worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub usize);

/// What a worker can be given, from nothing to a connection at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Availability {
    /// Nothing: it does not listen yet, is stuck, or is to end.
    #[default]
    Away,
    /// It serves, but can be given nothing now.
    Full,
    /// It has not taken what it was given, and can be given another one all the same.
    Ahead,
    /// It waits for a connection.
    Idle,
}

/// Chooses a worker for each connection among those that can be given one.
pub trait Balancer: std::fmt::Debug + Send {
    /// A launch of the worker in this slot has the seat from now on. It is away, and has no connection.
    fn seated(&mut self, _seat: Seat, _slot: Slot) {}

    /// The worker can be given this from now on. A balancer that knows [`idle workers only`](Choice::knows_idle_only)
    /// hears of no difference between the others.
    fn stands(&mut self, seat: Seat, availability: Availability);

    /// So many connections to the worker are open, or on their way. Told if the balancer
    /// [`counts`](Choice::counts) them.
    fn open(&mut self, _seat: Seat, _connections: usize) {}

    /// Who gets the connection of this client, of those that are idle or can be given one ahead. The worker has had its
    /// turn then.
    fn next(&mut self, client: &Endpoint) -> Option<Seat>;

    /// For whom alone this client's connections wait; `None` if they are anybody's.
    fn home(&self, client: &Endpoint) -> Option<Seat> {
        self.home_unless(client, &|_| false)
    }

    /// The same, but the client's next choice that is not `shunned`, if there is one.
    fn home_unless(&self, _client: &Endpoint, _shunned: &dyn Fn(Seat) -> bool) -> Option<Seat> {
        None
    }

    /// The workers in such an order that, were they seated and become idle in it, others would be chosen in the same turn as
    /// they are now. Those that are not among them come after them.
    fn order(&self) -> Vec<Seat> {
        Vec::new()
    }

    /// Whether other workers serve than when this was last asked, so that homes have changed.
    fn homes_changed(&mut self) -> bool {
        false
    }
}

/// Whom to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The worker that has been idle longest.
    #[default]
    RoundRobin,
    /// The one with the fewest open connections.
    LeastConnections,
    /// The same one for the same client address.
    SourceIp,
    /// Of two, picked by chance, the one with fewer open connections.
    RandomTwo,
}

impl Choice {
    /// A balancer of this kind, without workers.
    pub fn balancer(self) -> Box<dyn Balancer> {
        match self {
            Choice::RoundRobin => Box::new(RoundRobin::default()),
            Choice::LeastConnections => Box::new(LeastConnections::default()),
            Choice::SourceIp => Box::new(SourceIp::default()),
            Choice::RandomTwo => Box::new(RandomTwo::new(fastrand::Rng::new())),
        }
    }

    /// Whether it chooses among idle workers, and leaves it to others which busy worker is given a connection ahead.
    pub fn knows_idle_only(self) -> bool {
        self == Choice::RoundRobin
    }

    /// Whether a client's connections wait for one worker alone.
    pub fn is_sticky(self) -> bool {
        self == Choice::SourceIp
    }

    /// Whether it chooses by how many connections are open.
    pub fn counts(self) -> bool {
        matches!(self, Choice::LeastConnections | Choice::RandomTwo)
    }
}

#[cfg(test)]
pub(crate) mod model;
