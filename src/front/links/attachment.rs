//! What a channel is made of: the two descriptors that the attach socket or a Node worker's request brings, whose they
//! are, and a bounded number of permits for them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::protocol::wire::{Binding, SocketOption};
use crate::sys::closer::ForeignFd;

/// A channel to a worker's listener, as the attach socket delivered it.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// Whose it is.
    pub worker: WorkerId,
    /// What the worker asked to listen on.
    pub service: ServiceId,
    /// What it bound, which decides whose connections it may be given.
    pub binding: Binding,
    /// The options that the server set before, and that its connections inherit.
    pub options: Vec<SocketOption>,
    /// Kept as long as the channel: dropping it tells whoever made it that the channel is gone.
    pub registration: Option<Arc<dyn fmt::Debug + Send + Sync>>,
    /// The primary's end.
    pub channel: ForeignFd,
    /// A duplicate of the worker's end, through which untaken connections are taken back.
    pub worker_end: ForeignFd,
    /// Who was seen to hold the worker's end.
    pub holder: Holder,
    /// The worker reads drain notices.
    pub wants_drain: bool,
    /// The other end passes connections on, and declines by itself what is not taken in time: nothing is taken back
    /// from it while it lives.
    pub relayed: bool,
    /// Its permit, and thereby its name.
    pub permit: ChannelPermit,
}

/// The channels that the primary keeps: numbered, and bounded, since each costs it two descriptors.
#[derive(Clone, Debug)]
pub(crate) struct ChannelPermits {
    free: Arc<Semaphore>,
    taken: Arc<AtomicU64>,
}

/// Permission to keep a channel, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct ChannelPermit {
    link: LinkId,
    _permit: OwnedSemaphorePermit,
}

impl ChannelPermit {
    /// The name of the channel that has this permit.
    pub(crate) fn link(&self) -> LinkId {
        self.link
    }
}

impl ChannelPermits {
    /// Room for `count` channels.
    pub(crate) fn new(count: usize) -> Self {
        Self::restored(count, 0)
    }

    /// Room for `count` channels, of which some may be there: their permits are given out [again](Self::again). So many
    /// numbers were given out.
    pub(crate) fn restored(count: usize, taken: u64) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), taken: Arc::new(AtomicU64::new(taken)) }
    }

    /// How many numbers were given out.
    pub(crate) fn snapshot(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The permit of a channel that another image has left. `None` if none is left, or that number was never given out.
    pub(crate) fn again(&self, link: LinkId) -> Option<ChannelPermit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        (link.0 < self.snapshot()).then_some(ChannelPermit { link, _permit: permit })
    }

    /// A permit, if one is left.
    pub(crate) fn take(&self) -> Option<ChannelPermit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(ChannelPermit { link: LinkId(self.taken.fetch_add(1, Ordering::Relaxed)), _permit: permit })
    }
}

/// Where to look whether anyone still holds the worker's end of a channel.
///
/// The primary's duplicate of that end hides its closing, so it has to be looked up in the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Holder {
    /// The inode of the worker's end, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// The process that attached, and so the first to look at.
    pub pid: i32,
}
