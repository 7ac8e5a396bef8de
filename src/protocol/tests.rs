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
    let value = proptest::collection::vec(any::<u8>(), 1..=SocketOption::MAX_LEN);
    (any::<i32>(), any::<i32>(), value)
        .prop_map(|(level, name, value)| SocketOption::new(level, name, &value).unwrap())
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        (any::<[u8; 16]>(), endpoint(), any::<[bool; 5]>()).prop_map(|(token, address, flags)| {
            let [only_v6, reuses_address, reuses_port, wants_drain, brings_socket] = flags;
            let binding = Binding { address, only_v6, reuses_address, reuses_port };
            FromWorker::Attach { token: Token(token), binding, wants_drain, brings_socket }
        }),
        Just(FromWorker::End),
        Just(FromWorker::Socket),
        Just(FromWorker::Listening),
        any::<([u8; 16], u64)>()
            .prop_map(|(token, nonce)| FromWorker::FetchSocket { token: Token(token), nonce }),
        any::<([u8; 16], u64)>()
            .prop_map(|(token, signals)| FromWorker::Catches { token: Token(token), signals }),
        any::<([u8; 16], u16, u64)>().prop_map(|(token, port, channel)| FromWorker::AskListened {
            token: Token(token),
            port,
            channel
        }),
        any::<([u8; 16], u64)>()
            .prop_map(|(token, cookie)| FromWorker::Listens { token: Token(token), cookie }),
        any::<[u8; 16]>().prop_map(|token| FromWorker::Inherit { token: Token(token) }),
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
        Just(ToWorker::Refuse(Refusal::InUse)),
        Just(ToWorker::Refuse(Refusal::NoAddress)),
        (endpoint(), prop::option::of(0..i32::MAX))
            .prop_map(|(peer, seconds)| ToWorker::Connection { peer, linger: seconds.map(Linger) }),
        Just(ToWorker::Admitted),
        Just(ToWorker::Wake),
        Just(ToWorker::Drain),
        Just(ToWorker::Socket),
        any::<bool>().prop_map(ToWorker::HasListened),
        any::<u16>().prop_map(|port| ToWorker::Listener { port }),
    ]
}

#[test]
fn how_to_linger_is_read_from_the_option() {
    let option = |value: [i32; 2]| {
        let value = value.map(i32::to_ne_bytes).concat();
        SocketOption::new(Linger::LEVEL, Linger::NAME, &value).unwrap()
    };
    assert_eq!(option([1, 30]).linger(), Some(Some(Linger(30))));
    assert_eq!(option([1, 30]).bytes(), Linger(30).value());
    assert_eq!(option([1, 0]).linger(), Some(Some(Linger(0))));
    assert_eq!(option([1, -1]).linger(), Some(Some(Linger(i32::MAX))));
    assert_eq!(option([0, 30]).linger(), Some(None));
    assert_eq!(SocketOption::new(Linger::LEVEL, Linger::NAME, &[1, 0, 0, 0]).unwrap().linger(), None);
    assert_eq!(SocketOption::new(6, Linger::NAME, &[1; 8]).unwrap().linger(), None);
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
    for (linger, bytes) in [(None, [0xff; 4]), (Some(Linger(0x203)), [3, 2, 0, 0])] {
        let written = ToWorker::Connection { peer, linger }.encode(&mut buffer);
        assert_eq!(written, [connection.as_slice(), &bytes].concat());
    }
    assert_eq!(ToWorker::Admitted.encode(&mut buffer), [72, 1]);
    assert_eq!(FromWorker::End.encode(&mut buffer), [8, 1]);
    let option = SocketOption::new(6, 9, &[30, 0, 0, 0]).unwrap();
    let set_option = [3, 1, 6, 0, 0, 0, 9, 0, 0, 0, 4, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(FromWorker::SetOption(option).encode(&mut buffer), set_option);
    let binding = Binding { address: peer, only_v6: true, reuses_address: false, reuses_port: true };
    let attach =
        FromWorker::Attach { token: Token([7; 16]), binding, wants_drain: false, brings_socket: true };
    let record = attach.encode(&mut buffer);
    assert_eq!((record.len(), record[41]), (42, 1 + 4 + 16));
    assert_eq!(FromWorker::Socket.encode(&mut buffer), [5, 1]);
    let ask = FromWorker::AskListened { token: Token([7; 16]), port: 0x1f90, channel: 1 };
    assert_eq!(ask.encode(&mut buffer)[18..], [0x90, 0x1f, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ToWorker::HasListened(true).encode(&mut buffer), [71, 1, 1]);
    let listens = FromWorker::Listens { token: Token([7; 16]), cookie: 0x203 };
    assert_eq!(listens.encode(&mut buffer)[16..], [7, 7, 3, 2, 0, 0, 0, 0, 0, 0]);
    let inherit = FromWorker::Inherit { token: Token([7; 16]) };
    assert_eq!(inherit.encode(&mut buffer), [[11, 1].as_slice(), &[7; 16]].concat());
    assert_eq!(ToWorker::Listener { port: 0x1f90 }.encode(&mut buffer), [73, 1, 0x90, 0x1f]);
}

#[test]
fn an_option_has_a_value_of_one_to_sixteen_bytes() {
    let lengths: Vec<_> = (0..20).filter(|&len| SocketOption::new(6, 9, &vec![1; len]).is_some()).collect();
    assert_eq!(lengths, (1..=16).collect::<Vec<_>>());
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
