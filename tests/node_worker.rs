//! The fuzz target for what a Node worker sends, driven by random input that resembles the protocol.

#[path = "../fuzz/node_worker.rs"]
mod node_worker;

use proptest::prelude::*;

fn scrap() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":1}\n",
        "{\"cmd\":\"NODE_HANDLE\"}\n",
        "{\"cmd\":\"NODE_HANDLE_ACK\"}\n",
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":2,\"accepted\":true,\"seq\":3}\n",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"close\",\"key\":\"k\",\"seq\":4}\n",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"port\":false,\"addressType\":4,\"seq\":1}\n",
        "\"ready\"\n",
        "{\"cmd\":\"NODE_",
        "\n",
    ]);
    prop_oneof![
        4 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

/// Cuts `stream` into parts of these lengths as [`node_worker::check`] reads them.
fn in_parts(stream: &[u8], lens: &[u8]) -> Vec<u8> {
    let (mut data, mut rest) = (Vec::new(), stream);
    for &len in lens.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, after) = rest.split_at(usize::from(len).min(rest.len()));
        data.push(len);
        data.extend_from_slice(part);
        rest = after;
    }
    data
}

proptest! {
    #[test]
    fn what_resembles_the_protocol_is_harmless(
        scraps in prop::collection::vec(scrap(), 0..12),
        lens in prop::collection::vec(1u8..64, 1..12),
    ) {
        node_worker::check(&in_parts(&scraps.concat(), &lens));
    }

    #[test]
    fn any_bytes_are_harmless(data: Vec<u8>) {
        node_worker::check(&data);
    }
}
