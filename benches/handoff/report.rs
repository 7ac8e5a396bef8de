//! The numbers side by side: medians over the rounds, and each as a multiple of the first primary's.

use std::fmt;
use std::time::Duration;

use crate::Options;
use crate::primary::Kind;

/// One round of one primary under one condition.
pub(crate) struct Sample {
    /// The primary's CPU time a connection, in microseconds.
    cpu: f64,
    /// The CPU time of the primary and all its workers a connection, in microseconds.
    whole: f64,
    /// Connections a second.
    rate: f64,
}

impl Sample {
    pub(crate) fn new(connections: usize, cpu: Duration, whole: Duration, wall: Duration) -> Self {
        let connections = connections as f64;
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6 / connections;
        Self { cpu: microseconds(cpu), whole: microseconds(whole), rate: connections / wall.as_secs_f64() }
    }
}

/// What was measured so far.
pub(crate) struct Report {
    heading: String,
    rows: Vec<Row>,
}

struct Row {
    kind: Kind,
    loaded: Vec<Sample>,
    burst: Vec<Sample>,
    /// The most that was seen, in bytes.
    resident: u64,
}

impl Report {
    pub(crate) fn new(options: &Options, kinds: impl Iterator<Item = Kind>) -> Self {
        let heading = format!(
            "{} rounds of {} connections, {} workers; loaded: {} clients; burst: {} at once",
            options.rounds, options.connections, options.workers, options.clients, options.burst
        );
        let row = |kind| Row { kind, loaded: Vec::new(), burst: Vec::new(), resident: 0 };
        Self { heading, rows: kinds.map(row).collect() }
    }

    pub(crate) fn loaded(&mut self, primary: usize, sample: Sample) {
        self.rows[primary].loaded.push(sample);
    }

    pub(crate) fn burst(&mut self, primary: usize, sample: Sample) {
        self.rows[primary].burst.push(sample);
    }

    pub(crate) fn resident(&mut self, primary: usize, bytes: u64) {
        let most = &mut self.rows[primary].resident;
        *most = bytes.max(*most);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading)?;
        self.primaries(f)?;
        self.node(f)
    }
}

impl Report {
    /// What the primary costs, beside the first one.
    fn primaries(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CPU time of the primary a connection, median (least-most), and ratio of medians")?;
        writeln!(
            f,
            "{:<13} {:>24} {:>6} {:>24} {:>6} {:>14} {:>8}",
            "primary", "loaded, us", "ratio", "burst, us", "ratio", "connections/s", "RSS, MB"
        )?;
        let Some(first) = self.rows.first() else {
            return Ok(());
        };
        for row in &self.rows {
            let ratio = |of: fn(&Row) -> &[Sample]| median(of(row), cpu) / median(of(first), cpu);
            writeln!(
                f,
                "{:<13} {:>24} {:>6.2} {:>24} {:>6.2} {:>14.0} {:>8.1}",
                row.kind,
                spread(&row.loaded, cpu),
                ratio(|row| &row.loaded),
                spread(&row.burst, cpu),
                ratio(|row| &row.burst),
                median(&row.loaded, rate),
                row.resident as f64 / 1e6,
            )?;
        }
        Ok(())
    }

    /// What the whole costs where the workers are Node's, beside Node's own primary.
    fn node(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.rows.iter().filter(|row| row.kind.needs_node()).peekable();
        let Some(first) = rows.peek().copied() else {
            return Ok(());
        };
        writeln!(f, "\nthe same Node application, loaded: CPU time a connection, and ratios to the first")?;
        writeln!(
            f,
            "{:<13} {:>24} {:>6} {:>24} {:>6} {:>14} {:>6} {:>8} {:>6}",
            "primary",
            "primary, us",
            "ratio",
            "with workers, us",
            "ratio",
            "connections/s",
            "ratio",
            "RSS, MB",
            "ratio"
        )?;
        for row in rows {
            let ratio = |of: fn(&Sample) -> f64| median(&row.loaded, of) / median(&first.loaded, of);
            writeln!(
                f,
                "{:<13} {:>24} {:>6.2} {:>24} {:>6.2} {:>14.0} {:>6.2} {:>8.1} {:>6.2}",
                row.kind,
                spread(&row.loaded, cpu),
                ratio(cpu),
                spread(&row.loaded, whole),
                ratio(whole),
                median(&row.loaded, rate),
                ratio(rate),
                row.resident as f64 / 1e6,
                row.resident as f64 / first.resident as f64,
            )?;
        }
        Ok(())
    }
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu
}

fn whole(sample: &Sample) -> f64 {
    sample.whole
}

fn rate(sample: &Sample) -> f64 {
    sample.rate
}

/// The median of some CPU times, with the least and the most of them.
fn spread(samples: &[Sample], of: fn(&Sample) -> f64) -> String {
    let least = samples.iter().map(of).fold(f64::INFINITY, f64::min);
    let most = samples.iter().map(of).fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(samples, of))
}

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
