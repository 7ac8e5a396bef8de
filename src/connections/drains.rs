//! Those who wait until a worker holds no client's connection any more, and when it does not.
//!
//! A connection is held as long as a process of the worker has it, however far it is closed; but for one whose client has left
//! with nothing to wait for ([`is_left`]). Neither one that is on its way to the worker is, nor one that only the kernel still
//! has to do with.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::sync::oneshot;

use super::holders::{Held, Holders, Kin};
use super::table::Table;
use crate::ids::WorkerId;
use crate::sys::sock_diag::{TcpSocket, state};

/// So many looks in a row have to find nothing. A list can miss a socket that has another place when the kernel goes on writing,
/// and a descriptor can be on its way from one process of the worker to another.
const LOOKS: u8 = 2;

/// So long a connection that its client has closed is silent before the client is taken to have left.
const SILENCE: Duration = Duration::from_secs(2);

/// A worker that gets no further connection, and who waits for it.
#[derive(Debug)]
pub(super) struct Drain {
    /// The worker.
    pub(super) worker: WorkerId,
    /// Ports of connections that count, beside those that are served.
    pub(super) ports: Vec<u16>,
    /// Told when it has none.
    pub(super) done: oneshot::Sender<()>,
    /// How many looks in a row found none.
    pub(super) clear: u8,
}

/// Whether a process may hold this connection, and it counts: established, or closed by one side.
pub(super) fn counts(socket: &TcpSocket) -> bool {
    let is_open =
        matches!(socket.state, state::ESTABLISHED | state::CLOSE_WAIT | state::FIN_WAIT1 | state::FIN_WAIT2);
    is_open && socket.inode != 0
}

/// Whether the client has closed the connection, owes and is owed nothing, and the worker, which knows, just keeps it
/// (hypercorn does for as long as `keep_alive_timeout`).
///
/// The kernel shows no difference to a client that has closed its direction alone and waits for an answer (`nc -N`). So the
/// worker has to have read the end, to have sent something since it received anything, and then nothing for [`SILENCE`].
/// What was sent again counts as sent: it comes before a request that acknowledges it. What is not seen is a pause in an
/// answer that is that long, and an answer that is awaited still, of requests that came together, if one before was sent again.
pub(super) fn is_left(socket: &TcpSocket) -> bool {
    let Some(figures) = socket.figures else { return false };
    socket.state == state::CLOSE_WAIT
        && socket.unread == 0
        && socket.unacknowledged == 0
        && figures.acknowledged > 0
        && figures.since_sent <= figures.since_received
        && figures.since_sent >= SILENCE
}

/// Looks at all of them, and lets those go who have waited long enough. Whether some have been found to have none, and are to
/// be looked at again.
pub(super) fn look(
    drains: &mut Vec<Drain>,
    sockets: &[TcpSocket],
    table: &Table,
    holders: &mut Holders,
    kin: &mut Option<io::Result<Kin>>,
) -> bool {
    let open = Open::of(sockets, table);
    drains.retain(|drain| !drain.done.is_closed());
    for drain in &mut *drains {
        drain.clear = match open.is_any_held_by(drain.worker, holders, kin) {
            true => 0,
            false => drain.clear + 1,
        };
    }
    for drain in drains.extract_if(.., |drain| drain.clear >= LOOKS) {
        let _ = drain.done.send(());
    }
    drains.iter().any(|drain| drain.clear > 0)
}

/// The connections that a process has.
struct Open {
    /// Their inodes.
    sockets: BTreeSet<u64>,
    /// Those of them that were not noted.
    unnoted: BTreeSet<u64>,
    /// For whom some were noted.
    noted_for: BTreeSet<WorkerId>,
}

impl Open {
    fn of(sockets: &[TcpSocket], table: &Table) -> Self {
        let mut open =
            Self { sockets: BTreeSet::new(), unnoted: BTreeSet::new(), noted_for: BTreeSet::new() };
        for socket in sockets.iter().filter(|socket| counts(socket) && !is_left(socket)) {
            open.sockets.insert(socket.inode);
            match table.get(socket.cookie) {
                Some(noted) => open.noted_for.extend(noted.worker),
                None => drop(open.unnoted.insert(socket.inode)),
            }
        }
        open
    }

