//! Connections for a worker without the shim, which lie in a relay's channel while clusterd is upgraded.

use super::*;
use crate::protocol::wire::{Endpoint, FromWorker, MAX_MESSAGE, ToWorker};

const PEER: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

/// A worker that serves, and the front's side of its channel.
struct Served {
    node: FakeNode,
    front: Attachment,
    /// The number of the worker's next message.
    seq: u64,
}

/// What the front hears.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Listening,
    Declined { pause: bool },
}

impl Served {
    fn new(image: &mut Image) -> Self {
        let mut node = FakeNode::of(image, worker(1));
        let (answer, _) = node.asks_to_listen(json!({ "port": PORT, "addressType": 4, "seq": 1 }), image);
        assert_eq!(answer["sockname"]["port"], PORT);
        Self { node, front: image.attachment(), seq: 2 }
    }

    fn listening(image: &mut Image) -> Self {
        let mut served = Self::new(image);
        served.listens();
        assert_eq!(served.said(image), Said::Listening);
        served
    }

    fn listens(&mut self) {
        let listening =
            json!({ "cmd": "NODE_CLUSTER", "act": "listening", "port": PORT, "addressType": 4, "seq": 1 });
        self.node.say(&listening);
    }

    /// The front hands over a connection.
    fn connect(&self) {
        let connection = seqpacket::pair().unwrap().0;
        let record = ToWorker::Connection { peer: PEER, linger: None };
        let mut buffer = [0; MAX_MESSAGE];
        seqpacket::send(&self.front.channel, record.encode(&mut buffer), Some(connection.as_fd())).unwrap();
    }

    /// The next thing that the front hears.
    fn said(&self, image: &Image) -> Said {
        image.run(async {
            let channel = Watched::new(self.front.channel.try_clone().unwrap(), Interest::READABLE).unwrap();
            let mut buffer = [0; MAX_MESSAGE];
            let said =
                channel.when_readable(|channel| seqpacket::receive(channel, &mut buffer)).await.unwrap();
            match FromWorker::decode(&buffer[..said.len]).unwrap() {
                FromWorker::Listening => Said::Listening,
                FromWorker::Decline { peer: PEER, pause } if said.fd.is_some() => Said::Declined { pause },
                other => panic!("{other:?}"),
            }
        })
    }

    /// Whether the front has nothing to hear.
    fn says_nothing(&self) -> bool {
        !seqpacket::has_record(&self.front.channel).unwrap()
    }

    /// The next connection that the worker is offered: its number.
    fn offered(&mut self, image: &Image) -> u64 {
        let (message, fd) = self.node.hear(image);
        assert_eq!((&message["msg"]["act"], fd.is_some()), (&json!("newconn"), true), "{message}");
        self.node.say(&json!({ "cmd": "NODE_HANDLE_ACK" }));
        message["msg"]["seq"].as_u64().unwrap()
    }

    fn answers(&mut self, ack: u64, accepted: bool) {
        self.node.say(&json!({ "cmd": "NODE_CLUSTER", "ack": ack, "accepted": accepted, "seq": self.seq }));
        self.seq += 1;
    }

    /// Runs the image until the channel is empty.
    fn is_taken(&self, image: &Image) {
        image.run(async {
            while seqpacket::waiting_bytes(&self.front.worker_end).unwrap() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn a_connection_that_was_offered_is_taken_by_the_acknowledgement_of_before() {
    let mut image = Image::first(TERMS);
    let mut served = Served::listening(&mut image);
    served.connect();
    let first = served.offered(&image);
    let image = image.upgrade().upgrade();
    assert_ne!(seqpacket::waiting_bytes(&served.front.worker_end).unwrap(), 0, "it lies there still");
    served.answers(first, true);
    served.is_taken(&image);
    served.connect();
    let second = served.offered(&image);
    assert_eq!(second, first + 1, "the first was not offered again");
    assert!(served.says_nothing());
    served.answers(second, false);
    assert_eq!(served.said(&image), Said::Declined { pause: false });
    served.is_taken(&image);
}

#[test]
fn a_relay_that_has_not_begun_begins_in_the_next_image() {
    let mut image = Image::first(TERMS);
    let mut served = Served::new(&mut image);
    let image = image.upgrade();
    served.listens();
    assert_eq!(served.said(&image), Said::Listening);
    served.connect();
    let image = image.upgrade();
    let seq = served.offered(&image);
    let image = image.upgrade();
    served.answers(seq, false);
    assert_eq!(served.said(&image), Said::Declined { pause: false });
    assert!(served.says_nothing(), "it has said that it listens");
}

#[test]
fn what_a_worker_leaves_unread_is_taken_back_in_the_next_image_too() {
    let mut image = Image::first(Terms { handoff_timeout: Duration::from_millis(50), ..TERMS });
    let mut served = Served::listening(&mut image);
    served.connect();
    image.run(async {
        while seqpacket::waiting_bytes(&served.node.channel).unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    });
    let image = image.upgrade();
    assert_eq!(served.said(&image), Said::Declined { pause: true });
    let image = image.upgrade();
    assert!(image.stand_still().state.sessions[0].offers.is_stuck);
    served.is_taken(&image);
    // To read the nudge is to move.
    assert_eq!(served.node.hear(&image).0["cmd"], "NODE_CLUSTERD_NUDGE");
    let image = image.upgrade();
    assert_eq!(served.said(&image), Said::Listening);
    served.connect();
    let seq = served.offered(&image);
    served.answers(seq, true);
    served.is_taken(&image);
}

#[test]
fn whenever_it_is_upgraded_each_connection_is_offered_once() {
    const CONNECTIONS: usize = 300;
    let mut image = Image::first(TERMS);
    let mut served = Served::listening(&mut image);
    let (mut turns, mut offers, mut images) = (0_usize, Vec::new(), 0);
    for number in 0..CONNECTIONS {
        served.connect();
        let accepts = number % 3 != 0;
        // After so many turns of the runtime, which may be before or behind any of the steps.
        turns = (turns + 1) % 17;
        if number % 2 == 0 {
            image.run(async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            });
            image = image.upgrade();
            images += 1;
        }
        let seq = served.offered(&image);
        offers.push(seq);
        served.answers(seq, accepts);
        if number % 2 == 1 {
            image.run(async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            });
            // It goes on by itself.
            drop(image.stand_still());
            image = image.upgrade();
            images += 1;
        }
        if !accepts {
            assert_eq!(served.said(&image), Said::Declined { pause: false });
        }
        served.is_taken(&image);
    }
    assert!(served.says_nothing());
    assert_eq!(offers, (1..=CONNECTIONS as u64).collect::<Vec<_>>());
    assert_eq!(images, CONNECTIONS);
}
