//! Messages that workers send with `process.send`, on their way to the app's other workers (`--relay-messages`).
//!
//! A message is passed on as the line that it came as, so that it is in Node's own serialisation. What waits for one
//! worker is bounded; what has no room is dropped, counted, and said once. Without the setting, the first message of the
//! app is named, for whoever sent it expects somebody to hear it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounterVec;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::shortened;
use super::snapshot::{ExchangeSnapshot, LettersSnapshot, json};
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
        addresses: Mutex<BTreeMap<WorkerId, Arc<Address>>>,
        counts: IntCounterVec,
        too_long_said: AtomicBool,
        full_said: AtomicBool,
    },
    /// To nobody.
    Off { said: AtomicBool },
}

/// Where one worker's letters are put.
#[derive(Debug, Default)]
struct Address {
    letters: Mutex<Letters>,
    news: Notify,
}

/// What waits for one worker.
#[derive(Debug, Default)]
struct Letters {
    messages: VecDeque<Arc<str>>,
    bytes: usize,
}

/// What other workers have sent to one worker; dropping it means that it wants no more.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Option<Joined>);

#[derive(Debug)]
struct Joined {
    worker: WorkerId,
    address: Arc<Address>,
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
        let address = Arc::<Address>::default();
        addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, Arc::clone(&address));
        Mailbox(Some(Joined { worker, address, exchange: self.clone() }))
    }

    fn leave(&self, worker: WorkerId) {
        if let Exchange::Relaying { addresses, .. } = &*self.0 {
            addresses.lock().unwrap_or_else(PoisonError::into_inner).remove(&worker);
        }
    }

    /// As it is written down, while nobody sends anything.
    pub(super) fn snapshot(&self) -> ExchangeSnapshot {
        match &*self.0 {
            Exchange::Off { said } => {
                ExchangeSnapshot { off_said: said.load(Ordering::Relaxed), ..ExchangeSnapshot::default() }
            }
            Exchange::Relaying { addresses, too_long_said, full_said, .. } => {
                let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
                let letters = addresses.iter().map(|(&to, address)| LettersSnapshot {
                    to,
                    messages: address
                        .letters()
                        .messages
                        .iter()
                        .map(|message| (**message).to_owned())
                        .collect(),
                });
                ExchangeSnapshot {
                    letters: letters.collect(),
                    off_said: false,
                    too_long_said: too_long_said.load(Ordering::Relaxed),
                    full_said: full_said.load(Ordering::Relaxed),
                }
            }
        }
    }

    /// As it was, for the workers that have joined; where messages are not relayed any more, they are dropped.
    ///
    /// # Errors
    /// What waited is no message.
    pub(super) fn restore(&self, snapshot: ExchangeSnapshot) -> io::Result<()> {
        let ExchangeSnapshot { letters, off_said, too_long_said: too_long, full_said: full } = snapshot;
        match &*self.0 {
            Exchange::Off { said } => said.store(off_said, Ordering::Relaxed),
            Exchange::Relaying { addresses, too_long_said, full_said, .. } => {
                too_long_said.store(too_long, Ordering::Relaxed);
                full_said.store(full, Ordering::Relaxed);
                let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
                for LettersSnapshot { to, messages } in letters {
                    let Some(address) = addresses.get(&to) else { continue };
                    for message in messages {
                        // There was room for it before.
                        address.put(json(message)?.get().into());
                    }
                }
            }
        }
        Ok(())
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
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room.
    fn put(&self, message: Arc<str>) -> bool {
        let mut letters = self.letters();
        let bytes = letters.bytes + message.len();
        let has_room = letters.messages.len() < MOST_MESSAGES && bytes <= MOST_BYTES;
        if has_room {
            letters.messages.push_back(message);
            letters.bytes = bytes;
            self.news.notify_one();
        }
        has_room
    }

    fn take(&self) -> Option<Arc<str>> {
        let mut letters = self.letters();
        let message = letters.messages.pop_front()?;
        letters.bytes -= message.len();
        Some(message)
    }
}

impl Mailbox {
    /// Whether messages come here.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// The next message, when there is one; never for a worker that gets none. Cancel safe.
    pub(super) async fn next(&mut self) -> Arc<str> {
        let Some(Joined { address, .. }) = &self.0 else { return std::future::pending().await };
        loop {
            if let Some(message) = address.take() {
                return message;
            }
            address.news.notified().await;
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
    fn received(mailbox: &Mailbox) -> Vec<String> {
        let address = &mailbox.0.as_ref().unwrap().address;
        std::iter::from_fn(|| address.take()).map(|message| message.to_string()).collect()
    }

    fn counted(metrics: &Metrics, what: Messages) -> u64 {
        metrics.messages.with_label_values(&[what.label()]).get()
    }

    #[test]
    fn a_message_reaches_every_other_worker_in_its_own_words() {
        let metrics = Metrics::new();
        let exchange = MessageExchange::new(true, &metrics);
        let [first, second, third] = [1, 2, 3].map(|launch| exchange.join(worker(launch)));
        exchange.post(worker(2), &RawValue::from_string(r#"{"b": 1,  "a":"ü"}"#.to_owned()).unwrap());
        assert_eq!(received(&first), [r#"{"b": 1,  "a":"ü"}"#]);
        assert_eq!(received(&second), [""; 0]);
        assert_eq!(received(&third).len(), 1);
        drop(third);
        exchange.post(worker(2), &message("again"));
        assert_eq!(counted(&metrics, Messages::Relayed), 3, "who has left gets nothing");
    }

    #[test]
    fn what_waits_for_a_worker_is_bounded_in_number_and_in_bytes() {
        let metrics = Metrics::new();
        let exchange = MessageExchange::new(true, &metrics);
        let slow = exchange.join(worker(1));
        for _ in 0..MOST_MESSAGES + 10 {
            exchange.post(worker(2), &message("x"));
        }
        assert_eq!(received(&slow).len(), MOST_MESSAGES);
        assert_eq!(counted(&metrics, Messages::Full), 10);
        let long = message(&"x".repeat(LONGEST - 2));
        for _ in 0..10 {
            exchange.post(worker(2), &long);
        }
        assert_eq!(received(&slow).len(), MOST_BYTES / LONGEST);
        exchange.post(worker(2), &message(&"x".repeat(LONGEST)));
        assert_eq!(counted(&metrics, Messages::TooLong), 1);
        assert!(received(&slow).is_empty());
    }

    #[test]
    fn the_remedy_is_that_of_the_sender() {
        assert!(remedy(r#"{"topic":"log4js:message","data":"[]"}"#).contains("disableClustering"));
        assert!(remedy(r#"{"source":"_sio_adapter"}"#).contains("--relay-messages"));
    }
}
