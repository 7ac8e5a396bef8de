//! The runtime folder, which others may empty: what cleans temporary files, and people.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::needs::{self, needs};
use crate::harness::{Cluster, Signal, until};
use crate::shutdown::runtime_folder;

const MENDED: &str = "was emptied or removed; it is made again";

/// Workers come after this has happened to the folder: with a reload, and after a crash.
#[track_caller]
fn is_survived(happens: impl Fn(&Path)) {
    let cluster = Cluster::of_servers().workers(2).start();
    let folder = runtime_folder(&cluster);
    happens(&folder);
    cluster.reload().expect("a reload makes the folder again");
    cluster.get("/");
    assert_eq!(cluster.stderr.text().matches(MENDED).count(), 1, "it is said once");

    happens(&folder);
    let crashed = cluster.worker(1);
    crashed.signal(Signal::KILL);
    until("the worker is replaced", || (cluster.worker(1).pid() != crashed.pid()).then_some(()));
    cluster.wait_online();
    cluster.get("/");
    assert_eq!(runtime_folder(&cluster), folder);
    assert_eq!(cluster.stderr.text().matches(MENDED).count(), 2, "it is said once again");
    drop(cluster);
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[test]
fn workers_come_after_the_folder_was_removed() {
    needs!("python3");
    is_survived(|folder| fs::remove_dir_all(folder).expect("it is there"));
}

#[test]
fn workers_come_after_the_folder_was_emptied() {
    needs!("python3");
    is_survived(|folder| {
        for file in fs::read_dir(folder).expect("it is there") {
            fs::remove_file(file.expect("a file").path()).expect("it may be removed");
        }
    });
}

#[test]
fn workers_come_after_the_shim_alone_was_removed() {
    needs!("python3");
    is_survived(|folder| {
        let files = fs::read_dir(folder).expect("it is there").map(|file| file.expect("a file").path());
        let shims: Vec<PathBuf> =
            files.filter(|file| file.extension().is_some_and(|end| end == "so")).collect();
        assert_eq!(shims.len(), 1, "{shims:?}");
        fs::remove_file(&shims[0]).expect("it may be removed");
    });
}

#[test]
fn systemd_tmpfiles_passes_over_the_folder_of_a_clusterd_that_runs() {
    needs!("python3", "setpriv", "systemd-tmpfiles");
    if !needs::root() {
        return;
    }
    // A user who may not write to /run, so that the folder is where files are cleaned.
    let temporary = Cluster::of_servers().owned_by_nobody();
    let home = temporary.folder.home();
    let cluster = temporary.env("TMPDIR", &home).start();
    let folder = runtime_folder(&cluster);
    assert!(folder.starts_with(&home), "{}", folder.display());
    let bystander = home.join("bystander");
    fs::create_dir(&bystander).expect("a folder");
    let rules = cluster.folder().join("clean.conf");
    fs::write(&rules, format!("e {} - - - 0\n", home.display())).expect("a file");
    let cleaned =
        Command::new("systemd-tmpfiles").arg("--clean").arg(&rules).status().expect("it can be started");
    assert!(cleaned.success());
    assert!(!bystander.exists(), "it has cleaned");
    assert!(folder.join("attach").exists());
    cluster.reload().expect("the reload works");
    assert_eq!(cluster.stderr.text().matches(MENDED).count(), 0);
}