    /// Does this worker hold one? What cannot be told is taken for yes.
    fn is_any_held_by(
        &self,
        worker: WorkerId,
        holders: &mut Holders,
        kin: &mut Option<io::Result<Kin>>,
    ) -> bool {
        if self.sockets.is_empty() {
            return false;
        }
        let Ok(kin) = kin.get_or_insert_with(|| holders.kin()) else { return true };
        let Ok(held) = holders.held(kin, worker, &self.sockets, false) else { return true };
        match verdict(&held, self.noted_for.contains(&worker)) {
            Verdict::Holds => true,
            Verdict::HoldsNone => false,
            Verdict::HoldsWhatNobodyHas => is_any_left(self.unnoted.clone(), worker, holders, kin),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    HoldsNone,
    /// It lets nobody look into it: what is not noted for another worker, and not found at one, may be its own.
    HoldsWhatNobodyHas,
}

fn verdict(held: &Held, is_noted: bool) -> Verdict {
    match held {
        Held { sockets, .. } if !sockets.is_empty() => Verdict::Holds,
        Held { is_closed: false, has_ring: false, .. } => Verdict::HoldsNone,
        _ if is_noted => Verdict::Holds,
        Held { is_closed, .. } => match is_closed {
            true => Verdict::HoldsWhatNobodyHas,
            false => Verdict::HoldsNone,
        },
    }
}

/// Whether one of these sockets is left that no other worker is seen to hold.
fn is_any_left(mut sockets: BTreeSet<u64>, worker: WorkerId, holders: &mut Holders, kin: &Kin) -> bool {
    for other in holders.workers().into_iter().filter(|&other| other != worker) {
        if sockets.is_empty() {
            break;
        }
        let Ok(held) = holders.held(kin, other, &sockets, true) else { return true };
        sockets.retain(|socket| !held.sockets.contains(socket));
    }
    !sockets.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sock_diag::TcpFigures;

    #[test]
    fn a_client_has_left_when_it_has_closed_and_waits_for_nothing() {
        let ms = Duration::from_millis;
        let figures = TcpFigures {
            since_sent: SILENCE,
            since_received: SILENCE + ms(4),
            round_trip: ms(1),
            round_trip_variation: ms(1),
            retransmitted: 0,
            acknowledged: 100,
            received: 101,
        };
        let address = ([127, 0, 0, 1], 1).into();
        let left = TcpSocket {
            cookie: 1,
            inode: 9,
            state: state::CLOSE_WAIT,
            local: address,
            remote: address,
            unread: 0,
            unacknowledged: 0,
            dropped: None,
            figures: Some(figures),
        };
        let with = |figures| TcpSocket { figures: Some(figures), ..left.clone() };
        let cases = [
            (left.clone(), true, "answered, and closed by the client"),
            (with(TcpFigures { since_received: SILENCE, ..figures }), true, "answered within a tick"),
            (TcpSocket { state: state::ESTABLISHED, ..left.clone() }, false, "not closed"),
            (TcpSocket { state: state::FIN_WAIT2, ..left.clone() }, false, "closed by the worker"),
            (TcpSocket { unread: 1, ..left.clone() }, false, "the worker does not know that it is closed"),
            (TcpSocket { unread: 50, ..left.clone() }, false, "a request is not read"),
            (TcpSocket { unacknowledged: 1, ..left.clone() }, false, "the answer is on its way"),
            (with(TcpFigures { since_sent: SILENCE + ms(8), ..figures }), false, "the request came last"),
            (with(TcpFigures { since_sent: SILENCE - ms(4), ..figures }), false, "answered just now"),
            (with(TcpFigures { acknowledged: 0, ..figures }), false, "nothing was ever sent"),
            (with(TcpFigures { retransmitted: 1, ..figures }), true, "something was sent again, long ago"),
            (TcpSocket { figures: None, ..left.clone() }, false, "the kernel does not tell"),
        ];
        for (socket, expected, what) in cases {
            assert_eq!(is_left(&socket), expected, "{what}");
        }
    }

    #[test]
    fn what_is_not_seen_is_told_by_what_was_noted() {
        let held = |socket: bool, is_closed, has_ring| {
            let sockets = socket.then_some(9).into_iter().collect();
            Held { sockets, is_closed, has_ring }
        };
        let cases = [
            (held(true, false, false), false, Verdict::Holds),
            (held(false, false, false), false, Verdict::HoldsNone),
            // It was passed on to somebody else, or only the kernel has it.
            (held(false, false, false), true, Verdict::HoldsNone),
            (held(false, true, false), true, Verdict::Holds),
            (held(false, true, false), false, Verdict::HoldsWhatNobodyHas),
            (held(false, false, true), true, Verdict::Holds),
            (held(false, false, true), false, Verdict::HoldsNone),
        ];
        for (held, is_noted, expected) in cases {
            assert_eq!(verdict(&held, is_noted), expected, "{held:?}, noted: {is_noted}");
        }
    }
}
