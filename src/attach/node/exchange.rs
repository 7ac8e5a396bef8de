//! Messages that workers send with `process.send`, on their way to the app's other workers (`--relay-messages`).
//!
//! A message is passed on as the line that it came as, so that it is in Node's own serialisation. What waits for one
//! worker is bounded; what has no room is dropped, counted, and said once. Without the setting, the first message of the
//! app is named, for whoever sent it expects somebody to hear it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntCounterVec;
use serde_json::value::RawValue;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::shortened;
use crate::ids::WorkerId;
use crate::metrics::{Messages, Metrics};

/// The longest message that is passed on, in bytes of JSON.
const LONGEST: usize = 1024 * 1024;

/// How much may wait for one worker: so many bytes of JSON, and so many messages.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const MOST_MESSAGES: usize = 1024;

/// Where all workers' messages go. Clones are the same exchange.
#[derive(Clone, Debug)]
pub(crate) struct MessageExchange(Arc<Exchange>);

#[derive(Debug)]
enum Exchange {
    /// To the other workers.
    Relaying {
        addresses: Mutex<BTreeMap<WorkerId, Address>>,
        counts: IntCounterVec,
        too_long_said: AtomicBool,
        full_said: AtomicBool,
    },
    /// To nobody.
    Off { said: AtomicBool },
}

/// Where one worker's letters are put.
#[derive(Clone, Debug)]
struct Address {
    letters: mpsc::Sender<Letter>,
    room: Arc<Semaphore>,
}

/// A message, and the room that it takes until it is written.
#[derive(Debug)]
struct Letter {
    message: Arc<str>,
    _room: OwnedSemaphorePermit,
}

/// What other workers have sent to one worker; dropping it means that it wants no more.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Option<Joined>);

#[derive(Debug)]
struct Joined {
    worker: WorkerId,
    letters: mpsc::Receiver<Letter>,
    exchange: MessageExchange,
}

impl MessageExchange {
    /// An exchange without any worker, that `relays` messages or not.
    pub(crate) fn new(relays: bool, metrics: &Metrics) -> Self {
        Self(Arc::new(match relays {
            true => Exchange::Relaying {
                addresses: Mutex::default(),
                counts: metrics.messages.clone(),
                too_long_said: AtomicBool::new(false),
                full_said: AtomicBool::new(false),
            },
            false => Exchange::Off { said: AtomicBool::new(false) },
        }))
    }

    /// The mailbox of a worker, which gets messages from now on.
    pub(super) fn join(&self, worker: WorkerId) -> Mailbox {
        let Exchange::Relaying { addresses, .. } = &*self.0 else { return Mailbox(None) };
        let (sender, letters) = mpsc::channel(MOST_MESSAGES);
        let address = Address { letters: sender, room: Arc::new(Semaphore::new(MOST_BYTES)) };
        addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, address);
        Mailbox(Some(Joined { worker, letters, exchange: self.clone() }))
    }

    fn leave(&self, worker: WorkerId) {
        if let Exchange::Relaying { addresses, .. } = &*self.0 {
            addresses.lock().unwrap_or_else(PoisonError::into_inner).remove(&worker);
        }
    }

    /// A worker has sent a message. It waits for nobody.
    pub(super) fn post(&self, from: WorkerId, message: &RawValue) {
        match &*self.0 {
            Exchange::Off { said } => {
                if !said.swap(true, Ordering::Relaxed) {
                    let text = shortened(message);
                    let hint = remedy(message.get());
                    info!(worker = %from, sent = text, "nobody receives what workers send with process.send\n{hint}");
                }
            }
            Exchange::Relaying { addresses, counts, too_long_said, full_said } => {
                if message.get().len() > LONGEST {
                    counts.with_label_values(&[Messages::TooLong.label()]).inc();
                    if !too_long_said.swap(true, Ordering::Relaxed) {
                        let bytes = message.get().len();
                        warn!(
                            worker = %from, bytes,
                            "dropping a message of more than {} MiB between workers, and every later one", LONGEST >> 20
                        );
                    }
                    return;
                }
                let message: Arc<str> = message.get().into();
                let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
                for (to, address) in addresses.iter().filter(|(to, _)| **to != from) {
                    let delivered = address.put(Arc::clone(&message));
                    let became = if delivered { Messages::Relayed } else { Messages::Full };
                    counts.with_label_values(&[became.label()]).inc();
                    if !delivered && !full_said.swap(true, Ordering::Relaxed) {
                        warn!(worker = %to, "dropping messages of other workers: the worker does not read them in time");
                    }
                }
            }
        }
    }
}

