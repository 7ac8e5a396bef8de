//! A mark that a process passes on to everything that descends from it, and that is still there when it has become a
//! daemon: in another session, with another user and another environment, and with nobody left of its ancestors.
//!
//! It is the soft limit RLIMIT_RTTIME (setrlimit(2)): limits survive fork and exec, everybody may read them in
//! /proc/PID/limits, and this one, of so many thousand years, limits nothing.

use std::io;

use procfs::ProcError;
use procfs::process::{LimitValue, Process};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

use super::processes;

/// The bits that every mark has and no limit that somebody has asked for: more than a hundred thousand years.
const BASE: u64 = 1 << 62;
/// How many bits tell the member.
const MEMBER: u32 = 24;
/// How many bits tell the family, above those.
const FAMILY: u32 = 37;

/// All marks that one process gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family(u64);

/// The mark of one child, and of what descends from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Family {
    /// One that nobody else is likely to have.
    pub(crate) fn random() -> Self {
        Self::of_number(fastrand::u64(..))
    }

    /// The one of this number, as [`Family::number`] tells it.
    pub(crate) fn of_number(number: u64) -> Self {
        Self(number & ((1 << FAMILY) - 1))
    }

    /// What it is to another process.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The mark of a child; so many children may there be before one has the mark of another.
    pub(crate) fn member(self, number: u64) -> Mark {
        Mark(BASE | self.0 << MEMBER | number & ((1 << MEMBER) - 1))
    }

    /// Every living process that bears one of its marks, wherever it is.
    pub(crate) fn living(self) -> Vec<processes::Member> {
        processes::members_where(|process| self.knows(process))
    }

    /// Whether this process bears one of its marks.
    pub(crate) fn knows(self, process: Pid) -> bool {
        Mark::of(process).is_some_and(|mark| self.has(mark))
    }

    fn has(self, mark: Mark) -> bool {
        mark.0 >> MEMBER == BASE >> MEMBER | self.0
    }
}

impl Mark {
    /// The mark of this process; `None` without one, or if it is gone.
    pub(crate) fn of(process: Pid) -> Option<Self> {
        Self::read(process.as_raw_pid()).ok().flatten()
    }

    /// Of which child it is, as it was given.
    pub(crate) fn member(self) -> u64 {
        self.0 & ((1 << MEMBER) - 1)
    }

    /// The same, told apart from what cannot be told.
    ///
    /// # Errors
    /// Those of reading /proc.
    pub(crate) fn read(process: i32) -> io::Result<Option<Self>> {
        match Process::new(process).and_then(|process| process.limits()) {
            Ok(limits) => Ok(match limits.max_realtime_timeout.soft_limit {
                LimitValue::Value(value) if value & BASE != 0 => Some(Self(value)),
                _ => None,
            }),
            Err(ProcError::NotFound(_) | ProcError::PermissionDenied(_)) => Ok(None),
            Err(ProcError::Io(error, _)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Marks this process. Where somebody has limited it so already it is left as it is.
    pub(super) fn apply(self) {
        let Rlimit { current, maximum } = getrlimit(Resource::Rttime);
        let is_free = |limit: Option<u64>| limit.is_none_or(|limit| limit & BASE != 0);
        if is_free(current) && maximum.is_none_or(|maximum| maximum >= self.0) {
            // To lower a soft limit is always allowed.
            let _ = setrlimit(Resource::Rttime, Rlimit { current: Some(self.0), maximum });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mark_is_of_its_family_alone(family: u64, other: u64, member: u64) {
            let (family, other) = (Family::of_number(family), Family::of_number(other));
            let mark = family.member(member);
            prop_assert!(family.has(mark));
            prop_assert_eq!(other.has(mark), other == family);
            prop_assert_eq!(Family::of_number(family.number()), family);
            prop_assert!(mark.0 & BASE != 0 && mark.0 < u64::MAX / 2);
        }

        #[test]
        fn children_one_after_the_other_have_other_marks(family: u64, member: u64, next in 1u64..1 << MEMBER) {
            let family = Family::of_number(family);
            prop_assert_ne!(family.member(member), family.member(member.wrapping_add(next)));
        }
    }

    #[test]
    fn nobody_has_a_mark_without_being_given_one() {
        let family = Family::random();
        assert_eq!(family.living(), []);
    }
}
