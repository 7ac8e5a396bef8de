//! What workers write while clusterd is replaced.

use super::upgrade;
use crate::harness::needs::needs;
use crate::harness::{Cluster, until};

/// What each worker writes, in halves: more than all pipes and queues on the way hold.
const SCRIPT: &str = "$| = 1; for my $n (1..20000) { print $ENV{CLUSTERD_WORKER_ID}, qq( $n ); \
                      print 'x' x ($n % 100), qq(\\n) } print qq(done\\n); sleep 1000";

#[test]
fn each_line_comes_once_also_when_nobody_has_read_for_long() {
    needs!("perl");
    let mut cluster = Cluster::of("perl -e").arg(SCRIPT).workers(2).nobody_reads_stdout().launch();
    until("both workers run", || (cluster.pids().len() == 2).then_some(()));
    // The first finds lines on their way, the others somebody who is in the middle of one.
    (0..3).for_each(|_| drop(upgrade(&cluster)));
    cluster.read_stdout();
    upgrade(&cluster);
    let lines = until("every line came", || {
        let lines = cluster.stdout.lines();
        (lines.iter().filter(|line| *line == "done").count() == 2).then_some(lines)
    });
    for worker in ["1 ", "2 "] {
        let found = lines.iter().filter(|line| line.starts_with(worker)).cloned();
        let expected = (1..=20000).map(|n| format!("{worker}{n} {}", "x".repeat(n % 100)));
        assert!(found.eq(expected), "lines of worker {worker}are not what it wrote");
    }
    assert_eq!(lines.len(), 2 * 20001);
}
