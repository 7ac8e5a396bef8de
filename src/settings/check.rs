//! What settings may not do together, once each is right by itself.
//!
//! Pure: whether the system grants an address is seen when it is listened on.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::error::{Problem, Reason};
use super::keys;
use super::origin::Value;
use super::resolve::Values;
use super::setting::Key;
use super::show::duration;
use super::{Attach, Bind, Config, Listen, Policy, WorkerCommand};

/// Settings that need another one, or another value of it. Each is reported at the value that is in vain.
pub fn together(config: &Config, values: &Values) -> Vec<Problem> {
    let handoff = config.handoff_timeout;
    let is_too_soon = config.stuck_timeout.is_some_and(|stuck| stuck < handoff);
    let found = [
        (!config.ignore.is_empty() && config.watch.is_empty(), &keys::IGNORE.key, Reason::NothingWatched),
        (is_too_soon, &keys::STUCK_TIMEOUT.key, Reason::StuckTooSoon(duration(handoff))),
        (config.scrape.is_some() && config.metrics.is_none(), &keys::SCRAPE.key, Reason::ScrapeUnseen),
    ];
    let wrong = found.into_iter().chain(shared(config)).filter(|(is_wrong, ..)| *is_wrong);
    wrong.filter_map(|(_, key, reason)| Some(Problem::with(values.get(key.name)?, reason))).collect()
}

/// What does not go with workers that share the ports.
fn shared(config: &Config) -> [(bool, &'static Key, Reason); 8] {
    let with = |condition| condition && config.policy == Policy::Shared;
    let is_demo = config.command == WorkerCommand::Demo;
    let probes = |path: &Option<_>| with(path.is_some());
    [
        (with(is_demo), &keys::POLICY.key, Reason::SharedWithoutNode("name a command that runs Node")),
        (
            with(config.attach == Attach::Preload),
            &keys::ATTACH.key,
            Reason::SharedWithoutNode("another --attach"),
        ),
        (with(!is_a_socket_a_port(&config.listen)), &keys::POLICY.key, Reason::SharedAddress),
        (probes(&config.ready_http), &keys::READY_HTTP.key, Reason::SharedUnseen),
        (probes(&config.health_http), &keys::HEALTH_HTTP.key, Reason::SharedUnseen),
        (probes(&config.scrape), &keys::SCRAPE.key, Reason::SharedUnseen),
        (with(config.stuck_timeout.is_some()), &keys::STUCK_TIMEOUT.key, Reason::SharedUnseen),
        (with(config.max_connections.is_some()), &keys::MAX_CONNECTIONS.key, Reason::SharedUnseen),
    ]
}

/// Whether each port that workers ask for is one public address of the same port. Node makes sure that a socket which it
/// is given has the port that it asked for.
fn is_a_socket_a_port(listen: &[Listen]) -> bool {
    let ports: BTreeSet<_> = listen.iter().map(|listen| listen.worker_port).collect();
    ports.len() == listen.len()
        && listen.iter().all(|listen| listen.bind.address().port() == listen.worker_port.0)
}

/// A public address is named once, and the metrics have one of their own: two sockets cannot listen on one
/// address. Each address comes with the value that named it.
pub fn addresses(listen: &[(Listen, Value)], metrics: Option<(SocketAddr, &Value)>) -> Vec<Problem> {
    let metrics = metrics.map(|(address, value)| (Bind::Address(address), value));
    let all: Vec<(Bind, &Value)> =
        listen.iter().map(|(listen, value)| (listen.bind, value)).chain(metrics).collect();
    let mut problems = Vec::new();
    for (index, (bind, value)) in all.iter().enumerate() {
        let earlier = all.iter().take(index);
        if let Some((_, other)) = earlier.into_iter().find(|(earlier, _)| overlap(*earlier, *bind)) {
            problems.push(Problem::with(value, Reason::SameAddress(other.to_string())));
        }
    }
    problems
}

/// Listening on both would fail with EADDRINUSE. Everywhere is both families (ipv6(7): a socket at `[::]` takes
/// IPv4 too unless IPV6_V6ONLY is set), an address is its own family only.
fn overlap(one: Bind, other: Bind) -> bool {
    let (one_address, other_address) = (one.address(), other.address());
    let port = one_address.port();
    // For port 0 the kernel picks a free one each time.
    if port == 0 || port != other_address.port() {
        return false;
    }
    if matches!(one, Bind::Everywhere { .. }) || matches!(other, Bind::Everywhere { .. }) {
        return true;
    }
    let is_same_family = one_address.is_ipv4() == other_address.is_ipv4();
    let is_any = one_address.ip().is_unspecified() || other_address.ip().is_unspecified();
    is_same_family && (is_any || one_address == other_address)
}

#[cfg(test)]
mod tests {
    use super::super::origin::Origin;
    use super::super::parse;
    use super::*;

    /// `:80` is everywhere, anything else an address.
    fn read(text: &str) -> Bind {
        match text.strip_prefix(':') {
            Some(port) => parse::port(port).expect("a port").bind,
            None => parse::bind(text).expect("an address").bind,
        }
    }

    #[test]
    fn addresses_overlap_where_listening_on_both_would_fail() {
        let cases = [
            (":80", ":80", true),
            (":80", ":80:8080", true),
            (":80", ":81", false),
            (":0:1", ":0:1", false),
            (":80", "127.0.0.1:80", true),
            (":80", "[::1]:80", true),
            (":80", "0.0.0.0:80", true),
            (":80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.1:80:8080", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "[::1]:80", false),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:80", false),
            ("[fe80::1%1]:80", "[fe80::1%2]:80", false),
            ("127.0.0.1:0:80", "127.0.0.1:0:80", false),
        ];
        for (one, other, expected) in cases {
            assert_eq!(overlap(read(one), read(other)), expected, "{one} {other}");
            assert_eq!(overlap(read(other), read(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn every_repetition_is_reported_once_with_what_it_repeats() {
        let given = |name: &'static str, text: &str| {
            let read = if name == "port" { parse::port } else { parse::bind };
            let value = Value::new(name, text, Origin::Flag(name));
            (read(text).expect("an address"), value)
        };
        let listen = [
            given("port", "80"),
            given("port", "81"),
            given("port", "80:8080"),
            given("bind", "127.0.0.1:81"),
        ];
        let metrics = Value::new("metrics", "80", Origin::Flag("metrics"));
        let problems = addresses(&listen, Some((([127, 0, 0, 1], 80).into(), &metrics)));
        let said: Vec<_> = problems.iter().map(Problem::to_string).collect();
        insta::assert_snapshot!(said.join("\n"), @"
        --port 80:8080: the same address as --port 80: name each address once
        --bind 127.0.0.1:81: the same address as --port 81: name each address once
        --metrics 80: the same address as --port 80: name each address once
        ");
    }
}
