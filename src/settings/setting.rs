//! What a setting is: its names, its place in the help, and how its values are read and shown.
//!
//! It knows no setting by name: those are in [`super::keys`].

use super::Config;
use super::error::Reason;

/// What a setting is called, and what it is for.
#[derive(Debug)]
pub struct Key {
    /// In the file, and after `--` as a flag.
    pub name: &'static str,
    /// The variable that hosting platforms set for it, if there is one; its own goes before.
    pub platform_variable: Option<&'static str>,
    /// How many values it may have.
    pub kind: Kind,
    /// What stands for a value in the help.
    pub value_name: &'static str,
    /// Its value where no source names one; `None` stands for an empty list.
    pub default: Option<&'static str>,
    /// One line for people.
    pub help: &'static str,
    /// Its value in force, as `--show-config` has it.
    pub show: fn(&Config) -> String,
}

impl Key {
    /// Its own environment variable: `CLUSTERD_QUEUE_TIMEOUT` for `queue-timeout`.
    pub fn variable(&self) -> String {
        format!("CLUSTERD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// Whether it may have several values.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List { .. })
    }
}

/// How many values a setting may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Just one.
    One,
    /// One, `true` or `false`; the flag alone stands for `true`.
    Truth,
    /// Several: a repeated flag, a list in the file, commas in the environment.
    List {
        /// One that will do, as the file has it.
        example: &'static str,
    },
}

/// A setting whose values are `T`.
#[derive(Debug)]
pub struct Setting<T> {
    /// What it is called.
    pub key: Key,
    /// Reads one value.
    pub parse: fn(&str) -> Result<T, Reason>,
}

/// Settings that belong together, under one heading of the help.
#[derive(Debug)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// In the order in which people see them.
    pub keys: &'static [&'static Key],
}

#[cfg(test)]
mod tests {
    use super::super::keys;

    #[test]
    fn a_variable_is_called_as_its_key() {
        assert_eq!(keys::QUEUE_TIMEOUT.key.variable(), "CLUSTERD_QUEUE_TIMEOUT");
        assert_eq!(keys::PORT.key.variable(), "CLUSTERD_PORT");
    }
}
