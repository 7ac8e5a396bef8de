//! What was measured, every round of it, and how it is shown: as Markdown and as JSON. It measures nothing.

use std::fmt::{Display, Write as _};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::application::Application;
use crate::contender::Contender;
use crate::measure::Measure;
use crate::numbers::{median, ratio, times, written};
use crate::plan::Plan;

/// A page may have these around what a run writes into it.
const MARKS: (&str, &str) = ("<!-- compare: begin -->", "<!-- compare: end -->");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Microseconds,
    Milliseconds,
    Seconds,
    Megabytes,
    Count,
    Times,
}

impl Unit {
    fn sign(self) -> &'static str {
        match self {
            Unit::PerSecond | Unit::Count | Unit::Times => "",
            Unit::Microseconds => "µs",
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::Megabytes => "MB",
        }
    }

    /// Counts of what goes wrong, and what is a ratio already, are not divided.
    fn has_ratio(self) -> bool {
        !matches!(self, Unit::Count | Unit::Times)
    }
}

/// One number of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    name: &'static str,
    unit: Unit,
    number: f64,
}

impl Value {
    pub(crate) fn new(name: &'static str, unit: Unit, number: f64) -> Self {
        Self { name, unit, number }
    }

    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// One number over the rounds.
struct Series {
    contender: &'static str,
    application: Application,
    measure: &'static str,
    name: &'static str,
    unit: Unit,
    rounds: Vec<Option<f64>>,
}

pub(crate) struct Report {
    plan: Plan,
    machine: String,
    took: Duration,
    contenders: Vec<Contender>,
    series: Vec<Series>,
    /// What could not be measured, or was not as it should be, and why.
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(plan: Plan, contenders: Vec<Contender>) -> Self {
        let (series, notes) = (Vec::new(), Vec::new());
        Self { plan, machine: machine(), took: Duration::ZERO, contenders, series, notes }
    }

    pub(crate) fn add(&mut self, round: usize, contender: &Contender, measure: &Measure, values: Vec<Value>) {
        for Value { name, unit, number } in values {
            let is_it = |series: &Series| {
                (series.contender, series.measure, series.name) == (contender.name, measure.name, name)
            };
            let index = self.series.iter().position(is_it).unwrap_or_else(|| {
                let (contender, application) = (contender.name, contender.application);
                let rounds = vec![None; self.plan.rounds];
                self.series.push(Series {
                    contender,
                    application,
                    measure: measure.name,
                    name,
                    unit,
                    rounds,
                });
                self.series.len() - 1
            });
            // What cannot be divided, as by no answer at all, is no number.
            self.series[index].rounds[round] = Some(number).filter(|number| !number.is_nan());
        }
    }

    /// What is wrong with somebody is written down once: the next round may only tell it with another number.
    pub(crate) fn note(&mut self, subject: &str, note: impl Display) {
        let note = format!("{subject}: {note}");
        println!("{note}");
        let is_known =
            |known: &String| known.strip_prefix(subject).is_some_and(|rest| rest.starts_with(": "));
        if !self.notes.iter().any(is_known) {
            self.notes.push(note);
        }
    }

    pub(crate) fn took(&mut self, took: Duration) {
        self.took = took;
    }

    pub(crate) fn markdown(&self, measures: &[&Measure]) -> String {
        let mut text = format!(
            "{}. {} rounds in {:.0} s, {} workers. Medians; in parentheses, the median of the ratios to the first row, round \
             by round.\n",
            self.machine,
            self.plan.rounds,
            self.took.as_secs_f64(),
            self.plan.workers,
        );
        for measure in measures {
            let of_measure = || self.series.iter().filter(|series| series.measure == measure.name);
            if of_measure().next().is_none() {
                continue;
            }
            let _ = write!(text, "\n### {}\n\n{}\n", measure.name, measure.says);
            let mut applications: Vec<_> = of_measure().map(|series| series.application).collect();
            applications.sort_unstable();
            applications.dedup();
            for application in applications {
                let series: Vec<_> =
                    of_measure().filter(|series| series.application == application).collect();
                text.push_str(&self.table(application, &series));
            }
        }
        if !self.notes.is_empty() {
            let notes: String = self.notes.iter().map(|note| format!("- {note}\n")).collect();
            let _ = write!(text, "\n### What was left out, or not as it should be\n\n{notes}");
        }
        text
    }

