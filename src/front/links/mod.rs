//! Channels to workers' listeners: what each is made of, and what lies in it.
//!
//! It chooses no worker: who gets a connection is decided by the service that the channel belongs to.

mod attachment;
mod in_flight;
mod link;

pub use self::attachment::{Attachment, ChannelPermit, ChannelPermits, Holder};
pub use self::link::{Due, Gate, Link, LinkEvent, NotGiven, Timeouts};
