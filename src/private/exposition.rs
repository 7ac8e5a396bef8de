//! The metrics of several workers as one page in the Prometheus text format, told apart by a `worker` label.
//!
//! It fetches nothing. What is done to names and labels:
//!
//! - Each sample gets the label `worker`, the number of its worker. One that it has itself becomes `exported_worker`, as
//!   under Prometheus' own rule (`honor_labels: false`).
//! - Names that begin with `process_` or `clusterd_` get `worker_` before them: clusterd has such metrics of its own,
//!   and nobody wants a sum over both.
//! - Each family is told once: with the help of the first worker that has one, and the type of the first. Lines that
//!   are not in the format, samples of another type than the first worker's, and samples that are there already are
//!   left out and counted.

pub(crate) mod line;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

use self::line::{Kind, Line, Sample};
use crate::ids::Slot;

/// The label that tells workers apart.
const WORKER: &str = "worker";

/// What names of metrics of clusterd's own begin with.
const OWN: [&str; 2] = ["clusterd_", "process_"];

/// A page under construction.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    help: Option<String>,
    kind: Kind,
    samples: String,
    /// Every series that is in `samples`.
    series: HashSet<String>,
}

impl Exposition {
    /// Adds what a worker tells of itself. Returns how many lines were left out.
    pub(crate) fn add(&mut self, worker: Slot, page: &[u8]) -> u64 {
        let lines = page.split(|&byte| byte == b'\n');
        let lines: Vec<_> =
            lines.map(|line| str::from_utf8(line).ok().and_then(|line| line::parse(line).ok())).collect();
        // A family's type is known before its samples, wherever it is told.
        let kinds: HashMap<&str, Kind> = lines
            .iter()
            .filter_map(|line| match line {
                Some(Line::Type { name, kind }) => Some((*name, *kind)),
                _ => None,
            })
            .collect();
        let mut left_out = 0;
        let mut helps = HashMap::new();
        for line in &lines {
            let is_kept = match line {
                Some(Line::Sample(sample)) => self.add_sample(worker, sample, &kinds),
                Some(Line::Help { name, text }) => {
                    helps.entry(*name).or_insert(*text);
                    true
                }
                Some(Line::Type { .. } | Line::Nothing) => true,
                None => false,
            };
            left_out += u64::from(!is_kept);
        }
        for (name, text) in helps {
            if let Some(family) = self.families.get_mut(published(name).as_ref()) {
                family.help.get_or_insert_with(|| text.to_owned());
            }
        }
        left_out
    }

    /// Whether the sample was new, and of the type that its family has.
    fn add_sample(&mut self, worker: Slot, sample: &Sample<'_>, kinds: &HashMap<&str, Kind>) -> bool {
        let (family, kind) = family_of(sample.name, kinds);
        let family = self.families.entry(published(family).into_owned()).or_insert_with(|| Family {
            help: None,
            kind,
            samples: String::new(),
            series: HashSet::new(),
        });
        if family.kind != kind {
            return false;
        }
        let labels = labels(worker, sample);
        let mut series = labels.clone();
        series.sort_unstable();
        let is_new = family.series.insert(format!("{} {series:?}", sample.name));
        if is_new {
            sample.write(&mut family.samples, &published(sample.name), &labels);
        }
        is_new
    }

    /// The page.
    pub(crate) fn into_text(self) -> String {
        let mut text = String::new();
        for (name, family) in self.families.iter().filter(|(_, family)| !family.samples.is_empty()) {
            if let Some(help) = &family.help {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let _ = writeln!(text, "# TYPE {name} {}", family.kind.name());
            text.push_str(&family.samples);
        }
        text
    }
}

/// The family that a sample belongs to, by the types that its worker has told.
fn family_of<'a>(sample: &'a str, kinds: &HashMap<&str, Kind>) -> (&'a str, Kind) {
    if let Some(&kind) = kinds.get(sample) {
        return (sample, kind);
    }
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some(family) = sample.strip_suffix(suffix)
            && let Some(&kind) = kinds.get(family)
            && kind.suffixes().contains(&suffix)
        {
            return (family, kind);
        }
    }
    (sample, Kind::Untyped)
}

/// The name under which clusterd tells of a worker's metric.
fn published(name: &str) -> Cow<'_, str> {
    match OWN.iter().any(|own| name.starts_with(own)) {
        true => format!("worker_{name}").into(),
        false => name.into(),
    }
}

