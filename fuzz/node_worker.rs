//! What must hold whatever a Node worker sends: shared by the fuzz target and the property test of `tests/`.

use clusterd::internal::protocol::node::{Decoder, FromNode, Received};

/// Reads `data` in parts, as the first byte of each says: its length in the lower six bits, and how many
/// descriptors come with it in the upper two.
pub fn check(data: &[u8]) {
    let mut decoder = Decoder::default();
    let mut received: Vec<Received<usize>> = Vec::new();
    let (mut stream, mut fds) = (Vec::new(), 0);
    let mut rest = data;
    let mut fault = None;
    while let (Some((&shape, after)), None) = (rest.split_first(), &fault) {
        let (part, after) = after.split_at(usize::from(shape & 63).min(after.len()));
        let first = fds;
        fds += usize::from(shape >> 6);
        stream.extend_from_slice(part);
        fault = decoder.feed(part, first..fds, &mut received).err();
        rest = after;
    }
    assert!(decoder.buffered() <= stream.len());
    assert!(decoder.waiting() <= 4);
    descriptors_stay_with_handles_and_in_order(&received);

    let mut at_once = Vec::new();
    let whole = Decoder::<usize>::default().feed(&stream, [], &mut at_once);
    assert_eq!(whole.is_err(), fault.is_some());
    assert_eq!(texts(&received), texts(&at_once), "where a read ends does not matter");
}

fn descriptors_stay_with_handles_and_in_order(received: &[Received<usize>]) {
    let with_fd = received.iter().filter(|received| received.fd.is_some());
    assert!(with_fd.clone().all(|received| matches!(received.message, FromNode::Handle { .. })));
    let fds: Vec<_> = with_fd.filter_map(|received| received.fd).collect();
    assert!(fds.is_sorted_by(|one, next| one < next), "none is given twice");
}

fn texts(received: &[Received<usize>]) -> Vec<String> {
    received.iter().map(|received| format!("{:?}", received.message)).collect()
}
