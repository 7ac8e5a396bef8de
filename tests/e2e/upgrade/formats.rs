//! The first clusterd that wrote a format that is still read is replaced by this one.
//!
//! It is built from the project's history, which takes minutes: only with `CLUSTERD_TEST_FORMATS=1`.

use crate::harness::load::Load;
use crate::harness::needs::needs;
use crate::harness::{Cluster, build, needs};

use super::next::CLUSTERD;

/// The commit that first wrote each format that is read. A format that changes before it was released has another one from then on.
const FIRST: [(u32, &str); 1] = [(1, "1cb0b5ec645ec3e089539e1312966222f208692d")];

#[test]
fn the_first_clusterd_of_each_format_that_is_read_is_replaced_by_this_one() {
    needs!("python3", "git", "tar");
    if std::env::var_os("CLUSTERD_TEST_FORMATS").is_none() {
        return println!("skipped: CLUSTERD_TEST_FORMATS is not set");
    }
    for (format, commit) in FIRST {
        let Some(before) = build::clusterd_of(commit) else {
            needs::met(false, &format!("there is no commit {commit} here, of format {format}"));
            return;
        };
        let started_by = ["sh", "-c", "shift; exec \"$0\" \"$@\"", before.to_str().expect("a path in UTF-8")];
        let mut cluster = Cluster::of_servers().workers(3).under(&started_by).start();
        assert_eq!(cluster.primary().program(), Some(before));
        let processes = (cluster.primary().pid(), cluster.pids());
        let (requests, kept) = (Load::of_requests(&cluster), Load::of_kept_connections(&cluster));
        for _ in 0..3 {
            requests.goes_on();
            kept.goes_on();
            cluster.say("upgrade").done();
        }
        assert_eq!(cluster.primary().program().as_deref(), Some(CLUSTERD.as_ref()));
        assert_eq!((cluster.primary().pid(), cluster.pids()), processes);
        kept.lost_nothing();
        requests.loses_nothing_by_a_reload(&cluster);
        cluster.primary().signal(rustix::process::Signal::TERM);
        cluster.wait_success();
    }
}
