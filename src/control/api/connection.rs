//! An open connection of a client, as the control socket shows it.
//!
//! Where the figures come from is the backend's concern. They are the kernel's own (`struct tcp_info`).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// An open connection. What is not known of it is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Connection {
    /// The client's address.
    pub client: SocketAddr,
    /// The public address that it has connected to.
    pub local: SocketAddr,
    /// The worker that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// Its state, in the words of RFC 9293: `established`; `close-wait`, if the client has closed its sending side.
    pub state: String,
    /// How long ago clusterd accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// How long ago data was last sent or received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<f64>,
    /// How much the client has sent. Its end counts as a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// How much the client has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// The smoothed round-trip time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_seconds: Option<f64>,
    /// How much that varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_variation_seconds: Option<f64>,
    /// How many segments were sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmitted_segments: Option<u64>,
    /// How long it waited until it was given to the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_seconds: Option<f64>,
}
