//! The metrics of several workers as one page in the Prometheus text format, told apart by a `worker` label.
//!
//! It fetches nothing. Whatever workers tell, the page is one that Prometheus takes: what would spoil it is left out and
//! counted. What is done to names and labels:
//!
//! - Each sample gets the label `worker`, the number of its worker. One that it has itself becomes `exported_worker`, as
//!   under Prometheus' own rule (`honor_labels: false`).
//! - Names that begin with `process_` or `clusterd_` get `worker_` before them: clusterd has such metrics of its own,
//!   and nobody wants a sum over both.
//! - Each family is told once: with the help of the first worker that has one, and the type of the first.
//! - What only OpenMetrics has is written as the text format can: no exemplars, `info` and `stateset` as gauges, a
//!   counter under the name of its samples.
//! - Left out are lines that are not in the format, samples whose family has another type or would share a name with
//!   another family, and samples that are there already.

pub(crate) mod family;
pub(crate) mod line;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Write};

use self::family::{Kind, Place};
pub use self::line::Format;
use self::line::{Declared, Line, Sample};
use crate::ids::Slot;

/// The label that tells workers apart.
const WORKER: &str = "worker";

/// How much of a line that was left out is told, in characters.
const SHOWN: usize = 100;

/// A page under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
    /// Every name that a parser takes for one of `families`.
    names: HashSet<String>,
}

#[derive(Debug)]
struct Family {
    help: Option<String>,
    kind: Kind,
    samples: String,
    /// Every series that is in `samples`.
    series: HashSet<String>,
}

/// What could not be used of a worker's page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many lines.
    pub lines: u64,
    /// The first of them, shortened, and why.
    pub first: Option<(String, Reason)>,
}

/// Why a line was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not in the format.
    Malformed,
    /// Another line says something else of the same family.
    Repeated,
    /// The label `le` of a histogram, or `quantile` of a summary, is no number.
    Bound,
    /// An earlier worker has told another type.
    OtherType,
    /// A family that is there already has a name that this one would have, too.
    SharedName,
    /// The sample is there already.
    Duplicate,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Malformed => "it is not in the text format",
            Reason::Repeated => "another line says something else of this metric",
            Reason::Bound => "le or quantile is not a number",
            Reason::OtherType => "the metric has another type, by another worker or line",
            Reason::SharedName => "a histogram or summary and another metric would share a name",
            Reason::Duplicate => "the sample is there already",
        })
    }
}

impl LeftOut {
    fn add(&mut self, line: &[u8], reason: Reason) {
        self.lines += 1;
        self.first.get_or_insert_with(|| {
            let beginning = &line[..line.len().min(4 * SHOWN)];
            (String::from_utf8_lossy(beginning).chars().take(SHOWN).collect(), reason)
        });
    }
}

/// What a worker's page says of its families, whatever the order of its lines.
#[derive(Debug, Default)]
struct Told<'a> {
    types: HashMap<&'a str, Declared>,
    helps: HashMap<&'a str, String>,
}

impl Exposition {
    /// Adds what a worker tells of itself.
    pub fn add(&mut self, worker: Slot, page: &[u8], format: Format) -> LeftOut {
        let mut left_out = LeftOut::default();
        let mut told = Told::default();
        let mut samples = Vec::new();
        for text in page.split(|&byte| byte == b'\n') {
            let line = str::from_utf8(text).ok().and_then(|line| line::parse(line, format).ok());
            let is_kept = match line {
                Some(Line::Sample(sample)) => {
                    samples.push((text, sample));
                    Ok(())
                }
                Some(Line::Type { name, kind }) => once(&mut told.types, name, kind),
                Some(Line::Help { name, text }) => once(&mut told.helps, name, text),
                Some(Line::Nothing) => Ok(()),
                None => Err(Reason::Malformed),
            };
            if let Err(reason) = is_kept {
                left_out.add(text, reason);
            }
        }
        for (text, sample) in samples {
            if let Err(reason) = self.add_sample(worker, &sample, &told) {
                left_out.add(text, reason);
            }
        }
        left_out
    }

