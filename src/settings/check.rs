//! What settings may not do together, once each is right by itself.
//!
//! Pure: whether the system grants an address is seen when it is listened on.

use std::collections::BTreeSet;

use hyper::header::HOST;

use super::error::{Problem, Reason};
use super::kind::{OFF, is_none, or};
use super::origin::{Origin, Value};
use super::resolve::WinningValues;
use super::setting::Key;
use super::table::{self, keys};
use super::{Accept, Attach, Bind, Config, Listen, Policy, WorkerCommand};

/// Settings that need another one, or another value of it. Each is reported at the value that is in vain.
pub(crate) fn together(config: &Config, values: &WinningValues) -> Vec<Problem> {
    let declared = table::all().filter_map(|key| Some((key, declared(config, values, key)?)));
    let special = [
        stuck_too_soon(config),
        nothing_is_drained(config),
        workers_accept(config),
        nobody_is_chosen(config, values),
        probe_headers(config),
        no_node_channel(config, values),
        no_port(config, values),
    ];
    let special = special.into_iter().flatten();
    let wrong = declared.chain(special);
    wrong
        .filter_map(|(key, reason)| Some(Problem::together(values.get(key.name)?.first()?, reason)))
        .chain(other_port(config, values))
        .collect()
}

/// Sets what another setting implies.
pub(super) fn imply(config: &mut Config, values: &mut WinningValues) -> Option<Problem> {
    let (accept, attach) =
        (values.get(keys::accept.key.name)?.first()?, values.get(keys::attach.key.name)?.first()?);
    if !config.attach.needs_workers_to_accept() || config.accept == Accept::Workers {
        return None;
    }
    if accept.origin != Origin::Default {
        let reason = Reason::new(format!("cannot be used with {accept}"));
        return Some(Problem::together(
            attach,
            reason.hint("leave that out: such servers accept by themselves"),
        ));
    }
    config.accept = Accept::Workers;
    let implied = attach.clone();
    values.insert(keys::accept.key.name, vec![implied]);
    None
}

/// What Node workers are sent goes over its channel.
fn no_node_channel(config: &Config, values: &WinningValues) -> Option<(&'static Key, Reason)> {
    let attach = match config.attach {
        Attach::ListenFds => "listen-fds",
        Attach::Seccomp => "seccomp",
        Attach::Auto | Attach::Preload | Attach::Node => return None,
    };
    let asked = [
        (config.relay_messages, &keys::relay_messages.key),
        (config.shutdown_with_message, &keys::shutdown_with_message.key),
    ];
    let (_, key) = asked.into_iter().find(|(is_asked, _)| *is_asked)?;
    Some((key, not_with(&keys::attach.key, attach, values)))
}

/// What is asked of a worker is asked on the first port that it is served on; and `off` stands for no port at all.
fn no_port(config: &Config, values: &WinningValues) -> Option<(&'static Key, Reason)> {
    let ports = values.get(keys::port.key.name).map_or(&[][..], Vec::as_slice);
    if ports.len() > 1 && ports.iter().any(|port| port.text == OFF) {
        return Some((&keys::port.key, Reason::new("there is no port beside \"off\"").hint("leave off out")));
    }
    if !config.listen().is_empty() {
        return None;
    }
    let asked = [
        (config.ready_http.is_some(), &keys::ready_http.key),
        (config.health_http.is_some(), &keys::health_http.key),
        (config.scrape.is_some(), &keys::scrape.key),
        (config.attach.needs_workers_to_accept(), &keys::attach.key),
    ];
    let (_, key) = asked.into_iter().find(|(is_asked, _)| *is_asked)?;
    Some((key, Reason::new("needs a port that workers are served on").hint("name it with --port")))
}

/// Workers get the first port that they are served on.
fn other_port(config: &Config, values: &WinningValues) -> Option<Problem> {
    let port = config.listen().first()?.worker_port;
    if config.increment_var.as_deref() == Some(PORT) {
        return None;
    }
    let asked = config.env.get(PORT).filter(|asked| **asked != port.to_string())?;
    let value =
        values.get(keys::env.key.name)?.iter().rfind(|value| value.text == format!("{PORT}={asked}"))?;
    let reason =
        Reason::new(format!("clusterd gives workers {PORT}={port}, the port that they are served on"));
    Some(Problem::together(value, reason.hint("leave it out, and use --port for the port")))
}

/// The variable that tells a worker on which port to listen.
const PORT: &str = "PORT";

/// What the table itself says: `needs` and `not_with`.
fn declared(config: &Config, values: &WinningValues, key: &Key) -> Option<Reason> {
    let shown = |name| table::named(name).map(|other| (other.show)(config)).unwrap_or_default();
    if is_none(&(key.show)(config)) {
        return None;
    }
    if let Some(needed) = key.needs.filter(|needed| is_none(&shown(needed))) {
        let what = format!("has no effect without {needed}");
        return Some(Reason::new(what).hint(format!("set --{needed}, or leave this out")));
    }
    let (other, value) = key.not_with.filter(|(other, value)| shown(other) == *value)?;
    Some(not_with(table::named(other)?, value, values))
}

/// It cannot be used with this value of another setting.
fn not_with(other: &Key, value: &str, values: &WinningValues) -> Reason {
    let said = values.get(other.name).and_then(|values| values.first());
    // What implies it, where that is another setting.
    let (other, value) = match said.and_then(|said| Some((table::named(said.name)?, said))) {
        Some((implies, said)) if implies.name != other.name => (implies, said.text.as_str()),
        _ => (other, value),
    };
    let name = other.name;
    let said = said.map_or_else(|| format!("--{name} {value}"), Value::to_string);
    let words = other.values.words().into_iter().map(|word| word.get_name().to_owned());
    let others: Vec<_> = words.filter(|word| word != value).collect();
    let hint = format!("leave this out, or use --{name} {}", or(&others));
    Reason::new(format!("cannot be used with {said}")).hint(hint)
}

