//! A root folder that holds two programs and nothing else, as an image `FROM scratch` does: clusterd itself and its server, both
//! static, with clusterd as the first process.
//!
//! `CLUSTERD_TEST_STATIC` names the static clusterd, which `.ci/run` builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use rustix::process::Signal;

use crate::harness::folder::Folder;
use crate::harness::load::Load;
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, build, needs, until};

/// How large clusterd may be, in bytes.
const LARGEST: u64 = 11 * 1024 * 1024;

/// Makes `$1` the root and runs the clusterd in it in the place of `$2`, without any variable that a shell would set. `$PREPARE`
/// is run before.
const ENTER: &str = r#"
    root=$1; shift 2; eval "$PREPARE" || exit 99
    chroot=$(command -v chroot); unset HOME PATH PWD OLDPWD CLUSTERD_HOME PREPARE
    exec "$chroot" "$root" /clusterd "$@""#;

/// The static clusterd; `None` where there is none, and the test is skipped.
fn static_clusterd() -> Option<PathBuf> {
    let has_programs = ["go", "unshare", "chroot", "mount"].into_iter().all(needs::program);
    let file = env::var_os("CLUSTERD_TEST_STATIC").map(PathBuf::from);
    let file = file.filter(|file| needs::is_executable(file));
    let is_built = needs::met(file.is_some(), "CLUSTERD_TEST_STATIC names no static clusterd");
    file.filter(|_| is_built && has_programs && needs::root())
}

/// Three workers of the server in Go, in a root folder that is prepared by this shell command.
fn in_scratch(clusterd: &Path, prepare: &str) -> Setup {
    let setup = Cluster::of("/server").workers(3);
    let root = root_of(setup.folder.path());
    // Where /proc is mounted, which is all that a container runtime makes in an empty image that counts here.
    fs::create_dir_all(root.join("proc")).expect("a folder in the temporary folder");
    setup.folder.copy_program_as(clusterd, &root.join("clusterd"));
    setup.folder.copy_program_as(Path::new(&build::go("go-scratch", "pages.go")), &root.join("server"));
    let root = root.to_string_lossy().into_owned();
    let unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"];
    setup.under(&[&unshare[..], &["sh", "-c", ENTER, "sh", &root]].concat()).env("PREPARE", prepare)
}

fn root_of(folder: &Path) -> PathBuf {
    folder.join("root")
}

fn all_answer(cluster: &Cluster) {
    cluster.all_answer(3, |answer| answer.split_whitespace().next().expect("a word").to_owned());
}

/// It ends with success, and all of its processes with it.
fn stops(mut cluster: Cluster) {
    let processes = cluster.processes();
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
    until("every process is gone", || (!processes.iter().any(Process::is_alive)).then_some(()));
}

#[test]
fn it_is_small() {
    let Some(clusterd) = static_clusterd() else { return };
    let size = clusterd.metadata().expect("it is there").len();
    assert!(size < LARGEST, "{size} bytes");
}

#[test]
fn beside_a_static_server_nothing_else_is_needed() {
    let Some(clusterd) = static_clusterd() else { return };
    let cluster = in_scratch(&clusterd, r#"mount -t proc proc "$root/proc""#).start();
    all_answer(&cluster);
    Load::of_requests(&cluster).loses_nothing_by_a_reload(&cluster);
    all_answer(&cluster);
    stops(cluster);
}

#[test]
fn without_proc_on_a_read_only_root_it_starts_serves_and_stops() {
    let Some(clusterd) = static_clusterd() else { return };
    let cluster =
        in_scratch(&clusterd, r#"mount --bind "$root" "$root" && mount -o remount,bind,ro "$root""#).start();
    all_answer(&cluster);
    assert!(cluster.stderr.text().contains("/proc is not mounted"));
    let worker = cluster.worker(2);
    worker.signal(Signal::KILL);
    until("it is gone", || (!worker.is_alive()).then_some(()));
    cluster.wait_online();
    all_answer(&cluster);
    stops(cluster);
}

#[test]
fn the_demo_needs_nothing_at_all() {
    let Some(clusterd) = static_clusterd() else { return };
    let cluster = in_scratch(&clusterd, "true").of_demo().start();
    assert!(cluster.get("/").starts_with("hello from worker "));
    stops(cluster);
}

/// Its C library would look for them with what systemd has for its `DynamicUser=`, for which a static program has no room.
#[test]
fn whoever_has_no_entry_and_no_home_uses_it() {
    let Some(clusterd) = static_clusterd() else { return };
    if !needs::program("setpriv") {
        return;
    }
    let folder = Folder::new();
    let program = folder.copy_program(&clusterd);
    for words in [&["list"][..], &["--check"], &["--workers", "1", "--check"]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=61234", "--regid=61234", "--clear-groups"]).arg(&program).args(words);
        let output = command.env_clear().output().expect("setpriv can be started");
        assert!(output.status.code().is_some_and(|code| code < 2), "{words:?}: {output:?}");
    }
}

#[test]
fn users_are_numbers_there() {
    let Some(clusterd) = static_clusterd() else { return };
    let cluster = in_scratch(&clusterd, r#"mount -t proc proc "$root/proc""#)
        .options("--user 1234 --group 1234")
        .start();
    all_answer(&cluster);
    assert_eq!(cluster.worker(1).user(), Some(1234));
    stops(cluster);
    for name in ["--user www-data", "--group www-data"] {
        let ended = in_scratch(&clusterd, "true").options(name).run();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("www-data\nhint: ") || ended.stderr.contains("www-data\\nhint: "),
            "{}",
            ended.stderr
        );
    }
}
