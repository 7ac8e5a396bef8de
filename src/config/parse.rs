//! Reads one value of each kind of setting: a string in, a checked value or the reason against it out.
//!
//! It knows neither where the string comes from nor what other settings say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::error::Reason;
use super::{Attach, Bind, Listen, LogFormat};
use crate::ids::WorkerPort;

/// The most workers that can be asked for.
pub const MAX_WORKERS: u32 = 1024;

/// listen(2) takes an `int`.
const MAX_BACKLOG: u32 = i32::MAX.unsigned_abs();

/// Each queued connection is an open descriptor.
const MAX_QUEUE: u32 = 65536;

const MIN_DURATION: Duration = Duration::from_millis(1);
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// How many workers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many.
    Count(NonZeroU32),
    /// One for each CPU.
    Max,
}

impl Workers {
    /// The number, on a machine with this many CPUs to use.
    pub fn number(self, cpus: NonZeroU32) -> NonZeroU32 {
        match self {
            Workers::Count(count) => count,
            Workers::Max => cpus.min(NonZeroU32::new(MAX_WORKERS).unwrap_or(cpus)),
        }
    }
}

/// A number of workers, or `max`, as PM2's `-i max`.
///
/// # Errors
/// [`Reason::Workers`]
pub fn workers(text: &str) -> Result<Workers, Reason> {
    if text == "max" {
        return Ok(Workers::Max);
    }
    number(text, MAX_WORKERS).map(Workers::Count).ok_or(Reason::Workers)
}

/// A number of connections for listen(2).
///
/// # Errors
/// [`Reason::Connections`]
pub fn backlog(text: &str) -> Result<NonZeroU32, Reason> {
    number(text, MAX_BACKLOG).ok_or(Reason::Connections { max: MAX_BACKLOG })
}

/// A number of connections.
///
/// # Errors
/// [`Reason::Connections`]
pub fn queue(text: &str) -> Result<NonZeroUsize, Reason> {
    number(text, MAX_QUEUE)
        .and_then(|count| NonZeroUsize::try_from(count).ok())
        .ok_or(Reason::Connections { max: MAX_QUEUE })
}

/// A duration with its unit, from 1ms to 24h.
///
/// # Errors
/// [`Reason::Unitless`], [`Reason::Duration`], [`Reason::DurationBounds`]
pub fn duration(text: &str) -> Result<Duration, Reason> {
    if is_digits(text) {
        return Err(Reason::Unitless(text.to_owned()));
    }
    // humantime panics where the sum of several parts overflows; no duration below 24h needs that many digits.
    if text.bytes().filter(u8::is_ascii_digit).count() > 18 {
        return Err(Reason::DurationBounds);
    }
    match humantime::parse_duration(text) {
        Ok(duration) if (MIN_DURATION..=MAX_DURATION).contains(&duration) => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(Reason::DurationBounds),
        Err(_) => Err(Reason::Duration),
    }
}

/// `PUBLIC` or `PUBLIC:WORKER`, as a container's published ports are written.
///
/// # Errors
/// [`Reason::Port`], [`Reason::ServiceLink`], [`Reason::FreePortUnmapped`], [`Reason::WorkerPortZero`]
pub fn port(text: &str) -> Result<Listen, Reason> {
    if text.starts_with("tcp://") {
        return Err(Reason::ServiceLink);
    }
    let (public, worker) = match text.split_once(':') {
        Some((public, worker)) => (public, Some(worker)),
        None => (text, None),
    };
    let port = port_number(public).ok_or(Reason::Port)?;
    let worker = worker.map(|worker| port_number(worker).ok_or(Reason::Port)).transpose()?;
    listen(Bind::Everywhere { port }, worker)
}

/// `ADDR:PORT` or `ADDR:PORT:WORKER`, with an IPv6 address in brackets.
///
/// # Errors
/// [`Reason::Bind`], [`Reason::FreePortUnmapped`], [`Reason::WorkerPortZero`]
pub fn bind(text: &str) -> Result<Listen, Reason> {
    if let Ok(address) = text.parse() {
        return listen(Bind::Address(canonical(address)), None);
    }
    let (address, worker) = text.rsplit_once(':').ok_or(Reason::Bind)?;
    let address = address.parse().map_err(|_| Reason::Bind)?;
    let worker = port_number(worker).ok_or(Reason::Bind)?;
    listen(Bind::Address(canonical(address)), Some(worker))
}