    fn add_sample(&mut self, worker: Slot, sample: &Sample<'_>, told: &Told<'_>) -> Result<(), Reason> {
        let place = family::place(sample.name, &told.types);
        if !family::has_valid_bound(place.kind, sample) {
            return Err(Reason::Bound);
        }
        let name = family::published(place.family);
        if !self.families.contains_key(name.as_ref()) {
            self.begin(name.as_ref(), place.kind)?;
        }
        let family = self.families.get_mut(name.as_ref()).expect("it has begun");
        if family.kind != place.kind {
            return Err(Reason::OtherType);
        }
        if family.help.is_none() {
            family.help = told.helps.get(place.about).cloned();
        }
        let labels = labels(worker, sample);
        if !family.series.insert(series(&place, &labels)) {
            return Err(Reason::Duplicate);
        }
        sample.write(&mut family.samples, &format!("{name}{}", place.suffix), &labels);
        Ok(())
    }

    /// Makes room for a family, unless it would share a name with another one.
    fn begin(&mut self, name: &str, kind: Kind) -> Result<(), Reason> {
        if family::names(name, kind).any(|name| self.names.contains(&name)) {
            return Err(Reason::SharedName);
        }
        self.names.extend(family::names(name, kind));
        let family = Family { help: None, kind, samples: String::new(), series: HashSet::new() };
        self.families.insert(name.to_owned(), family);
        Ok(())
    }

    /// The page.
    pub fn into_text(self) -> String {
        let mut text = String::new();
        for (name, family) in self.families {
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

/// Notes what is told of a name. The first counts; saying the same again does no harm.
fn once<'a, T: PartialEq>(told: &mut HashMap<&'a str, T>, name: &'a str, what: T) -> Result<(), Reason> {
    match told.get(name) {
        Some(known) if *known != what => Err(Reason::Repeated),
        Some(_) => Ok(()),
        None => {
            told.insert(name, what);
            Ok(())
        }
    }
}

/// What tells a series from the others of its family, in whichever order its labels come and however its bound is
/// written: for Prometheus 3, `le="1"` and `le="1.0"` are the same.
fn series(place: &Place<'_>, labels: &[(String, String)]) -> String {
    let mut labels: Vec<(&str, String)> = labels
        .iter()
        .map(|(name, value)| match line::number(value) {
            Some(bound) if Some(name.as_str()) == place.kind.bound() => (name.as_str(), bound.to_string()),
            _ => (name.as_str(), value.clone()),
        })
        .collect();
    labels.sort_unstable();
    format!("{} {labels:?}", place.suffix)
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
    use super::*;

    fn merged(pages: &[&str]) -> (String, u64) {
        let (text, left_out) = merged_as(Format::Text, pages);
        (text, left_out.iter().map(|left_out| left_out.lines).sum())
    }

    fn merged_as(format: Format, pages: &[&str]) -> (String, Vec<LeftOut>) {
        let mut exposition = Exposition::default();
        let workers = (1..).map(Slot);
        let left_out = workers
            .zip(pages)
            .map(|(worker, page)| exposition.add(worker, page.as_bytes(), format))
            .collect();
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
            "# HELP a Of another type.\n# TYPE a gauge\na 3\n",
            "# HELP b Told of nothing.\n# TYPE b gauge\na 4\n",
            "# TYPE a counter\na 5\n# HELP a Told late.",
        ]);
        assert_eq!(left_out, 4);
        assert_eq!(
            text,
            "# HELP a Told late.\n# TYPE a counter\na{worker=\"1\",b=\"1\",c=\"2\"} 1\na{worker=\"4\"} 5\n"
        );
        let mut exposition = Exposition::default();
        assert_eq!(exposition.add(Slot(1), b"a 1\n\xff 2\n", Format::Text).lines, 1);
        assert_eq!(exposition.add(Slot(2), b"<html>\n<p>Not found</p>\n", Format::Text).lines, 2);
    }

