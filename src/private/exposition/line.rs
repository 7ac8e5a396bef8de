//! One line of the Prometheus text format, version 0.0.4, and what OpenMetrics 1.0 adds to it.
//!
//! Source: prometheus.io, "Exposition formats", and the OpenMetrics specification. It refuses what a parser of
//! Prometheus' own refuses, and reads what clients write all the same where that can be written properly. It sees a
//! line by itself: what lines mean together is decided elsewhere.

use std::fmt::Write;

/// Which format a page is in. They differ in what a line can mean, not in how it is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format, whose timestamps are milliseconds.
    Text,
    /// OpenMetrics, whose timestamps are seconds.
    OpenMetrics,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line<'a> {
    /// Nothing: it is empty, or a comment.
    Nothing,
    /// What a family is about; the text is escaped as the text format wants it.
    Help {
        /// The family.
        name: &'a str,
        /// The rest of the line.
        text: String,
    },
    /// What kind a family is of.
    Type {
        /// The family.
        name: &'a str,
        /// The kind.
        kind: Declared,
    },
    /// A value.
    Sample(Sample<'a>),
}

/// What kind of metric a family is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    Counter,
    Gauge,
    Histogram,
    Summary,
    /// `unknown` in OpenMetrics.
    Untyped,
    /// Of OpenMetrics alone.
    Info,
    /// Of OpenMetrics alone.
    StateSet,
    /// Of OpenMetrics alone.
    GaugeHistogram,
}

impl Declared {
    const ALL: [(&'static str, Declared); 9] = [
        ("counter", Declared::Counter),
        ("gauge", Declared::Gauge),
        ("histogram", Declared::Histogram),
        ("summary", Declared::Summary),
        ("untyped", Declared::Untyped),
        ("unknown", Declared::Untyped),
        ("info", Declared::Info),
        ("stateset", Declared::StateSet),
        ("gaugehistogram", Declared::GaugeHistogram),
    ];
}

/// The label that Prometheus keeps a metric's name in.
const NAME: &str = "__name__";

/// A value, and what it is a value of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels, no name twice and no value empty, which would be the same as none; the values are escaped as they
    /// were.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The number, as every parser reads it.
    pub value: &'a str,
    /// When it was taken, in milliseconds since the Unix epoch, if that was said.
    pub timestamp: Option<u64>,
}

/// The line is not in the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a line, without its end.
///
/// # Errors
/// It is not in the format.
pub(crate) fn parse(line: &str, format: Format) -> Result<Line<'_>, Malformed> {
    // Prometheus' lexer ends a page at a NUL.
    if line.contains('\0') {
        return Err(Malformed);
    }
    let mut rest = Cursor(line.trim_end_matches('\r'));
    rest.blanks();
    if rest.0.is_empty() {
        return Ok(Line::Nothing);
    }
    if rest.eats('#') {
        return comment(rest);
    }
    sample(rest, format).map(Line::Sample).ok_or(Malformed)
}

fn comment(mut rest: Cursor<'_>) -> Result<Line<'_>, Malformed> {
    rest.blanks();
    match rest.word() {
        "HELP" => {
            let name = rest.family().ok_or(Malformed)?;
            Ok(Line::Help { name, text: help(rest.0).ok_or(Malformed)? })
        }
        "TYPE" => {
            let name = rest.family().ok_or(Malformed)?;
            let word = rest.0.trim_matches([' ', '\t']);
            let known = Declared::ALL.into_iter().find(|&(known, _)| known == word);
            known.map(|(_, kind)| Line::Type { name, kind }).ok_or(Malformed)
        }
        _ => Ok(Line::Nothing),
    }
}

/// `\\` and `\n` are the only escapes. OpenMetrics has `\"`, too, where the text format has a bare quote.
fn help(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next()? {
            '"' => plain.push('"'),
            escaped @ ('\\' | 'n') => plain.extend(['\\', escaped]),
            _ => return None,
        }
    }
    Some(plain)
}

