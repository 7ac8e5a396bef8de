//! Which family a sample belongs to, and which names a family takes from all others.
//!
//! It reads no lines and keeps nothing. Sources: prometheus.io, "Exposition formats"; the OpenMetrics specification,
//! "Metric Types".

use std::borrow::Cow;
use std::collections::HashMap;

use super::line::{self, Declared, Sample};

/// What names of metrics of clusterd's own begin with.
const OWN: [&str; 2] = ["clusterd", "process"];

/// What kind of metric a family is of, in the text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

impl Kind {
    /// As the format writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
            Kind::Untyped => "untyped",
        }
    }

    /// What the names of a family's samples may have after the family's own.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Summary => &["_sum", "_count"],
            Kind::Counter | Kind::Gauge | Kind::Untyped => &[],
        }
    }

    /// The label whose value has to be a number.
    pub(super) fn bound(self) -> Option<&'static str> {
        match self {
            Kind::Histogram => Some("le"),
            Kind::Summary => Some("quantile"),
            Kind::Counter | Kind::Gauge | Kind::Untyped => None,
        }
    }
}

impl From<Declared> for Kind {
    fn from(declared: Declared) -> Self {
        match declared {
            Declared::Counter => Kind::Counter,
            Declared::Gauge | Declared::Info | Declared::StateSet | Declared::GaugeHistogram => Kind::Gauge,
            Declared::Histogram => Kind::Histogram,
            Declared::Summary => Kind::Summary,
            Declared::Untyped => Kind::Untyped,
        }
    }
}

/// Where a sample belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// Its family.
    pub family: &'a str,
    /// What the sample's name has after the family's.
    pub suffix: &'a str,
    /// What the family is.
    pub kind: Kind,
    /// Under which name its worker tells what it is about.
    pub about: &'a str,
}

/// Where a sample of this name belongs, by the types that its worker has told.
pub(super) fn place<'a>(sample: &'a str, types: &HashMap<&str, Declared>) -> Place<'a> {
    if let Some(&declared) = types.get(sample) {
        return Place { family: sample, suffix: "", kind: declared.into(), about: sample };
    }
    let split = sample.rfind('_').map(|at| sample.split_at(at));
    let declared = split.and_then(|(base, suffix)| Some((base, suffix, *types.get(base)?)));
    let Some((base, suffix, declared)) = declared else {
        return Place { family: sample, suffix: "", kind: Kind::Untyped, about: sample };
    };
    if Kind::from(declared).suffixes().contains(&suffix) {
        return Place { family: base, suffix, kind: declared.into(), about: base };
    }
    // What OpenMetrics has in the family of another name, the text format has in one of its own.
    let kind = match (declared, suffix) {
        (Declared::Counter, "_total") => Kind::Counter,
        (Declared::Counter | Declared::Histogram | Declared::Summary, "_created") => Kind::Gauge,
        (Declared::Info, "_info") => Kind::Gauge,
        (Declared::GaugeHistogram, "_bucket" | "_gcount" | "_gsum") => Kind::Gauge,
        _ => return Place { family: sample, suffix: "", kind: Kind::Untyped, about: sample },
    };
    Place { family: sample, suffix: "", kind, about: base }
}

/// The name under which clusterd tells of a worker's family.
pub(super) fn published(name: &str) -> Cow<'_, str> {
    let is_own =
        |own: &str| name.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    match OWN.into_iter().any(is_own) {
        true => format!("worker_{name}").into(),
        false => name.into(),
    }
}

/// All names that a parser takes for this family's, its own first. With two families that share one, a page is refused
/// as a whole.
pub(super) fn names(family: &str, kind: Kind) -> impl Iterator<Item = String> {
    let suffixes = [""].into_iter().chain(kind.suffixes().iter().copied());
    suffixes.map(move |suffix| format!("{family}{suffix}"))
}

/// Whether the label that has to be a number for this kind is one.
pub(super) fn has_valid_bound(kind: Kind, sample: &Sample<'_>) -> bool {
    let bounds = sample.labels.iter().filter(|(name, _)| Some(*name) == kind.bound());
    bounds.into_iter().all(|(_, value)| line::number(value).is_some_and(|bound| !bound.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_belongs_where_its_worker_says() {
        use Declared as D;
        let types = HashMap::from([
            ("c", D::Counter),
            ("h", D::Histogram),
            ("s", D::Summary),
            ("s_sum", D::Gauge),
            ("i", D::Info),
            ("g", D::GaugeHistogram),
            ("t", D::StateSet),
        ]);
        let table = [
            ("c", "c", "", Kind::Counter, "c"),
            ("c_total", "c_total", "", Kind::Counter, "c"),
            ("c_created", "c_created", "", Kind::Gauge, "c"),
            ("c_sum", "c_sum", "", Kind::Untyped, "c_sum"),
            ("h_bucket", "h", "_bucket", Kind::Histogram, "h"),
            ("h_created", "h_created", "", Kind::Gauge, "h"),
            ("h_total", "h_total", "", Kind::Untyped, "h_total"),
            ("s_count", "s", "_count", Kind::Summary, "s"),
            ("s_bucket", "s_bucket", "", Kind::Untyped, "s_bucket"),
            ("s_sum", "s_sum", "", Kind::Gauge, "s_sum"),
            ("i_info", "i_info", "", Kind::Gauge, "i"),
            ("g_gcount", "g_gcount", "", Kind::Gauge, "g"),
            ("g_bucket", "g_bucket", "", Kind::Gauge, "g"),
            ("t", "t", "", Kind::Gauge, "t"),
            ("u", "u", "", Kind::Untyped, "u"),
            ("_count", "_count", "", Kind::Untyped, "_count"),
        ];
        for (sample, family, suffix, kind, about) in table {
            assert_eq!(place(sample, &types), Place { family, suffix, kind, about }, "{sample}");
        }
    }

    #[test]
    fn names_of_clusterds_own_make_room() {
        let table = [
            ("process_open_fds", "worker_process_open_fds"),
            ("process", "worker_process"),
            ("clusterd_workers", "worker_clusterd_workers"),
            ("processes", "processes"),
            ("worker_process_open_fds", "worker_process_open_fds"),
        ];
        for (name, expected) in table {
            assert_eq!(published(name), expected);
        }
    }
}