impl Address {
    /// Whether there was room. A worker that has just left has no use for it.
    fn put(&self, message: Arc<str>) -> bool {
        let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return false };
        match self.letters.try_send(Letter { message, _room: room }) {
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(_)) => false,
        }
    }
}

impl Mailbox {
    /// The next message, when there is one; never for a worker that gets none.
    pub(super) async fn next(&mut self) -> Arc<str> {
        match &mut self.0 {
            Some(joined) => match joined.letters.recv().await {
                Some(letter) => letter.message,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.exchange.leave(self.worker);
    }
}

/// What would help whoever has sent this message.
fn remedy(message: &str) -> &'static str {
    if message.contains(r#""topic":"log4js:message""#) {
        "hint: log4js leaves writing to the cluster's primary: set `disableClustering: true` in its configuration, so \
         that each worker writes for itself"
    } else {
        "hint: with --relay-messages, the app's other workers receive it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;

    fn worker(launch: u64) -> WorkerId {
        WorkerId { slot: Slot(1), launch }
    }

    fn message(text: &str) -> Box<RawValue> {
        RawValue::from_string(serde_json::to_string(text).unwrap()).unwrap()
    }

    /// What is there for a worker by now.
    fn received(mailbox: &mut Mailbox) -> Vec<String> {
        let letters = &mut mailbox.0.as_mut().unwrap().letters;
        std::iter::from_fn(|| letters.try_recv().ok()).map(|letter| letter.message.to_string()).collect()
    }

    fn counted(metrics: &Metrics, what: Messages) -> u64 {
        metrics.messages.with_label_values(&[what.label()]).get()
    }

    #[test]
    fn a_message_reaches_every_other_worker_in_its_own_words() {
        let metrics = Metrics::new();
        let exchange = MessageExchange::new(true, &metrics);
        let [mut first, mut second, mut third] = [1, 2, 3].map(|launch| exchange.join(worker(launch)));
        exchange.post(worker(2), &RawValue::from_string(r#"{"b": 1,  "a":"ü"}"#.to_owned()).unwrap());
        assert_eq!(received(&mut first), [r#"{"b": 1,  "a":"ü"}"#]);
        assert_eq!(received(&mut second), [""; 0]);
        assert_eq!(received(&mut third).len(), 1);
        drop(third);
        exchange.post(worker(2), &message("again"));
        assert_eq!(counted(&metrics, Messages::Relayed), 3, "who has left gets nothing");
    }

    #[test]
    fn what_waits_for_a_worker_is_bounded_in_number_and_in_bytes() {
        let metrics = Metrics::new();
        let exchange = MessageExchange::new(true, &metrics);
        let mut slow = exchange.join(worker(1));
        for _ in 0..MOST_MESSAGES + 10 {
            exchange.post(worker(2), &message("x"));
        }
        assert_eq!(received(&mut slow).len(), MOST_MESSAGES);
        assert_eq!(counted(&metrics, Messages::Full), 10);
        let long = message(&"x".repeat(LONGEST - 2));
        for _ in 0..10 {
            exchange.post(worker(2), &long);
        }
        assert_eq!(received(&mut slow).len(), MOST_BYTES / LONGEST);
        exchange.post(worker(2), &message(&"x".repeat(LONGEST)));
        assert_eq!(counted(&metrics, Messages::TooLong), 1);
        assert!(received(&mut slow).is_empty());
    }

    #[test]
    fn the_remedy_is_that_of_the_sender() {
        assert!(remedy(r#"{"topic":"log4js:message","data":"[]"}"#).contains("disableClustering"));
        assert!(remedy(r#"{"source":"_sio_adapter"}"#).contains("--relay-messages"));
    }
}