fn listen(bind: Bind, worker: Option<u16>) -> Result<Listen, Reason> {
    let worker_port = match (worker, bind.address().port()) {
        (Some(0), _) => return Err(Reason::WorkerPortZero),
        (Some(worker), _) => worker,
        (None, 0) => return Err(Reason::FreePortUnmapped(free_port_mapped(bind))),
        (None, public) => public,
    };
    Ok(Listen { bind, worker_port: WorkerPort(worker_port) })
}

/// An example of what would do.
fn free_port_mapped(bind: Bind) -> String {
    let worker_port = WorkerPort(3000);
    Listen { bind, worker_port }.to_string()
}

/// `[::ffff:127.0.0.1]` is 127.0.0.1 on a socket that takes IPv6 only.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// `PORT` or `:PORT` on the loopback, `ADDR:PORT`, or `off`.
///
/// # Errors
/// [`Reason::Metrics`]
pub fn metrics(text: &str) -> Result<Option<SocketAddr>, Reason> {
    if text == "off" {
        return Ok(None);
    }
    if let Some(port) = port_number(text.strip_prefix(':').unwrap_or(text)) {
        return Ok(Some((Ipv4Addr::LOCALHOST, port).into()));
    }
    text.parse().map(|address| Some(canonical(address))).map_err(|_| Reason::Metrics)
}

/// `text` or `json`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn log_format(text: &str) -> Result<LogFormat, Reason> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Reason::Choice("text or json")),
    }
}

/// A level of `tracing`, from `error` to `trace`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn log_level(text: &str) -> Result<LevelFilter, Reason> {
    match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(Reason::Choice("error, warn, info, debug or trace")),
    }
}

/// `auto`, `preload` or `node`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn attach(text: &str) -> Result<Attach, Reason> {
    match text {
        "auto" => Ok(Attach::Auto),
        "preload" => Ok(Attach::Preload),
        "node" => Ok(Attach::Node),
        _ => Err(Reason::Choice("auto, preload or node")),
    }
}

/// `true` or `false`.
///
/// # Errors
/// [`Reason::Choice`]
pub fn truth(text: &str) -> Result<bool, Reason> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Reason::Choice("true or false")),
    }
}

fn number(text: &str, max: u32) -> Option<NonZeroU32> {
    let number: NonZeroU32 = text.parse().ok().filter(|_| is_digits(text))?;
    (number.get() <= max).then_some(number)
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| is_digits(text))
}

