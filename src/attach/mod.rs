//! How the processes of workers get the channels that their connections come through.
//!
//! What goes through a channel is the front's; which workers there are is the supervisor's.

pub mod node;
pub mod socket;
