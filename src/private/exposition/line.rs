//! One line of the Prometheus text format, version 0.0.4.
//!
//! Source: prometheus.io, "Exposition formats". It sees a line by itself: what lines mean together is decided elsewhere.

use std::fmt::Write;

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line<'a> {
    /// Nothing: it is empty, or a comment.
    Nothing,
    /// What a family is about; the text is escaped as it was.
    Help {
        /// The family.
        name: &'a str,
        /// The rest of the line.
        text: &'a str,
    },
    /// What kind a family is of.
    Type {
        /// The family.
        name: &'a str,
        /// The kind.
        kind: Kind,
    },
    /// A value.
    Sample(Sample<'a>),
}

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    #[default]
    Untyped,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Counter, Kind::Gauge, Kind::Histogram, Kind::Summary, Kind::Untyped];

    /// As the format writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
            Kind::Untyped => "untyped",
        }
    }

    /// What the names of a family's samples may have after the family's own.
    pub(crate) fn suffixes(self) -> &'static [&'static str] {
        match self {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Summary => &["_sum", "_count"],
            Kind::Counter | Kind::Gauge | Kind::Untyped => &[],
        }
    }
}

/// A value, and what it is a value of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels, no name twice; the values are escaped as they were.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The number.
    pub value: &'a str,
    /// When it was taken, in milliseconds, if that was said.
    pub timestamp: Option<&'a str>,
}

/// The line is not in the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a line, without its end.
///
/// # Errors
/// It is not in the format.
pub(crate) fn parse(line: &str) -> Result<Line<'_>, Malformed> {
    let mut rest = Cursor(line.trim_end_matches('\r'));
    rest.blanks();
    if rest.0.is_empty() {
        return Ok(Line::Nothing);
    }
    if rest.eats('#') {
        return comment(rest);
    }
    sample(rest).map(Line::Sample).ok_or(Malformed)
}

fn comment(mut rest: Cursor<'_>) -> Result<Line<'_>, Malformed> {
    rest.blanks();
    match rest.word() {
        "HELP" => {
            let name = rest.family().ok_or(Malformed)?;
            Ok(Line::Help { name, text: rest.0 })
        }
        "TYPE" => {
            let name = rest.family().ok_or(Malformed)?;
            let kind = rest.0.trim_end();
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).ok_or(Malformed)?;
            Ok(Line::Type { name, kind })
        }
        _ => Ok(Line::Nothing),
    }
}

fn sample(mut rest: Cursor<'_>) -> Option<Sample<'_>> {
    let name = rest.name(":")?;
    let has_blanks = rest.blanks();
    let has_labels = rest.eats('{');
    let labels = if has_labels { labels(&mut rest)? } else { Vec::new() };
    if !(rest.blanks() || has_blanks || has_labels) {
        return None;
    }
    let mut words = rest.0.split([' ', '\t']).filter(|word| !word.is_empty());
    let (value, timestamp) = (words.next()?, words.next());
    let is_valid = is_number(value)
        && timestamp.is_none_or(|timestamp| timestamp.parse::<i64>().is_ok())
        && words.next().is_none();
    is_valid.then_some(Sample { name, labels, value, timestamp })
}

/// What follows the opening brace, up to and with the closing one.
fn labels<'a>(rest: &mut Cursor<'a>) -> Option<Vec<(&'a str, &'a str)>> {
    let mut labels: Vec<(&str, &str)> = Vec::new();
    loop {
        rest.blanks();
        if rest.eats('}') {
            return Some(labels);
        }
        let name = rest.name("")?;
        rest.blanks();
        if !rest.eats('=') {
            return None;
        }
        rest.blanks();
        let value = rest.quoted()?;
        if labels.iter().any(|&(other, _)| other == name) {
            return None;
        }
        labels.push((name, value));
        rest.blanks();
        if !rest.eats(',') {
            return rest.eats('}').then_some(labels);
        }
    }
}

/// As Go's ParseFloat reads it, without what nobody writes: hexadecimal digits and underscores.
fn is_number(text: &str) -> bool {
    text.is_ascii() && text.parse::<f64>().is_ok()
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
            to.push(' ');
            to.push_str(timestamp);
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

    #[test]
    fn lines_are_read_as_the_format_has_them() {
        let table = [
            ("", Line::Nothing),
            (" \t", Line::Nothing),
            ("# EOF", Line::Nothing),
            ("#", Line::Nothing),
            ("# HELP a:b_1 What \\\\ it is.", Line::Help { name: "a:b_1", text: "What \\\\ it is." }),
            ("# HELP a", Line::Help { name: "a", text: "" }),
            ("#\tTYPE  a histogram ", Line::Type { name: "a", kind: Kind::Histogram }),
            ("a 1", sample("a", &[], "1")),
            ("a\t 1e-3\r", sample("a", &[], "1e-3")),
            ("a{} NaN", sample("a", &[], "NaN")),
            ("a{}+Inf", sample("a", &[], "+Inf")),
            (" a { b = \"c\" , d=\"\", } -2", sample("a", &[("b", "c"), ("d", "")], "-2")),
            (r#"a{b="\\\"\n},é"} 1"#, sample("a", &[("b", r#"\\\"\n},é"#)], "1")),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        }
        let timed = Sample { name: "a", labels: vec![], value: "1", timestamp: Some("-1395066363000") };
        assert_eq!(parse("a 1 -1395066363000"), Ok(Line::Sample(timed)));
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
            "a 1 soon",
            "a 1 2 3",
            "a 1 # {trace=\"1\"} 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\" 1",
            "a{b=\"\\t\"} 1",
            "a{b=\"c\",b=\"d\"} 1",
            "a{b=\"c\",,} 1",
            "a{:b=\"c\"} 1",
            "{\"a.b\"} 1",
            "# TYPE a info",
            "# TYPE a",
            "# HELP 1 x",
            "<html>",
        ] {
            assert_eq!(parse(line), Err(Malformed), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}",
            labels in prop::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,4}", r#"([^\\"\n\r]|\\n|\\"|\\\\){0,6}"#, 0..4),
            value in any::<f64>().prop_map(|value| value.to_string()),
            timestamp in prop::option::of(any::<i64>().prop_map(|time| time.to_string())),
        ) {
            let labels: Vec<(String, String)> = labels.into_iter().collect();
            let borrowed = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let sample = Sample { name: &name, labels: borrowed, value: &value, timestamp: timestamp.as_deref() };
            let mut line = String::new();
            sample.write(&mut line, &name, &labels);
            prop_assert_eq!(parse(line.trim_end_matches('\n')), Ok(Line::Sample(sample)));
        }

        #[test]
        fn any_line_is_read_or_refused(line in any::<String>()) {
            let _ = parse(&line);
        }
    }
}
