//! `clusterd doctor`: what it says here and where something is missing, and that clusterd itself fares as it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::folder::Folder;
use crate::harness::needs::{self, needs, root};
use crate::harness::{Cluster, RUNTIME_PLACES, Said, build, noexec, until};

/// What it said, with its exit code.
#[derive(Debug)]
struct Report {
    code: i32,
    checks: BTreeMap<String, Value>,
}

impl Report {
    /// Runs it under this command.
    #[track_caller]
    fn under(under: &[&str]) -> Self {
        let said = doctor(&Folder::new(), under, &["-o", "json"]);
        let report: Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        assert_eq!(report["serves"], said.code == 0, "{report}");
        let checks = report["checks"].as_array().expect("a list").iter();
        let by_name = |check: &Value| (check["name"].as_str().expect("a name").to_owned(), check.clone());
        Self { code: said.code, checks: checks.map(by_name).collect() }
    }

    /// The verdict of a check; whatever is not well has something that follows.
    #[track_caller]
    fn verdict(&self, check: &str) -> &str {
        let check = &self.checks[check];
        let verdict = check["verdict"].as_str().expect("a verdict");
        assert_eq!(check["follows"].is_string(), matches!(verdict, "limited" | "fails"), "{check}");
        verdict
    }

    fn what(&self, check: &str) -> &str {
        self.checks[check]["what"].as_str().expect("a sentence")
    }
}

/// Runs a copy, which every user may execute, with the home folder in `folder`.
fn doctor(folder: &Folder, under: &[&str], words: &[&str]) -> Said {
    let program = folder.copy_program(Path::new(env!("CARGO_BIN_EXE_clusterd")));
    let program = program.to_str().expect("a path in UTF-8");
    let all: Vec<_> = under.iter().copied().chain([program, "doctor"]).chain(words.iter().copied()).collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).env("CLUSTERD_HOME", folder.home()).output().expect("it can be started").into()
}

/// A mount namespace in which this is done first.
fn after(prepare: &str) -> Vec<String> {
    let script = format!("{prepare} && exec \"$0\" \"$@\"");
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script].map(str::to_owned).to_vec()
}

/// With a filter that has some calls fail with this error.
fn without(what: &str, error: i32) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/fixtures/forbids.py");
    let script = script.to_str().expect("a path in UTF-8");
    ["python3", script, what, &error.to_string()].map(str::to_owned).to_vec()
}

/// Split at spaces.
fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Whether all is there that these tests need.
fn may_test() -> bool {
    ["unshare", "setpriv", "prlimit", "python3", "perl"].into_iter().all(crate::harness::needs::program)
        && root()
}

/// Whether the kernel can do what this command does first: only since Linux 6.3 it can refuse to execute what is in memory.
fn is_known(under: &[String]) -> bool {
    let refuses_memory = under.iter().any(|word| word.contains("memfd_noexec"));
    !refuses_memory || Path::new("/proc/sys/vm/memfd_noexec").exists()
}

const PERL: &str = "perl {fixtures}/server.pl";

