//! What no clusterd has written down is refused in words.

use super::*;
use crate::carry::{CarriedFd, Raw};
use crate::ids::ServiceId;
use crate::protocol::node::Seq;

/// What is said of a snapshot in which this was changed.
fn refusal(change: impl FnOnce(&mut NodeSnapshot)) -> String {
    let mut image = Image::first(Terms { relays_messages: true, ..TERMS });
    let node = FakeNode::of(&mut image, worker(1));
    node.comes_online(&mut image);
    image.upgrade_with(change).map(drop).unwrap_err().to_string()
}

fn session(change: impl FnOnce(&mut SessionSnapshot)) -> String {
    refusal(|snapshot| change(&mut snapshot.sessions[0]))
}

#[test]
fn what_cannot_be_is_refused() {
    let other = |port| server(port, SupplySnapshot::Other);
    let piece = |bytes: &[u8], fd| PieceSnapshot { bytes: Raw(bytes.to_vec()), fd };
    let channel = |pid| server(1, SupplySnapshot::Channel { link: LinkId(1), inode: 1, pid });
    let nowhere = CarriedFd::numbered(i32::MAX);
    let relay = |passing| server(1, SupplySnapshot::Relay { link: LinkId(1), port: 1, passing });
    let entry = EntrySnapshot {
        key: "a".to_owned(),
        source: SourceSnapshot::Service { id: ServiceId::Opened(1), address: ([127, 0, 0, 1], 1).into() },
        data: None,
        wanted_by: vec![worker(1)],
    };
    let wrong = [
        (session(|it| it.transport.partial = Raw(b"1\n".to_vec())), "unheard"),
        (session(|it| it.transport.outgoing = vec![piece(b"", None)]), "no bytes"),
        (session(|it| it.transport.outgoing = vec![piece(b"1\n", Some(nowhere))]), "not carried"),
        (session(|it| it.transport.channel = it.transport.worker_end), "two owners"),
        (session(|it| it.transport.seq = Seq(u64::MAX)), "too great"),
        (session(|it| it.servers = vec![other(1), other(1)]), "two servers"),
        (session(|it| it.servers = vec![channel(-1)]), "below zero"),
        (
            session(|it| it.servers = vec![relay(PassingSnapshot::NotBegun { worker_end: nowhere })]),
            "not carried",
        ),
        (
            session(|it| {
                let (channel, position) = (it.transport.worker_end, RelayPosition::Offered);
                it.servers = vec![relay(PassingSnapshot::Begun(RelaySnapshot { channel, position }))];
            }),
            "nothing is known",
        ),
        (
            session(|it| {
                let (look_at, pause) = (std::time::Instant::now().into(), Duration::MAX);
                it.closed = vec![ClosedSnapshot { server: other(1), look_at, pause }];
            }),
            "no channel",
        ),
        (refusal(|it| it.sessions.push(it.sessions[0].clone())), "two owners"),
        (refusal(|it| it.messages.letters[0].messages.push("1\n2".to_owned())), "several lines"),
        (refusal(|it| it.messages.letters[0].messages.push("{".to_owned())), "not JSON"),
        (refusal(|it| it.listeners = vec![entry.clone(), entry.clone()]), "twice"),
        (
            refusal(|it| it.listeners.push(EntrySnapshot { data: Some("{".to_owned()), ..entry.clone() })),
            "not JSON",
        ),
    ];
    for (refused, words) in wrong {
        assert!(refused.contains(words), "{refused}: {words}");
    }
}

#[test]
fn what_another_clusterd_knows_and_this_one_does_not_is_refused() {
    let mut image = Image::first(TERMS);
    let _node = FakeNode::of(&mut image, worker(1));
    let still = image.stand_still();
    let mut written = serde_json::to_value(&still.state).unwrap();
    assert!(serde_json::from_value::<NodeSnapshot>(written.clone()).is_ok());
    written["sessions"][0]["transport"]["new"] = json!(1);
    let refused = serde_json::from_value::<NodeSnapshot>(written).unwrap_err().to_string();
    assert!(refused.contains("unknown field `new`"), "{refused}");
}

#[test]
fn times_that_cannot_be_do_no_harm() {
    let mut image = Image::first(TERMS);
    let _node = FakeNode::of(&mut image, worker(1));
    let mut image = image
        .upgrade_with(|snapshot| {
            let session = &mut snapshot.sessions[0];
            session.idle = IdleSnapshot { look_at: Some(std::time::Instant::now().into()), looks: u8::MAX };
            let server = server(1, SupplySnapshot::Channel { link: LinkId(7), inode: 1, pid: 0 });
            let (look_at, pause) = (std::time::Instant::now().into(), Duration::MAX);
            session.closed = vec![ClosedSnapshot { server, look_at, pause }];
        })
        .unwrap();
    assert!(matches!(image.asked_of_front(), Asked::Detach(LinkId(7))));
    assert_eq!(image.stand_still().state.sessions.len(), 1);
}
