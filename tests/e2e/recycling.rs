//! Workers that are replaced without being asked by anyone: for their memory, their age, and when files change.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::needs::needs;
use crate::harness::{Cluster, until};

/// A server whose answer is in a file that it reads at its start; without that file it crashes.
const VERSIONED: &str = "\
import http.server, os, time
text = open('app/version').read().encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), Handler).serve_forever()
";

/// A Node server that keeps eight megabytes for each request.
const LEAKY: &str = "\
const kept = [];
require('node:http').createServer((request, response) => {
  kept.push(Buffer.alloc(8 << 20, 1));
  response.end(`worker ${process.env.CLUSTERD_WORKER_ID}`);
}).listen(process.env.PORT);
";

fn reloads(cluster: &Cluster, result: &str) -> u64 {
    cluster.metrics().count("clusterd_reloads_total", &[("result", result)])
}

/// Puts a file in its place as editors do.
fn save(cluster: &Cluster, name: &str, content: &str) {
    let (file, new) = (cluster.folder().join(name), cluster.folder().join("app/.new.tmp"));
    fs::write(&new, content).expect("the folder is there");
    fs::rename(new, file).expect("a name in the same folder");
}

/// Asks for this path until every one of these processes has been replaced; no request fails meanwhile.
#[track_caller]
fn all_are_replaced_while_asking(cluster: &Cluster, path: &str, workers: u32) {
    let first: BTreeSet<i32> = (1..=workers).map(|slot| cluster.worker(slot).pid()).collect();
    until("every worker is replaced", || {
        cluster.get(path);
        let now: BTreeSet<i32> = cluster.primary().children().iter().map(|child| child.pid()).collect();
        first.is_disjoint(&now).then_some(())
    });
    cluster.wait_online();
}

#[test]
fn at_the_times_of_cron_every_worker_is_replaced_without_a_failed_request() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--min-uptime 100ms");
    let cluster = cluster.env("CLUSTERD_CRON", "* * * * * *").start();
    all_are_replaced_while_asking(&cluster, "/", 2);
    until("a reload is done", || (reloads(&cluster, "done") > 0).then_some(()));
    assert!(cluster.stderr.text().contains("reload started by cron"));
}

#[test]
fn a_worker_that_leaks_memory_is_replaced_without_a_failed_request() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--max-memory 64M").start();
    all_are_replaced_while_asking(&cluster, "/leak/8", 2);
    until("it is said why", || cluster.stderr.text().contains("replacing worker: it uses").then_some(()));
}

#[test]
fn a_node_worker_that_leaks_memory_is_replaced_without_a_failed_request() {
    needs!("node");
    let cluster = Cluster::of("node leaky.js").file("leaky.js", LEAKY);
    let cluster = cluster.workers(2).options("--max-memory 160M").start();
    all_are_replaced_while_asking(&cluster, "/", 2);
}

#[test]
fn a_worker_that_is_old_is_replaced_without_a_failed_request() {
    needs!("python3");
    let cluster = Cluster::of_servers().workers(2).options("--max-age 2s").start();
    all_are_replaced_while_asking(&cluster, "/", 2);
}

#[test]
fn a_change_reloads_and_a_broken_version_changes_nothing() {
    needs!("python3");
    let cluster = Cluster::of("python3 server.py").file("server.py", VERSIONED).file("app/version", "1");
    let cluster = cluster.workers(2).options("--watch app --ignore *.txt").start();
    save(&cluster, "app/notes.txt", "of no importance");
    save(&cluster, "app/version", "2");
    until("the new version answers alone", || {
        let answers: BTreeSet<String> = (0..4).map(|_| cluster.get("/")).collect();
        (answers == BTreeSet::from(["2".to_owned()])).then_some(())
    });
    until("the reload is done", || (reloads(&cluster, "done") == 1).then_some(()));
    assert!(cluster.stderr.text().contains("app/version"), "it is said what has changed");

    fs::remove_file(cluster.folder().join("app/version")).expect("it is there");
    until("the reload has failed", || {
        assert_eq!(cluster.get("/"), "2");
        (reloads(&cluster, "failed") == 1).then_some(())
    });
    save(&cluster, "app/version", "3");
    until("the repaired version answers", || {
        let answer = cluster.get("/");
        assert!(["2", "3"].contains(&answer.as_str()), "{answer}");
        (answer == "3").then_some(())
    });
}

/// Writes a file beside those that its version comes from, as it starts.
const WRITES: &str = "open('app/cache/state', 'w').write('started')\n";

#[test]
fn an_app_that_writes_what_is_watched_is_named_and_what_somebody_saves_is_served() {
    needs!("python3");
    let server = format!("{WRITES}{VERSIONED}");
    let cluster = Cluster::of("python3 server.py").file("server.py", &server).file("app/version", "1");
    let cluster = cluster.file("app/cache/state", "").options("--watch app --min-uptime 100ms").start();
    let said = "app/cache/state changes after each reload; waiting 2s before the next reload";
    until("it is named, and waited for", || cluster.stderr.text().contains(said).then_some(()));
    assert!(cluster.stderr.text().contains("leave it out with --ignore"));
    save(&cluster, "app/version", "2");
    until("the new version answers", || (cluster.get("/") == "2").then_some(()));
}

/// What the kubelet makes of a ConfigMap: links through `..data`, which is exchanged as a whole.
#[test]
fn a_config_map_that_is_exchanged_is_reloaded() {
    needs!("python3");
    for watched in ["app", "app/version"] {
        let cluster = Cluster::of("python3 server.py").file("server.py", VERSIONED);
        let cluster = cluster.file("app/..1/version", "1");
        let app = cluster.folder.path().join("app");
        symlink("..1", app.join("..data")).expect("a link");
        symlink("..data/version", app.join("version")).expect("a link");
        let cluster = cluster.options(&format!("--watch {watched}")).start();
        assert_eq!(cluster.get("/"), "1");
        fs::create_dir(app.join("..2")).expect("a folder");
        fs::write(app.join("..2/version"), "2").expect("a file");
        symlink("..2", app.join("..data_tmp")).expect("a link");
        fs::rename(app.join("..data_tmp"), app.join("..data")).expect("the same folder");
        until("the new version answers", || (cluster.get("/") == "2").then_some(()));
        until("the reload is done", || (reloads(&cluster, "done") > 0).then_some(()));
    }
}

#[test]
fn what_is_to_be_watched_must_be_there() {
    let ended = Cluster::demo().options("--watch no/such/folder").run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("/no/such/folder: No such file"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("listening"), "{}", ended.stderr);
}
