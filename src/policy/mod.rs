//! Which worker gets the next connection, and how many at a time: pure bookkeeping, no I/O.
//!
//! It does not know why a worker can be given a connection, nor through which channel it is reached.

pub(crate) mod round_robin;
pub(crate) mod window;

use self::round_robin::RoundRobin;
use crate::protocol::wire::Endpoint;

/// A worker as a balancer knows it: a small number, used again when the worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub usize);

/// Chooses a worker for each connection. It holds exactly the workers that have joined and not left.
pub trait Balancer: std::fmt::Debug + Send {
    /// The worker can be given a connection from now on.
    fn joined(&mut self, seat: Seat);

    /// The worker cannot be given a connection any more.
    fn left(&mut self, seat: Seat);

    /// So many connections are on their way to the worker, whether it has joined or not.
    fn load(&mut self, _seat: Seat, _connections: usize) {}

    /// Who gets the connection of this client. The chosen worker stays until it has left, and has had its turn.
    fn next(&mut self, client: &Endpoint) -> Option<Seat>;
}

/// Whom to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The worker that has been idle longest.
    #[default]
    RoundRobin,
}

impl Choice {
    /// A balancer of this kind, without workers.
    pub fn balancer(self) -> Box<dyn Balancer> {
        match self {
            Choice::RoundRobin => Box::new(RoundRobin::default()),
        }
    }
}
