//! Log files: what an app in the background has written, and what becomes of it.

use std::fs;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::{Cluster, Signal, until};

/// Listens, and writes what `SAYS` has to stdout, and "oh" without a line end to stderr when it is told to end.
const SERVER: &str = "
import os, signal, socket, sys
listener = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))
def end(*_):
    os.write(2, b'oh')
    os._exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
os.write(1, os.environ.get('SAYS', 'hello').encode() + b'\\n')
while True:
    signal.pause()
";

fn start(flags: &str, says: &str) -> Home {
    let home = Home::new();
    start_in(&home, flags, says);
    home
}

fn start_in(home: &Home, flags: &str, says: &str) {
    home.write("web.py", SERVER);
    let start = format!("start web.py --port {} -w 2 {flags}", free_port());
    home.say_with(&start, &[("SAYS", says)]).done();
}

fn log(home: &Home, name: &str) -> PathBuf {
    home.path("web").join("logs").join(name)
}

fn text(home: &Home, name: &str) -> String {
    fs::read_to_string(log(home, name)).unwrap_or_default()
}

#[test]
fn workers_and_clusterd_have_files_of_their_own_and_the_last_words_are_kept() {
    needs!("python3");
    let home = start("", "hello");
    until("both have written", || (text(&home, "out.log") == "hello\nhello\n").then_some(()));
    let own = text(&home, "clusterd.log");
    assert!(own.contains("worker started worker=1") && !own.contains("hello"), "{own}");
    assert_eq!(text(&home, "error.log"), "");
    home.say("stop web").done();
    until("the last words came", || (text(&home, "error.log") == "oh\noh\n").then_some(()));
}

#[test]
fn lines_have_the_form_and_the_files_that_were_asked_for() {
    needs!("python3");
    let home = Home::new();
    // The workers' ids are counted behind its three.
    home.write("first.py", SERVER);
    home.say(&format!("start first.py --port {} -w 3", free_port())).done();
    start_in(
        &home,
        "--log-type json --log-date-format [at] --no-merge-logs --log-file all.log",
        "say \"hi\"",
    );
    let line = |worker: u32| {
        let message = r#""message":"say \"hi\"","timestamp":"at","type":"out""#;
        format!("{{{message},\"process_id\":{},\"app_name\":\"web\",\"worker\":{worker}}}\n", worker + 2)
    };
    for worker in [1, 2] {
        until("it is in its file", || {
            (text(&home, &format!("out-{worker}.log")) == line(worker)).then_some(())
        });
        let all = home.folder().join(format!("all-{worker}.log"));
        until("it is in the common file", || (fs::read_to_string(&all).ok()? == line(worker)).then_some(()));
    }
    assert!(!log(&home, "out.log").exists());
}

#[test]
fn a_file_that_was_moved_away_is_opened_again_by_usr1() {
    needs!("python3");
    let home = start("", "hello");
    until("both have written", || (text(&home, "out.log") == "hello\nhello\n").then_some(()));
    for name in ["out.log", "clusterd.log"] {
        fs::rename(log(&home, name), log(&home, &format!("{name}.1"))).expect("renamed");
    }
    home.primary("web").signal(Signal::USR1);
    until("they are there again", || {
        (log(&home, "out.log").exists()
            && text(&home, "clusterd.log").contains("SIGUSR1: log files reopened"))
        .then_some(())
    });
    assert_eq!(text(&home, "out.log"), "");
}

#[test]
fn a_full_disk_costs_lines_and_no_worker() {
    needs!("python3");
    let home = start("--out-file /dev/full", "hello");
    let said = until("it is said", || {
        text(&home, "clusterd.log")
            .lines()
            .find(|line| line.contains("lines of workers dropped"))
            .map(str::to_owned)
    });
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(home.app("web").expect("it runs")["ready"], Value::Bool(true));
}

