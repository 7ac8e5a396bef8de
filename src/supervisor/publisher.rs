//! What the rest of the program sees of the supervisor: events, the overview, and metrics.
//!
//! It decides nothing, and waits for nobody.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::ends::Reason;
use super::event_bus::EventBus;
use super::events::{Event, EventKind, Time};
use super::lifecycle::Phase;
use super::{Overview, Status, event_log};
use crate::ids::Slot;
use crate::metrics::Metrics;

/// The ways out of the supervisor.
pub(super) struct Publisher {
    app: String,
    events: EventBus,
    overview: watch::Sender<Arc<Overview>>,
    metrics: Metrics,
}

impl Publisher {
    /// For the app of this name.
    pub(super) fn new(
        app: String,
        events: EventBus,
        overview: watch::Sender<Arc<Overview>>,
        metrics: Metrics,
    ) -> Self {
        Self { app, events, overview, metrics }
    }

    /// What has happened, the oldest first.
    pub(super) fn events(&self) -> Vec<Event> {
        self.events.snapshot()
    }

    /// This has happened before, and was told then.
    pub(super) fn restore(&self, events: Vec<Event>) {
        self.events.restore(events);
    }

    /// Publishes an event.
    pub(super) fn tell(&self, kind: EventKind) {
        event_log::log(&kind);
        event_log::count(&kind, &self.metrics);
        let time = Time(SystemTime::now());
        self.events.tell(Event { time, app: self.app.clone(), kind });
    }

    /// Counts a start after the first.
    pub(super) fn count_restart(&self, slot: Slot, reason: Reason) {
        self.metrics.restarts.with_label_values(&[&slot.to_string(), reason.label()]).inc();
    }

    /// Publishes how things stand, if that is new.
    pub(super) fn publish(&self, now: Overview) {
        self.overview.send_if_modified(|published| {
            let changed = **published != now;
            if changed {
                self.show_metrics(&now.workers);
                *published = Arc::new(now);
            }
            changed
        });
    }

    /// Every series is there from the start, so that none begins with a jump.
    fn show_metrics(&self, workers: &[Status]) {
        for phase in Phase::ALL {
            let count = workers.iter().filter(|worker| worker.phase == phase).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.workers.with_label_values(&[phase.label()]).set(count);
        }
        for worker in workers {
            for reason in Reason::ALL {
                self.metrics.restarts.with_label_values(&[&worker.slot.to_string(), reason.label()]);
            }
        }
    }
}
