//! What clusterd ships for Prometheus and Grafana, with a real Prometheus that scrapes real clusters.
//!
//! That each alert is explained in the runbook is in `tests/face`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::folder::Folder;
use crate::harness::needs::{self, needs};
use crate::harness::prometheus::Prometheus;
use crate::harness::{Cluster, Signal, until};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).expect("a file")
}

fn dashboard() -> Value {
    serde_json::from_str(&text("config/grafana-dashboard.json")).expect("JSON")
}

#[test]
fn promtool_takes_the_configuration_and_each_alert_fires_when_it_should() {
    needs!("promtool");
    for (words, file) in [
        (["check", "config"], "config/prometheus.yml"),
        (["check", "rules"], "config/prometheus-rules.yml"),
        (["test", "rules"], "tests/prometheus-rules.yml"),
    ] {
        let output = Command::new("promtool").args(words).arg(path(file)).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("SUCCESS"), "{words:?} {file}: {said}");
    }
}

/// Prometheus as config/prometheus.yml has it, but for addresses and times.
fn prometheus(web: &Cluster, api: &Cluster) -> Prometheus {
    let mut config = text("config/prometheus.yml");
    let rules = path("config/prometheus-rules.yml").display().to_string();
    for (old, new) in [
        ("127.0.0.1:9464", web.admin().to_string()),
        ("127.0.0.1:9465", api.admin().to_string()),
        ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
        ("- prometheus-rules.yml", format!("- {rules}")),
    ] {
        assert!(config.contains(old), "{old}");
        config = config.replace(old, &new);
    }
    Prometheus::with(&format!("global: {{evaluation_interval: 1s}}\n{config}"))
}

/// Everything that the dashboard asks Prometheus.
fn queries(dashboard: &Value) -> BTreeSet<String> {
    let mut queries = BTreeSet::new();
    let mut left = vec![dashboard];
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) => {
                queries.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                left.extend(fields.values());
            }
            Value::Array(values) => left.extend(values),
            _ => {}
        }
    }
    queries
}

/// What a variable's values are taken from, as a query that has them in a label.
fn of_variable(variable: &Value) -> Option<String> {
    let query = variable["query"]["query"].as_str()?;
    let (series, label) = query.strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(", ")?;
    assert_eq!(variable["name"], label, "{query}");
    Some(format!("group by ({label}) ({series}) and on ({label}) {series}"))
}

/// With the values that somebody has chosen, and the times that Grafana puts in.
fn chosen(query: &str) -> String {
    let values = [
        ("$__rate_interval", "10s"),
        ("$__range", "1m"),
        ("$job", "clusterd"),
        ("$app", "web"),
        ("$instance", ".*"),
    ];
    let query = values.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains('$'), "{query}");
    query
}

/// An alert's query as one that has an answer whether it fires or not: 0 or 1 for each comparison.
fn whether_it_fires(query: &str) -> String {
    [" > ", " >= ", " == "]
        .iter()
        .fold(query.replace(" unless ", " and "), |query, sign| query.replace(sign, &format!("{sign}bool ")))
}

/// Waits for an answer of which at least one value is a number, while clients come.
#[track_caller]
fn wait_for_data(prometheus: &Prometheus, query: &str, cluster: &Cluster) {
    until(&format!("{query} returns data"), || {
        cluster.get("/");
        let values = prometheus.query(query).into_values();
        values.filter_map(|value| value.parse().ok()).any(|value: f64| !value.is_nan()).then_some(())
    });
}

