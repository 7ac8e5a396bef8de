//! README and docs name only what there is, and the reference names all of it.
//!
//! It does not judge what is said about the things that it finds.

mod alerts;
mod code;
mod commands;
mod live;
mod manifests;
mod messages;
mod messages_tests;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The pages that people read.
const PAGES: [&str; 17] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/api.md",
    "docs/architecture.md",
    "docs/comparison.md",
    "docs/compatibility.md",
    "docs/guide.md",
    "docs/out-of-scope.md",
    "docs/performance.md",
    "docs/protocol.md",
    "docs/reference.md",
    "docs/runbook.md",
    "docs/scale.md",
    "docs/security.md",
    "docs/settings.md",
];
/// What else names flags, variables and metrics.
const FILES: [&str; 11] = [
    "Dockerfile",
    "config/clusterd.service",
    "config/clusterd.socket",
    "config/grafana-dashboard.json",
    "config/kubernetes/base/deployment.yaml",
    "config/kubernetes/components/hpa/hpa.yaml",
    "config/kubernetes/components/hpa/prometheus-adapter.yaml",
    "config/kubernetes/components/keda/scaledobject.yaml",
    "config/nomad.hcl",
    "config/prometheus-rules.yml",
    "config/prometheus.yml",
];
/// Every setting, with its variable.
const SETTINGS: &str = "docs/settings.md";
/// Everything else.
const REFERENCE: &str = "docs/reference.md";
/// Where the HTTP API and the events are.
const API: &str = "docs/api.md";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The part of a page below this heading, up to the next one of the same level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (level, _) = heading.split_once(' ').expect("a heading");
    let (_, below) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    below.split(&format!("\n{level} ")).next().unwrap_or(below)
}

/// The first cell of each row of the tables in a text, but for the heads.
fn first_cells(text: &str) -> impl Iterator<Item = &str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(" |").next())
}

/// What stands between backquotes.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The longest words of `of` that begin with `start`.
fn words<'a>(text: &'a str, start: &'a str, of: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        let word = text[at..].split(|character| !of(character)).next()?;
        (!before.is_some_and(of) && word.len() > start.len()).then_some(word)
    })
}

/// What is in one set and not in the other.
fn lacking<'a>(wanted: &BTreeSet<&'a str>, there: &BTreeSet<&str>) -> Vec<&'a str> {
    wanted.iter().copied().filter(|name| !there.contains(name)).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}

#[test]
fn links_lead_to_files_and_headings() {
    for name in PAGES {
        let page = text(name);
        let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path(name),
                file => path(name).with_file_name("").join(file),
            };
            assert!(file.exists(), "{name} links to {target}");
            let there =
                heading.is_empty() || anchors(&fs::read_to_string(&file).expect("text")).contains(heading);
            assert!(there, "{name} links to {target}, and {} has no such heading", file.display());
        }
    }
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix('#'));
    let mut anchors = BTreeSet::new();
    for heading in headings {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let anchor: String = words
            .chars()
            .filter(|character| character.is_alphanumeric() || "-_".contains(*character))
            .collect();
        let same = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(same).find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    anchors
}
