//! Properties of the wire format. They stand outside of `wire`, since the shim and the library include that file.

use proptest::prelude::*;

use super::wire::*;

fn endpoint() -> impl Strategy<Value = Endpoint> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(address, port)| Endpoint::V4 { address, port }),
        any::<([u8; 16], u16, u32)>().prop_map(|(address, port, scope)| Endpoint::V6 {
            address,
            port,
            scope
        }),
    ]
}

fn option() -> impl Strategy<Value = SocketOption> {
    (any::<i32>(), any::<i32>(), any::<[u8; 8]>(), prop_oneof![Just(4), Just(8)])
        .prop_map(|(level, name, value, len)| SocketOption { level, name, value, len })
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        (any::<[u8; 16]>(), endpoint(), any::<bool>()).prop_map(|(token, address, wants_drain)| {
            FromWorker::Attach { token: Token(token), address, wants_drain }
        }),
        Just(FromWorker::Listening),
        option().prop_map(FromWorker::SetOption),
    ]
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    prop_oneof![
        Just(ToWorker::Welcome),
        Just(ToWorker::Refuse(Refusal::NotServed)),
        Just(ToWorker::Refuse(Refusal::NotAdmitted)),
        Just(ToWorker::Refuse(Refusal::Full)),
        Just(ToWorker::Refuse(Refusal::Shared)),
        endpoint().prop_map(|peer| ToWorker::Connection { peer }),
        Just(ToWorker::Wake),
        Just(ToWorker::Drain),
    ]
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let mut buffer = [0; MAX_MESSAGE];
    assert_eq!(FromWorker::Listening.encode(&mut buffer), [2, 1]);
    assert_eq!(ToWorker::Welcome.encode(&mut buffer), [65, 1]);
    assert_eq!(ToWorker::Refuse(Refusal::Full).encode(&mut buffer), [66, 1, 3]);
    assert_eq!(ToWorker::Wake.encode(&mut buffer), [68, 1]);
    assert_eq!(ToWorker::Drain.encode(&mut buffer), [69, 1]);
    let peer = Endpoint::V4 { address: [127, 0, 0, 1], port: 0x1f90 };
    let connection = [67, 1, 4, 0x90, 0x1f, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(ToWorker::Connection { peer }.encode(&mut buffer), connection);
    let option = SocketOption { level: 6, name: 9, value: [30, 0, 0, 0, 0, 0, 0, 0], len: 4 };
    let set_option = [3, 1, 6, 0, 0, 0, 9, 0, 0, 0, 4, 30, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(FromWorker::SetOption(option).encode(&mut buffer), set_option);
}

#[test]
fn a_token_is_never_shown() {
    assert_eq!(format!("{:?}", Token([7; 16])), "Token(..)");
}

proptest! {
    #[test]
    fn what_a_worker_says_is_understood(message in from_worker()) {
        let mut buffer = [0; MAX_MESSAGE];
        let record = message.encode(&mut buffer);
        prop_assert_eq!(FromWorker::decode(record), Ok(message));
        prop_assert_eq!(ToWorker::decode(record), Err(Malformed), "no kind is used in both directions");
        for len in 0..record.len() {
            prop_assert_eq!(FromWorker::decode(&record[..len]), Err(Malformed));
        }
        let longer = [record, &[0]].concat();
        prop_assert_eq!(FromWorker::decode(&longer), Err(Malformed));
        let mut newer = record.to_vec();
        newer[1] = VERSION + 1;
        prop_assert_eq!(FromWorker::decode(&newer), Err(Malformed));
    }

    #[test]
    fn what_a_primary_says_is_understood(message in to_worker()) {
        let mut buffer = [0; MAX_MESSAGE];
        let record = message.encode(&mut buffer);
        prop_assert_eq!(ToWorker::decode(record), Ok(message));
        for len in 0..record.len() {
            prop_assert_eq!(ToWorker::decode(&record[..len]), Err(Malformed));
        }
        let longer = [record, &[0]].concat();
        prop_assert_eq!(ToWorker::decode(&longer), Err(Malformed));
    }

    #[test]
    fn garbage_is_malformed_at_worst(kind in 0u8..80, rest: Vec<u8>) {
        let record = [&[kind, VERSION], rest.as_slice()].concat();
        let _ = FromWorker::decode(&record);
        let _ = ToWorker::decode(&record);
        let _ = FromWorker::decode(&rest);
        let _ = ToWorker::decode(&rest);
        let _ = ChannelName::decode(&rest);
        let _ = Token::from_hex(&rest);
    }

    #[test]
    fn a_channel_name_is_read_back_and_no_other(address in endpoint(), given: bool, nonce: u64) {
        let name = ChannelName { address, given, nonce };
        let bytes = name.encode();
        prop_assert_eq!(ChannelName::decode(&bytes), Some(name));
        prop_assert!(bytes.len() <= 108, "it fits into sun_path");
        for len in 0..bytes.len() {
            prop_assert_eq!(ChannelName::decode(&bytes[..len]), None);
        }
    }

    #[test]
    fn a_token_survives_the_environment(token: [u8; 16]) {
        let hex = Token(token).to_hex();
        prop_assert_eq!(Token::from_hex(&hex), Some(Token(token)));
        prop_assert_eq!(Token::from_hex(&hex[1..]), None);
    }
}
