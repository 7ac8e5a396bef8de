//! Every line of the protocol, as Node's own code sends and expects it.

use std::io;

use super::*;

fn read(line: &str) -> FromNode {
    FromNode::read(line.as_bytes()).unwrap_or_else(|fault| panic!("{line}: {fault}"))
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn query(address_type: AddressType, port: i64, seq: u64) -> Query {
    Query {
        seq: Seq(seq),
        index: 0,
        data: None,
        address: None,
        port,
        address_type,
        fd: -1,
        flags: 0,
        backlog: 0,
        readable_all: false,
        writable_all: false,
    }
}

/// A [`RawValue`] cannot be compared, but shown.
#[track_caller]
fn assert_read(line: &str, expected: FromNode) {
    assert_eq!(format!("{:?}", read(line)), format!("{expected:?}"), "{line}");
}

#[test]
fn what_a_worker_says_of_itself_is_understood() {
    for (line, expected) in [
        (r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#, FromNode::Online),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":3000,"addressType":4,"backlog":0,"seq":1}"#,
            FromNode::QueryServer(query(AddressType::V4, 3000, 1)),
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":null,"port":3000,"addressType":4,"backlog":0,"seq":2}"#,
            FromNode::Listening(query(AddressType::V4, 3000, 2)),
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","ack":2,"accepted":true,"seq":3}"#,
            FromNode::Accepted { ack: Seq(2), accepted: true },
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","ack":2,"accepted":false,"seq":3}"#,
            FromNode::Accepted { ack: Seq(2), accepted: false },
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"close","key":"null:3000:4:undefined:0","seq":4}"#,
            FromNode::Close { seq: Seq(4), key: "null:3000:4:undefined:0".into() },
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":5}"#,
            FromNode::ExitedAfterDisconnect { seq: Seq(5) },
        ),
        (r#"{"cmd":"NODE_HANDLE_ACK"}"#, FromNode::HandleAck),
        (r#"{"cmd":"NODE_HANDLE_NACK"}"#, FromNode::HandleNack),
        (
            r#"{"cmd":"NODE_HANDLE","type":"net.Server","msg":{"hi":1}}"#,
            FromNode::Handle { kind: Some("net.Server".into()), message: Some(raw(r#"{"hi":1}"#)) },
        ),
    ] {
        assert_read(line, expected);
    }
}

#[test]
fn a_query_is_understood_however_loosely_the_program_asked() {
    let path = |address: &str| Query { address: Some(address.into()), ..query(AddressType::Pipe, -1, 1) };
    let ip = |address: &str, query| Query { address: Some(address.into()), ..query };
    for (fields, expected) in [
        (r#""address":"/run/x.sock","port":-1,"addressType":-1,"backlog":0"#, path("/run/x.sock")),
        (r#""address":"/cwd/\u0000name","port":-1,"addressType":-1,"backlog":0"#, path("/cwd/\0name")),
        (
            r#""address":"/x","port":-1,"addressType":-1,"backlog":0,"readableAll":true,"writableAll":1"#,
            Query { readable_all: true, writable_all: true, ..path("/x") },
        ),
        (
            r#""address":null,"port":null,"addressType":null,"fd":3,"backlog":0"#,
            Query { fd: 3, ..query(AddressType::Descriptor, 0, 1) },
        ),
        (
            r#""address":"127.0.0.1","port":3000,"addressType":4,"flags":0,"backlog":false"#,
            ip("127.0.0.1", query(AddressType::V4, 3000, 1)),
        ),
        (
            r#""address":"::1","port":3002,"addressType":6,"flags":1,"backlog":"7""#,
            Query { flags: Query::IPV6_ONLY, backlog: 7, ..ip("::1", query(AddressType::V6, 3002, 1)) },
        ),
        (
            r#""address":"0.0.0.0","port":"4000","addressType":"udp4","fd":-1,"flags":4"#,
            Query { flags: Query::REUSE_ADDRESS, ..ip("0.0.0.0", query(AddressType::Udp4, 4000, 1)) },
        ),
        (
            r#""address":"::","addressType":"udp6","fd":-1,"flags":0"#,
            ip("::", query(AddressType::Udp6, 0, 1)),
        ),
        (
            r#""address":null,"port":0,"addressType":4,"fd":null,"flags":null,"backlog":"many","readableAll":"","writableAll":null"#,
            query(AddressType::V4, 0, 1),
        ),
    ] {
        let line =
            format!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,{fields},"seq":1}}"#);
        assert_read(&line, FromNode::QueryServer(expected));
    }
}

#[test]
fn the_data_of_a_query_comes_back_as_it_was() {
    let data = r#"{"ticketKeys": "b3eed1",  "b":1.00, "a":1e5}"#;
    let line = format!(
        r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":{data},"port":0,"addressType":4,"seq":6}}"#
    );
    let FromNode::QueryServer(query) = read(&line) else { panic!("a query") };
    let answer: ToNode<'_, u8> = ToNode::Refused {
        seq: Seq(0),
        ack: query.seq,
        key: "k",
        data: query.data.as_deref(),
        errno: Errno::ADDRESS_IN_USE,
    };
    let expected = format!(
        "{{\"cmd\":\"NODE_CLUSTER\",\"errno\":-98,\"key\":\"k\",\"ack\":6,\"data\":{data},\"seq\":0}}\n"
    );
    assert_eq!(String::from_utf8(answer.into_line().0).unwrap(), expected);
}

#[test]
fn what_is_not_for_the_primary_is_the_programs_or_ignored() {
    for line in [
        r#""ready""#,
        "5",
        "null",
        "true",
        r#" {"a":1} "#,
        r#"["NODE_HANDLE_ACK"]"#,
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":"node_x"}"#,
        r#"{"cmd":7,"act":"online"}"#,
        r#"{"cmd":null}"#,
        r#"{"type":"process:msg","data":{"cmd":"NODE_CLUSTER"}}"#,
        // Half of a surrogate pair is no text, yet JSON.stringify writes it.
        r#"{"a":"\ud800","\ud801":1}"#,
        r#"{"cmd":"\ud800"}"#,
        r#"{"cmd":"a","cmd":"b"}"#,
    ] {
        assert_read(line, FromNode::User(raw(line.trim())));
    }
    for line in [
        r#"{"cmd":"NODE_FOO"}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"newconn","key":"k","seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","act":5,"seq":1,"x":[{}]}"#,
    ] {
        assert_read(line, FromNode::Unknown(raw(line)));
    }
    assert_read(r#"{"seq":0,"act":"online","\u0063md":"NODE_CLUSTE\u0052"}"#, FromNode::Online);
}

#[test]
fn a_message_may_be_nested_as_deeply_as_node_likes() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_read(&deep, FromNode::User(raw(&deep)));
    let inside = format!(r#"{{"cmd":{deep},"x":{deep}}}"#);
    assert_read(&inside, FromNode::User(raw(&inside)));
}

#[test]
fn what_is_no_message_is_refused_and_said_why() {
    for (line, expected) in [
        (&b""[..], "the worker sent a line that is not JSON: EOF while parsing a value at line 1 column 0"),
        (b"{", "the worker sent a line that is not JSON: EOF while parsing an object at line 1 column 1"),
        (b"1 2", "the worker sent a line that is not JSON: trailing characters at line 1 column 3"),
        (
            b"\"\xff\"",
            "the worker sent a line that is not UTF-8: invalid utf-8 sequence of 1 bytes from index 1",
        ),
        (
            br#"{"cmd":"NODE_CLUSTER","act":"close","seq":1}"#,
            "the worker sent a malformed \"close\" message: missing field `key` at line 1 column 44",
        ),
        (
            br#"{"cmd":"NODE_CLUSTER","act":"queryServer","port":1,"addressType":4}"#,
            "the worker sent a malformed \"queryServer\" message: missing field `seq` at line 1 column 67",
        ),
        (
            br#"{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":5,"seq":1}"#,
            "the worker sent a malformed \"queryServer\" message: addressType must be one of 4, 6, -1, \"udp4\", \"udp6\", null at line 1 column 57",
        ),
        (
            br#"{"cmd":"NODE_CLUSTER","ack":-1}"#,
            "the worker sent a malformed \"accepted\" message: invalid value: integer `-1`, expected u64 at line 1 column 30",
        ),
    ] {
        let fault = FromNode::read(line).unwrap_err();
        assert_eq!(fault.to_string(), expected);
    }
}

#[test]
fn what_a_primary_says_is_what_nodes_own_would_say() {
    let key = "null:3000:4:undefined:0";
    let v6 = Some("[::]:3000".parse().unwrap());
    let v4 = Some("127.0.0.1:80".parse().unwrap());
    let local = Some("[fe80::1]:80".parse().unwrap());
    let server = raw(r#""6::::3000""#);
    let (seq, ack) = (Seq(0), Seq(1));
    let keys = raw(r#"{"ticketKeys":"ab"}"#);
    let data = Some(&*keys);
    let errno = Errno::from(&io::Error::from_raw_os_error(13));
    for (message, expected, descriptor) in [
        (
            ToNode::Sockname { seq, ack, key, data: None, sockname: v6, zone: None },
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"null:3000:4:undefined:0","ack":1,"data":null,"sockname":{"address":"::","family":"IPv6","port":3000},"seq":0}"#,
            None,
        ),
        (
            ToNode::Sockname { seq, ack, key: "k", data, sockname: v4, zone: None },
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"k","ack":1,"data":{"ticketKeys":"ab"},"sockname":{"address":"127.0.0.1","family":"IPv4","port":80},"seq":0}"#,
            None,
        ),
        (
            ToNode::Sockname { seq, ack, key: "/a\u{0}\"b", data: None, sockname: None, zone: None },
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"/a\u0000\"b","ack":1,"data":null,"seq":0}"#,
            None,
        ),
        (
            ToNode::Refused { seq: Seq(1), ack: Seq(2), key: "...", data: None, errno },
            r#"{"cmd":"NODE_CLUSTER","errno":-13,"key":"...","ack":2,"data":null,"seq":1}"#,
            None,
        ),
        (
            ToNode::Shared { seq, ack, key: "k", data, handle: HandleType::Net, fd: 7 },
            r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"k","ack":1,"data":{"ticketKeys":"ab"},"seq":0}}"#,
            Some(7),
        ),
        (
            ToNode::Shared { seq, ack, key: "k", data: None, handle: HandleType::Dgram, fd: 8 },
            r#"{"cmd":"NODE_HANDLE","type":"dgram.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"k","ack":1,"data":null,"seq":0}}"#,
            Some(8),
        ),
        (
            ToNode::NewConn { seq: Seq(2), key: "...", fd: 9 },
            r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"...","seq":2}}"#,
            Some(9),
        ),
        (ToNode::Ack { seq: Seq(3), ack: Seq(5) }, r#"{"cmd":"NODE_CLUSTER","ack":5,"seq":3}"#, None),
        (ToNode::Disconnect { seq: Seq(4) }, r#"{"cmd":"NODE_CLUSTER","act":"disconnect","seq":4}"#, None),
        (ToNode::HandleAck, r#"{"cmd":"NODE_HANDLE_ACK"}"#, None),
        (
            ToNode::Sockname { seq, ack, key: "k", data: None, sockname: local, zone: Some("eth0") },
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"k","ack":1,"data":null,"sockname":{"address":"fe80::1%eth0","family":"IPv6","port":80},"seq":0}"#,
            None,
        ),
        (
            ToNode::NoSockets { question: SocketQuestion::Count, key: &server },
            r#"{"cmd":"NODE_SOCKET_COUNT","key":"6::::3000","count":0}"#,
            None,
        ),
        (
            ToNode::NoSockets { question: SocketQuestion::Close, key: &server },
            r#"{"cmd":"NODE_SOCKET_ALL_CLOSED","key":"6::::3000"}"#,
            None,
        ),
        (ToNode::User(r#"{ "a": [1] }"#), r#"{ "a": [1] }"#, None),
    ] {
        let (line, fd) = message.into_line();
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
        assert_eq!(fd, descriptor);
    }
}

#[test]
fn one_address_has_one_key_and_each_listen_to_any_port_its_own() {
    let any = query(AddressType::V4, 0, 1);
    let path = Query { address: Some("/run/x".into()), ..query(AddressType::Pipe, -1, 1) };
    for (query, expected) in [
        (Query { index: 1, ..query(AddressType::V4, 3000, 1) }, "null:3000:4:-1"),
        (Query { address: Some("::1".into()), ..query(AddressType::V6, 80, 1) }, "::1:80:6:-1"),
        (any.clone(), "null:0:4:-1:0"),
        (Query { index: 1, ..any }, "null:0:4:-1:1"),
        (path, "/run/x:-1:-1:-1"),
        (Query { fd: 3, port: 1, ..query(AddressType::Descriptor, 0, 1) }, "null:1:null:3"),
    ] {
        assert_eq!(query.key(), expected);
    }
}
