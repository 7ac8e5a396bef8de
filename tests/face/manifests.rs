//! What the manifests for Kubernetes and Nomad say to clusterd, and of it.
//!
//! Whether they are what Kubernetes and Nomad want is for `.ci/manifests`.

use std::collections::BTreeSet;

use super::commands::{flags, help, output};
use super::{FILES, lacking, text};

/// Those that run it.
const RUNNERS: [&str; 2] = ["config/kubernetes/base/deployment.yaml", "config/nomad.hcl"];

/// The arguments: one a line, each with its value.
fn arguments(manifest: &str) -> Vec<&str> {
    let items = manifest.lines().map(|line| line.trim().trim_start_matches("- ").trim_end_matches(','));
    items
        .map(|item| item.trim_matches('"'))
        .filter(|item| item.starts_with("--") && item.contains('='))
        .collect()
}

#[test]
fn every_flag_in_a_manifest_exists() {
    let help = help();
    let existing = flags(&help);
    for name in FILES.iter().filter(|name| name.contains("kubernetes") || name.contains("nomad")) {
        let text = text(name);
        let missing = lacking(&flags(&text), &existing);
        assert!(missing.is_empty(), "{name} names {missing:?}, which clusterd --help does not");
    }
}

#[test]
fn clusterd_takes_the_arguments_of_a_manifest_and_listens_on_its_port() {
    for name in RUNNERS {
        let manifest = text(name);
        let arguments = arguments(&manifest);
        let names: BTreeSet<&str> =
            arguments.iter().filter_map(|argument| argument.split('=').next()).collect();
        assert!(names.contains("--metrics") && names.contains("--workers"), "{name}: {names:?}");
        let shown = output(&[&["--show-config"], &arguments[..]].concat());
        assert!(shown.status.success(), "{name}: {}", String::from_utf8_lossy(&shown.stderr));
        let shown = String::from_utf8(shown.stdout).expect("text");
        let port = shown.lines().find_map(|line| line.strip_prefix("port ")?.split_whitespace().next());
        let port = port.expect("a port");
        let says = [format!("name: http, containerPort: {port} "), format!("to = {port}\n")];
        assert!(says.iter().any(|line| manifest.contains(line)), "{name}: clusterd listens on {port}");
    }
}