#[test]
fn every_query_of_the_dashboard_and_of_the_alerts_returns_data() {
    needs!("prometheus");
    let options = "--connection-stats --health-http / --scrape /";
    let web = Cluster::demo().workers(2).options(options).start();
    let api = Cluster::demo().start();
    let prometheus = prometheus(&web, &api);
    wait_for_data(&prometheus, "up{app=\"web\"} and on (app) clusterd_build_info", &web);
    web.worker(1).signal(Signal::KILL);
    web.wait_for(2, "online");
    web.reload().expect("a reload");

    let dashboard = dashboard();
    let asked = queries(&dashboard);
    assert!(asked.len() > 40, "{asked:#?}");
    for query in asked {
        wait_for_data(&prometheus, &chosen(&query), &web);
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let of_variables: Vec<_> = variables.iter().filter_map(of_variable).collect();
    assert_eq!(of_variables.len(), 3);
    for query in of_variables {
        wait_for_data(&prometheus, &chosen(&query), &web);
    }

    let rules = until("the rules are evaluated", || {
        let groups = prometheus.get("/api/v1/rules");
        let rules = groups["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    assert!(rules.len() > 10, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let query = rule["query"].as_str().expect("a query");
        wait_for_data(&prometheus, &whether_it_fires(query), &web);
    }
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}");
    assert!(firing.is_empty(), "a cluster that is well has no alerts: {firing:?}");
}

#[test]
fn whoever_chooses_an_app_sees_no_other() {
    needs!("prometheus");
    let (web, api) = (Cluster::demo().workers(2).start(), Cluster::demo().start());
    let prometheus = prometheus(&web, &api);
    let online = queries(&dashboard())
        .into_iter()
        .find(|query| query.starts_with("sum(clusterd_workers{state=\"online\""));
    let online = online.expect("how many are online");
    for (app, workers) in [("web", "2"), ("api", "1"), (".*", "3"), ("other", "")] {
        let query = chosen(&online.replace("$app", app));
        until(&format!("{app} has {workers} workers"), || {
            let found = prometheus.query(&query).into_values().next().unwrap_or_default();
            (found == workers).then_some(())
        });
    }
}

/// All panels, also those of rows that are closed.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let rows = dashboard["panels"].as_array().expect("panels");
    let closed = rows.iter().filter_map(|row| row["panels"].as_array()).flatten();
    rows.iter().chain(closed).collect()
}

#[test]
fn no_panel_covers_another_and_each_says_what_it_shows() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert!(ids.len() == panels.len() && !ids.contains(&None), "{ids:?}");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        let (x, y, width, height) = (side("x"), side("y"), side("w"), side("h"));
        assert!(x + width <= 24, "{}", panel["title"]);
        for place in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{} covers another at {place:?}", panel["title"]);
        }
        if panel["type"] != "row" {
            assert!(
                panel["description"].as_str().is_some_and(|said| said.ends_with('.')),
                "{}",
                panel["title"]
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
}

/// What Grafana itself takes for a dashboard, and for the options of its panels, as types. What annotations may have depends on
/// the data source, and is not in them.
const TYPES: &str = "import type { Dashboard } from '@grafana/schema';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[]
    : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
";

/// A program that TypeScript takes if the dashboard is one of Grafana's.
fn typed(mut dashboard: Value) -> String {
    dashboard.as_object_mut().expect("an object").remove("annotations");
    let mut program = format!("{TYPES}export const dashboard: Plain<Dashboard> = {dashboard};\n");
    for panel in panels(&dashboard).into_iter().filter(|panel| panel["type"] != "row") {
        let kind = panel["type"].as_str().expect("a type");
        let (id, options, custom) =
            (&panel["id"], &panel["options"], &panel["fieldConfig"]["defaults"]["custom"]);
        program += &format!("export const options{id}: Plain<{kind}.Options> = {options};\n");
        if custom.is_object() {
            program += &format!("export const field{id}: Plain<{kind}.FieldConfig> = {custom};\n");
        }
    }
    program
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    if !needs::package("@grafana/schema") || !needs::package("typescript") {
        return;
    }
    let folder = Folder::new();
    let packages = std::env::split_paths(&std::env::var_os("NODE_PATH").expect("it has packages"))
        .find(|folder| folder.join("@grafana/schema").is_dir())
        .expect("it is there");
    std::os::unix::fs::symlink(&packages, folder.path().join("node_modules")).expect("a link");
    let check = |dashboard: Value| {
        let file = folder.write("dashboard.ts", &typed(dashboard));
        let mut compiler = Command::new(packages.join(".bin/tsc"));
        compiler.args("--noEmit --strict --skipLibCheck --module esnext --target es2022".split(' '));
        let output = compiler.args(["--moduleResolution", "bundler"]).arg(file).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_taken, said) = check(dashboard());
    assert!(is_taken, "{said}");
    let mut wrong = dashboard();
    wrong["panels"][1]["options"]["colorMode"] = "no such mode".into();
    let (is_taken, said) = check(wrong);
    assert!(!is_taken && said.contains("no such mode"), "the test has lost its point: {said}");
}
