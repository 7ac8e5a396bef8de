//! Scripts such as container images have for their entrypoint, before workers and before clusterd.

use crate::harness::load::Load;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, needs};

/// As of an interpreter's image (node, php): what is no command is a script for it.
const OF_AN_INTERPRETER: &str = r#"set -e
if [ "${1#-}" != "$1" ] || [ -z "$(command -v "$1")" ] || { [ -f "$1" ] && ! [ -x "$1" ]; }; then
    set -- node "$@"
fi
exec "$@"
"#;

/// As of a server's image (redis, postgres): what root starts runs as a user of its own.
const THAT_CHANGES_THE_USER: &str = r#"set -e
if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
fi
exec "$@"
"#;

/// As of a Rails application: another library is preloaded, unless there is one.
const THAT_PRELOADS: &str = r#"set -e
if [ -z "${LD_PRELOAD+x}" ]; then
    LD_PRELOAD=$(find /lib/ /usr/lib/ -name libm.so.6 | head -n 1)
    export LD_PRELOAD
fi
exec "$@"
"#;

const PERL: &str = include_str!("fixtures/server.pl");

fn serves(setup: Setup) -> Cluster {
    let cluster = setup.workers(3).start();
    cluster.all_answer(3, str::to_owned);
    Load::of_requests(&cluster).loses_nothing_by_a_reload(&cluster);
    cluster
}

#[test]
fn a_worker_is_started_by_one_that_names_its_interpreter() {
    if !needs::program("node") {
        return;
    }
    let setup = Cluster::of("sh {folder}/entrypoint.sh {fixtures}/server.js");
    serves(setup.file("entrypoint.sh", OF_AN_INTERPRETER));
}

#[test]
fn clusterd_is_started_by_one_that_knows_nothing_of_it() {
    if !needs::program("node") {
        return;
    }
    let setup = Cluster::of("node {fixtures}/server.js").under(&["sh", "{folder}/entrypoint.sh"]);
    let cluster = serves(setup.file("entrypoint.sh", OF_AN_INTERPRETER));
    assert_eq!(cluster.primary().name(), "clusterd");
}

#[test]
fn what_it_preloads_is_preloaded_before_the_shim() {
    if !needs::program("perl") {
        return;
    }
    let setup = Cluster::of("perl {fixtures}/server.pl").under(&["sh", "{folder}/entrypoint.sh"]);
    let cluster = serves(setup.file("entrypoint.sh", THAT_PRELOADS));
    let preloaded = cluster.worker(1).environment("LD_PRELOAD").expect("it is set");
    let (first, shim) = preloaded.split_once([':', ' ']).expect("two libraries");
    assert!(first.ends_with("libm.so.6") && shim.contains("clusterd"), "{preloaded}");
}

#[test]
fn a_worker_changes_its_user_before_it_is_one() {
    if !["perl", "setpriv"].into_iter().all(needs::program) || !needs::root() {
        return;
    }
    // Its script is a word, since that user may read no file of the test's.
    let setup = Cluster::of("sh {folder}/entrypoint.sh perl -e").arg(PERL);
    let cluster = serves(setup.file("entrypoint.sh", THAT_CHANGES_THE_USER));
    assert_eq!(cluster.primary().user(), Some(0));
    assert_eq!(cluster.worker(1).user(), Some(65534));
}
