//! JSON with comments, YAML, and what JavaScript has made, as one tree that knows its lines.
//!
//! What a key or a value means is not known here.

use std::collections::HashMap;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged as _;
use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, YamlData};

use super::super::lines::Lines;

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// The value.
    pub data: Data,
    /// Counted from 1; `None` for what a program has made.
    pub line: Option<usize>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// `null`, or nothing behind the key.
    Null,
    /// `true` or `false`.
    Truth(bool),
    /// A number, in decimal digits where it is whole.
    Number(String),
    /// A text.
    Text(String),
    /// Several.
    List(Vec<Tree>),
    /// Several with a name each, in the order in which they are written.
    Map(Vec<(String, Tree)>),
    /// What no file can hold: `a function`, or a regular expression.
    Code {
        /// With its article.
        what: String,
        /// Its source.
        source: String,
    },
}

/// Why there is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotATree {
    /// Counted from 1.
    pub line: Option<usize>,
    /// What is wrong there.
    pub what: String,
}

impl NotATree {
    /// At this line, or the last one: a parser may count carriage returns, too, or name the line behind the end.
    fn at(line: usize, text: &str, what: &str) -> Self {
        let last = 1 + text.matches('\n').count();
        Self { line: Some(line.min(last)), what: what.to_owned() }
    }
}

impl Tree {
    /// A value that a program has made.
    fn made(data: Data) -> Self {
        Self { data, line: None }
    }

    /// What stands behind this key; of one that is there twice, the last.
    pub(super) fn get(&self, key: &str) -> Option<&Tree> {
        let Data::Map(entries) = &self.data else { return None };
        entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether a text in it has a zero byte, which neither a program nor an argument nor a variable can hold.
    pub(super) fn has_zero_byte(&self) -> bool {
        match &self.data {
            Data::Text(text) => text.contains('\0'),
            Data::List(list) => list.iter().any(Tree::has_zero_byte),
            Data::Map(entries) => {
                entries.iter().any(|(key, value)| key.contains('\0') || value.has_zero_byte())
            }
            _ => false,
        }
    }

    /// As JSON has it, cut where it is long: to be shown.
    pub(super) fn shown(&self) -> String {
        const LONGEST: usize = 60;
        let json = self.json();
        match json.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{} ...", json.get(..end).unwrap_or_default()),
            None => json,
        }
    }

    /// As JSON has it, without spaces, as JavaScript's `JSON.stringify`.
    pub(super) fn json(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.data {
            Data::Null => "null".to_owned(),
            Data::Truth(truth) => truth.to_string(),
            Data::Number(number) => number.clone(),
            Data::Text(text) => quoted(text),
            Data::List(list) => format!("[{}]", list.iter().map(Tree::json).collect::<Vec<_>>().join(",")),
            Data::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{}:{}", quoted(key), value.json()));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
            Data::Code { source, .. } => source.clone(),
        }
    }

    /// What it is, with its article.
    pub(super) fn what(&self) -> &str {
        match &self.data {
            Data::Null => "nothing",
            Data::Truth(_) => "true or false",
            Data::Number(_) => "a number",
            Data::Text(_) => "a text",
            Data::List(_) => "a list",
            Data::Map(_) => "an object",
            Data::Code { what, .. } => what,
        }
    }
}

/// Whole numbers in digits, others as they are.
fn number(value: f64) -> String {
    // Up to there every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT { format!("{value:.0}") } else { value.to_string() }
}

/// Reads JSON in which there may be comments, trailing commas, single quotes and keys without quotes: PM2 takes it for an
/// expression of JavaScript.
///
/// # Errors
/// It is none.
pub(super) fn json(text: &str) -> Result<Tree, NotATree> {
    let options = jsonc_parser::ParseOptions { allow_missing_commas: false, ..Default::default() };
    let parsed = jsonc_parser::parse_to_ast(text, &Default::default(), &options)
        .map_err(|error| NotATree::at(error.line_display(), text, &error.kind().to_string()))?;
    match parsed.value {
        Some(value) => Ok(of_json(&Lines::of(text), &value)),
        None => Err(NotATree { line: None, what: "it is empty".to_owned() }),
    }
}