#[test]
fn a_worker_that_writes_without_end_fills_only_so_many_files() {
    needs!("perl");
    let script = "$| = 0; for (1..400000) { print 'x' x 99, qq(\\n) } sleep 1000";
    let flags = "--out-file logs/out.log --log-max-size 1M --log-keep 2";
    let cluster = Cluster::of("perl -e").arg(script).workers(1).options(flags).launch();
    let folder = cluster.folder().join("logs");
    let files = || fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok).count();
    until("the files are full", || (files() >= 3).then_some(()));
    assert!(files() <= 4 && cluster.stdout.text().is_empty());
}

#[test]
fn logs_are_shown_whether_the_app_runs_or_not() {
    needs!("python3");
    let home = start("", "hello");
    until("both have written", || (text(&home, "out.log") == "hello\nhello\n").then_some(()));
    let shown = |words: &str| home.say(words).done().to_owned();
    assert_eq!(shown("logs web --nostream --out"), "web out | hello\nweb out | hello\n");
    assert_eq!(shown("log --nostream --raw --out --lines 1"), "hello\n");
    assert_eq!(shown("logs --nostream --err"), "");
    let all = shown("logs all --nostream");
    assert!(all.contains("web out      | hello\n") && all.contains("web clusterd | 20"), "{all}");
    home.say("kill").done();
    assert_eq!(shown("logs web --nostream --err"), "web err | oh\nweb err | oh\n");
    let objects = shown("logs web --nostream --err --json --lines 1");
    let object: Value = serde_json::from_str(&objects).expect("JSON");
    assert_eq!((&object["message"], &object["type"]), (&"oh".into(), &"err".into()));
    let said = home.say("logs api --nostream");
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.starts_with("clusterd: no app api was started in the background\n"), "{said:?}");
    assert!(shown("flush web").starts_with("web: logs emptied, "));
    assert_eq!(shown("logs web --nostream"), "");
    assert_eq!(home.say("reloadLogs web").code, 1, "it does not run");
}

#[test]
fn a_named_pipe_in_the_place_of_a_log_is_left_to_its_reader() {
    needs!("python3");
    let home = start("", "hello");
    until("both have written", || (text(&home, "out.log") == "hello\nhello\n").then_some(()));
    home.say("kill").done();
    let path = log(&home, "error.log");
    fs::remove_file(&path).expect("it is there");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a named pipe");
    let said = home.say("logs web --nostream --raw --out");
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("hello\nhello\n", ""));
    let said = home.say("logs web --nostream --raw --err");
    let told = format!("clusterd: lines of web err are not shown: {} is no regular file\n", path.display());
    assert_eq!((said.code, said.stdout.as_str(), said.stderr), (0, "", told));
}

#[test]
fn logs_are_followed_through_rotation_and_another_primary() {
    needs!("python3");
    let home = start("", "hello");
    until("both have written", || (text(&home, "out.log") == "hello\nhello\n").then_some(()));
    let following = home.follow("logs web --out --raw --lines 1");
    until("what was there came", || (following.lines() == ["hello"]).then_some(()));
    fs::rename(log(&home, "out.log"), log(&home, "out.log.20200101T000000.000Z")).expect("renamed");
    assert_eq!(home.say("reloadLogs").done(), "web: told to open its log files again\n");
    until("it is there again", || log(&home, "out.log").exists().then_some(()));
    let first = home.primary("web");
    first.signal(Signal::KILL);
    until("the new workers' lines came", || (following.lines() == ["hello"; 3]).then_some(()));
}

#[test]
fn an_app_that_is_started_later_is_followed_too() {
    needs!("python3");
    let home = Home::new();
    let following = home.follow("logs --out");
    start_in(&home, "", "hello");
    until("its lines came", || (following.lines() == ["web out | hello"; 2]).then_some(()));
    home.say("delete web --logs").done();
    start_in(&home, "--no-merge-logs --out-file elsewhere/out.log", "again");
    let lines = || following.lines().into_iter().skip(2).collect::<std::collections::BTreeSet<_>>();
    let expected = ["web 1 out | again", "web 2 out | again"].map(str::to_owned);
    until("those of its new files came", || (lines() == expected.clone().into()).then_some(()));
}
