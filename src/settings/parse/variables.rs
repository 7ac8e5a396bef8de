//! `--env`: variables for workers.
//!
//! What a worker has in the end is not known here.

use std::collections::BTreeMap;

use crate::settings::error::Reason;
use crate::settings::kind::{Arity, Automatic, Kind, NONE, Parsed, Values};

/// Variables by their names, each written as `KEY=VALUE`.
#[derive(Debug)]
pub(crate) struct Variables;

/// What tells Node that it has a channel: its descriptor, the worker's number, and how messages are written. clusterd may itself
/// be a child of Node, so that they can be inherited, and a worker that finds them without their descriptor dies at its start.
pub(crate) const NODE_CHANNEL_VARIABLES: [&str; 3] =
    ["NODE_CHANNEL_FD", "NODE_UNIQUE_ID", "NODE_CHANNEL_SERIALIZATION_MODE"];

/// The name of a variable.
pub(crate) const VARIABLE: Parsed<String> = Parsed {
    placeholder: "VARIABLE",
    accepts: "the name of a variable, such as NODE_APP_INSTANCE",
    read: |text| variable(text).map(|()| text.to_owned()),
    show: String::clone,
};

/// What clusterd gives each worker by itself beside those, and what to use instead.
const GIVEN: [(&str, Option<&str>); 3] = [
    ("NODE_APP_INSTANCE", None),
    ("NOTIFY_SOCKET", Some("to be told that a worker is ready, use --wait-ready")),
    ("PWD", Some("for the folder that workers run in, use --cwd")),
];

impl Values for Variables {
    fn placeholder(&self) -> String {
        "KEY=VALUE".to_owned()
    }

    fn accepts(&self) -> String {
        "KEY=VALUE, such as NODE_ENV=production".to_owned()
    }

    fn arity(&self) -> Arity {
        Arity::Map { example: "{ NODE_ENV = \"production\" }" }
    }
}

impl Kind<BTreeMap<String, String>> for Variables {
    fn read(&self, text: &str, _: &Automatic) -> Result<BTreeMap<String, String>, Reason> {
        let Some((name, value)) = text.split_once('=') else {
            let hint = "use KEY=VALUE; what clusterd was started with, workers inherit anyway";
            return Err(Reason::new("no value").hint(hint));
        };
        check_name(name)?;
        if value.contains('\0') {
            return Err(Reason::new("not a value: it holds a zero byte"));
        }
        Ok(BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    fn show(&self, value: &BTreeMap<String, String>) -> String {
        let all: Vec<_> = value.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
    }

    /// Of one name, the last counts.
    fn join(&self, values: Vec<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
        Some(values.into_iter().flatten().collect())
    }
}

/// A variable as [`Variables`] reads it.
///
/// # Errors
/// The name has a `=`, behind which the value would begin.
pub(crate) fn assignment(name: &str, value: &str) -> Result<String, Reason> {
    if name.contains('=') {
        variable(name)?
    }
    Ok(format!("{name}={value}"))
}

/// Environments hold more, but shells do not, and neither do environment files.
fn variable(name: &str) -> Result<(), Reason> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.bytes().all(is_part)
    {
        let hint = "use letters, digits, _, . and -, and no digit at the beginning";
        return Err(Reason::new("not the name of a variable").hint(hint));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Reason> {
    variable(name)?;
    let own = || Reason::new(format!("clusterd gives each worker a {name} of its own"));
    let of_node = NODE_CHANNEL_VARIABLES.map(|given| (given, None));
    if let Some((_, hint)) = GIVEN.iter().chain(&of_node).find(|(given, _)| *given == name) {
        return Err(own().hint(hint.unwrap_or("leave it out")));
    }
    if name.starts_with("CLUSTERD_") {
        let hint = "settings of clusterd are flags, variables of clusterd itself, or keys of its file";
        return Err(Reason::new("workers get no other CLUSTERD_ variables than clusterd's").hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::outcome;
    use super::*;

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        const NAME: &str = "not the name of a variable";
        let cases = [
            ("A=1", "A=1"),
            ("A=", "A="),
            ("A=b=c d", "A=b=c d"),
            ("spring.profile=x", "spring.profile=x"),
            ("_a-b=x", "_a-b=x"),
            ("WEB_CONCURRENCY=2", "WEB_CONCURRENCY=2"),
            ("A", "no value"),
            ("", "no value"),
            ("=x", NAME),
            ("1A=x", NAME),
            ("A B=x", NAME),
            (" A=x", NAME),
            ("Ä=x", NAME),
            ("A\0=x", NAME),
            ("A=x\0", "not a value: it holds a zero byte"),
            ("NODE_UNIQUE_ID=1", "clusterd gives each worker a NODE_UNIQUE_ID of its own"),
            ("PWD=/", "clusterd gives each worker a PWD of its own"),
            ("CLUSTERD_WORKERS=1", "workers get no other CLUSTERD_ variables than clusterd's"),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&Variables, text), expected, "{text:?}");
        }
    }
}