#[test]
fn here_it_has_a_line_for_each_check_and_clusterd_can_run() {
    let report = Report::under(&["env"]);
    assert_eq!(report.code, 0, "{report:#?}");
    let said = doctor(&Folder::new(), &["env"], &[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    for (name, check) in &report.checks {
        let is_it = |line: &&str| line.split_whitespace().nth(1) == Some(name);
        let line = said.stdout.lines().find(is_it).unwrap_or_else(|| panic!("no line of {name}: {said:?}"));
        let verdict = line.split_whitespace().next();
        let word = match report.verdict(name) {
            "works" => "ok",
            "limited" => "limited",
            "fails" => "no",
            _ => "-",
        };
        assert_eq!(verdict, Some(word), "{check}");
    }
    assert!(report.checks.len() > 20, "{report:#?}");
    assert!(said.stdout.contains("\nclusterd can run servers here"), "{said:?}");
}

#[test]
fn it_leaves_nothing_behind_and_names_nobody() {
    if !may_test() {
        return;
    }
    let folder = Folder::new();
    fs::create_dir_all(folder.path().join("quux/tmp")).expect("a folder in the temporary folder");
    let (home, temporary) = (folder.path().join("quux"), folder.path().join("quux/tmp"));
    let (home, temporary) = (home.display(), temporary.display());
    let set = format!("HOME={home} TMPDIR={temporary} USER=quux LOGNAME=quux CLUSTERD_HOME={home}/.clusterd");
    for prepare in ["mount -t tmpfs tmpfs /run", "mount -t tmpfs -o ro tmpfs /run"] {
        let look = format!("{prepare} && env {set} \"$@\" && ls -A /run {temporary} {home}");
        let under = ["unshare", "--mount", "--propagation", "private", "--uts", "sh", "-c"];
        let look = format!("echo quux-machine >/proc/sys/kernel/hostname && {look}");
        let said = doctor(&folder, &[&under[..], &[&look, "sh"]].concat(), &[]);
        let (report, left) = said.done().split_once("/run:\n").expect("what is left");
        assert!(!report.contains("quux") && !report.contains(folder.path().to_str().unwrap()), "{report}");
        assert_eq!(left, format!("\n{home}:\ntmp\n\n{temporary}:\n"), "{said:?}");
    }
}

/// Where clusterd does not start, or not with these options, the check says so.
#[test]
fn what_it_says_is_missing_clusterd_refuses_to_start_without() {
    if !may_test() {
        return;
    }
    let no_memory = after("echo 2 >/proc/sys/vm/memfd_noexec");
    let no_place = noexec(RUNTIME_PLACES).map(str::to_owned).to_vec();
    let in_pids = [words("unshare --mount --pid --fork --mount-proc"), no_memory, no_place].concat();
    let nobody = words("setpriv --reuid=65534 --regid=65534 --clear-groups prlimit --nproc=1");
    let no_port = words("setpriv --bounding-set=-net_bind_service unshare --net");
    let read_only = after("mount --bind -o ro /proc/sys /proc/sys");
    let no_family = [without("ipv4", 97), without("ipv6", 97)].concat();
    // The command, the check, its verdict, the code, and clusterd's options and words.
    let table = [
        (
            without("subreaper", 1),
            "orphans",
            "fails",
            1,
            "",
            "cannot become the parent of orphaned processes",
        ),
        (no_family, "tcp", "fails", 1, "", "cannot listen on"),
        (without("unix-pairs", 97), "hand-over", "fails", 1, "", "cannot create a pair of Unix sockets"),
        (without("listen", 1), "tcp", "fails", 1, "", "cannot listen on"),
        (without("random", 1), "random", "fails", 1, "", "cannot get random numbers from the kernel"),
        (without("epoll", 1), "event-loop", "fails", 1, "", "Operation not permitted"),
        (without("eventfd", 1), "event-loop", "fails", 1, "", "Operation not permitted"),
        (without("signalfd", 1), "event-loop", "fails", 1, "", "Operation not permitted"),
        (
            words("prlimit --nofile=24"),
            "open-files",
            "fails",
            1,
            "",
            "Too many open files (os error 24)\nhint: raise the limit",
        ),
        (nobody, "processes", "fails", 1, "", "Resource temporarily unavailable"),
        (in_pids, "preload", "fails", 1, "", "cannot expose the shim to workers"),
        (
            without("seccomp", 1),
            "seccomp",
            "fails",
            0,
            "--attach seccomp",
            "cannot serve workers by --attach seccomp",
        ),
        (
            without("cookies", 92),
            "cookies",
            "fails",
            0,
            "--policy least-connections",
            "cannot count the connections",
        ),
        (read_only, "tcp-migrate", "limited", 0, "--tcp-migrate", "cannot set net.ipv4.tcp_migrate_req to 1"),
        (without("ipv4", 97), "tcp", "limited", 0, "", "cannot listen on"),
        (no_port, "low-ports", "limited", 0, "--port 79:8080", "ports below 1024 need root"),
    ];
    for (under, check, verdict, code, options, words) in table.into_iter().filter(|row| is_known(&row.0)) {
        let under = borrowed(&under);
        let report = Report::under(&[&["env", "TMPDIR=/tmp"], &under[..]].concat());
        assert_eq!((report.verdict(check), report.code), (verdict, code), "{under:?}: {report:#?}");
        let setup = Cluster::of(PERL).env("TMPDIR", "/tmp").options(options).under(&under);
        let setup = if options.contains("--port") { setup.no_port() } else { setup };
        let ended = setup.run();
        assert!(!ended.status.success() && ended.stderr.contains(words), "{under:?}: {}", ended.stderr);
    }
}

/// Where clusterd serves in another way, the check says so.
#[test]
fn what_it_says_is_limited_clusterd_does_without() {
    if !may_test() {
        return;
    }
    // The command, the check, its verdict, and clusterd's options and words.
    let no_admin = words("setpriv --bounding-set=-sys_admin");
    let table = [
        (after("umount -l /proc"), "proc", "limited", "", "/proc is not mounted"),
        (
            without("looking", 1),
            "process-access",
            "fails",
            "--attach seccomp",
            "cannot look into a process of the worker",
        ),
        (words("prlimit --nofile=100"), "open-files", "limited", "", "the open file limit allows a queue of"),
        (no_admin, "seccomp", "limited", "--attach seccomp", "workers run with no_new_privs"),
        (without("ipv6", 97), "tcp", "limited", "", "0.0.0.0:"),
    ];
    for (under, check, verdict, options, words) in table {
        let under = borrowed(&under);
        let report = Report::under(&under);
        assert_eq!((report.verdict(check), report.code), (verdict, 0), "{under:?}: {report:#?}");
        let cluster = Cluster::of(PERL).workers(1).options(options).under(&under).launch();
        until("clusterd says so, too", || cluster.stderr.text().contains(words).then_some(()));
    }
}

#[test]
fn where_the_shim_is_in_memory_it_says_so() {
    if !may_test() {
        return;
    }
    let no_proc = after("umount -l /proc");
    for (under, is_noexec) in [(noexec(RUNTIME_PLACES).to_vec(), true), (borrowed(&no_proc), false)] {
        let report = Report::under(&under);
        assert_eq!(report.verdict("runtime-folder"), if is_noexec { "limited" } else { "works" });
        assert_eq!(report.verdict("memfd"), if is_noexec { "works" } else { "fails" }, "{report:#?}");
        assert_eq!(report.verdict("preload"), "works");
        assert_eq!(report.what("preload").ends_with("from memory"), is_noexec);
        let cluster = Cluster::of(PERL).workers(1).under(&under).start();
        let shim = cluster.worker(1).environment("LD_PRELOAD").expect("it is preloaded");
        assert_eq!(shim.starts_with("/proc/"), is_noexec, "{shim}");
    }
}

#[test]
fn on_a_read_only_root_there_is_no_folder_for_anything() {
    if !may_test() {
        return;
    }
    let all =
        "mount -o remount,bind,ro / && for at in /tmp /run /dev/shm; do mount -t tmpfs -o ro tmpfs $at; done";
    // Its copy would be hidden with /tmp.
    let program = env!("CARGO_BIN_EXE_clusterd");
    let script = format!("exec 9<{program} && {all} && exec /proc/self/fd/9 doctor -o json");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let said: Said =
        command.env("CLUSTERD_HOME", "/nowhere").env("TMPDIR", "/tmp").output().expect("sh").into();
    let report: Value = said.json();
    let verdict = |name: &str| {
        let checks = report["checks"].as_array().expect("a list");
        checks.iter().find(|check| check["name"] == name).expect("it is there")["verdict"].clone()
    };
    assert_eq!(verdict("runtime-folder"), "limited");
    assert_eq!(verdict("control-socket"), "limited");
    assert_eq!(verdict("preload"), "works");
}

#[test]
fn what_the_kernel_or_a_filter_keeps_back_is_limited_alone() {
    if !may_test() {
        return;
    }
    let net = words("unshare --net sh -c");
    let few = [net, vec!["echo 128 >/proc/sys/net/core/somaxconn && exec \"$0\" \"$@\"".to_owned()]].concat();
    let no_memfd = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c"].map(str::to_owned).to_vec();
    let no_memfd = [no_memfd, vec!["echo 2 >/proc/sys/vm/memfd_noexec && \"$0\" \"$@\"".to_owned()]].concat();
    let table = [
        (words("setarch --uname-2.6"), "kernel", "limited"),
        (without("passrights", 92), "passrights", "limited"),
        (without("filters", 1), "socket-filter", "limited"),
        (without("steering", 1), "steering", "limited"),
        (without("netlink", 1), "netlink", "limited"),
        (words("setpriv --bounding-set=-sys_ptrace"), "user", "limited"),
        (words("setpriv --bounding-set=-setuid"), "user", "limited"),
        (few, "backlog", "limited"),
        (no_memfd, "memfd", "fails"),
    ];
    for (under, check, verdict) in table.into_iter().filter(|row| is_known(&row.0)) {
        let report = Report::under(&borrowed(&under));
        assert_eq!((report.verdict(check), report.code), (verdict, 0), "{under:?}: {report:#?}");
    }
}

#[test]
fn under_the_profiles_of_container_runtimes_it_says_what_is_kept_back() {
    needs!("gcc");
    if !may_test() {
        return;
    }
    let confined = build::program("confined", "confined.c", &["gcc"]);
    for runtime in ["docker", "containerd"] {
        let bounding = "--bounding-set=-sys_admin,-sys_ptrace,-bpf";
        let report = Report::under(&["setpriv", bounding, &confined, runtime]);
        assert_eq!(report.code, 0, "{report:#?}");
        for check in ["process-access", "steering", "user"] {
            assert_eq!(report.verdict(check), "limited", "{runtime}: {report:#?}");
        }
    }
}

#[test]
fn as_the_first_process_it_says_so() {
    if !may_test() {
        return;
    }
    let report = Report::under(&["unshare", "--pid", "--fork", "--mount-proc"]);
    assert!(report.what("orphans").contains("PID 1"), "{report:#?}");
    // The name is what is seen of it.
    let script = "printf tini >/proc/self/comm; \"$0\" \"$@\"; exit $?";
    let report = Report::under(&["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script]);
    assert_eq!(report.verdict("orphans"), "limited", "{report:#?}");
}

/// A control group of its own, which is removed at the end.
struct Group(PathBuf);

impl Group {
    /// `None` where none can be made that limits.
    fn new(controller: &str, files: &[(&str, &str)]) -> Option<Self> {
        let name = format!("clusterd-test-{}-{controller}", std::process::id());
        let group = Self(Path::new("/sys/fs/cgroup").join(controller).join(name));
        let is_made = fs::create_dir(&group.0).is_ok()
            && files.iter().all(|(file, limit)| fs::write(group.0.join(file), limit).is_ok());
        let lack = format!("no control group can be made here for {controller} (version 1)");
        needs::met(is_made, &lack).then_some(group)
    }

    fn report(&self) -> Report {
        let enter = format!("echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        Report::under(&["sh", "-c", &enter])
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn limits_of_control_groups_are_told() {
    if !may_test() {
        return;
    }
    if let Some(group) = Group::new("memory", &[("memory.limit_in_bytes", "50331648")]) {
        let report = group.report();
        assert_eq!(report.verdict("memory"), "limited", "{report:#?}");
        assert!(report.what("memory").contains("48.0 MiB of memory (control group's limit)"), "{report:#?}");
    }
    if let Some(group) = Group::new("cpu", &[("cpu.cfs_quota_us", "50000")]) {
        let report = group.report();
        assert_eq!(
            (report.verdict("cpus"), report.what("cpus")),
            ("limited", "the control group permits 0.50 of a CPU")
        );
    }
    if let Some(group) = Group::new("pids", &[("pids.max", "20")]) {
        let report = group.report();
        assert_eq!(report.verdict("processes"), "limited", "{report:#?}");
    }
}

#[test]
fn a_static_clusterd_alone_in_its_root_folder_can_run_servers() {
    let clusterd = std::env::var_os("CLUSTERD_TEST_STATIC");
    needs::met(clusterd.is_some(), "CLUSTERD_TEST_STATIC names no static clusterd");
    let Some(clusterd) = clusterd.filter(|_| may_test()) else { return };
    let folder = Folder::new();
    folder.copy_program_as(Path::new(&clusterd), Path::new("static"));
    let mut command = Command::new("chroot");
    command.arg(folder.path()).args(["/static", "doctor", "-o", "json"]);
    let report = Said::from(command.output().expect("chroot")).json();
    assert_eq!(report["is_static"], true);
    let preload =
        report["checks"].as_array().expect("a list").iter().find(|check| check["name"] == "preload");
    assert_eq!(preload.expect("it is there")["verdict"], "not_applicable");
}
