//! `--log-date-format`: how the time of a line is written, in the tokens of day.js (PM2) or the conversions of strftime(3).
//!
//! It has no clock: it is given the time.

use std::fmt::{self, Write as _};

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Datelike as _, Local, NaiveDateTime, TimeZone as _};

use super::error::Reason;
use super::kind::Parsed;

/// A format of times.
pub(crate) const DATE_FORMAT: Parsed<DateFormat> = Parsed {
    placeholder: "FORMAT",
    accepts: "a format of times, such as \"YYYY-MM-DD HH:mm:ss.SSS\" or \"%F %T\"",
    read: DateFormat::of,
    show: DateFormat::to_string,
};

/// A format of times, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DateFormat {
    given: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// As strftime(3) has it.
    Strftime(String),
    /// `Su`, `Mo`: for which strftime(3) has no conversion.
    TwoLetters,
}

/// The tokens of day.js, a longer one before those that it begins with.
const TOKENS: [(&str, &str); 25] = [
    ("YYYY", "%Y"),
    ("YY", "%y"),
    ("MMMM", "%B"),
    ("MMM", "%b"),
    ("MM", "%m"),
    ("M", "%-m"),
    ("DD", "%d"),
    ("D", "%-d"),
    ("dddd", "%A"),
    ("ddd", "%a"),
    ("dd", TWO_LETTERS),
    ("d", "%w"),
    ("HH", "%H"),
    ("H", "%-H"),
    ("hh", "%I"),
    ("h", "%-I"),
    ("A", "%p"),
    ("a", "%P"),
    ("mm", "%M"),
    ("m", "%-M"),
    ("SSS", "%3f"),
    ("ss", "%S"),
    ("s", "%-S"),
    ("ZZ", "%z"),
    ("Z", "%:z"),
];

const TWO_LETTERS: &str = "";

impl DateFormat {
    /// Reads one: with a percent sign in it, it is for strftime(3).
    ///
    /// # Errors
    /// It is empty, has a line end, or a conversion that there is not.
    pub(crate) fn of(text: &str) -> Result<Self, Reason> {
        if text.is_empty() || text.contains(char::is_control) {
            return Err(Reason::new("not a format of times"));
        }
        let pieces =
            if text.contains('%') { vec![Piece::Strftime(text.to_owned())] } else { of_day_js(text) };
        for piece in &pieces {
            let Piece::Strftime(format) = piece else { continue };
            if StrftimeItems::new(format).any(|item| matches!(item, Item::Error)) {
                return Err(Reason::new("not a format of times: strftime has no such conversion"));
            }
        }
        Ok(Self { given: text.to_owned(), pieces })
    }

    /// This time in this format.
    pub(crate) fn write(&self, time: &DateTime<Local>) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            // Writing to a string cannot fail.
            let _ = match piece {
                Piece::Strftime(format) => write!(text, "{}", time.format(format)),
                Piece::TwoLetters => text.write_str(&time.weekday().to_string()[..2]),
            };
        }
        text
    }

    /// The time that stands at the start of a line, and what follows it; `None` if there is none, or not enough of it.
    pub(crate) fn read<'a>(&self, line: &'a str) -> Option<(DateTime<Local>, &'a str)> {
        let [Piece::Strftime(format)] = self.pieces.as_slice() else { return None };
        if let Ok((time, rest)) = DateTime::parse_and_remainder(line, format) {
            return Some((time.with_timezone(&Local), rest));
        }
        let (time, rest) = NaiveDateTime::parse_and_remainder(line, format).ok()?;
        Some((Local.from_local_datetime(&time).earliest()?, rest))
    }
}

impl fmt::Display for DateFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

fn of_day_js(text: &str) -> Vec<Piece> {
    let (mut pieces, mut format, mut rest) = (Vec::new(), String::new(), text);
    while let Some(first) = rest.chars().next() {
        // What is in brackets is no token.
        if let Some((literal, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            format += literal;
            rest = behind;
        } else if let Some((token, conversion)) = TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
            if *conversion == TWO_LETTERS {
                pieces.push(Piece::Strftime(std::mem::take(&mut format)));
                pieces.push(Piece::TwoLetters);
            } else {
                format += conversion;
            }
            rest = &rest[token.len()..];
        } else {
            format.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    pieces.push(Piece::Strftime(format));
    pieces.retain(|piece| *piece != Piece::Strftime(String::new()));
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Sunday, at 5 past 1 in the afternoon.
    fn time() -> DateTime<Local> {
        let at = Local.with_ymd_and_hms(2026, 3, 1, 13, 5, 9).unwrap();
        at + chrono::TimeDelta::milliseconds(7)
    }

    fn written(format: &str) -> String {
        DateFormat::of(format).unwrap().write(&time())
    }

    #[test]
    fn every_token_of_day_js_means_what_it_means_there() {
        let table = [
            ("YY YYYY", "26 2026"),
            ("M MM MMM MMMM", "3 03 Mar March"),
            ("D DD", "1 01"),
            ("d dd ddd dddd", "0 Su Sun Sunday"),
            ("H HH h hh", "13 13 1 01"),
            ("m mm s ss SSS", "5 05 9 09 007"),
            ("a A", "pm PM"),
            ("YYYY-MM-DDTHH:mm:ss", "2026-03-01T13:05:09"),
            ("[at] HH [o'clock]", "at 13 o'clock"),
            ("[YYYY", "[2026"),
            ("YYYY年", "2026年"),
        ];
        for (format, expected) in table {
            assert_eq!(written(format), expected, "{format}");
        }
        let zone = time().format("%:z").to_string();
        assert_eq!(written("Z"), zone);
        assert_eq!(written("ZZ"), zone.replace(':', ""));
    }

    #[test]
    fn a_percent_sign_makes_it_strftime() {
        assert_eq!(written("%F %T"), "2026-03-01 13:05:09");
        assert_eq!(written("%Y HH"), "2026 HH");
        for wrong in ["", "%", "%F %!", "a\nb"] {
            assert!(DateFormat::of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_time_is_read_back_from_the_line_that_it_stands_before() {
        for format in ["YYYY-MM-DD HH:mm:ss.SSS Z", "YYYY-MM-DDTHH:mm:ss.SSS", "%F %T%.3f"] {
            let format = DateFormat::of(format).unwrap();
            let line = format!("{}: hello", format.write(&time()));
            assert_eq!(format.read(&line), Some((time(), ": hello")), "{format}");
            assert_eq!(format.read("hello"), None);
        }
        assert_eq!(DateFormat::of("HH:mm").unwrap().read("13:05: x"), None, "that is no date");
    }

    proptest! {
        #[test]
        fn no_format_panics(text in "\\PC{0,20}|[YMDdHhmsSZaA%\\[\\]:-]{0,20}", line in "\\PC{0,30}") {
            if let Ok(format) = DateFormat::of(&text) {
                format.write(&time());
                format.read(&line);
                prop_assert_eq!(format.to_string(), text);
            }
        }
    }
}
