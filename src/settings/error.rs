//! What may be wrong with a configuration, in words that say what would help.
//!
//! It prints nothing: the command line does.

use std::fmt;

use super::origin::{Origin, Value};

/// Why a value, or a file, cannot be used, and what can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    what: String,
    hint: Option<String>,
}

impl Reason {
    /// What is wrong, to follow the value.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// The same, and what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same, and what to do about it if that has not been said.
    pub(crate) fn or_hint(self, hint: impl FnOnce() -> String) -> Self {
        let hint = self.hint.or_else(|| Some(hint()));
        Self { hint, ..self }
    }

    /// What is wrong, without the hint.
    #[cfg(test)]
    pub(crate) fn what(&self) -> &str {
        &self.what
    }
}

/// The hint has a line of its own.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

/// Whose fault a problem is, as far as the exit code goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A flag's, which cannot be read.
    Usage,
    /// The environment's or the file's, or that of settings which do not go together.
    Configuration,
}

/// One thing that is wrong, and where: `clusterd.toml:4: workers = "fuor": not a whole number`, and a hint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub(crate) struct Problem {
    place: String,
    fault: Fault,
    reason: Reason,
}

impl Problem {
    /// A problem with a value.
    pub(crate) fn with(value: &Value, reason: Reason) -> Self {
        Self {
            place: on_one_line(value),
            fault: match value.origin {
                Origin::Flag(_) | Origin::CommandLine => Fault::Usage,
                Origin::Environment(_) | Origin::File { .. } | Origin::Ecosystem { .. } | Origin::Default => {
                    Fault::Configuration
                }
            },
            reason,
        }
    }

    /// A value that is right by itself and does not go with others, wherever it comes from.
    pub(crate) fn together(value: &Value, reason: Reason) -> Self {
        Self::at(value, reason)
    }

    /// A problem of the environment or the file that is not one value's.
    pub(crate) fn at(place: impl fmt::Display, reason: Reason) -> Self {
        Self { place: on_one_line(place), fault: Fault::Configuration, reason }
    }
}

/// A key of somebody's file may have line ends, and what follows one would pass for a message of its own.
fn on_one_line(place: impl fmt::Display) -> String {
    place.to_string().replace('\n', "\\n").replace('\r', "\\r")
}

/// A configuration that cannot be used: everything that is wrong with it.
#[derive(Debug)]
pub(crate) struct Invalid {
    problems: Vec<Problem>,
}

impl Invalid {
    /// A configuration with these problems.
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// What is wrong, in the order in which people see the settings.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The same, to be kept.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// 2 if a flag cannot be read (as clap has it), or else 78 (EX_CONFIG of sysexits.h).
    pub(crate) fn exit_code(&self) -> u8 {
        if self.problems.iter().any(|problem| problem.fault == Fault::Usage) { 2 } else { 78 }
    }
}

/// A line for each problem, and one for its hint.
impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
