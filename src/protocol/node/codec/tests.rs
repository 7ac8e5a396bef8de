//! Lines and descriptors, cut and joined in every way that a stream socket may.

use proptest::prelude::*;

use super::*;
use crate::protocol::node::message::{HandleType, Seq, offered};

/// What can be compared of messages.
fn texts(messages: &[FromNode]) -> Vec<String> {
    messages.iter().map(|message| format!("{message:?}")).collect()
}

#[test]
fn a_line_may_be_as_long_as_the_bound_and_no_longer() {
    let chunk = vec![b' '; 64 * 1024];
    let mut decoder = Decoder::default();
    let mut received = Vec::new();
    for _ in 0..MAX_LINE / chunk.len() - 1 {
        decoder.feed(&chunk, &mut received).unwrap();
    }
    decoder.feed(&chunk[1..], &mut received).unwrap();
    decoder.feed(b"1\n2\n", &mut received).unwrap();
    assert_eq!(received.len(), 2);
    assert!(decoder.partial.capacity() <= KEPT, "the memory is given back");

    for _ in 0..MAX_LINE / chunk.len() {
        decoder.feed(&chunk, &mut received).unwrap();
    }
    let fault = decoder.feed(b"1", &mut received).unwrap_err();
    assert_eq!(fault.to_string(), "the worker sent a message longer than 16 MiB; send it in parts");
    let fault = decoder.feed(b"1\n", &mut received).unwrap_err();
    assert!(matches!(fault, Fault::TooLong));
    assert_eq!(decoder.buffered(), MAX_LINE);
}

#[test]
fn what_came_before_a_fault_is_heard() {
    let mut received = Vec::new();
    let mut decoder = Decoder::default();
    assert!(decoder.feed(b"1\n2\nx\n3\n", &mut received).is_err());
    assert_eq!(received.len(), 2);
}

#[test]
fn a_descriptor_goes_with_the_first_byte_of_its_line() {
    let mut outgoing = Outgoing::default();
    outgoing.push(ToNode::Ack { seq: Seq(0), ack: Seq(1) }).unwrap();
    outgoing.push(ToNode::NewConn { seq: Seq(1), key: "k", fd: 7 }).unwrap();
    outgoing.push(ToNode::NewConn { seq: Seq(2), key: "k", fd: 8 }).unwrap();
    outgoing.push(ToNode::HandleAck).unwrap();

    assert_eq!(outgoing.front(), Some((&b"{\"cmd\":\"NODE_CLUSTER\",\"ack\":1,\"seq\":0}\n"[..], None)));
    let len = outgoing.front().unwrap().0.len();
    outgoing.sent(len);
    let line = outgoing.front().unwrap().0.to_vec();
    outgoing.sent(0);
    assert_eq!(outgoing.front(), Some((&line[..], Some(&7))), "not sent, so still to be sent");
    outgoing.sent(1);
    assert_eq!(outgoing.front(), Some((&line[1..], None)), "the rest goes alone");
    outgoing.sent(line.len() - 1);
    assert_eq!(outgoing.front().unwrap().1, Some(&8));
    outgoing.sent(line.len());
    assert_eq!(outgoing.front(), Some((&b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n"[..], None)));
    outgoing.sent(26);
    assert!(outgoing.is_empty());
    assert_eq!(outgoing.front(), None);
    assert_eq!(outgoing.size, 0);
}

#[test]
fn messages_for_a_worker_that_does_not_read_do_not_pile_up() {
    let mut outgoing: Outgoing = Outgoing::default();
    let mut count = 0;
    while outgoing.push(ToNode::HandleAck).is_ok() {
        count += 1;
    }
    assert!(count > 100_000);
    assert!(outgoing.size <= MAX_QUEUED);
    assert_eq!(Full.to_string(), "the worker does not read its messages; 16 MiB of them are queued");
    let len = outgoing.front().unwrap().0.len();
    outgoing.sent(len);
    outgoing.push(ToNode::HandleAck).unwrap();
}

/// Lines that a worker may send.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}"#.to_owned()),
        Just(r#"{"cmd":"NODE_HANDLE_ACK"}"#.to_owned()),
        Just(r#"{"cmd":"NODE_CLUSTER","ack":2,"accepted":true,"seq":3}"#.to_owned()),
        "[a-zé\u{1F980}]{0,30}".prop_map(|text| format!("{text:?}")),
    ]
}

#[test]
fn what_has_not_been_begun_can_be_taken_back() {
    let mut outgoing = Outgoing::default();
    let connection = |seq, fd| ToNode::NewConn { seq: Seq(seq), key: "k", fd };
    outgoing.push(connection(1, 7)).unwrap();
    outgoing.push(ToNode::HandleAck).unwrap();
    outgoing.push(connection(2, 8)).unwrap();
    let (key, data, handle) = ("k", None, HandleType::Net);
    outgoing.push(ToNode::Shared { seq: Seq(3), ack: Seq(0), key, data, handle, fd: 9 }).unwrap();
    outgoing.push(connection(4, 10)).unwrap();
    outgoing.sent(1);
    assert_eq!(outgoing.take_unsent(offered), [Seq(2), Seq(4)]);
    let mut fds = Vec::new();
    while let Some((bytes, fd)) = outgoing.front() {
        fds.extend(fd.copied());
        let len = bytes.len();
        outgoing.sent(len);
    }
    assert_eq!((fds, outgoing.size), (vec![9], 0));
}

proptest! {
    #[test]
    fn messages_survive_every_cut(
        lines in prop::collection::vec(line(), 0..12),
        takes in prop::collection::vec(1usize..100, 1..20),
    ) {
        let stream = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        let (mut decoder, mut received) = (Decoder::default(), Vec::new());
        let (mut rest, mut takes) = (&stream[..], takes.into_iter().cycle());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(takes.next().unwrap().min(rest.len()));
            decoder.feed(chunk, &mut received).unwrap();
            rest = after;
        }
        let expected: Vec<_> = lines.iter().map(|line| FromNode::read(line.as_bytes()).unwrap()).collect();
        prop_assert_eq!(texts(&received), texts(&expected));
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn what_is_queued_is_sent_in_order_whatever_is_taken_at_once(
        messages in prop::collection::vec(any::<Option<usize>>(), 0..20),
        takes in prop::collection::vec(1usize..150, 1..20),
    ) {
        let message = |fd: Option<usize>| match fd {
            Some(fd) => ToNode::NewConn { seq: Seq(1), key: "k", fd },
            None => ToNode::HandleAck,
        };
        let mut outgoing = Outgoing::default();
        let mut expected = Vec::new();
        for fd in &messages {
            outgoing.push(message(*fd)).unwrap();
            expected.extend(message(*fd).into_line().0);
        }
        let (mut sent, mut fds) = (Vec::new(), Vec::new());
        let mut takes = takes.into_iter().cycle();
        while let Some((bytes, fd)) = outgoing.front() {
            if fd.is_some() {
                prop_assert!(sent.last().is_none_or(|&byte| byte == b'\n'), "with the first byte of a line");
            }
            fds.extend(fd.copied());
            let len = bytes.len().min(takes.next().unwrap());
            sent.extend_from_slice(&bytes[..len]);
            outgoing.sent(len);
        }
        prop_assert_eq!(sent, expected);
        prop_assert_eq!(fds, messages.into_iter().flatten().collect::<Vec<_>>());
        prop_assert_eq!(outgoing.size, 0);
    }
}
