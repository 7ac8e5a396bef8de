//! A record of the attach protocol, the name of a channel, and a token: what is read is written again as the same.
//!
//! That every message can be written and read is in `protocol::tests`.

use std::fmt::Debug;
use std::net::SocketAddr;

use crate::protocol::wire::{ChannelName, Endpoint, FromWorker, Linger, MAX_MESSAGE, ToWorker, Token};

/// Reads `data` as each of them.
pub fn check(data: &[u8]) {
    let from_worker = same_again(data, FromWorker::decode, |message, buffer| message.encode(buffer).to_vec());
    let to_worker = same_again(data, ToWorker::decode, |message, buffer| message.encode(buffer).to_vec());
    assert!(from_worker.is_none() || to_worker.is_none(), "it is of one side alone");
    match from_worker {
        Some(FromWorker::SetOption(option)) => {
            assert_eq!(option.bytes().len(), usize::from(option.len));
            option.linger().iter().for_each(|linger| can_be_told(*linger));
        }
        Some(FromWorker::Attach { binding, .. }) => is_an_address(binding.address),
        Some(FromWorker::Decline { peer, .. }) => is_an_address(peer),
        _ => {}
    }
    if let Some(name) = ChannelName::decode(data) {
        assert_eq!(data.len(), ChannelName::LEN);
        assert_eq!(ChannelName::decode(&name.encode()), Some(name));
    }
    if let Some(token) = Token::from_hex(data) {
        assert_eq!(token.to_hex(), data, "there is one way to write it");
    }
}

/// The message, if `data` is one: of its kind's length, and the same when it was written.
fn same_again<T: PartialEq + Debug, E>(
    data: &[u8],
    read: impl Fn(&[u8]) -> Result<T, E>,
    write: impl Fn(&T, &mut [u8; MAX_MESSAGE]) -> Vec<u8>,
) -> Option<T> {
    let message = read(data).ok()?;
    let written = write(&message, &mut [0; MAX_MESSAGE]);
    assert_eq!(written.len(), data.len(), "a message has one length");
    assert_eq!(read(&written).ok().as_ref(), Some(&message));
    for other in [&data[..data.len() - 1], &[data, &[0]].concat()] {
        assert!(read(other).is_err(), "and no other");
    }
    Some(message)
}

/// What a server sets on its listener, each connection can carry.
fn can_be_told(linger: Option<Linger>) {
    let message = ToWorker::Connection { peer: Endpoint::V4 { address: [0; 4], port: 0 }, linger };
    assert_eq!(ToWorker::decode(message.encode(&mut [0; MAX_MESSAGE])), Ok(message));
}

fn is_an_address(endpoint: Endpoint) {
    let address = SocketAddr::from(endpoint);
    assert_eq!((Endpoint::from(address), address.port()), (endpoint, endpoint.port()));
}
