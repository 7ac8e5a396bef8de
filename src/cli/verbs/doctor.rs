//! `clusterd doctor`: what this machine allows, and what follows.
//!
//! It needs no running clusterd, no event loop and no settings. What is looked at is in [`crate::doctor`].

use std::process::ExitCode;

use super::VerbError;
use super::print::{self, Output, Shape};
use crate::controls;
use crate::doctor::{self, Finding, Report, Verdict};

/// Tell what this machine allows, and what follows; fails if no server can run here
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    shape: Shape,
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        let report = doctor::examine();
        match self.shape.output {
            Output::Json => print::json(&report)?,
            Output::Text => print::line(&controls::blanked_lines(&text(&report)))?,
        }
        Ok(if report.serves { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(report: &Report) -> String {
    let Report { version, kernel, processor, checks, .. } = report;
    let linked = if report.is_static { "static" } else { "dynamic" };
    let mut lines =
        vec![format!("clusterd {version} ({linked}) on Linux {kernel}, {processor}"), String::new()];
    let width = checks.iter().map(|check| check.name().len()).max().unwrap_or(0);
    for check in checks {
        let word = word(check.verdict());
        lines.push(format!("{word:<7}  {:<width$}  {}", check.name(), check.what()));
        lines.extend(check.follows().map(|follows| format!("{:9}{:width$}  {follows}", "", "")));
    }
    lines.extend([String::new(), summary(checks)]);
    lines.join("\n")
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Works => "ok",
        Verdict::Limited => "limited",
        Verdict::Fails => "no",
        Verdict::NotApplicable => "-",
    }
}

fn summary(checks: &[Finding]) -> String {
    let in_the_way: Vec<_> = checks.iter().filter(|check| check.is_in_the_way()).map(Finding::name).collect();
    let is_limited = |check: &Finding| matches!(check.verdict(), Verdict::Limited | Verdict::Fails);
    match (in_the_way.as_slice(), checks.iter().any(is_limited)) {
        ([], false) => "clusterd can run servers here.".to_owned(),
        ([], true) => "clusterd can run servers here, within the limits above.".to_owned(),
        (names, _) => format!("clusterd cannot run servers here: see {}.", names.join(", ")),
    }
}