fn sample(mut rest: Cursor<'_>, format: Format) -> Option<Sample<'_>> {
    let name = rest.name(":")?;
    let has_blanks = rest.blanks();
    let has_labels = rest.eats('{');
    let labels = if has_labels { labels(&mut rest)? } else { Vec::new() };
    if !(rest.blanks() || has_blanks || has_labels) {
        return None;
    }
    let mut words = rest.0.split([' ', '\t']).filter(|word| !word.is_empty());
    let value = value(words.next()?)?;
    // What begins with # is an exemplar, which the text format does not have.
    let mut words = words.take_while(|word| !word.starts_with('#'));
    let timestamp = match words.next() {
        Some(word) => Some(timestamp(word, format)?),
        None => None,
    };
    words.next().is_none().then_some(Sample { name, labels, value, timestamp })
}

/// The number as Go's ParseFloat reads it, too: that has no sign before NaN, which printf(3) writes.
fn value(word: &str) -> Option<&str> {
    let number = number(word)?;
    Some(if number.is_nan() { "NaN" } else { word })
}

/// As Go's ParseFloat reads it, without what nobody writes: hexadecimal digits and underscores. A number that is too
/// large is none, rather than infinite.
pub(super) fn number(text: &str) -> Option<f64> {
    let number: f64 = text.is_ascii().then(|| text.parse().ok())??;
    let is_literal = number.is_finite() || !text.contains(|character: char| character.is_ascii_digit());
    is_literal.then_some(number)
}

/// Prometheus reads nothing but digits here, as a signed number of 64 bits.
fn timestamp(word: &str, format: Format) -> Option<u64> {
    let milliseconds = match format {
        Format::Text if word.bytes().all(|byte| byte.is_ascii_digit()) => word.parse().ok()?,
        Format::Text => return None,
        Format::OpenMetrics => {
            let milliseconds = (number(word)? * 1000.0).round();
            (0.0..9e18).contains(&milliseconds).then_some(milliseconds as u64)?
        }
    };
    i64::try_from(milliseconds).is_ok().then_some(milliseconds)
}

/// What follows the opening brace, up to and with the closing one.
fn labels<'a>(rest: &mut Cursor<'a>) -> Option<Vec<(&'a str, &'a str)>> {
    let mut labels = pairs(rest)?;
    // A line can have very many.
    let mut names: Vec<&str> = labels.iter().map(|&(name, _)| name).collect();
    names.sort_unstable();
    let is_valid = names.is_sorted_by(|one, next| one < next) && names.binary_search(&NAME).is_err();
    labels.retain(|(_, value)| !value.is_empty());
    is_valid.then_some(labels)
}

fn pairs<'a>(rest: &mut Cursor<'a>) -> Option<Vec<(&'a str, &'a str)>> {
    let mut pairs = Vec::new();
    loop {
        rest.blanks();
        if rest.eats('}') {
            return Some(pairs);
        }
        let name = rest.name("")?;
        rest.blanks();
        if !rest.eats('=') {
            return None;
        }
        rest.blanks();
        pairs.push((name, rest.quoted()?));
        rest.blanks();
        if !rest.eats(',') {
            return rest.eats('}').then_some(pairs);
        }
    }
}

/// What is left of a line.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Goes past blanks; whether there were any.
    fn blanks(&mut self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let found = rest.len() < self.0.len();
        self.0 = rest;
        found
    }

    fn eats(&mut self, character: char) -> bool {
        let rest = self.0.strip_prefix(character);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn word(&mut self) -> &'a str {
        self.take(self.0.find([' ', '\t']).unwrap_or(self.0.len()))
    }

    /// Letters, digits and underscores, and these, not beginning with a digit.
    fn name(&mut self, more: &str) -> Option<&'a str> {
        let is_of_name = |character: char| {
            character.is_ascii_alphanumeric() || character == '_' || more.contains(character)
        };
        let end = self.0.find(|character| !is_of_name(character)).unwrap_or(self.0.len());
        let name = self.take(end);
        let starts_well = name.chars().next().is_some_and(|first| !first.is_ascii_digit());
        starts_well.then_some(name)
    }

    /// A name between blanks; what follows begins after one blank.
    fn family(&mut self) -> Option<&'a str> {
        let before = self.blanks();
        let name = self.name(":")?;
        let after = self.0.is_empty() || self.eats(' ') || self.eats('\t');
        (before && after).then_some(name)
    }

    /// What stands in quotes. `\\`, `\"` and `\n` are the only escapes.
    fn quoted(&mut self) -> Option<&'a str> {
        if !self.eats('"') {
            return None;
        }
        let mut characters = self.0.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    let text = self.take(at);
                    self.eats('"');
                    return Some(text);
                }
                '\\' if !matches!(characters.next(), Some((_, '\\' | '"' | 'n'))) => return None,
                _ => {}
            }
        }
        None
    }
}

