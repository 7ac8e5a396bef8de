//! The text of an environment file, in the dialect of npm's dotenv: lines of `KEY=VALUE` into variables.
//!
//! Pure, and without any interpolation. Where dotenv says nothing of a line that it cannot read, this says which one it is.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

/// A variable, and the line on which it begins, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The line.
    pub line: usize,
    /// The name: letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// The value.
    pub value: String,
}

/// What a text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// In the order of the text. Of one name, the last counts.
    pub assignments: Vec<Assignment>,
    /// The lines that are neither an assignment, nor a comment, nor empty.
    pub unread: Vec<usize>,
}

/// The expression of dotenv 18, `LINE` in its `lib/main.js`, with the classes of JavaScript written out: `\s` has a few
/// characters more there, `\w` many fewer. Only U+2028 and U+2029 end no line here. `leftmost-first` matching finds what a
/// backtracking matcher finds, in linear time.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    const SPACE: &str =
        r"[\t\n\x0b\x0c\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}]";
    const EXPRESSION: &str = r#"(?m)^\s*(?:export\s+)?([A-Za-z0-9_.-]+)(?:\s*=\s*?|:\s+?)(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?\s*(?:#[^\n]*)?$"#;
    Regex::new(&EXPRESSION.replace(r"\s", SPACE)).expect("it is tested")
});

/// Reads a text.
pub(crate) fn parse(text: &str) -> Parsed {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut parsed = Parsed::default();
    let mut lines = Lines { text: &text, at: 0, line: 1 };
    for captures in LINE.captures_iter(&text) {
        let (Some(whole), Some(name)) = (captures.get(0), captures.get(1)) else { continue };
        lines.skip_to(whole.start(), &mut parsed.unread);
        lines.pass_to(name.start());
        parsed.assignments.push(Assignment {
            line: lines.line,
            name: name.as_str().to_owned(),
            value: value(&captures),
        });
        lines.pass_to(whole.end());
    }
    lines.skip_to(text.len(), &mut parsed.unread);
    parsed
}

/// Without its quotes, with line ends in place of `\n` if those are double ones.
fn value(captures: &Captures<'_>) -> String {
    let written = captures.get(2).map_or("", |value| value.as_str()).trim_matches(is_space);
    let quote = written.chars().next().filter(|first| matches!(first, '\'' | '"' | '`'));
    let Some(quote) = quote else { return written.to_owned() };
    let inner = written.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).unwrap_or(written);
    match quote {
        '"' => inner.replace("\\n", "\n").replace("\\r", "\r"),
        _ => inner.to_owned(),
    }
}

/// What JavaScript's `trim` takes away.
fn is_space(character: char) -> bool {
    character == '\u{feff}' || (character.is_whitespace() && character != '\u{85}')
}

/// Counts lines.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    /// The line of `at`.
    line: usize,
}

impl Lines<'_> {
    /// Goes on over what was understood.
    fn pass_to(&mut self, to: usize) {
        self.line += self.text[self.at..to].matches('\n').count();
        self.at = to;
    }

    /// Goes on over what was not understood, and notes what of it is no comment.
    fn skip_to(&mut self, to: usize, unread: &mut Vec<usize>) {
        let between = self.text[self.at..to].split('\n').map(|line| line.trim_matches(is_space));
        let is_unread = |line: &str| !line.is_empty() && !line.starts_with('#');
        let numbered = (self.line..).zip(between);
        unread.extend(numbered.filter(|(_, line)| is_unread(line)).map(|(number, _)| number));
        self.pass_to(to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What dotenv 18.0.10 makes of the table, which `tests/e2e/environment.rs` asks the installed one again.
    const TABLE: &str = include_str!("../../tests/e2e/fixtures/environment/dotenv.json");

    #[derive(serde::Deserialize)]
    struct Row {
        text: String,
        dotenv: std::collections::BTreeMap<String, String>,
    }

    fn read(text: &str) -> std::collections::BTreeMap<String, String> {
        parse(text).assignments.into_iter().map(|assignment| (assignment.name, assignment.value)).collect()
    }

    #[test]
    fn every_text_is_read_as_dotenv_reads_it() {
        let rows: Vec<Row> = serde_json::from_str(TABLE).expect("a table");
        assert!(rows.len() > 60);
        for Row { text, dotenv } in rows {
            assert_eq!(read(&text), dotenv, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_named_by_its_line() {
        let cases: [(&str, &[usize]); 12] = [
            ("", &[]),
            ("A=1\n\n  # comment\nB=2 # more\n", &[]),
            ("A=1\nB", &[2]),
            ("A=1\nexport B\nC=3", &[2]),
            ("=1", &[1]),
            ("A B=1", &[1]),
            ("A=\"1\n2\"\nB", &[3]),
            ("KEY=-----BEGIN\nMIIE\n-----END\nB=1", &[2, 3]),
            ("A='it is\nB=2", &[]),
            ("A='x'y\nB", &[2]),
            ("\u{feff}A=1\r\nB\r\n", &[2]),
            ("$A=1\n{}\n", &[1, 2]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unread, expected, "{text:?}");
        }
    }

    #[test]
    fn an_assignment_knows_the_line_on_which_it_begins() {
        let parsed = parse("\n# a\nA='1\n2'\n\n\n  export B=\"\nx\"\nC\n=3\nD=4");
        let lines: Vec<_> = parsed.assignments.iter().map(|read| (read.name.as_str(), read.line)).collect();
        assert_eq!(lines, [("A", 3), ("B", 7), ("C", 9), ("D", 11)]);
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "[A-C=:#'\"`\\\\n \n\r\t.-]{0,40}|\\PC*") {
            let parsed = parse(&text);
            let lines = text.matches(['\n', '\r']).count() + 1;
            prop_assert!(parsed.unread.iter().all(|line| (1..=lines).contains(line)));
            prop_assert!(parsed.assignments.iter().all(|one| !one.name.is_empty() && (1..=lines).contains(&one.line)));
        }
    }
}
