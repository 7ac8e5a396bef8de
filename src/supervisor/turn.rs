//! That workers were started to be given connections, and one of them is seen to need to accept by itself.
//!
//! It holds for all launches from then on. Who sees it is [`diagnose`](super::diagnose); that the front accepts no more is
//! for others to bring about.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::diagnose::Why;
use crate::sys::seccomp::{self, Privilege};

/// How workers accept by themselves, where they did not at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The shim puts a listening socket in the place of the server's.
    ByShim,
    /// Their calls are intercepted, at this price.
    BySeccomp(Privilege),
}

/// Whether it was seen. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// The configuration permits it.
    is_permitted: bool,
    turned: Arc<Mutex<Option<Turned>>>,
}

impl Turn {
    /// As it was taken in the image of clusterd before, if it was.
    pub(crate) fn new(is_permitted: bool, turned: Option<Turned>) -> Self {
        Self { is_permitted, turned: Arc::new(Mutex::new(turned)) }
    }

    /// How it was.
    pub(crate) fn taken(&self) -> Option<Turned> {
        *self.turned()
    }

    /// Takes it for this reason; how, or `None` if it is not permitted, would not help, or was taken before.
    pub(crate) fn take(&self, why: Why) -> Option<Turned> {
        let mut turned = self.turned();
        let way = match (why, *turned) {
            _ if !self.is_permitted => None,
            (Why::Ring, None) => Some(Turned::ByShim),
            (Why::Go | Why::Static, None | Some(Turned::ByShim)) => {
                seccomp::supported().ok().map(Turned::BySeccomp)
            }
            _ => None,
        };
        *turned = way.or(*turned);
        way
    }

    fn turned(&self) -> MutexGuard<'_, Option<Turned>> {
        self.turned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.turned, &other.turned)
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_once_for_each_way_and_only_where_it_helps() {
        let turn = Turn::new(true, None);
        assert_eq!(turn.take(Why::NotNamed), None);
        assert_eq!(turn.take(Why::Ring), Some(Turned::ByShim));
        assert_eq!(turn.take(Why::Ring), None);
        match turn.take(Why::Go) {
            Some(Turned::BySeccomp(_)) => assert_eq!(turn.take(Why::Static), None),
            None => eprintln!("skipped: no seccomp user notification here"),
            other => panic!("{other:?}"),
        }
        assert_eq!(turn.clone().taken(), turn.taken());
    }

    #[test]
    fn where_it_is_not_permitted_nothing_turns() {
        let turn = Turn::new(false, None);
        assert_eq!((turn.take(Why::Go), turn.take(Why::Ring), turn.taken()), (None, None, None));
    }
}