/// The standard library's numbers may have a sign as well.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use proptest::prelude::*;

    use super::*;

    /// The value's own spelling, or what is said against it.
    fn outcome<T: ToString>(result: Result<T, Reason>) -> String {
        match result {
            Ok(value) => value.to_string(),
            Err(reason) => reason.to_string().split(':').next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn ports() {
        const NOT: &str = "not a port";
        const ZERO: &str = "workers cannot be asked for on port 0";
        let cases = [
            ("3000", "3000"),
            ("80:8080", "80:8080"),
            ("080", "80"),
            ("8080:8080", "8080"),
            ("0:3000", "0:3000"),
            ("65535", "65535"),
            ("0", "port 0 stands for any free port, so the workers' port must be named"),
            ("80:0", ZERO),
            ("0:0", ZERO),
            ("65536", NOT),
            ("80:65536", NOT),
            ("+80", NOT),
            ("-80", NOT),
            ("", NOT),
            (":80", NOT),
            ("80:", NOT),
            ("80:81:82", NOT),
            ("http", NOT),
            ("127.0.0.1:80", NOT),
            (" 80", NOT),
            ("tcp://10.0.0.1:80", "an address that Kubernetes set for a service of that name, not a port"),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(port(text)), expected, "{text}");
        }
    }

    #[test]
    fn addresses() {
        const NOT: &str = "not an address";
        let cases = [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80:8080", "127.0.0.1:80:8080"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]:80:8080", "[::1]:80:8080"),
            ("[fe80::1%2]:80", "[fe80::1%2]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("0.0.0.0:0:3000", "0.0.0.0:0:3000"),
            ("[::]:0", "port 0 stands for any free port, so the workers' port must be named"),
            ("[::]:80:0", "workers cannot be asked for on port 0"),
            ("::1:80", NOT),
            ("[::1]", NOT),
            ("127.0.0.1", NOT),
            ("127.0.0.1:", NOT),
            ("127.0.0.1:80:", NOT),
            ("127.0.0.1:80:1:2", NOT),
            ("127.0.0.1:80:+1", NOT),
            ("localhost:80", NOT),
            (":80", NOT),
            ("80", NOT),
            ("", NOT),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(bind(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_free_port_without_a_worker_port_is_told_what_to_write() {
        let said = port("0").expect_err("refused").to_string();
        assert!(said.ends_with("use 0:3000"), "{said}");
        let said = bind("[::1]:0").expect_err("refused").to_string();
        assert!(said.ends_with("use [::1]:0:3000"), "{said}");
    }

    #[test]
    fn numbers_of_workers() {
        let count = |number| NonZeroU32::new(number).map(Workers::Count);
        let cases = [
            ("1", count(1)),
            ("1024", count(1024)),
            ("max", Some(Workers::Max)),
            ("0", None),
            ("1025", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("MAX", None),
            ("", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(workers(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn max_workers_is_the_number_of_cpus_within_bounds() {
        let cpus = |number| NonZeroU32::new(number).expect("not zero");
        assert_eq!(Workers::Max.number(cpus(3)), cpus(3));
        assert_eq!(Workers::Max.number(cpus(4096)), cpus(MAX_WORKERS));
        assert_eq!(Workers::Count(cpus(5)).number(cpus(3)), cpus(5));
    }

    #[test]
    fn numbers_of_connections() {
        let cases = [
            ("1", true, true),
            ("65536", true, true),
            ("65537", true, false),
            ("2147483647", true, false),
            ("2147483648", false, false),
            ("0", false, false),
            ("", false, false),
            ("1k", false, false),
        ];
        for (text, is_backlog, is_queue) in cases {
            assert_eq!(backlog(text).is_ok(), is_backlog, "backlog {text}");
            assert_eq!(queue(text).is_ok(), is_queue, "queue {text}");
        }
    }

    #[test]
    fn durations() {
        const BOUNDS: &str = "too short or too long";
        const NOT: &str = "not a duration";
        let cases = [
            ("1ms", "1ms"),
            ("500ms", "500ms"),
            ("8s", "8s"),
            ("0.5s", "500ms"),
            ("1m 30s", "1m 30s"),
            ("24h", "1day"),
            ("24h 1ms", BOUNDS),
            ("0s", BOUNDS),
            ("999us", BOUNDS),
            ("1year", BOUNDS),
            ("99999999999999999999s", BOUNDS),
            ("18446744073709551615s 1000000000ns", BOUNDS),
            ("8", "a duration needs a unit"),
            ("0", "a duration needs a unit"),
            ("", NOT),
            ("s", NOT),
            ("-8s", NOT),
            ("8 parsecs", NOT),
        ];
        for (text, expected) in cases {
            let shown = duration(text).map(humantime::format_duration);
            assert_eq!(outcome(shown), expected, "{text}");
        }
    }

    #[test]
    fn metrics_stay_on_the_loopback_unless_told_otherwise() {
        let cases = [
            ("9090", "127.0.0.1:9090"),
            (":9090", "127.0.0.1:9090"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:9090", "0.0.0.0:9090"),
            ("[::]:9090", "[::]:9090"),
            ("off", "off"),
            ("", "not an address"),
            (":", "not an address"),
            ("::9090", "not an address"),
            ("localhost:9090", "not an address"),
            ("99999", "not an address"),
        ];
        for (text, expected) in cases {
            let shown = metrics(text).map(|address| address.map_or("off".to_owned(), |it| it.to_string()));
            assert_eq!(outcome(shown), expected, "{text}");
        }
    }

    #[test]
    fn choices() {
        assert_eq!(log_format("json").ok(), Some(LogFormat::Json));
        assert_eq!(log_format("JSON").ok(), None);
        assert_eq!(attach("").ok(), None);
        for mode in ["auto", "preload", "node"] {
            assert_eq!(outcome(attach(mode)), mode);
        }
        for level in ["error", "warn", "info", "debug", "trace"] {
            assert_eq!(outcome(log_level(level)), level);
        }
        assert_eq!(log_level("off").ok(), None);
    }

    fn any_public() -> impl Strategy<Value = Bind> {
        let v4 = (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
        let v6 = (any::<Ipv6Addr>(), any::<u16>(), any::<u32>())
            .prop_map(|(ip, port, scope)| canonical(SocketAddrV6::new(ip, port, 0, scope).into()));
        prop_oneof![
            any::<u16>().prop_map(|port| Bind::Everywhere { port }),
            v4.prop_map(Bind::Address),
            v6.prop_map(Bind::Address),
        ]
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(public in any_public(), worker in 1..=u16::MAX) {
            let listen = Listen { bind: public, worker_port: WorkerPort(worker) };
            let read = match public {
                Bind::Everywhere { .. } => port,
                Bind::Address(_) => bind,
            };
            prop_assert_eq!(read(&listen.to_string()).ok(), Some(listen));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*|[0-9a-fhms:.%\\[\\] ]*") {
            let _ = (port(&text), bind(&text), metrics(&text), workers(&text), duration(&text), queue(&text));
        }
    }
}