fn labels(worker: Slot, sample: &Sample<'_>) -> Vec<(String, String)> {
    let mut labels = vec![(WORKER.to_owned(), worker.to_string())];
    for &(name, value) in &sample.labels {
        let mut name = name.to_owned();
        if name == WORKER {
            // Prometheus, too, goes on until the name is free.
            while name == WORKER || sample.labels.iter().any(|&(other, _)| other == name) {
                name.insert_str(0, "exported_");
            }
        }
        labels.push((name, value.to_owned()));
    }
    labels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(pages: &[&str]) -> (String, u64) {
        let mut exposition = Exposition::default();
        let mut left_out = 0;
        for (index, page) in (1..).zip(pages) {
            left_out += exposition.add(Slot(index), page.as_bytes());
        }
        (exposition.into_text(), left_out)
    }

    #[test]
    fn each_family_is_told_once_and_each_sample_tells_its_worker() {
        let page = "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
                    http_requests_total{code=\"200\"} 3\nhttp_requests_total{code=\"500\"} 1 1395066363000\n\
                    # TYPE t histogram\nt_bucket{le=\"1\"} 2\nt_bucket{le=\"+Inf\"} 3\nt_sum 1.5\nt_count 3\n\
                    t_count_of_others 7\n";
        let (text, left_out) = merged(&[page, "http_requests 9\n", page]);
        assert_eq!(left_out, 0);
        let expected = "# TYPE http_requests untyped\nhttp_requests{worker=\"2\"} 9\n\
             # HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
             http_requests_total{worker=\"1\",code=\"200\"} 3\n\
             http_requests_total{worker=\"1\",code=\"500\"} 1 1395066363000\n\
             http_requests_total{worker=\"3\",code=\"200\"} 3\n\
             http_requests_total{worker=\"3\",code=\"500\"} 1 1395066363000\n\
             # TYPE t histogram\nt_bucket{worker=\"1\",le=\"1\"} 2\nt_bucket{worker=\"1\",le=\"+Inf\"} 3\n\
             t_sum{worker=\"1\"} 1.5\nt_count{worker=\"1\"} 3\n\
             t_bucket{worker=\"3\",le=\"1\"} 2\nt_bucket{worker=\"3\",le=\"+Inf\"} 3\n\
             t_sum{worker=\"3\"} 1.5\nt_count{worker=\"3\"} 3\n\
             # TYPE t_count_of_others untyped\nt_count_of_others{worker=\"1\"} 7\n\
             t_count_of_others{worker=\"3\"} 7\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn labels_and_names_that_are_clusterds_own_make_room() {
        let page = "# TYPE process_open_fds gauge\nprocess_open_fds 12\nclusterd_workers 3\n\
                    jobs{worker=\"mailer\"} 1\njobs{worker=\"a\",exported_worker=\"b\"} 2\n";
        let (text, left_out) = merged(&[page]);
        assert_eq!(left_out, 0);
        let expected = "# TYPE jobs untyped\njobs{worker=\"1\",exported_worker=\"mailer\"} 1\n\
             jobs{worker=\"1\",exported_exported_worker=\"a\",exported_worker=\"b\"} 2\n\
             # TYPE worker_clusterd_workers untyped\nworker_clusterd_workers{worker=\"1\"} 3\n\
             # TYPE worker_process_open_fds gauge\nworker_process_open_fds{worker=\"1\"} 12\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let (text, left_out) = merged(&[
            "# TYPE a counter\na{b=\"1\",c=\"2\"} 1\na{c=\"2\",b=\"1\"} 2\nnonsense\n",
            "# TYPE a gauge\na 3\n# HELP a Told late.\n",
            "# HELP b Told of nothing.\n# TYPE b gauge\na 4",
        ]);
        assert_eq!(left_out, 4);
        assert_eq!(text, "# HELP a Told late.\n# TYPE a counter\na{worker=\"1\",b=\"1\",c=\"2\"} 1\n");
        let mut exposition = Exposition::default();
        assert_eq!(exposition.add(Slot(1), b"a 1\n\xff 2\n"), 1);
        assert_eq!(exposition.add(Slot(2), b"<html>\n<p>Not found</p>\n"), 2);
    }

    fn a_line() -> impl Strategy<Value = String> {
        let name = "(process_|clusterd_)?[a-c](_sum|_count|_bucket)?";
        let label = "(,?(worker|exported_worker|le|é)=\"[ab\\\\n]{0,2}\")";
        let of = |regex: String| prop::string::string_regex(&regex).expect("a regex");
        prop_oneof![
            3 => of(format!("{name}(\\{{{label}{{0,2}}\\}})? [0-9]( [0-9])?")),
            1 => of(format!("# TYPE {name} (counter|gauge|histogram|summary|untyped|info)")),
            1 => of(format!("# HELP {name} [ -~]{{0,3}}")),
            1 => of(".{0,12}".to_owned()),
        ]
    }

    proptest! {
        /// Whatever workers tell, the page is in the format, each family is told once, and each sample names a worker.
        #[test]
        fn the_page_is_always_a_proper_one(pages in prop::collection::vec(prop::collection::vec(a_line(), 0..12), 0..4)) {
            let mut exposition = Exposition::default();
            let (mut told, mut left_out) = (0, 0);
            for (slot, page) in (1..).zip(&pages) {
                left_out += exposition.add(Slot(slot), page.join("\n").as_bytes());
                let samples = page.iter().flat_map(|line| line.split('\n'));
                told += samples.filter(|line| matches!(line::parse(line), Ok(Line::Sample(_)))).count();
            }
            let text = exposition.into_text();
            let mut families = HashSet::new();
            let mut kept = 0;
            for line in text.lines() {
                match line::parse(line) {
                    Ok(Line::Type { name, .. }) => {
                        prop_assert!(families.insert(name.to_owned()), "{} twice", name);
                        prop_assert!(!OWN.iter().any(|own| name.starts_with(own)));
                    }
                    Ok(Line::Sample(sample)) => {
                        kept += 1;
                        prop_assert_eq!(sample.labels.first().map(|label| label.0), Some(WORKER));
                    }
                    Ok(Line::Help { .. }) => {}
                    other => prop_assert!(false, "{line:?} is {other:?}"),
                }
            }
            prop_assert!(kept <= told && told - kept <= usize::try_from(left_out).unwrap());
        }
    }
}
