//! Numbers, durations and sizes, each within its bounds.
//!
//! It does not know what they are amounts of, beyond what the words against them need.

use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use super::{is_digits, or_off};
use crate::settings::error::Reason;

/// The most workers that can be asked for.
pub const MAX_WORKERS: u32 = 1024;

/// listen(2) takes an `int`.
const MAX_BACKLOG: u32 = i32::MAX.unsigned_abs();

/// Each queued connection is an open descriptor.
const MAX_QUEUE: u32 = 65536;

/// The kernel signals that a connection was taken only while what lies in a channel is less than a quarter of its send
/// buffer (`unix_writable`): with the usual buffer, about 64 records.
const MAX_WINDOW: u32 = 64;

/// As far as systemd raises `fs.nr_open`, and no limit can be above that.
const MAX_NOFILE: u64 = 1_073_741_816;

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
    positive(text, MAX_WORKERS).map(Workers::Count).map_err(|_| Reason::Workers)
}

/// A number of connections for listen(2).
///
/// # Errors
/// [`Reason::Connections`]
pub fn backlog(text: &str) -> Result<NonZeroU32, Reason> {
    positive(text, MAX_BACKLOG).map_err(|_| Reason::Connections { max: MAX_BACKLOG })
}

/// A number of connections.
///
/// # Errors
/// [`Reason::Connections`]
pub fn queue(text: &str) -> Result<NonZeroUsize, Reason> {
    connections(text, MAX_QUEUE)
}

/// A number of connections on their way to one worker.
///
/// # Errors
/// [`Reason::Connections`]
pub fn window(text: &str) -> Result<NonZeroUsize, Reason> {
    connections(text, MAX_WINDOW)
}

fn connections(text: &str, max: u32) -> Result<NonZeroUsize, Reason> {
    positive(text, max)
        .ok()
        .and_then(|count| NonZeroUsize::try_from(count).ok())
        .ok_or(Reason::Connections { max })
}

/// A number of open files, or `off`.
///
/// # Errors
/// [`Reason::Number`]
pub fn nofile(text: &str) -> Result<Option<u64>, Reason> {
    or_off(text, |text| number(text, 1..=MAX_NOFILE))
}

/// The bounds are those of proc_pid_oom_score_adj(5); or `off`.
///
/// # Errors
/// [`Reason::Number`]
pub fn oom_score_adj(text: &str) -> Result<Option<i16>, Reason> {
    or_off(text, |text| number(text, -1000..=1000))
}

/// A number of starts in a row.
///
/// # Errors
/// [`Reason::Number`]
pub fn max_restarts(text: &str) -> Result<u32, Reason> {
    number(text, 0..=1_000_000)
}

/// An exit status, as wait(2) tells it.
///
/// # Errors
/// [`Reason::Number`]
pub fn exit_code(text: &str) -> Result<u8, Reason> {
    number(text, 0..=u8::MAX)
}

/// A number of workers at a time.
///
/// # Errors
/// [`Reason::Number`]
pub fn reload_parallel(text: &str) -> Result<NonZeroU32, Reason> {
    positive(text, MAX_WORKERS)
}

/// A number of probes in a row.
///
/// # Errors
/// [`Reason::Number`]
pub fn health_failures(text: &str) -> Result<NonZeroU32, Reason> {
    positive(text, 1000)
}

/// A number of connections in a worker's life, or `off`.
///
/// # Errors
/// [`Reason::Number`]
pub fn max_connections(text: &str) -> Result<Option<NonZeroU32>, Reason> {
    or_off(text, |text| positive(text, u32::MAX))
}

/// A duration with its unit, from 1ms to 24h.
///
/// # Errors
/// [`Reason::Unitless`], [`Reason::Duration`], [`Reason::DurationBounds`]
pub fn duration(text: &str) -> Result<Duration, Reason> {
    duration_within(text, "1ms", "24h")
}

/// The same, or `off`.
///
/// # Errors
/// Those of [`duration`].
pub fn duration_or_off(text: &str) -> Result<Option<Duration>, Reason> {
    or_off(text, duration)
}

/// How long a worker may live, from 1s to 30d, or `off`.
///
/// # Errors
/// Those of [`duration`].
pub fn max_age(text: &str) -> Result<Option<Duration>, Reason> {
    or_off(text, |text| duration_within(text, "1s", "30d"))
}

fn duration_within(text: &str, min: &'static str, max: &'static str) -> Result<Duration, Reason> {
    if is_digits(text) {
        return Err(Reason::Unitless(text.to_owned()));
    }
    // humantime panics where the sum of several parts overflows; no duration that will do needs that many digits.
    if text.bytes().filter(u8::is_ascii_digit).count() > 18 {
        return Err(Reason::DurationBounds { min, max });
    }
    let bound = |bound| humantime::parse_duration(bound).map_err(|_| Reason::Duration);
    let bounds = bound(min)?..=bound(max)?;
    match humantime::parse_duration(text) {
        Ok(duration) if bounds.contains(&duration) => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(Reason::DurationBounds { min, max }),
        Err(_) => Err(Reason::Duration),
    }
}

/// An amount of memory with its unit, from 1M to 1024T, or `off`. Every unit is of 1024, as in PM2 and Docker: 1K, 1KB
/// and 1KiB are the same. (The crate takes the first two for 1000.)
///
/// # Errors
/// [`Reason::Size`], [`Reason::SizeBounds`]
pub fn max_memory(text: &str) -> Result<Option<ByteSize>, Reason> {
    or_off(text, size)
}

