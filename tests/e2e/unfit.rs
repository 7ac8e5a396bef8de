//! Processes that have a worker's listener, and cannot take connections from it: what clusterd says of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;

use crate::harness::needs::{needs, root};
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, RUNTIME_PLACES, build, noexec, until};

/// The first warning with these words.
fn warning(cluster: &Cluster, words: &str) -> String {
    until(&format!("a warning has {words:?}"), || {
        let mut lines = cluster.stderr.lines().into_iter();
        lines.find(|line| line.contains(r#""level":"WARN""#) && line.contains(words))
    })
}

/// An IMAP server that keeps everything in the test's folder. Its main process listens, and starts others to accept.
const DOVECOT: &str = "
protocols = imap
log_path = /dev/stderr
ssl = no
listen = 0.0.0.0
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/tmp
}
service imap-login {
  chroot =
  inet_listener imap {
    port = 8080
  }
  inet_listener imaps {
    port = 0
  }
}
";

/// As a container has it: no setting names a folder of the system.
fn dovecot(more: &str) -> Setup {
    let script = "mkdir -p run state && printf 'base_dir = %s/run\\nstate_dir = %s/state\\n' \"$PWD\" \"$PWD\" >> dovecot.conf && \
                  exec dovecot -F -c \"$PWD/dovecot.conf\"";
    Cluster::of("sh -c").arg(script).file("dovecot.conf", &format!("{DOVECOT}{more}\n"))
}

#[test]
fn a_process_whose_environment_was_cleared_is_named_with_the_remedy() {
    needs!("dovecot");
    if !root() {
        return;
    }
    let cluster = dovecot("").start();
    let _client = cluster.connect().expect("clusterd accepts");
    let warning = warning(&cluster, "import_environment");
    assert!(warning.contains("imap-login has the worker's listener"), "{warning}");
    assert!(warning.contains("lacks clusterd's LD_PRELOAD"), "{warning}");
}

#[test]
fn dovecot_serves_if_it_passes_on_what_clusterd_sets() {
    needs!("dovecot");
    if !root() {
        return;
    }
    let recipe =
        include_str!("../../docs/guide.md").lines().find(|line| line.starts_with("import_environment"));
    let cluster = dovecot(recipe.expect("the guide has the line")).start();
    for _ in 0..3 {
        let mut client = BufReader::new(cluster.connect().expect("clusterd accepts"));
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(client.read_line(&mut line).expect("it answers") > 0, "it closes");
        }
        client.get_mut().write_all(b"a logout\r\n").expect("it reads");
        while !line.starts_with("a OK") {
            line.clear();
            assert!(client.read_line(&mut line).expect("it answers") > 0, "it closes");
        }
    }
}

#[test]
fn a_server_whose_preloaded_library_was_replaced_is_served_as_it_is_told_to_be() {
    needs!("perl");
    let replaces = "LD_PRELOAD=libm.so.6 exec perl {fixtures}/server.pl";
    let cluster = || Cluster::of("sh {folder}/replaces.sh").filled_file("replaces.sh", replaces).workers(2);
    let told = cluster().launch();
    let warning = warning(&told, "before it listened on");
    assert!(warning.contains("replaces LD_PRELOAD"), "{warning}");
    assert!(warning.contains("use --attach seccomp"), "{warning}");
    if root() {
        cluster().options("--attach seccomp").start().all_answer(2, str::to_owned);
    }
}

/// A server that accepts by io_uring; `None` where there is none.
pub(crate) fn ring() -> Option<String> {
    let program = build::program("ring-server", "ring.c", &["gcc"]);
    let tried = Command::new(&program).arg("try").status().expect("it was built");
    if !tried.success() {
        println!("skipped: the kernel or its sandbox permits no io_uring here");
    }
    tried.success().then_some(program)
}

#[test]
fn a_server_that_waits_by_io_uring_is_told_why_it_gets_nothing() {
    needs!("gcc");
    let Some(program) = ring() else { return };
    let cluster = Cluster::of(&program).options("--accept primary --handoff-timeout 100ms").start();
    let _client = cluster.connect().expect("clusterd accepts");
    let warning = warning(&cluster, "io_uring");
    assert!(warning.contains("ring-server has the worker's listener"), "{warning}");
    assert!(warning.contains("EINVAL"), "{warning}");
}

#[test]
fn a_server_that_ends_for_its_io_uring_is_told_why() {
    needs!("gcc");
    let Some(program) = ring() else { return };
    let cluster = Cluster::of(&program).arg("exit").options("--accept primary").launch();
    let warning = warning(&cluster, "io_uring");
    assert!(warning.contains("the worker ended before it took a connection"), "{warning}");
}

#[test]
fn a_server_that_accepts_by_io_uring_is_let_accept_once_that_is_seen() {
    needs!("gcc");
    let Some(program) = ring() else { return };
    for how in [None, Some("exit")] {
        let setup = Cluster::of(&program).options("--handoff-timeout 100ms").workers(2);
        let cluster = how.into_iter().fold(setup, Setup::arg).launch();
        // Those who come until then are given to a server that cannot take them.
        until("it answers", || cluster.try_get("/").ok());
        let warning = warning(&cluster, "io_uring");
        assert!(
            warning.contains("workers accept by themselves from their next start on: --accept workers"),
            "{warning}"
        );
    }
}

#[test]
fn a_worker_that_cannot_load_the_shim_from_memory_is_told_what_to_mount() {
    needs!("python3", "unshare", "setpriv");
    if !root() {
        return;
    }
    let worker = "setpriv --reuid=65534 --regid=65534 --clear-groups sleep 1000";
    let cluster = Cluster::of(worker)
        .worker_port(free_port())
        .options("--ready-timeout 6s")
        .under(&noexec(RUNTIME_PLACES))
        .launch();
    let warning = warning(&cluster, "could not load clusterd's shim");
    assert!(warning.contains("mount a tmpfs without noexec at /run"), "{warning}");
}