impl Sample<'_> {
    /// Writes the line under another name and with these labels.
    pub(crate) fn write(&self, to: &mut String, name: &str, labels: &[(String, String)]) {
        to.push_str(name);
        to.push('{');
        for (index, (name, value)) in labels.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(to, "{comma}{name}=\"{value}\"");
        }
        to.push_str("} ");
        to.push_str(self.value);
        if let Some(timestamp) = self.timestamp {
            let _ = write!(to, " {timestamp}");
        }
        to.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample<'a>(name: &'a str, labels: &[(&'a str, &'a str)], value: &'a str) -> Line<'a> {
        Line::Sample(Sample { name, labels: labels.to_vec(), value, timestamp: None })
    }

    fn help<'a>(name: &'a str, text: &str) -> Line<'a> {
        Line::Help { name, text: text.to_owned() }
    }

    #[test]
    fn lines_are_read_as_the_format_has_them() {
        let table = [
            ("", Line::Nothing),
            (" \t", Line::Nothing),
            ("# EOF", Line::Nothing),
            ("# UNIT a seconds", Line::Nothing),
            ("#", Line::Nothing),
            ("# HELP a:b_1 What \\\\ it\\n is.", help("a:b_1", "What \\\\ it\\n is.")),
            ("# HELP a", help("a", "")),
            ("#\tTYPE  a histogram ", Line::Type { name: "a", kind: Declared::Histogram }),
            ("a 1", sample("a", &[], "1")),
            ("a\t 1e-3\r", sample("a", &[], "1e-3")),
            ("a{} NaN", sample("a", &[], "NaN")),
            ("a{}+Inf", sample("a", &[], "+Inf")),
            (" a { b = \"c\" , d=\" \", } -2", sample("a", &[("b", "c"), ("d", " ")], "-2")),
            (r#"a{b="\\\"\n},é"} 1"#, sample("a", &[("b", r#"\\\"\n},é"#)], "1")),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line, Format::Text), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn what_clients_write_all_the_same_is_read() {
        let table = [
            // printf(3) of the result of 0.0 / 0.0 on x86.
            ("a -nan", sample("a", &[], "NaN")),
            ("a inf", sample("a", &[], "inf")),
            // An empty label is none.
            ("a{b=\"\",c=\"d\"} 1", sample("a", &[("c", "d")], "1")),
            ("a 1 # {trace=\"1\"} 0.5 1395066363.25", sample("a", &[], "1")),
            ("a{b=\" # \"} 1 # {} 1", sample("a", &[("b", " # ")], "1")),
            ("# HELP a \\\"b\\\\\\\"", help("a", "\"b\\\\\"")),
            ("# TYPE a unknown", Line::Type { name: "a", kind: Declared::Untyped }),
            ("# TYPE a gaugehistogram", Line::Type { name: "a", kind: Declared::GaugeHistogram }),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line, Format::Text), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn timestamps_are_milliseconds_and_those_of_openmetrics_seconds() {
        let timestamp = |line, format| match parse(line, format) {
            Ok(Line::Sample(sample)) => sample.timestamp,
            other => panic!("{line:?} is {other:?}"),
        };
        assert_eq!(timestamp("a 1 1395066363000", Format::Text), Some(1_395_066_363_000));
        assert_eq!(timestamp("a 1 1395066363.2509", Format::OpenMetrics), Some(1_395_066_363_251));
        assert_eq!(timestamp("a 1 0 # {b=\"c\"} 1", Format::OpenMetrics), Some(0));
        for refused in ["a 1 -5", "a 1 NaN", "a 1 1e300"] {
            assert_eq!(parse(refused, Format::Text), Err(Malformed), "{refused:?}");
            assert_eq!(parse(refused, Format::OpenMetrics), Err(Malformed), "{refused:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_format_is_refused() {
        for line in [
            "a",
            "a{}",
            "1a 1",
            "a-b 1",
            "é 1",
            "a one",
            "a 0x1p3",
            "a 1_000",
            "a 1e400",
            "a -1e400",
            "a 1 soon",
            "a 1 +2",
            "a 1 1.5",
            "a 1 9223372036854775808",
            "a 1 2 3",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\" 1",
            "a{b=\"\\t\"} 1",
            "a{b=\"c\",b=\"d\"} 1",
            "a{b=\"\",b=\"\"} 1",
            "a{b=\"c\",,} 1",
            "a{:b=\"c\"} 1",
            "a{__name__=\"b\"} 1",
            "a{b=\"\0\"} 1",
            "a{b.c=\"d\"} 1",
            "{\"a.b\"} 1",
            "# TYPE a COUNTER",
            "# TYPE a",
            "# TYPE a counter # as it were",
            "# HELP",
            "# HELP 1 x",
            "# HELP a \\q",
            "# HELP a \\ b",
            "# HELP a \\",
            "# HELP a \0",
            "<html>",
            "\u{feff}a 1",
            "\u{a0}a 1",
        ] {
            assert_eq!(parse(line, Format::Text), Err(Malformed), "{line:?}");
        }
    }

    #[test]
    fn a_line_with_very_many_labels_takes_no_longer_than_as_many_lines() {
        let labels: String = (0..100_000).map(|index| format!("l{index}=\"1\",")).collect();
        let line = format!("a{{{labels}}} 1");
        let Ok(Line::Sample(sample)) = parse(&line, Format::Text) else { panic!("it is a sample") };
        assert_eq!(sample.labels.len(), 100_000);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}",
            labels in prop::collection::btree_map("[a-zA-Z][a-zA-Z0-9_]{0,4}", r#"([^\\"\n\r\x00]|\\n|\\"|\\\\){1,6}"#, 0..4),
            value in any::<f64>().prop_map(|value| value.to_string()),
            timestamp in prop::option::of(0..i64::MAX as u64),
        ) {
            let labels: Vec<(String, String)> = labels.into_iter().collect();
            let borrowed = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let sample = Sample { name: &name, labels: borrowed, value: &value, timestamp };
            let mut line = String::new();
            sample.write(&mut line, &name, &labels);
            prop_assert_eq!(parse(line.trim_end_matches('\n'), Format::Text), Ok(Line::Sample(sample)));
        }

        #[test]
        fn any_line_is_read_or_refused(line in any::<String>()) {
            let _ = parse(&line, Format::Text);
            let _ = parse(&line, Format::OpenMetrics);
        }
    }
}
