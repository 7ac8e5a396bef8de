//! That the front stands still, when it is asked to and until it may go on.
//!
//! It does not know what stands still with it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;

use super::handle::Stand;
use super::snapshot::FrontSnapshot;
use crate::carry::NotCarried;

/// Whether it does.
pub(super) struct Standing {
    asked: mpsc::Receiver<Stand>,
    /// Done when it may go on.
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Standing {
    /// It does not, until it is asked.
    pub(super) fn new(asked: mpsc::Receiver<Stand>) -> Self {
        Self { asked, until: None }
    }

    /// Pending while it stands still. Ready with who asks for that next, who is to be answered with
    /// [`Standing::begin`], or with nobody.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stand>> {
        if let Some(until) = &mut self.until {
            ready!(until.as_mut().poll(cx));
            self.until = None;
        }
        Poll::Ready(match self.asked.poll_recv(cx) {
            Poll::Ready(stand) => stand,
            Poll::Pending => None,
        })
    }

    /// It stands still from now on, with this.
    pub(super) fn begin(&mut self, stand: Stand, snapshot: Result<FrontSnapshot, NotCarried>) {
        self.until = Some(Box::pin(stand.with(snapshot)));
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("stands", &self.until.is_some()).finish_non_exhaustive()
    }
}
