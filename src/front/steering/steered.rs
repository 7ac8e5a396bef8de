//! To whom the connections of a group are steered, and what the kernel was last told of that.
//!
//! It knows members by their indices alone: who takes is its group's to say.

use std::io;
use std::os::fd::AsFd;

use tracing::debug;

use super::program::{By, in_turn, program};
use crate::sys::counter::Counter;
use crate::sys::reuseport;

/// Indices of members, in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steered {
    pub(super) takers: Vec<usize>,
    /// Those that are to take again.
    pub(super) left_out: Vec<usize>,
}

impl Steered {
    /// The same past one that is about to be closed, of so many. Until it is closed it has its place in the kernel's array, and
    /// then the last one takes that: connections are steered to neither. `None` if nobody else takes.
    pub(super) fn past(&self, leaving: usize, count: usize) -> Option<Self> {
        let last = count.checked_sub(1)?;
        let stays = |index: &usize| *index != leaving && *index != last;
        let without = |indices: &[usize]| indices.iter().copied().filter(stays).collect::<Vec<_>>();
        let (mut takers, left_out) = (without(&self.takers), without(&self.left_out));
        if takers.is_empty() && last != leaving && self.takers.contains(&last) {
            // Where it is gone, the kernel chooses among all.
            takers.push(last);
        }
        (!takers.is_empty()).then_some(Self { takers, left_out })
    }
}

/// The program of a group.
#[derive(Debug)]
pub(super) struct Told {
    by: By,
    /// Whose turn it is, if it goes by turns.
    turns: Option<Counter>,
    steered: Steered,
}

impl Told {
    /// Nothing yet.
    pub(super) fn nothing(by: By) -> Self {
        Self { by, turns: if by == By::Chance { turns() } else { None }, steered: Steered::default() }
    }

    /// Whether it makes a difference who is left out. By chance, nothing tells them from those that are not there.
    pub(super) fn heeds_left_out(&self) -> bool {
        self.by == By::Source
    }

    /// Tells the kernel, by one of so many members, if it has changed.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn tell(&mut self, member: Option<impl AsFd>, count: usize, now: Steered) -> io::Result<()> {
        if now == self.steered {
            return Ok(());
        }
        let (Some(member), Some(program)) = (member, program(&now.takers, &now.left_out, self.by)) else {
            self.steered = Steered::default();
            return Ok(());
        };
        if !self.attach_turns(&member, &now.takers) {
            match reuseport::attach_program(&member, &program) {
                // It was made to stand alone.
                Err(error) if count == 1 && error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
                attached => attached?,
            }
        }
        self.steered = now;
        Ok(())
    }

    /// Returns whether connections are steered in turn.
    fn attach_turns(&self, member: impl AsFd, takers: &[usize]) -> bool {
        let (Some(counter), Some(program)) = (&self.turns, in_turn(takers)) else { return false };
        let attached = counter.attach(member, &program);
        if let Err(error) = &attached {
            debug!(%error, "cannot steer connections in turn");
        }
        attached.is_ok()
    }
}

fn turns() -> Option<Counter> {
    Counter::new().inspect_err(|error| debug!(%error, "connections are steered by chance, not in turn")).ok()
}

/// How the kernel of this machine lets connections be steered.
#[derive(Debug)]
pub(crate) enum Steers {
    /// In turn: it counts.
    InTurn,
    /// By chance, for this reason.
    ByChance(io::Error),
    /// Not at all, for this reason: workers share one socket.
    NotAtAll(io::Error),
}

/// Tries it on this socket, which is one of a group (SO_REUSEPORT), bound or not.
pub(crate) fn tried(socket: impl AsFd) -> Steers {
    let Some(by_chance) = program(&[0, 1], &[], By::Chance) else {
        return Steers::NotAtAll(io::ErrorKind::Unsupported.into());
    };
    if let Err(error) = reuseport::attach_program(&socket, &by_chance) {
        return Steers::NotAtAll(error);
    }
    let in_turn = in_turn(&[0, 1]).ok_or_else(|| io::ErrorKind::Unsupported.into());
    match in_turn.and_then(|program| Counter::new()?.attach(&socket, &program)) {
        Ok(()) => Steers::InTurn,
        Err(error) => Steers::ByChance(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_one_that_leaves_nor_the_last_is_steered_to() {
        let past = |takers: &[usize], left_out: &[usize], leaving, count| {
            let steered = Steered { takers: takers.to_vec(), left_out: left_out.to_vec() };
            steered.past(leaving, count).map(|past| (past.takers, past.left_out))
        };
        assert_eq!(past(&[0, 1, 2, 3], &[], 1, 4), Some((vec![0, 2], vec![])));
        assert_eq!(past(&[0, 1, 2, 3], &[], 3, 4), Some((vec![0, 1, 2], vec![])));
        assert_eq!(past(&[0, 1], &[2, 3], 2, 4), Some((vec![0, 1], vec![])));
        assert_eq!(past(&[0], &[1, 2, 3], 0, 4), None);
        // The last one alone is better than none, as long as it is there.
        assert_eq!(past(&[0, 3], &[1, 2], 0, 4), Some((vec![3], vec![1, 2])));
        assert_eq!(past(&[3], &[1], 3, 4), None);
        assert_eq!(past(&[0], &[], 0, 1), None);
        assert_eq!(past(&[], &[], 0, 0), None);
    }
}