fn of_json(lines: &Lines, value: &ast::Value<'_>) -> Tree {
    let data = match value {
        ast::Value::NullKeyword(_) => Data::Null,
        ast::Value::BooleanLit(literal) => Data::Truth(literal.value),
        ast::Value::StringLit(literal) => Data::Text(literal.value.to_string()),
        ast::Value::NumberLit(literal) => Data::Number(json_number(literal.value)),
        ast::Value::Array(array) => {
            Data::List(array.elements.iter().map(|each| of_json(lines, each)).collect())
        }
        ast::Value::Object(object) => {
            let entries = object.properties.iter();
            Data::Map(last_of_each(entries.map(|entry| (entry.name.as_str(), of_json(lines, &entry.value)))))
        }
    };
    Tree { data, line: Some(lines.at(value.range().start)) }
}

/// As in JavaScript: a name that is there again has its first place, and its last value.
fn last_of_each<'a>(all: impl Iterator<Item = (&'a str, Tree)>) -> Vec<(String, Tree)> {
    let mut places = HashMap::new();
    let mut entries: Vec<(String, Tree)> = Vec::new();
    for (name, value) in all {
        let place = *places.entry(name).or_insert(entries.len());
        match entries.get_mut(place) {
            Some(entry) => entry.1 = value,
            None => entries.push((name.to_owned(), value)),
        }
    }
    entries
}

fn json_number(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (if text.starts_with('-') { -1.0 } else { 1.0 }, digits),
        None => (1.0, text),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    match hexadecimal.map(|digits| u64::from_str_radix(digits, 16)) {
        #[expect(clippy::cast_precision_loss, reason = "so does JavaScript")]
        Some(Ok(value)) => number(sign * value as f64),
        _ => digits.parse().map_or_else(|_| text.to_owned(), |value: f64| number(sign * value)),
    }
}

/// Reads the first document of YAML. Aliases stand for what they name, and `<<` for what it merges.
///
/// # Errors
/// It is none.
pub(super) fn yaml(text: &str) -> Result<Tree, NotATree> {
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| NotATree::at(error.marker().line(), text, error.info()))?;
    match documents.first() {
        Some(document) => of_yaml(document),
        None => Err(NotATree { line: None, what: "it is empty".to_owned() }),
    }
}

fn of_yaml(node: &MarkedYaml<'_>) -> Result<Tree, NotATree> {
    // A tag without a value stands nowhere.
    let line = Some(node.span.start.line()).filter(|&line| line > 0);
    let wrong = |what: &str| NotATree { line, what: what.to_owned() };
    let data = match &node.data {
        YamlData::Value(Scalar::Null) => Data::Null,
        YamlData::Value(Scalar::Boolean(truth)) => Data::Truth(*truth),
        YamlData::Value(Scalar::Integer(integer)) => Data::Number(integer.to_string()),
        YamlData::Value(Scalar::FloatingPoint(float)) => Data::Number(number(float.0)),
        YamlData::Value(Scalar::String(text)) => Data::Text(text.to_string()),
        YamlData::Sequence(sequence) => Data::List(sequence.iter().map(of_yaml).collect::<Result<_, _>>()?),
        YamlData::Mapping(mapping) => {
            let mut entries: Vec<(String, Tree)> = Vec::new();
            let mut merged = Vec::new();
            for (key, value) in mapping {
                let key = match of_yaml(key)?.data {
                    Data::Text(text) | Data::Number(text) => text,
                    Data::Truth(truth) => truth.to_string(),
                    Data::Null => "null".to_owned(),
                    _ => return Err(wrong("a key is no text")),
                };
                let value = of_yaml(value)?;
                match (key.as_str(), value.data) {
                    ("<<", Data::Map(more)) => merged.extend(more),
                    ("<<", Data::List(more)) => {
                        merged.extend(more.into_iter().flat_map(|tree| match tree.data {
                            Data::Map(more) => more,
                            _ => Vec::new(),
                        }))
                    }
                    (_, data) => entries.push((key, Tree { data, ..value })),
                }
            }
            // What is written out goes before what is merged, and of that the first.
            for (key, value) in merged {
                if !entries.iter().any(|(name, _)| *name == key) {
                    entries.push((key, value));
                }
            }
            Data::Map(entries)
        }
        YamlData::Tagged(_, inner) => return of_yaml(inner),
        YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
            return Err(wrong("a value that cannot be read"));
        }
    };
    Ok(Tree { data, line })
}

