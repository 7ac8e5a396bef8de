//! What must hold whatever a Node worker sends: shared by the fuzz target and the property test of `tests/`.

use clusterd::internal::protocol::node::{Decoder, FromNode};

/// Reads `data` in parts, each after a byte that says how long it is.
pub fn check(data: &[u8]) {
    let (mut decoder, mut received) = (Decoder::default(), Vec::new());
    let (mut stream, mut rest) = (Vec::new(), data);
    let mut fault = None;
    while let (Some((&len, after)), None) = (rest.split_first(), &fault) {
        let (part, after) = after.split_at(usize::from(len).min(after.len()));
        stream.extend_from_slice(part);
        fault = decoder.feed(part, &mut received).err();
        rest = after;
    }
    assert!(decoder.buffered() <= stream.len());

    let mut at_once = Vec::new();
    let whole = Decoder::default().feed(&stream, &mut at_once);
    assert_eq!(whole.is_err(), fault.is_some());
    assert_eq!(texts(&received), texts(&at_once), "where a read ends does not matter");
}

fn texts(received: &[FromNode]) -> Vec<String> {
    received.iter().map(|message| format!("{message:?}")).collect()
}
