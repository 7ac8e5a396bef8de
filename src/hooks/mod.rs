//! `--on-event`: runs a command for each event of the workers' lives.
//!
//! Nobody waits for it: events come from a broadcast, are queued here, and are dropped and counted where the commands
//! are too slow. What an event is, is told by the supervisor.
//!
//! ```text
//!  events ──▶ queue (64) ──▶ sh -c COMMAND (4 at a time, 30 s each) ──▶ log
//!               └─ full: dropped, counted
//! ```

mod run;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use self::run::Hook;
pub(crate) use self::run::Shell;
use crate::metrics::{Hooked, Metrics};
use crate::supervisor::events::Event;
use crate::tasks;

/// How many commands run at once.
const AT_ONCE: usize = 4;

/// How many events wait for their turn.
const QUEUE: usize = 64;

/// How long the last events may take at the end.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// How often it is said at most that events were dropped.
const COMPLAIN: Duration = Duration::from_secs(10);

/// The hooks, running.
#[derive(Debug)]
pub(crate) struct Hooks {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
    under_way: watch::Receiver<usize>,
}

impl Hooks {
    /// Runs `shell` for each of these events. Commands are tied to the calling thread: to be called on the main
    /// thread's own runtime.
    pub(crate) fn start(shell: Shell, events: broadcast::Receiver<Event>, metrics: Metrics) -> Self {
        let (end, told) = oneshot::channel();
        let (pending, under_way) = watch::channel(0);
        let following = Following {
            shell,
            events,
            metrics,
            queue: VecDeque::with_capacity(QUEUE),
            running: JoinSet::new(),
            pending,
            complain_from: Instant::now(),
        };
        Self { end, task: tasks::spawn(following.run(told)), under_way }
    }

    /// How many commands run or wait to be run.
    pub(crate) fn under_way(&self) -> watch::Receiver<usize> {
        self.under_way.clone()
    }

    /// Runs what is queued, for a second at most; what still runs then is killed.
    pub(crate) async fn finish(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

struct Following {
    shell: Shell,
    events: broadcast::Receiver<Event>,
    metrics: Metrics,
    queue: VecDeque<Hook>,
    running: JoinSet<Hooked>,
    /// How many run or wait.
    pending: watch::Sender<usize>,
    complain_from: Instant,
}

impl Following {
    async fn run(mut self, mut end: oneshot::Receiver<()>) {
        loop {
            self.start_next();
            let now = self.running.len() + self.queue.len() + self.events.len();
            self.pending.send_if_modified(|pending| std::mem::replace(pending, now) != now);
            tokio::select! {
                event = self.events.recv() => match event {
                    Ok(event) => self.take(&event),
                    Err(RecvError::Lagged(missed)) => self.dropped(missed),
                    Err(RecvError::Closed) => break,
                },
                Some(ran) = self.running.join_next() => self.ran(ran),
                _ = &mut end => break,
            }
        }
        self.take_the_rest();
        // What is left at the deadline is killed as it is dropped.
        let _ = tokio::time::timeout(LAST_EVENTS, self.run_dry()).await;
    }

    fn take_the_rest(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.take(&event),
                Err(TryRecvError::Lagged(missed)) => self.dropped(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    async fn run_dry(&mut self) {
        self.start_next();
        while let Some(ran) = self.running.join_next().await {
            self.ran(ran);
            self.start_next();
        }
    }

    fn start_next(&mut self) {
        while self.running.len() < AT_ONCE {
            let Some(hook) = self.queue.pop_front() else { return };
            self.running.spawn(self.shell.clone().run(hook));
        }
    }

    fn take(&mut self, event: &Event) {
        match Hook::of(event) {
            Some(hook) if self.queue.len() < QUEUE => self.queue.push_back(hook),
            Some(_) => self.dropped(1),
            None => {}
        }
    }

    fn ran(&self, ran: Result<Hooked, tokio::task::JoinError>) {
        if let Ok(ran) = ran {
            self.metrics.hooks.with_label_values(&[ran.label()]).inc();
        }
    }

    fn dropped(&mut self, events: u64) {
        let dropped = self.metrics.hooks.with_label_values(&[Hooked::Dropped.label()]);
        dropped.inc_by(events);
        let now = Instant::now();
        if now >= self.complain_from {
            self.complain_from = now + COMPLAIN;
            warn!(dropped = dropped.get(), "events dropped: the commands of --on-event are too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rustix::process::Resource;

    use super::*;
    use crate::supervisor::events::{EventKind, Time};

    fn event(worker: u32) -> Event {
        let kind = EventKind::WorkerStarted { worker, pid: 1 };
        Event { time: Time(SystemTime::now()), app: "web".to_owned(), kind }
    }

    fn counted(metrics: &Metrics, result: Hooked) -> u64 {
        metrics.hooks.with_label_values(&[result.label()]).get()
    }

    fn start(command: String) -> (Hooks, broadcast::Sender<Event>, Metrics) {
        let (tell, events) = broadcast::channel(256);
        let metrics = Metrics::new();
        let nofile = rustix::process::getrlimit(Resource::Nofile);
        (Hooks::start(Shell { command, nofile, folder: None }, events, metrics.clone()), tell, metrics)
    }

    #[tokio::test]
    async fn what_was_told_before_the_end_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("told");
        let (hooks, tell, metrics) = start(format!("cat >>{}", file.display()));
        for worker in 1..=10 {
            tell.send(event(worker)).unwrap();
        }
        hooks.finish().await;
        let told = std::fs::read_to_string(&file).unwrap();
        assert_eq!(told.lines().count(), 10, "{told}");
        assert_eq!(counted(&metrics, Hooked::Done), 10);
    }

    #[tokio::test]
    async fn slow_commands_lose_events_and_neither_grow_nor_hold_up_the_end() {
        let (hooks, tell, metrics) = start("sleep 1000".to_owned());
        let events = AT_ONCE + QUEUE + 10;
        for worker in 0..events {
            tell.send(event(u32::try_from(worker).unwrap())).unwrap();
            tokio::task::yield_now().await;
        }
        let begin = Instant::now();
        hooks.finish().await;
        assert!(begin.elapsed() < 5 * LAST_EVENTS);
        assert_eq!(counted(&metrics, Hooked::Dropped), 10);
        assert_eq!(counted(&metrics, Hooked::Done), 0);
    }
}
