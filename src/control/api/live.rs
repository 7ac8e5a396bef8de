//! What follows an app live: its state now and then, its counts often, and its events as they happen.
//!
//! How often, and from where, is the server's concern.

use serde::{Deserialize, Serialize};

use super::App;
use crate::supervisor::events::Event;

/// One object of `/v1/apps/{app}/live`. Each says of which app it is by the process id of its clusterd: several may have
/// the same name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Live {
    /// What happened before: the first object.
    History(History),
    /// The app, with what passes through it: at first, about once a second, and when the state of a worker changes.
    App(Box<App>),
    /// Its counts: up to five times a second, when one has changed.
    Tick(Tick),
    /// Something happened. What workers say is not told.
    Event(Happened),
}

/// What happened before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct History {
    /// The process id of the app's clusterd.
    pub pid: u32,
    /// The last events, the oldest first.
    pub events: Vec<Event>,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Happened {
    /// The process id of the app's clusterd.
    pub pid: u32,
    /// What.
    pub event: Event,
}

/// The counts of an app since its clusterd was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Tick {
    /// The process id of its clusterd.
    pub pid: u32,
    /// How long ago that was started, in milliseconds.
    pub uptime_ms: u64,
    /// Connections accepted from clients.
    pub accepted: u64,
    /// Those that were closed before a worker took them.
    pub rejected: u64,
    /// Those that were given to another worker because the first one did not take them.
    pub redispatched: u64,
    /// How many wait for a worker now.
    pub queued: u64,
    /// The number of each worker whose count has changed, and how many connections workers of this number have taken.
    pub taken: Vec<(u32, u64)>,
}

impl Tick {
    /// What is new since an earlier one; `None` if that is nothing.
    pub(crate) fn since(mut self, earlier: &Self) -> Option<Self> {
        self.taken.retain(|taken| !earlier.taken.contains(taken));
        let counts = |tick: &Self| (tick.accepted, tick.rejected, tick.redispatched, tick.queued);
        (!self.taken.is_empty() || counts(&self) != counts(earlier)).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_has_what_is_new() {
        let tick = |uptime_ms, accepted, taken: &[(u32, u64)]| Tick {
            uptime_ms,
            accepted,
            taken: taken.to_vec(),
            ..Tick::default()
        };
        let earlier = tick(1000, 3, &[(1, 2), (2, 1)]);
        assert_eq!(tick(1200, 3, &[(1, 2), (2, 1)]).since(&earlier), None, "time passes by itself");
        let news = tick(1200, 4, &[(1, 2), (2, 2), (3, 0)]).since(&earlier);
        assert_eq!(news, Some(tick(1200, 4, &[(2, 2), (3, 0)])));
        assert_eq!(tick(1200, 4, &[(1, 2), (2, 1)]).since(&earlier), Some(tick(1200, 4, &[])), "it waits");
    }
}
