//! Whole numbers on the command line: what is none is told with what would be right. A minus sign is taken for one of a number, not
//! for a flag.

use std::fmt::Display;
use std::str::FromStr;

/// How many, or none.
pub(super) fn count(text: &str) -> Result<usize, String> {
    from(0, text)
}

/// What is counted from 1: workers, ports.
pub(super) fn number<T: FromStr + PartialOrd + Display + From<u8>>(text: &str) -> Result<T, String> {
    from(T::from(1), text)
}

fn from<T: FromStr + PartialOrd + Display>(least: T, text: &str) -> Result<T, String> {
    let is_enough = |number: &T| *number >= least;
    text.parse().ok().filter(is_enough).ok_or_else(|| format!("use a whole number from {least}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told_with_what_would_be_right() {
        for (text, expected) in [("0", Ok(0)), ("15", Ok(15)), ("-5", Err(0)), ("x", Err(0)), ("1.5", Err(0))]
        {
            assert_eq!(count(text), expected.map_err(|least| format!("use a whole number from {least}")));
        }
        assert_eq!(number::<u32>("1"), Ok(1));
        for text in ["0", "-1", "", "4294967296"] {
            assert_eq!(number::<u32>(text), Err("use a whole number from 1".to_owned()), "{text}");
        }
    }
}
