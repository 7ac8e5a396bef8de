//! Notes for the shim which launches drain, so that their clients are asked to leave.
//!
//! It belongs to the supervisor's hooks alone. What the shim makes of it is in `preload::closing`.

use std::io;
use std::path::Path;

use tracing::warn;

use crate::carry::CarriedFds;
use crate::ids::WorkerId;
use crate::preload::{DrainPage, DrainPageSnapshot};

/// The notes, if there can be any.
#[derive(Debug)]
pub(super) struct LeavingNotes {
    page: Option<DrainPage>,
}

impl LeavingNotes {
    /// In a page in this folder, or in memory; for clients of these ports.
    pub(super) fn new(folder: Option<&Path>, ports: &[u16]) -> Self {
        let page = DrainPage::new(folder).and_then(|page| {
            ports.iter().try_for_each(|&port| page.serve(port))?;
            Ok(page)
        });
        let page = page
            .inspect_err(|error| {
                warn!("cannot create the page that tells workers that they drain: {error}; HTTP clients are not asked to leave");
            })
            .ok();
        Self { page }
    }

    /// As they are written down for the next image of clusterd.
    pub(super) fn snapshot(&self) -> Option<DrainPageSnapshot> {
        self.page.as_ref().map(DrainPage::snapshot)
    }

    /// As they were written down.
    ///
    /// # Errors
    /// The page is gone.
    pub(super) fn restore(written: Option<DrainPageSnapshot>, fds: &CarriedFds) -> io::Result<Self> {
        Ok(Self { page: written.map(|page| DrainPage::restore(page, fds)).transpose()? })
    }

    /// Where workers find them.
    pub(super) fn path(&self) -> Option<&Path> {
        self.page.as_ref().map(DrainPage::path)
    }

    /// The clients of this launch are to leave, and it serves these ports beside those that are always served.
    pub(super) fn begin(&self, worker: WorkerId, opened: &[u16]) {
        let Some(page) = &self.page else { return };
        let noted =
            opened.iter().try_for_each(|&port| page.serve(port)).and_then(|()| page.begin(worker.launch));
        if let Err(error) = noted {
            warn!(%worker, %error, "cannot tell a worker that it drains; its HTTP clients are not asked to leave");
        }
    }

    /// This launch is gone.
    pub(super) fn end(&self, worker: WorkerId) {
        let Some(page) = &self.page else { return };
        if let Err(error) = page.end(worker.launch) {
            tracing::debug!(%worker, %error, "cannot clear the place of a worker that is gone");
        }
    }

    /// Makes the page again if it was removed; whether it was.
    ///
    /// # Errors
    /// Those of creating and writing a file.
    pub(super) fn make_again(&mut self) -> std::io::Result<bool> {
        self.page.as_mut().map_or(Ok(false), DrainPage::make_again)
    }
}