/// A connection is taken back first.
fn stuck_too_soon(config: &Config) -> Option<(&'static Key, Reason)> {
    let handoff = config.handoff_timeout;
    let is_too_soon = config.stuck_timeout.is_some_and(|stuck| stuck < handoff);
    let reason = || {
        let hint = format!("use {} or longer", humantime::format_duration(handoff));
        Reason::new("shorter than handoff-timeout").hint(hint)
    };
    is_too_soon.then(|| (&keys::stuck_timeout.key, reason()))
}

/// Both count from the signal.
fn nothing_is_drained(config: &Config) -> Option<(&'static Key, Reason)> {
    let drain = config.drain_timeout;
    let reason = || {
        let hint = format!("use less than {}, or a longer drain-timeout", humantime::format_duration(drain));
        Reason::new("not shorter than drain-timeout, of which it is a part").hint(hint)
    };
    (config.stop_delay >= drain).then(|| (&keys::stop_delay.key, reason()))
}

/// Servers answer 400 to a request with two hosts.
fn probe_headers(config: &Config) -> Option<(&'static Key, Reason)> {
    let key = &keys::probe_header.key;
    let headers = &config.probe_header;
    if headers.is_empty() {
        return None;
    }
    if headers.iter().filter(|header| header.name == HOST).count() > 1 {
        return Some((key, Reason::new("Host is set more than once").hint("use one Host")));
    }
    let asks_nothing =
        [&config.ready_http, &config.health_http, &config.scrape].into_iter().all(Option::is_none);
    let reason = || {
        let hint = "set one of them, or leave this out";
        Reason::new("has no effect without ready-http, health-http or scrape").hint(hint)
    };
    asks_nothing.then(|| (key, reason()))
}

/// What does not go with workers that accept.
fn workers_accept(config: &Config) -> Option<(&'static Key, Reason)> {
    if config.accept != Accept::Workers {
        return None;
    }
    if config.command == WorkerCommand::Demo {
        let hint = "name a command, or use --accept primary";
        let reason = Reason::new("the built-in demo takes its connections from clusterd");
        return Some((&keys::accept.key, reason.hint(hint)));
    }
    let listen = config.listen();
    if !is_an_address_a_port(&listen) {
        let hint = "use one address for each port";
        let reason = Reason::new("a worker that accepts has one listening socket for each port").hint(hint);
        return Some((&keys::accept.key, reason));
    }
    let is_node = config.attach.has_node_channel();
    let hint = "use the same number for clients and workers";
    let reason = || Reason::new("Node listens only with the number that it has asked for").hint(hint);
    (is_node && !listen.iter().all(Listen::has_one_number)).then(|| (&keys::accept.key, reason()))
}

/// Who has named a policy wants it to be followed. Where workers accept, the kernel knows the client's address alone.
fn nobody_is_chosen(config: &Config, values: &WinningValues) -> Option<(&'static Key, Reason)> {
    let key = &keys::policy.key;
    let said = values.get(key.name)?.first()?;
    let is_vain = config.accept == Accept::Workers
        && config.policy != Policy::SourceIp
        && said.origin != Origin::Default;
    is_vain.then(|| (key, not_with(&keys::accept.key, "workers", values)))
}

/// What this configuration asks for and does not get if workers accept, as the names of settings.
pub(crate) fn in_vain_if_workers_accept(config: &Config) -> Vec<&'static str> {
    let is_vain = |key: &&Key| key.not_with == Some(("accept", "workers")) && !is_none(&(key.show)(config));
    let mut vain: Vec<_> = table::all().filter(is_vain).map(|key| key.name).collect();
    vain.extend(
        (!matches!(config.policy, Policy::RoundRobin | Policy::SourceIp)).then_some(keys::policy.key.name),
    );
    vain.extend((!is_an_address_a_port(&config.listen())).then_some(keys::bind.key.name));
    vain
}

/// Whether each port that workers ask for is one public address.
fn is_an_address_a_port(listen: &[Listen]) -> bool {
    let ports: BTreeSet<_> = listen.iter().map(|listen| listen.worker_port).collect();
    ports.len() == listen.len()
}

/// A public address is named once, and the metrics have one of their own: two sockets cannot listen on one
/// address. Each address comes with the value that named it.
pub(crate) fn addresses(listen: &[(Bind, Value)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, (bind, value)) in listen.iter().enumerate() {
        let earlier = listen.iter().take(index);
        if let Some((_, other)) = earlier.into_iter().find(|(earlier, _)| overlap(*earlier, *bind)) {
            let reason = Reason::new(format!("the same address as {other}"));
            problems.push(Problem::together(value, reason.hint("name each address once")));
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
            (read(text).expect("an address").bind, value)
        };
        let metrics = Value::new("metrics", "80", Origin::Flag("metrics"));
        let listen = [
            given("port", "80"),
            given("port", "81"),
            given("port", "80:8080"),
            given("bind", "127.0.0.1:81"),
            (Bind::Address(([127, 0, 0, 1], 80).into()), metrics),
        ];
        let problems = addresses(&listen);
        let said: Vec<_> = problems.iter().map(Problem::to_string).collect();
        insta::assert_snapshot!(said.join("\n"), @"
        --port 80:8080: the same address as --port 80
        hint: name each address once
        --bind 127.0.0.1:81: the same address as --port 81
        hint: name each address once
        --metrics 80: the same address as --port 80
        hint: name each address once
        ");
    }
}
