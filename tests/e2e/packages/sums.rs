//! What is beside the packages: their sums, and what the binary is made from.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::dist;
use crate::harness::needs;

#[test]
fn every_file_has_its_sum() {
    let Some(dist) = dist().filter(|_| needs::program("sha256sum")) else { return };
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&dist);
    let output = check.output().expect("sha256sum can be started");
    assert!(output.status.success(), "{output:?}");
    let sums = fs::read_to_string(dist.join("SHA256SUMS")).expect("the sums");
    let named: BTreeSet<_> =
        sums.lines().filter_map(|line| Some(line.split_once("  ")?.1.to_owned())).collect();
    let files = fs::read_dir(&dist).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let files = files.map(|name| name.into_string().expect("text")).filter(|name| name != "SHA256SUMS");
    assert_eq!(named, files.collect());
}

#[test]
fn the_bill_of_materials_lists_what_is_in_the_binary() {
    let Some(dist) = dist() else { return };
    let file = dist.join(format!("clusterd-{}.cdx.json", env!("CARGO_PKG_VERSION")));
    let text = fs::read_to_string(file).expect("a bill of materials");
    let bill: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_eq!(bill["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let components = bill["components"].as_array().expect("a list");
    let names: BTreeSet<_> = components.iter().filter_map(|component| component["name"].as_str()).collect();
    assert!(names.contains("tokio") && names.contains("rustix"), "{names:?}");
    // Tests alone need these.
    assert!(!names.contains("proptest") && !names.contains("schemars"), "{names:?}");
    assert!(components.iter().all(|component| component["licenses"].is_array()), "each has a licence");
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "it tells the folder that it was built in");
}