    /// A row for each contender that serves this application, the first of the list first.
    fn table(&self, application: Application, series: &[&Series]) -> String {
        let mut columns: Vec<(&str, Unit)> = Vec::new();
        for series in series {
            if !columns.iter().any(|(name, _)| *name == series.name) {
                columns.push((series.name, series.unit));
            }
        }
        let heads = columns.iter().map(|(name, unit)| match unit.sign() {
            "" => format!(" {name} |"),
            sign => format!(" {name}, {sign} |"),
        });
        let mut text = format!("\n| {application} |{}\n|---|", heads.collect::<String>());
        text.push_str(&"---:|".repeat(columns.len()));
        text.push('\n');
        let rows: Vec<_> = self
            .contenders
            .iter()
            .map(|contender| contender.name)
            .filter(|name| series.iter().any(|series| series.contender == *name))
            .collect();
        for row in &rows {
            let _ = write!(text, "| {row} |");
            for (name, _) in &columns {
                let find = |contender: &str| {
                    series
                        .iter()
                        .copied()
                        .find(|series| series.contender == contender && series.name == *name)
                };
                let cell = find(row).map(|series| series.cell(find(rows[0])));
                let _ = write!(text, " {} |", cell.unwrap_or_default());
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let contenders = self.contenders.iter().map(|contender| {
            let application = contender.application.to_string();
            json!({ "name": contender.name, "application": application, "is": contender.says })
        });
        let series = self.series.iter().map(|series| {
            json!({
                "contender": series.contender,
                "measure": series.measure,
                "number": series.name,
                "unit": series.unit.sign(),
                "rounds": series.rounds.iter().map(|round| round.map(finite)).collect::<Vec<_>>(),
                "median": series.median().map(finite),
            })
        });
        json!({
            "machine": self.machine,
            "seconds": self.took.as_secs_f64(),
            "slice": self.plan.slice.as_secs_f64(),
            "rounds": self.plan.rounds,
            "workers": self.plan.workers,
            "clients": self.plan.clients,
            "contenders": contenders.collect::<Vec<_>>(),
            "notes": self.notes,
            "results": series.collect::<Vec<_>>(),
        })
    }
}

/// JSON has no endless numbers.
fn finite(number: f64) -> serde_json::Value {
    if number.is_finite() { json!(number) } else { json!("never") }
}

impl Series {
    fn median(&self) -> Option<f64> {
        median(&self.rounds.iter().copied().flatten().collect::<Vec<_>>())
    }

    fn cell(&self, base: Option<&Series>) -> String {
        let median = written(self.median().unwrap_or(f64::NAN));
        let base = base.filter(|base| self.unit.has_ratio() && base.contender != self.contender);
        match base.and_then(|base| ratio(&self.rounds, &base.rounds)) {
            Some(ratio) => format!("{median} ({})", times(ratio)),
            None => median,
        }
    }
}

/// Writes the tables into a page between its marks, or as a file of their own.
pub(crate) fn write_markdown(path: &Path, tables: &str) -> anyhow::Result<()> {
    let page = fs::read_to_string(path).unwrap_or_default();
    let text = between_marks(&page, tables).unwrap_or_else(|| tables.to_owned());
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn between_marks(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKS.0)?;
    let (_, after) = rest.split_once(MARKS.1)?;
    Some(format!("{before}{}\n\n{tables}\n{}{after}", MARKS.0, MARKS.1))
}

/// What numbers depend on most: they are worth something only beside it.
fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows the numbers is whoever has built it.
    let kernel = kernel.split('-').next().unwrap_or_default();
    let model = model.map_or("unknown", |(_, model)| model);
    format!("{cpus} CPUs ({model}), Linux {}, clusterd {}", kernel.trim(), env!("CARGO_PKG_VERSION"))
}
