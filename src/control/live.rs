//! An app as it lives: a stream of its state, its counts and its events, for a page that shows them as they come.
//!
//! It does not wait for the client: an item is made when the client has room for it, so that one that reads slowly sees
//! fewer counts, and is told how many events it has missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::time::{self, Instant, Interval, MissedTickBehavior};

use super::api::{Happened, History, Live, Tick};
use super::backend::AppBackend;
use super::feed::EventSource;
use super::snapshots::Snapshots;
use crate::supervisor::events::{Event, EventKind};

/// How often counts are looked at.
const TICK: Duration = Duration::from_millis(200);

/// How often the state is told where it does not change.
const STATE: Duration = Duration::from_secs(1);

/// This app from now on, for ever.
pub(crate) fn live(app: Arc<dyn AppBackend>, snapshots: Snapshots) -> impl Stream<Item = Live> + Send {
    stream::unfold(Following::begin(app, snapshots), async |mut following| {
        let item = following.next().await?;
        Some((item, following))
    })
}

/// What one client follows.
struct Following {
    app: Arc<dyn AppBackend>,
    snapshots: Snapshots,
    pid: u32,
    events: stream::BoxStream<'static, Event>,
    ticks: Interval,
    last: Tick,
    /// When the state is told again.
    due: Instant,
    ready: VecDeque<Live>,
}

impl Following {
    fn begin(app: Arc<dyn AppBackend>, snapshots: Snapshots) -> Self {
        let pid = std::process::id();
        let (past, events) = app.events_with_past();
        let events = EventSource { app: app.name().to_owned(), events }.into_stream().boxed();
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ready = VecDeque::from([Live::History(History { pid, events: past })]);
        Self { app, snapshots, pid, events, ticks, last: Tick::default(), due: Instant::now(), ready }
    }

    async fn next(&mut self) -> Option<Live> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            tokio::select! {
                biased;
                event = self.events.next() => self.happened(event?),
                _ = self.ticks.tick() => self.look().await,
            }
        }
    }

    fn happened(&mut self, event: Event) {
        // What a worker says happens to nobody, may be very long, and comes as often as it likes.
        if matches!(event.kind, EventKind::WorkerSays { .. }) {
            return;
        }
        self.due = Instant::now();
        self.ready.push_back(Live::Event(Happened { pid: self.pid, event }));
    }

    async fn look(&mut self) {
        let counts = self.app.counts();
        if let Some(news) = counts.clone().since(&self.last) {
            self.ready.push_back(Live::Tick(news));
        }
        self.last = counts;
        if self.due > Instant::now() {
            return;
        }
        // Where too much is being read already, it is tried again with the next tick.
        if let Ok(app) = self.snapshots.take_with_traffic(&self.app).await {
            self.due = Instant::now() + STATE;
            self.ready.push_back(Live::App(Box::new(app)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake::Fake;

    fn kind(item: &Live) -> &'static str {
        match item {
            Live::History(_) => "history",
            Live::App(_) => "app",
            Live::Tick(_) => "tick",
            Live::Event(_) => "event",
        }
    }

    fn followed(app: &Arc<Fake>) -> impl Stream<Item = Live> + Unpin + use<> {
        Box::pin(live(app.clone(), Snapshots::new()))
    }

    #[tokio::test]
    async fn it_begins_with_the_past_and_the_present() {
        let app = Arc::new(Fake::new());
        app.tell(7);
        let items: Vec<_> = followed(&app).take(3).collect().await;
        assert_eq!(items.iter().map(kind).collect::<Vec<_>>(), ["history", "tick", "app"]);
        let Live::History(history) = &items[0] else { panic!() };
        assert_eq!((history.events.len(), history.pid), (1, std::process::id()));
        let Live::App(state) = &items[2] else { panic!() };
        assert_eq!((state.workers[0].connections_open, state.traffic.is_some()), (Some(3), true));
        assert!(state.workers[0].last_lines.is_empty());
    }

    #[tokio::test]
    async fn counts_come_when_they_change_and_the_state_every_second() {
        let app = Arc::new(Fake::new());
        let mut items = followed(&app);
        for expected in ["history", "tick", "app"] {
            assert_eq!(items.next().await.as_ref().map(kind), Some(expected));
        }
        let next = items.next().await;
        assert_eq!(next.as_ref().map(kind), Some("app"), "nothing has changed, and a second has passed");
        app.take_connections(5);
        let Some(Live::Tick(tick)) = items.next().await else { panic!("no tick") };
        assert_eq!((tick.accepted, tick.taken), (6, vec![(1, 6)]));
    }

    #[tokio::test]
    async fn an_event_is_told_at_once_and_the_state_after_it() {
        let app = Arc::new(Fake::new());
        let mut items = followed(&app);
        for expected in ["history", "tick", "app"] {
            assert_eq!(items.next().await.as_ref().map(kind), Some(expected));
        }
        for _ in 0..3 {
            app.tell(2);
            assert_eq!(items.next().await.as_ref().map(kind), Some("event"));
            assert_eq!(items.next().await.as_ref().map(kind), Some("app"));
        }
    }
}
