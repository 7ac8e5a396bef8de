//! Values as their sources deliver them: strings that know where they come from.
//!
//! What a string means is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::setting::Key;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The flag of this key.
    Flag(&'static str),
    /// The command line, behind the flags.
    CommandLine,
    /// The environment variable of this name.
    Environment(String),
    /// The file, and the line in it, counted from 1.
    File {
        /// As the user named it.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// PM2's ecosystem file, in the words of its author.
    Ecosystem {
        /// As the user named it.
        path: PathBuf,
        /// Counted from 1; what a program has made has none.
        line: Option<usize>,
        /// Whose key it is.
        app: String,
        /// As it is spelled there.
        key: String,
    },
    /// No source named it.
    Default,
}

/// `--port`, `CLUSTERD_PORT`, `clusterd.toml:4`, `ecosystem.json:7: web: kill_timeout`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::CommandLine => f.write_str("the command line"),
            Origin::Environment(name) => f.write_str(name),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Ecosystem { path, line, app, key } => {
                write!(f, "{}", path.display())?;
                line.iter().try_for_each(|line| write!(f, ":{line}"))?;
                write!(f, ": {app}: {key}")
            }
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value, not yet read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// Whose value it is.
    pub name: &'static str,
    /// The value itself.
    pub text: String,
    /// The value as the file spells it: a TOML string has its quotes.
    pub literal: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

impl Value {
    /// A value that is spelled as it is.
    pub(crate) fn new(name: &'static str, text: impl Into<String>, origin: Origin) -> Self {
        Self { name, text: text.into(), literal: None, origin }
    }
}

/// As the user wrote it: `--workers 4`, `CLUSTERD_WORKERS=4`, `clusterd.toml:4: workers = "4"`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.literal {
            Some(literal) => literal.clone(),
            None => legible(&self.text),
        };
        match &self.origin {
            Origin::Flag(_) | Origin::CommandLine => write!(f, "--{} {text}", self.name),
            Origin::Environment(name) => write!(f, "{name}={text}"),
            Origin::Ecosystem { .. } => write!(f, "{} = {text}", self.origin),
            Origin::File { .. } | Origin::Default => write!(f, "{}: {} = {text}", self.origin, self.name),
        }
    }
}

/// The text, in quotes if it is empty or holds something that cannot be seen.
pub(super) fn legible(text: &str) -> String {
    let is_plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if is_plain { text.to_owned() } else { format!("{text:?}") }
}

/// Every value that one source names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    values: BTreeMap<&'static str, Vec<Value>>,
}

impl Layer {
    /// Adds one: a key with more than one value is a list.
    pub(crate) fn add(&mut self, value: Value) {
        self.values.entry(value.name).or_default().push(value);
    }

    /// The values of a key, in the order in which they were given; none if the source does not name it.
    pub(crate) fn of(&self, key: &Key) -> &[Value] {
        self.named(key.name)
    }

    /// The same by the name of the key.
    pub(crate) fn named(&self, name: &str) -> &[Value] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every value, key by key.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.values().flatten()
    }

    /// Leaves out those values of this key that are not to stay.
    pub(crate) fn retain(&mut self, name: &str, stays: impl Fn(&Value) -> bool) {
        if let Some(values) = self.values.get_mut(name) {
            values.retain(stays);
        }
        self.values.retain(|_, values| !values.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_it_was_written() {
        let file = Origin::File { path: "a/clusterd.toml".into(), line: 4 };
        let in_file = Value { literal: Some("\"4\"".into()), ..Value::new("workers", "4", file) };
        let cases = [
            (Value::new("workers", "4", Origin::Flag("workers")), "--workers 4"),
            (Value::new("workers", "", Origin::Flag("workers")), "--workers \"\""),
            (
                Value::new("workers", "4\n", Origin::Environment("CLUSTERD_WORKERS".into())),
                "CLUSTERD_WORKERS=\"4\\n\"",
            ),
            (Value::new("workers", "4", Origin::Environment("WEB_CONCURRENCY".into())), "WEB_CONCURRENCY=4"),
            (in_file, "a/clusterd.toml:4: workers = \"4\""),
        ];
        for (value, shown) in cases {
            assert_eq!(value.to_string(), shown);
        }
    }
}
