//! Who may attach, to what, and how it is served: one decision for every way in which a worker's process asks.
//!
//! Pure. Whose token it is, whether a channel is left and what the process can make use of is found out by the ways
//! themselves, which also carry out what is decided here.

use std::net::SocketAddr;

use crate::front::Accepts;
use crate::front::links::ChannelPermit;
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::wire;

/// Who asks to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applicant {
    /// A process that shows a token, of whichever user; and the running worker whose token that is, if there is one.
    Process(Option<WorkerId>),
    /// Whoever speaks on the channel that this worker was started with.
    Started(WorkerId),
}

/// What its server can be given, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// A channel, on a port that is served: the library. Any other port is its own to bind.
    Channel,
    /// A channel or a listening socket, there as well: the shim.
    ChannelOrSocket,
    /// A channel or a relay, or a listening socket, on any port: Node.
    AnyPort,
    /// A channel or a relay, on any port: Deno, which makes nothing of a socket that it is sent.
    ChannelOnAnyPort,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// By whom.
    pub applicant: Applicant,
    /// To listen on which port.
    pub port: WorkerPort,
    /// What would serve it.
    pub takes: Takes,
}

/// What the decision depends on beside the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// The ports that are always served.
    pub ports: &'a [WorkerPort],
    /// Whether any other is opened for whoever asks.
    pub on_demand: bool,
    /// Who accepts there.
    pub accepts: Accepts,
}

impl Rules<'_> {
    /// Whether a listener on this port may concern clusterd.
    pub(super) fn may_serve(&self, port: WorkerPort) -> bool {
        self.ports.contains(&port) || self.is_opened(port)
    }

    /// Whether it is opened for a server that asks. With 0 the kernel chooses one for each process.
    fn is_opened(&self, port: WorkerPort) -> bool {
        self.on_demand && port.0 != 0
    }
}

/// What an admitted worker gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Who it is.
    pub worker: WorkerId,
    /// From where.
    pub source: Source,
    /// What.
    pub grant: Grant,
}

/// Where connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From the public addresses of a port that is always served.
    Served(WorkerPort),
    /// From an address that is opened for the workers that ask for it.
    OnDemand,
}

/// How a server gets its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The primary accepts, and passes each on.
    Channel,
    /// It accepts by itself, from a listening socket that clusterd made.
    Socket,
}

/// Why a process gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It belongs to no worker, or to one that has ended or is ending.
    #[error("token does not belong to a running worker")]
    UnknownToken,
    /// It is the server's own affair.
    #[error("port {0} is not served")]
    NotServed(WorkerPort),
    /// There are no channels there.
    #[error(
        "workers accept by themselves on port {port} (`--accept workers`), which {who} cannot; use {remedy}"
    )]
    Shared {
        /// Where.
        port: WorkerPort,
        /// Who cannot accept.
        who: &'static str,
        /// What would help.
        remedy: &'static str,
    },
    /// The kind of listener that it is fits no public address.
    #[error(
        "worker {worker} binds {address}, and no public address is for such a listener; have the server bind another \
         address, or name one of that kind with --bind"
    )]
    NoAddress {
        /// Whose listener it would be.
        worker: WorkerId,
        /// What is to be bound.
        address: SocketAddr,
    },
    /// As many as there may be are open.
    #[error("no room for another channel")]
    Full,
    /// The kernel would not let two processes bind it.
    #[error(
        "worker {worker} binds {address} while its process {holder} listens on {other}; bind fails with EADDRINUSE, as it \
         does without clusterd"
    )]
    InUse {
        /// Whose listeners these are.
        worker: WorkerId,
        /// What is to be bound.
        address: SocketAddr,
        /// Who listens.
        holder: i32,
        /// Where.
        other: SocketAddr,
        /// It was not said of this worker before.
        is_news: bool,
    },
    /// The launch has no channel of this name.
    #[error("worker has no such channel")]
    UnknownChannel,
}

