//! The numbers side by side: medians over the rounds, and each as a multiple of the first primary's.

use std::fmt;
use std::time::Duration;

use crate::Options;
use crate::primary::Kind;

/// One round of one primary under one condition.
pub(crate) struct Sample {
    /// The primary's CPU time a connection, in microseconds.
    cpu: f64,
    /// Connections a second.
    rate: f64,
}

impl Sample {
    pub(crate) fn new(connections: usize, cpu: Duration, wall: Duration) -> Self {
        let connections = connections as f64;
        Self { cpu: cpu.as_secs_f64() * 1e6 / connections, rate: connections / wall.as_secs_f64() }
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
                spread(&row.loaded),
                ratio(|row| &row.loaded),
                spread(&row.burst),
                ratio(|row| &row.burst),
                median(&row.loaded, |sample| sample.rate),
                row.resident as f64 / 1e6,
            )?;
        }
        Ok(())
    }
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu
}

/// The median of the CPU times, with the least and the most of them.
fn spread(samples: &[Sample]) -> String {
    let least = samples.iter().map(cpu).fold(f64::INFINITY, f64::min);
    let most = samples.iter().map(cpu).fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(samples, cpu))
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