    /// What the first line is that costs something, and why.
    #[track_caller]
    fn assert_costs(pages: &[&str], line: &str, reason: Reason, lines: u64, text: &str) {
        let (merged, left_out) = merged_as(Format::Text, pages);
        let first = left_out.iter().find_map(|left_out| left_out.first.clone());
        assert_eq!(first, Some((line.to_owned(), reason)), "{pages:?}");
        assert_eq!(left_out.iter().map(|left_out| left_out.lines).sum::<u64>(), lines, "{pages:?}");
        assert_eq!(merged, text, "{pages:?}");
    }

    #[test]
    fn what_would_spoil_the_page_costs_a_line() {
        let one = "# TYPE a untyped\na{worker=\"1\"} 1\n";
        for line in
            ["# HELP a \\ back", "# HELP a \\q", "a{__name__=\"b\"} 1", "a{b=\"c\"} 1e400", "a{b=\"\0\"} 1"]
        {
            assert_costs(&[&format!("{line}\na 1\n")], line, Reason::Malformed, 1, one);
        }
        assert_costs(&["a 1\na{b=\"\"} 2\n"], "a{b=\"\"} 2", Reason::Duplicate, 1, one);
        assert_costs(
            &["# TYPE a untyped\n# TYPE a gauge\na 1\n"],
            "# TYPE a gauge",
            Reason::Repeated,
            1,
            one,
        );
        let histogram = "# TYPE h histogram\nh_bucket{worker=\"1\",le=\"1\"} 2\n";
        for bound in ["x", "NaN", "1e400", ""] {
            let line = format!("h_bucket{{le=\"{bound}\"}} 1");
            if bound.is_empty() {
                continue;
            }
            let page = format!("# TYPE h histogram\n{line}\nh_bucket{{le=\"1\"}} 2\n");
            assert_costs(&[&page], &line, Reason::Bound, 1, histogram);
        }
        let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"1.0\"} 3\n";
        assert_costs(&[page], "h_bucket{le=\"1.0\"} 3", Reason::Duplicate, 1, histogram);
        let page = "# TYPE s summary\ns{quantile=\"half\"} 1\ns_sum 1\n";
        let rest = "# TYPE s summary\ns_sum{worker=\"1\"} 1\n";
        assert_costs(&[page], "s{quantile=\"half\"} 1", Reason::Bound, 1, rest);
    }

    #[test]
    fn families_that_a_parser_could_not_tell_apart_cost_the_later_one() {
        let here = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
        let there = "# TYPE h_bucket summary\nh_bucket{quantile=\"0.5\"} 1\nh_bucket_sum 4\n";
        let first = merged(&[here]).0;
        assert_costs(&[here, there], "h_bucket{quantile=\"0.5\"} 1", Reason::SharedName, 2, &first);
        let first = merged(&[there]).0;
        assert_costs(&[there, here], "h_bucket{le=\"+Inf\"} 2", Reason::SharedName, 3, &first);

        let beside = "# TYPE a_sum gauge\na_sum 1\n# TYPE a_count gauge\na_count 2\n# TYPE a summary\na{quantile=\"1\"} 3\n";
        let gauges =
            "# TYPE a_count gauge\na_count{worker=\"1\"} 2\n# TYPE a_sum gauge\na_sum{worker=\"1\"} 1\n";
        assert_costs(&[beside], "a{quantile=\"1\"} 3", Reason::SharedName, 1, gauges);
        let untyped = ["a_sum 1\n", "# TYPE a summary\na_sum 3\na_count 1\n"];
        let first = "# TYPE a_sum untyped\na_sum{worker=\"1\"} 1\n";
        assert_costs(&untyped, "a_sum 3", Reason::SharedName, 2, first);

        let shadowed = "process_x 1\nworker_process_x 2\n# TYPE worker_process_y counter\nworker_process_y 1\nprocess_y 2\n";
        let first = "# TYPE worker_process_x untyped\nworker_process_x{worker=\"1\"} 1\n\
                     # TYPE worker_process_y counter\nworker_process_y{worker=\"1\"} 1\n";
        assert_costs(&[shadowed], "worker_process_x 2", Reason::Duplicate, 2, first);
        let own = "# TYPE clusterd summary\nclusterd_sum 1\nclusterd{quantile=\"0.5\"} 2\n";
        let moved = "# TYPE worker_clusterd summary\nworker_clusterd_sum{worker=\"1\"} 1\n\
                     worker_clusterd{worker=\"1\",quantile=\"0.5\"} 2\n";
        assert_eq!(merged(&[own]), (moved.to_owned(), 0));
    }

