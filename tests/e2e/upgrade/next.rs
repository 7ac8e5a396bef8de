//! Programs to take over from clusterd, well or not, and what of a clusterd must be the same when they have not.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, until};

/// The clusterd that is tested.
pub(crate) const CLUSTERD: &str = env!("CARGO_BIN_EXE_clusterd");

/// A script with this name in this folder that may be executed. `{clusterd}` and `{folder}` are what they say.
pub(crate) fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let text = text.replace("{clusterd}", CLUSTERD).replace("{folder}", &folder.to_string_lossy());
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

/// The signals that are blocked, and those that are ignored. Others are caught once that is needed.
pub(crate) type Signals = Vec<String>;

/// What has to be the same after an upgrade that has failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Same {
    primary: i32,
    workers: BTreeSet<i32>,
    /// The flags of each descriptor.
    descriptors: BTreeMap<i32, String>,
    signals: Signals,
}

impl Same {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let primary = cluster.primary();
        let proc = PathBuf::from(format!("/proc/{}", primary.pid()));
        let flags = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
            Some((entry.file_name().to_str()?.parse().ok()?, flags))
        };
        let entries = std::fs::read_dir(proc.join("fdinfo")).expect("it lives");
        let status = std::fs::read_to_string(proc.join("status")).expect("it lives");
        let is_mask = |line: &&str| ["SigBlk", "SigIgn"].iter().any(|mask| line.starts_with(mask));
        Self {
            primary: primary.pid(),
            workers: cluster.pids(),
            descriptors: entries.flatten().filter_map(flags).collect(),
            signals: status.lines().filter(is_mask).map(ToOwned::to_owned).collect(),
        }
    }

    /// The same of an image that was gone back to: its descriptors have other numbers.
    pub(crate) fn of_processes(cluster: &Cluster) -> (i32, BTreeSet<i32>, Signals) {
        let Self { primary, workers, signals, .. } = Self::of(cluster);
        (primary, workers, signals)
    }

    /// The same once what is on its way has come to its end: commands that are being answered have descriptors.
    #[track_caller]
    pub(crate) fn is_still(&self, cluster: &Cluster) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let now = Self::of(cluster);
            if now == *self {
                return;
            }
            assert!(Instant::now() < until, "it was {self:#?}\nand is {now:#?}");
            std::thread::yield_now();
        }
    }
}

/// Has this program take over, which fails: nothing has changed then. Why.
#[track_caller]
pub(crate) fn fails(cluster: &Cluster, program: &Path) -> String {
    // Commands that are being answered have descriptors.
    let before = until("nothing goes on there", || {
        let before = Same::of(cluster);
        cluster.get("/");
        (Same::of(cluster) == before).then_some(before)
    });
    let said = cluster.say(&format!("upgrade --binary {}", program.display()));
    assert_eq!(said.code, 1, "{said:?}\n{}", cluster.stderr.text());
    before.is_still(cluster);
    assert!(!cluster.get("/").is_empty());
    said.stderr
}

/// The same with what is said of it.
#[track_caller]
pub(crate) fn is_refused(cluster: &Cluster, program: &Path, why: &[&str]) {
    let said = fails(cluster, program);
    assert!(why.iter().all(|why| said.contains(why)), "{why:?}: {said}");
    let app = cluster.say("describe --output json").json();
    let failed = app["upgrade"]["failed"].as_str().unwrap_or_default();
    assert!(why.iter().all(|why| failed.contains(why)), "{why:?}: {app}");
}
