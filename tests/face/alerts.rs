//! The alerts for Prometheus: each says what the runbook explains, and is tested.
//!
//! Whether they fire when they should is what promtool tests (`tests/e2e`, `prometheus_files`).

use std::collections::BTreeSet;

use super::{anchors, section, text};

const RULES: &str = "config/prometheus-rules.yml";
const TESTS: &str = "tests/prometheus-rules.yml";
const RUNBOOK: &str = "docs/runbook.md";

/// What follows this key, wherever it stands in a file.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(move |line| Some(line.strip_prefix(key)?.strip_prefix(": ")?.trim()))
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_the_runbook_explains_it() {
    let (rules, runbook) = (text(RULES), text(RUNBOOK));
    let anchors = anchors(&runbook);
    let alerts: Vec<&str> = rules.split("      - alert: ").skip(1).collect();
    assert!(alerts.len() > 10, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        for key in ["for", "severity", "summary", "description"] {
            assert_eq!(values(alert, key).count(), 1, "{name}: {key}");
        }
        let severity = values(alert, "severity").next().expect("it is there");
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let place =
            values(alert, "runbook_url").next().unwrap_or_else(|| panic!("{name} has no runbook_url"));
        assert_eq!(place, format!("{RUNBOOK}#{}", name.to_lowercase()));
        assert!(anchors.contains(&name.to_lowercase()), "{RUNBOOK} has no {place}");
    }
}

#[test]
fn the_runbook_explains_no_alert_that_there_is_not() {
    let (rules, runbook) = (text(RULES), text(RUNBOOK));
    let alerts: BTreeSet<&str> = values(&rules, "alert").collect();
    let by_alert = section(&runbook, "## By alert");
    let explained: BTreeSet<&str> = by_alert.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(explained, alerts);
}

/// Where `exp_alerts` is missing, none is expected.
#[test]
fn every_alert_is_tested_at_its_border() {
    let (rules, tests) = (text(RULES), text(TESTS));
    for name in values(&rules, "alert") {
        let silent = format!("{{ alertname: {name}, eval_time");
        assert!(tests.contains(&silent), "{TESTS} has no test in which {name} does not fire");
        let fires = values(&tests, "alertname").any(|tested| tested == name);
        assert!(fires, "{TESTS} has no test in which {name} fires");
    }
}