impl Refusal {
    /// What the process is answered at the attach socket.
    pub(crate) fn on_the_wire(&self) -> wire::Refusal {
        match self {
            Refusal::NotServed(_) => wire::Refusal::NotServed,
            Refusal::Shared { .. } => wire::Refusal::Shared,
            Refusal::NoAddress { .. } => wire::Refusal::NoAddress,
            Refusal::Full => wire::Refusal::Full,
            Refusal::UnknownToken | Refusal::UnknownChannel => wire::Refusal::NotAdmitted,
            Refusal::InUse { .. } => wire::Refusal::InUse,
        }
    }
}

/// Who cannot accept by themselves.
const LIBRARY: &str = "the library clusterd-worker";
const DENO: &str = "Deno as a cluster worker";

/// Decides. A stop that has begun changes nothing: what was accepted is served by whoever attaches, and an address that
/// is opened meanwhile stops like all others.
///
/// # Errors
/// Why not. That a port is not served comes before the token: a process that a worker has left behind may still listen
/// elsewhere.
pub(crate) fn admit(
    request: Request,
    room: Option<&ChannelPermit>,
    rules: Rules<'_>,
) -> Result<Admission, Refusal> {
    let Request { applicant, port, takes } = request;
    let source = match (rules.ports.contains(&port), takes) {
        (true, _) => Source::Served(port),
        (false, Takes::Channel | Takes::ChannelOrSocket) if !rules.is_opened(port) => {
            return Err(Refusal::NotServed(port));
        }
        (false, _) => Source::OnDemand,
    };
    let grant = match (rules.accepts, takes) {
        (Accepts::Primary, _) => Grant::Channel,
        (Accepts::Workers, Takes::ChannelOrSocket | Takes::AnyPort) => Grant::Socket,
        (Accepts::Workers, Takes::Channel) => {
            return Err(Refusal::Shared { port, who: LIBRARY, remedy: "`--accept primary`" });
        }
        (Accepts::Workers, Takes::ChannelOnAnyPort) => {
            return Err(Refusal::Shared { port, who: DENO, remedy: "`--attach preload`" });
        }
    };
    let worker = match applicant {
        Applicant::Started(worker) => worker,
        Applicant::Process(Some(worker)) => worker,
        Applicant::Process(None) if source == Source::OnDemand => return Err(Refusal::NotServed(port)),
        Applicant::Process(None) => return Err(Refusal::UnknownToken),
    };
    room.ok_or(Refusal::Full)?;
    Ok(Admission { worker, source, grant })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::links::ChannelPermits;
    use crate::ids::Slot;

    const WORKER: WorkerId = WorkerId { slot: Slot(2), launch: 9 };
    const SERVED: WorkerPort = WorkerPort(3000);
    const OTHER: WorkerPort = WorkerPort(9000);

    fn decided(
        applicant: Applicant,
        port: WorkerPort,
        takes: Takes,
        accepts: Accepts,
    ) -> Result<Admission, Refusal> {
        let room = ChannelPermits::new(1).take();
        admit(
            Request { applicant, port, takes },
            room.as_ref(),
            Rules { ports: &[SERVED], on_demand: false, accepts },
        )
    }

    #[test]
    fn whoever_belongs_to_a_worker_gets_what_it_can_take() {
        use Accepts::{Primary, Workers};
        use Takes::{AnyPort, Channel, ChannelOnAnyPort, ChannelOrSocket};
        let started = Applicant::Started(WORKER);
        let process = Applicant::Process(Some(WORKER));
        let admitted = |source, grant| Ok(Admission { worker: WORKER, source, grant });
        let shared = |who, remedy| Refusal::Shared { port: SERVED, who, remedy };
        let (served, on_demand) = (Source::Served(SERVED), Source::OnDemand);
        let table = [
            (process, SERVED, Channel, Primary, admitted(served, Grant::Channel)),
            (process, OTHER, Channel, Primary, Err(Refusal::NotServed(OTHER))),
            (process, SERVED, Channel, Workers, Err(shared(LIBRARY, "`--accept primary`"))),
            (process, OTHER, Channel, Workers, Err(Refusal::NotServed(OTHER))),
            (process, SERVED, ChannelOrSocket, Primary, admitted(served, Grant::Channel)),
            (process, OTHER, ChannelOrSocket, Primary, Err(Refusal::NotServed(OTHER))),
            (process, SERVED, ChannelOrSocket, Workers, admitted(served, Grant::Socket)),
            (process, OTHER, ChannelOrSocket, Workers, Err(Refusal::NotServed(OTHER))),
            (started, SERVED, AnyPort, Primary, admitted(served, Grant::Channel)),
            (started, OTHER, AnyPort, Primary, admitted(on_demand, Grant::Channel)),
            (started, SERVED, AnyPort, Workers, admitted(served, Grant::Socket)),
            (started, OTHER, AnyPort, Workers, admitted(on_demand, Grant::Socket)),
            (started, SERVED, ChannelOnAnyPort, Primary, admitted(served, Grant::Channel)),
            (started, OTHER, ChannelOnAnyPort, Primary, admitted(on_demand, Grant::Channel)),
            (started, SERVED, ChannelOnAnyPort, Workers, Err(shared(DENO, "`--attach preload`"))),
        ];
        for (applicant, port, takes, accepts, expected) in table {
            assert_eq!(
                decided(applicant, port, takes, accepts),
                expected,
                "{applicant:?} {port} {takes:?} {accepts:?}"
            );
        }
    }

    #[test]
    fn without_a_workers_token_nobody_is_served() {
        let nobody = Applicant::Process(None);
        let unknown = decided(nobody, SERVED, Takes::Channel, Accepts::Primary);
        assert_eq!(unknown, Err(Refusal::UnknownToken));
        // With a token or without, another port is its own affair.
        let elsewhere = decided(nobody, OTHER, Takes::Channel, Accepts::Primary);
        assert_eq!(elsewhere, Err(Refusal::NotServed(OTHER)));
        assert_eq!(Refusal::UnknownToken.on_the_wire(), wire::Refusal::NotAdmitted);
    }

    #[test]
    fn where_no_port_was_named_each_is_opened_for_whoever_asks() {
        let rules = |accepts| Rules { ports: &[], on_demand: true, accepts };
        let room = ChannelPermits::new(1).take();
        let asks = |applicant, port, takes, accepts| {
            let request = Request { applicant, port, takes };
            let admitted = admit(request, room.as_ref(), rules(accepts));
            admitted.map(|Admission { source, grant, .. }| (source, grant))
        };
        let (process, any) = (Applicant::Process(Some(WORKER)), WorkerPort(0));
        let (shim, library) = (Takes::ChannelOrSocket, Takes::Channel);
        let channel = Ok((Source::OnDemand, Grant::Channel));
        assert_eq!(asks(process, OTHER, shim, Accepts::Primary), channel);
        assert_eq!(asks(process, OTHER, library, Accepts::Primary), channel);
        assert_eq!(asks(process, OTHER, shim, Accepts::Workers), Ok((Source::OnDemand, Grant::Socket)));
        assert_eq!(asks(process, any, shim, Accepts::Primary), Err(Refusal::NotServed(any)));
        // What a worker has left behind listens by itself.
        assert_eq!(
            asks(Applicant::Process(None), OTHER, shim, Accepts::Primary),
            Err(Refusal::NotServed(OTHER))
        );
    }

    #[test]
    fn without_room_a_worker_is_refused_whichever_way_it_comes() {
        let rules = Rules { ports: &[SERVED], on_demand: false, accepts: Accepts::Primary };
        let process = Applicant::Process(Some(WORKER));
        for (applicant, takes) in
            [(process, Takes::ChannelOrSocket), (Applicant::Started(WORKER), Takes::AnyPort)]
        {
            let request = Request { applicant, port: SERVED, takes };
            assert_eq!(admit(request, None, rules), Err(Refusal::Full));
        }
    }
}
