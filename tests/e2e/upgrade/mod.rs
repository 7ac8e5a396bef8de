//! clusterd is replaced by another clusterd in the same process, while it serves: no client and no worker notices.
//!
//! The program that takes over is the tested one itself; where another version matters, a test says so. By default each server
//! sees a few upgrades, and a few requests between them. `CLUSTERD_TEST_UPGRADES=20` gives it that many, 550,000 requests in all,
//! and 200 upgrades to whoever looks for what is left over.

pub(crate) mod back;
mod binding;
mod formats;
mod kept;
mod kills;
mod meanwhile;
mod next;
mod output;
mod owners;
mod refused;
mod under_load;

use std::collections::BTreeSet;

use crate::harness::Cluster;
use crate::harness::load::Load;
use crate::harness::said::Said;

/// By how much the memory of a process differs from one moment to another, in bytes; a page for each upgrade would be as much.
const ROOM: u64 = 800 * 1024;

/// How many upgrades there are in a row.
fn in_a_row() -> usize {
    let asked = std::env::var("CLUSTERD_TEST_UPGRADES").ok();
    asked.map_or(3, |asked| asked.parse().expect("a number of upgrades"))
}

fn is_thorough() -> bool {
    in_a_row() > 3
}

/// The clients ask on for a while.
#[track_caller]
fn go_on(load: &Load) {
    if is_thorough() { load.goes_on_for(1_200) } else { load.goes_on() }
}

/// Has clusterd replaced, and says what was said of it.
#[track_caller]
fn upgrade(cluster: &Cluster) -> String {
    let before = (cluster.primary().pid(), cluster.pids());
    let said = cluster.say("upgrade");
    assert_eq!(said.code, 0, "{said:?}\n{}", cluster.stderr.text());
    assert_eq!((cluster.primary().pid(), cluster.pids()), before, "the processes stay");
    said.stdout
}

#[test]
fn whoever_asks_is_told_of_both_versions_and_events_tell_it_too() {
    let cluster = Cluster::demo().workers(2).start();
    let said = upgrade(&cluster);
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        said.contains(&format!("upgraded from clusterd {version} to {version}; new connections waited ")),
        "{said}"
    );
    let app = cluster.say("describe --output json").json();
    let upgrade = &app["upgrade"];
    assert_eq!((&upgrade["from"], &upgrade["to"]), (&version.into(), &version.into()), "{app}");
    assert!(upgrade["failed"].is_null(), "{app}");
}

#[test]
fn counters_go_on_and_the_app_stays_as_old_as_it_is() {
    let cluster = Cluster::demo().workers(2).start();
    (0..10).for_each(|_| drop(cluster.get("/")));
    let before = (cluster.handed(10), cluster.say("describe --output json").json()["started"].clone());
    upgrade(&cluster);
    let after = cluster.metrics();
    assert_eq!(after.handed(), before.0);
    assert_eq!(after.sum("clusterd_queue_wait_seconds_count", &[]), 10.0);
    assert_eq!(cluster.say("describe --output json").json()["started"], before.1);
    (0..10).for_each(|_| drop(cluster.get("/")));
    assert_eq!(cluster.handed(20).values().sum::<u64>(), 20);
}

#[test]
fn nothing_is_left_open_by_many_upgrades() {
    let cluster = Cluster::demo().workers(3).start();
    let rounds = if is_thorough() { 200 } else { 5 };
    upgrade(&cluster);
    let kinds = || cluster.primary().descriptors();
    let resident = || cluster.primary().resident_bytes();
    let before = (kinds(), resident());
    (0..rounds).for_each(|_| drop(upgrade(&cluster)));
    crate::harness::until("as many descriptors are open as before", || (kinds() == before.0).then_some(()));
    let (before, now) = (before.1, resident());
    assert!(now < before + ROOM, "{rounds} upgrades have made {before} bytes of memory {now}");
}

#[test]
fn a_program_that_is_no_clusterd_changes_nothing() {
    let cluster = Cluster::demo().workers(2).start();
    let before: BTreeSet<_> = cluster.pids();
    for (program, why) in [
        ("/bin/true", "is not a clusterd that can take over"),
        ("/etc/passwd", "cannot execute /etc/passwd"),
        ("/nowhere", "--binary /nowhere"),
    ] {
        let said: Said = cluster.say(&format!("upgrade --binary {program}"));
        assert_ne!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains(why), "{said:?}");
    }
    assert_eq!(cluster.pids(), before);
    assert!(cluster.get("/").contains("worker"));
    upgrade(&cluster);
}
