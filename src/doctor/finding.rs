//! What a check has found: a verdict, one sentence of fact, and one of what follows for the user.
//!
//! Pure. How it is printed is the verb's affair.

use serde::Serialize;

/// How it stands with what was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// All of it works.
    Works,
    /// Some of it does, or in another way.
    Limited,
    /// It does not work.
    Fails,
    /// It has no meaning here.
    NotApplicable,
}

/// What was found, before it has the name of its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) verdict: Verdict,
    pub(super) what: String,
    /// Only what works has nothing that follows.
    pub(super) follows: Option<String>,
}

/// So many of these: `1 worker`, `2 workers`.
pub(super) fn count(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    name: &'static str,
    verdict: Verdict,
    /// clusterd serves nothing without it.
    needed: bool,
    what: String,
    follows: Option<String>,
}

impl Found {
    pub(super) fn works(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Works, what: what.into(), follows: None }
    }

    pub(super) fn limited(what: impl Into<String>, follows: impl Into<String>) -> Self {
        Self { verdict: Verdict::Limited, what: what.into(), follows: Some(follows.into()) }
    }

    pub(super) fn fails(what: impl Into<String>, follows: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fails, what: what.into(), follows: Some(follows.into()) }
    }

    pub(super) fn not_applicable(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotApplicable, what: what.into(), follows: None }
    }
}

impl Finding {
    pub(super) fn new(name: &'static str, needed: bool, found: Found) -> Self {
        let Found { verdict, what, follows } = found;
        Self { name, verdict, needed, what, follows }
    }

    /// The name of the check.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// How it stands.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The fact: one sentence.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// What works or does not, and what would help; nothing where all is well.
    pub(crate) fn follows(&self) -> Option<&str> {
        self.follows.as_deref()
    }

    /// Whether clusterd can serve nothing because of this.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.needed && self.verdict == Verdict::Fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_and_fails_is_in_the_way() {
        let table = [
            (true, Found::fails("", ""), true),
            (false, Found::fails("", ""), false),
            (true, Found::limited("", ""), false),
            (true, Found::works(""), false),
            (true, Found::not_applicable(""), false),
        ];
        for (needed, found, expected) in table {
            let finding = Finding::new("one", needed, found);
            assert_eq!(finding.is_in_the_way(), expected, "{finding:?}");
        }
    }
}
