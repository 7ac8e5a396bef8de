//! Reads the Prometheus text format: enough to ask for a sample by name and labels.

use std::collections::BTreeMap;

/// One scrape.
pub(crate) struct Samples(Vec<Sample>);

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Reads the body of a scrape.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(
            lines.map(|line| Sample::parse(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect(),
        )
    }

    /// The sum over every sample of that name with these labels among its own; 0 when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// As [`Samples::sum`], for what is counted in whole numbers.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// The connections that each worker has taken.
    pub(crate) fn handed(&self) -> BTreeMap<String, u64> {
        let samples = self.matching("clusterd_connections_handed_total", &[]);
        samples.map(|sample| (sample.labels["worker"].clone(), sample.value as u64)).collect()
    }

    /// Whether there is such a sample at all.
    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            let has =
                |(name, value): &(&str, &str)| sample.labels.get(*name).is_some_and(|known| known == value);
            sample.name == name && labels.iter().all(has)
        })
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let pairs = labels.split(',').filter(|pair| !pair.is_empty());
        let labels = pairs.map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        });
        Some(Self {
            name: name.to_owned(),
            labels: labels.collect::<Option<_>>()?,
            value: value.parse().ok()?,
        })
    }
}