/// A value that JavaScript has made; an object with only the key `mark` is what JSON cannot hold.
pub(super) fn of_program(value: &serde_json::Value, mark: &str) -> Tree {
    Tree::made(match value {
        serde_json::Value::Null => Data::Null,
        serde_json::Value::Bool(truth) => Data::Truth(*truth),
        serde_json::Value::Number(given) => match given.as_i64() {
            Some(whole) => Data::Number(whole.to_string()),
            None => Data::Number(given.as_f64().map_or_else(|| given.to_string(), number)),
        },
        serde_json::Value::String(text) => Data::Text(text.clone()),
        serde_json::Value::Array(list) => {
            Data::List(list.iter().map(|each| of_program(each, mark)).collect())
        }
        serde_json::Value::Object(entries) => match entries.get(mark).and_then(serde_json::Value::as_array) {
            Some(code) => {
                let word =
                    |at: usize| code.get(at).and_then(|word| word.as_str()).unwrap_or_default().to_owned();
                Data::Code { what: word(0), source: word(1) }
            }
            None => {
                Data::Map(entries.iter().map(|(key, value)| (key.clone(), of_program(value, mark))).collect())
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// With the line behind each scalar.
    fn lines(tree: &Tree) -> String {
        let line = tree.line.map_or_else(String::new, |line| format!("@{line}"));
        match &tree.data {
            Data::List(list) => format!("[{}]", list.iter().map(lines).collect::<Vec<_>>().join(" ")),
            Data::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key}={}", lines(value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
            _ => format!("{}{line}", tree.json()),
        }
    }

    #[test]
    fn json_may_be_written_as_people_write_it() {
        let text = "// apps\n{\n  apps: [ /* one */ {\n    'name': 'w\\'b', \"a\": [1, -2.50, 0x10, 1e3,],\n    b: null, c: true,\n  }, ],\n}\n";
        assert_eq!(
            lines(&json(text).expect("a tree")),
            r#"{apps=[{name="w'b"@4 a=[1@4 -2.5@4 16@4 1000@4] b=null@5 c=true@5}]}"#
        );
        let wrong = |text: &str| json(text).expect_err("none");
        assert_eq!(wrong("{\n\"a\": 1\n\"b\": 2}").line, Some(2));
        assert_eq!(wrong("{\n").line, Some(1));
        assert_eq!(wrong(" // nothing").what, "it is empty");
    }

    #[test]
    fn yaml_has_aliases_and_merges() {
        let text = "base: &base\n  kill_timeout: 3000\n  autorestart: no\napps:\n  - <<: *base\n    name: web\n    kill_timeout: 5\n    args: ['a', 1.5, ~]\n    env: {A: 0x10, 'B': \"yes\", C: 010}\n";
        let tree = yaml(text).expect("a tree");
        assert_eq!(
            lines(tree.get("apps").expect("apps")),
            r#"[{name="web"@6 kill_timeout=5@7 args=["a"@8 1.5@8 null@8] env={A=16@9 B="yes"@9 C=10@9} autorestart="no"@3}]"#
        );
        assert_eq!(yaml("a: [1\nb: 2").expect_err("none").line, Some(2));
        assert_eq!(yaml("a:\n  - [1").expect_err("none").line, Some(2), "the last one");
        let nothing = yaml("- a\n-\n- !b").expect("a tree");
        assert_eq!(lines(&nothing), r#"["a"@1 null@2 null]"#);
        assert_eq!(yaml("").expect_err("none").what, "it is empty");
    }

    #[test]
    fn of_a_name_that_is_there_twice_the_last_value_counts() {
        let tree = json(r#"{ "a": 1, "b": 2, "a": { "c": 3 } }"#).expect("a tree");
        assert_eq!(tree.json(), r#"{"a":{"c":3},"b":2}"#);
    }

    #[test]
    fn what_json_cannot_hold_has_a_mark() {
        let value = serde_json::json!({ "f": { "#": ["a function", "() => 1"] }, "n": 1.0, "m": { "#": 1 } });
        let tree = of_program(&value, "#");
        assert_eq!(tree.get("f").map(Tree::what), Some("a function"));
        assert_eq!(lines(&tree), r##"{f=() => 1 m={#=1} n=1}"##);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[\\{\\}\\[\\]:,'\"a-c0-9.\\-&*<>|\n /#!~]{0,60}") {
            let _ = json(&text);
            let _ = yaml(&text);
        }
    }
}
