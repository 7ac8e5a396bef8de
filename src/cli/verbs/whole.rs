//! Whole numbers on the command line: what is none is told with what would be right. A minus sign is taken for one of a number, not
//! for a flag.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::settings::parse::MAX_WORKERS;

/// How many lines, or none.
pub(super) fn lines(text: &str) -> Result<usize, String> {
    within(0..=1_000_000, text)
}

/// The number of a worker.
pub(super) fn worker(text: &str) -> Result<u32, String> {
    within(1..=MAX_WORKERS, text)
}

/// A port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    within(1..=u16::MAX, text)
}

fn within<T: FromStr + PartialOrd + Display>(right: RangeInclusive<T>, text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| right.contains(number));
    number.ok_or_else(|| format!("use a whole number from {} to {}", right.start(), right.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told_with_what_would_be_right() {
        for (text, expected) in [("0", Some(0)), ("15", Some(15)), ("-5", None), ("x", None), ("1.5", None)] {
            assert_eq!(lines(text).ok(), expected, "{text}");
        }
        assert_eq!(port("65535"), Ok(65535));
        for text in ["0", "-1", "", "65536", "4294967296"] {
            assert_eq!(port(text), Err("use a whole number from 1 to 65535".to_owned()), "{text}");
        }
        assert_eq!(worker("1"), Ok(1));
        assert!(worker("0").is_err() && worker("5000000000").is_err());
    }
}