    /// As Prometheus takes it: it does not compare the values of a histogram.
    #[test]
    fn values_that_make_no_sense_together_are_the_workers_own_matter() {
        let page = "# TYPE c counter\nc -1\n# TYPE h histogram\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 7\nh_count NaN\n";
        let text = "# TYPE c counter\nc{worker=\"1\"} -1\n# TYPE h histogram\nh_bucket{worker=\"1\",le=\"2\"} 1\n\
                    h_bucket{worker=\"1\",le=\"1\"} 7\nh_count{worker=\"1\"} NaN\n";
        assert_eq!(merged(&[page]), (text.to_owned(), 0));
    }

    #[test]
    fn what_only_openmetrics_has_becomes_what_the_text_format_has() {
        let page = "# HELP req Requests, \"all\".\n# TYPE req counter\n# UNIT req requests\n\
                    req_total{code=\"200\"} 3.0 1395066363.5 # {trace_id=\"a\"} 1.0 1395066363.2\n\
                    req_created{code=\"200\"} 1395066360.25\n\
                    # TYPE h histogram\nh_bucket{le=\"1.0\"} 2 # {trace_id=\"a\"} 0.5\nh_sum 1.5\nh_created 5.0\n\
                    # TYPE build info\nbuild_info{version=\"1\"} 1\n# TYPE s stateset\ns{s=\"a\"} 1\n\
                    # TYPE u unknown\nu 4\n# TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 2\ng_gcount 2\ng_gsum 9\n# EOF\n";
        let expected = "# TYPE build_info gauge\nbuild_info{worker=\"1\",version=\"1\"} 1\n\
            # TYPE g_bucket gauge\ng_bucket{worker=\"1\",le=\"+Inf\"} 2\n# TYPE g_gcount gauge\ng_gcount{worker=\"1\"} 2\n\
            # TYPE g_gsum gauge\ng_gsum{worker=\"1\"} 9\n\
            # TYPE h histogram\nh_bucket{worker=\"1\",le=\"1.0\"} 2\nh_sum{worker=\"1\"} 1.5\n\
            # TYPE h_created gauge\nh_created{worker=\"1\"} 5.0\n\
            # HELP req_created Requests, \"all\".\n# TYPE req_created gauge\nreq_created{worker=\"1\",code=\"200\"} 1395066360.25\n\
            # HELP req_total Requests, \"all\".\n# TYPE req_total counter\nreq_total{worker=\"1\",code=\"200\"} 3.0 1395066363500\n\
            # TYPE s gauge\ns{worker=\"1\",s=\"a\"} 1\n# TYPE u untyped\nu{worker=\"1\"} 4\n";
        let (text, left_out) = merged_as(Format::OpenMetrics, &[&page.replace("\"all\"", "\\\"all\\\"")]);
        assert_eq!(text, expected);
        assert_eq!(left_out, [LeftOut::default()]);
    }

    #[test]
    fn what_is_left_out_is_shown_shortened() {
        let line = "é".repeat(5000);
        let (_, left_out) = merged_as(Format::Text, &[&line]);
        let [LeftOut { lines: 1, first: Some((shown, Reason::Malformed)) }] = &left_out[..] else {
            panic!("{left_out:?}")
        };
        assert_eq!(*shown, "é".repeat(SHOWN));
    }
}
