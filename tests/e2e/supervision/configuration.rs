//! A reload reads the configuration again.

use crate::harness::folder::fixtures;
use crate::harness::needs::needs;
use crate::harness::{Cluster, Signal, until};

/// A file with this in the workers' command before the server, and these further lines.
fn file(before: &str, further: &str) -> String {
    let server = fixtures().join("server.py");
    format!("command = [{before}\"python3\", {:?}]\n{further}\n", server.display().to_string())
}

fn says(cluster: &Cluster, text: &str) {
    until(&format!("it says {text:?}"), || cluster.stderr.text().contains(text).then_some(()));
}

#[test]
fn a_reload_puts_a_changed_file_in_force_and_a_wrong_one_is_refused() {
    needs!("python3");
    let cluster = Cluster::demo()
        .workers(2)
        .file("clusterd.toml", &file("", ""))
        .env("CLUSTERD_CONFIG", "clusterd.toml")
        .options("--min-uptime 100ms")
        .start();
    assert_eq!(cluster.get("/env/VERSION"), "");

    cluster.write("clusterd.toml", &file("\"env\", \"VERSION=2\", ", "queue = 7"));
    cluster.primary().signal(Signal::HUP);
    says(&cluster, "reload done: 2 replaced");
    says(&cluster, "changed settings that need a restart of clusterd: queue");
    assert_eq!([cluster.get("/env/VERSION"), cluster.get("/env/VERSION")], ["2", "2"]);

    cluster.write("clusterd.toml", &file("\"env\", \"VERSION=3\", ", "max-restarts = \"many\""));
    cluster.primary().signal(Signal::HUP);
    says(&cluster, "invalid configuration; the old one stays in force: clusterd.toml:2: max-restarts");
    assert_eq!(cluster.get("/env/VERSION"), "2");
    let failed = || cluster.metrics().count("clusterd_reloads_total", &[("result", "failed")]);
    until("the failure is counted", || (failed() == 1).then_some(()));
}