fn size(text: &str) -> Result<ByteSize, Reason> {
    let lower = text.to_ascii_lowercase();
    let stem = lower.strip_suffix('b').unwrap_or(&lower);
    let stem = stem.strip_suffix('i').unwrap_or(stem);
    if !stem.ends_with(['k', 'm', 'g', 't']) {
        return Err(Reason::Size);
    }
    let size = format!("{stem}ib").parse().map_err(|_| Reason::Size)?;
    let bounds = ByteSize::mib(1)..=ByteSize::tib(1024);
    if bounds.contains(&size) { Ok(size) } else { Err(Reason::SizeBounds) }
}

fn positive(text: &str, max: u32) -> Result<NonZeroU32, Reason> {
    number(text, NonZeroU32::MIN..=NonZeroU32::new(max).unwrap_or(NonZeroU32::MIN))
}

fn number<T: FromStr + PartialOrd + Display>(text: &str, bounds: RangeInclusive<T>) -> Result<T, Reason> {
    let has_digits_only = is_digits(text.strip_prefix('-').unwrap_or(text));
    let number = text.parse().ok().filter(|number| has_digits_only && bounds.contains(number));
    number.ok_or_else(|| Reason::Number { min: bounds.start().to_string(), max: bounds.end().to_string() })
}

#[cfg(test)]
mod tests {
    use super::super::{outcome, outcome_or_off};
    use super::*;

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
            ("1", true, true, true),
            ("64", true, true, true),
            ("65", true, true, false),
            ("65536", true, true, false),
            ("65537", true, false, false),
            ("2147483647", true, false, false),
            ("2147483648", false, false, false),
            ("0", false, false, false),
            ("", false, false, false),
            ("1k", false, false, false),
        ];
        for (text, is_backlog, is_queue, is_window) in cases {
            assert_eq!(backlog(text).is_ok(), is_backlog, "backlog {text}");
            assert_eq!(queue(text).is_ok(), is_queue, "queue {text}");
            assert_eq!(window(text).is_ok(), is_window, "window {text}");
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
    fn a_worker_may_live_for_more_than_a_day() {
        const BOUNDS: &str = "too short or too long";
        let cases = [
            ("off", "off"),
            ("24h", "1day"),
            ("7d", "7days"),
            ("30d", "30days"),
            ("31d", BOUNDS),
            ("500ms", BOUNDS),
            ("7", "a duration needs a unit"),
        ];
        for (text, expected) in cases {
            let shown = max_age(text).map(|age| age.map(humantime::format_duration));
            assert_eq!(outcome_or_off(shown), expected, "{text}");
        }
    }

    #[test]
    fn numbers_within_bounds() {
        const NOT: &str = "not a number that will do";
        let cases = [
            (outcome_or_off(nofile("1")), "1"),
            (outcome_or_off(nofile("1073741816")), "1073741816"),
            (outcome_or_off(nofile("1073741817")), NOT),
            (outcome_or_off(nofile("0")), NOT),
            (outcome_or_off(nofile("off")), "off"),
            (outcome_or_off(oom_score_adj("-1000")), "-1000"),
            (outcome_or_off(oom_score_adj("1000")), "1000"),
            (outcome_or_off(oom_score_adj("-1001")), NOT),
            (outcome_or_off(oom_score_adj("+5")), NOT),
            (outcome_or_off(oom_score_adj("--5")), NOT),
            (outcome_or_off(oom_score_adj("off")), "off"),
            (outcome(max_restarts("0")), "0"),
            (outcome(max_restarts("1000000")), "1000000"),
            (outcome(max_restarts("1000001")), NOT),
            (outcome(max_restarts("-1")), NOT),
            (outcome(exit_code("0")), "0"),
            (outcome(exit_code("255")), "255"),
            (outcome(exit_code("256")), NOT),
            (outcome(exit_code("0,3")), NOT),
            (outcome(reload_parallel("1024")), "1024"),
            (outcome(reload_parallel("0")), NOT),
            (outcome(health_failures("1000")), "1000"),
            (outcome(health_failures("1001")), NOT),
            (outcome_or_off(max_connections("1")), "1"),
            (outcome_or_off(max_connections("0")), NOT),
        ];
        for (index, (said, expected)) in cases.iter().enumerate() {
            assert_eq!(said, expected, "case {index}");
        }
    }

    #[test]
    fn units_of_memory_are_of_1024() {
        let mib = |number: u64| Ok(number << 20);
        let cases = [
            ("512M", mib(512)),
            ("512m", mib(512)),
            ("512MB", mib(512)),
            ("512MiB", mib(512)),
            ("512Mi", mib(512)),
            ("512 M", mib(512)),
            ("512i", Err("not a size")),
            ("512B", Err("not a size")),
            ("1.5GiB", mib(1536)),
            ("1.5G", mib(1536)),
            ("2048K", mib(2)),
            ("1T", mib(1 << 20)),
            ("1024T", mib(1 << 30)),
            ("1025T", Err("too small or too large")),
            ("1K", Err("too small or too large")),
            ("0M", Err("too small or too large")),
            ("99999999999999999999T", Err("too small or too large")),
            ("512", Err("not a size")),
            ("M", Err("not a size")),
            ("-1M", Err("not a size")),
            ("1e3M", Err("not a size")),
            ("1.2.3M", Err("not a size")),
            ("", Err("not a size")),
        ];
        for (text, expected) in cases {
            let read = max_memory(text);
            let shown = outcome(read.map(|size| size.map_or(0, |size| size.as_u64())));
            assert_eq!(shown, expected.map_or_else(str::to_owned, |bytes| bytes.to_string()), "{text}");
        }
        assert_eq!(outcome_or_off(max_memory("off")), "off");
        assert_eq!(outcome_or_off(max_memory("1.5G")), "1.5 GiB");
    }
}
