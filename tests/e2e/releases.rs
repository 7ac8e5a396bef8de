//! Releases behind a link: each launch takes the one that the link leads to by then.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::harness::needs::needs;
use crate::harness::{Cluster, Signal, until};

const NODE: &str =
    "require('http').createServer((_, answer) => answer.end('{release}')).listen(process.env.PORT)\n";
const PYTHON: &str = "\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '1')
        self.end_headers()
        self.wfile.write(b'{release}')
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), Handler).serve_forever()
";

/// Three releases, of which the first is deployed, and workers that were started in its folder by the name of the link.
struct Deployed(Cluster);

impl Deployed {
    fn start(command: &str, options: &str, under: &str) -> Self {
        let mut setup = Cluster::of(command).workers(2).options("--min-uptime 100ms").options(options);
        for release in ["1", "2", "3"] {
            let of = |text: &str| text.replace("{release}", release);
            setup = setup
                .file(&format!("releases/{release}/app.js"), &of(NODE))
                .file(&format!("releases/{release}/app.py"), &of(PYTHON))
                .file(&format!("releases/{release}/server"), "#!/bin/sh\nexec python3 app.py\n");
            let server = setup.folder.path().join(format!("releases/{release}/server"));
            fs::set_permissions(server, Permissions::from_mode(0o755)).expect("the owner may");
        }
        symlink("releases/1", setup.folder.path().join("current")).expect("a link in the temporary folder");
        Self(setup.under(&["sh", "-c", &format!("{under}; exec \"$0\" \"$@\"")]).start())
    }

    /// As `ln -sfn`, which removes the link first.
    fn switch(&self, release: &str) {
        let _ = fs::remove_file(self.0.folder().join("current"));
        symlink(format!("releases/{release}"), self.0.folder().join("current")).expect("a link");
    }

    /// As deployment tools do it, by rename(2).
    fn exchange(&self, release: &str) {
        let next = self.0.folder().join("next");
        symlink(format!("releases/{release}"), &next).expect("a link");
        fs::rename(next, self.0.folder().join("current")).expect("it is exchanged");
    }

    #[track_caller]
    fn both_serve(&self, release: &str) {
        let served: Vec<_> = (0..8).map(|_| self.0.get("/")).collect();
        assert_eq!(served, vec![release; 8]);
    }

    /// Kills the first worker, and waits for the next in its place.
    #[track_caller]
    fn kill_one(&self) {
        let killed = self.0.worker(1);
        killed.signal(Signal::KILL);
        until("another worker is in its place", || (self.0.worker(1).pid() != killed.pid()).then_some(()));
        self.0.wait_online();
    }

    fn is_followed(&self) {
        self.both_serve("1");
        self.switch("2");
        self.0.reload().expect("release 2 works");
        self.both_serve("2");
        fs::remove_dir_all(self.0.folder().join("releases/1")).expect("release 1 is removed");
        self.kill_one();
        self.both_serve("2");
        self.exchange("3");
        fs::remove_dir_all(self.0.folder().join("releases/2")).expect("release 2 is removed");
        self.0.reload().expect("release 3 works");
        self.both_serve("3");
    }
}

#[test]
fn a_link_is_followed_for_a_script_of_node() {
    needs!("node");
    Deployed::start("node app.js", "", "cd current").is_followed();
}

#[test]
fn a_link_is_followed_for_a_script_of_python() {
    needs!("python3");
    Deployed::start("python3 app.py", "", "cd current").is_followed();
}

#[test]
fn a_link_is_followed_for_a_program_in_the_folder() {
    needs!("python3");
    Deployed::start("./server", "", "cd current").is_followed();
}

#[test]
fn a_link_that_cwd_names_is_followed() {
    needs!("python3");
    Deployed::start("./server", "--cwd ../current", "cd releases").is_followed();
}

#[test]
fn a_folder_that_is_gone_fails_the_reload_and_the_old_workers_serve_on() {
    needs!("python3");
    let deployed = Deployed::start("python3 app.py", "", "cd current");
    let cluster = &deployed.0;
    let link = cluster.folder().join("current");
    fs::remove_file(&link).expect("the link is removed");
    let old = cluster.pids();
    let gone = format!("cannot run workers in {}: No such file or directory", link.display());
    let failed = cluster.reload().expect_err("there is no folder");
    assert!(failed.contains(&gone), "{failed}");
    let refused = cluster.say("reload");
    assert!(refused.code == 1 && refused.stderr.contains(&gone), "{refused:?}");
    let refused = cluster.say("restart");
    assert!(refused.code == 1 && refused.stderr.contains(&gone), "{refused:?}");
    assert_eq!(cluster.pids(), old, "the old workers are there, and no other");
    deployed.both_serve("1");

    cluster.worker(1).signal(Signal::KILL);
    until("describe says why the worker is not there", || {
        cluster.say("describe").done().contains(&gone).then_some(())
    });
    assert!(cluster.stderr.text().contains(&gone), "the log says so, too");
    deployed.both_serve("1");
    deployed.switch("2");
    cluster.wait_online();
}

#[test]
fn clusterd_holds_no_release() {
    needs!("python3");
    let deployed = Deployed::start("python3 app.py", "", "cd current");
    let primary = deployed.0.primary().pid();
    let folder = fs::read_link(format!("/proc/{primary}/cwd")).expect("it lives");
    assert_eq!(folder.to_str(), Some("/"));
}

#[test]
fn a_configuration_is_read_where_the_link_leads_to() {
    needs!("python3");
    let deployed = Deployed::start(
        "",
        "--config clusterd.toml --env-file .env",
        "for release in 1 2 3; do
            printf 'command = [\"python3\", \"app.py\", \"%s\"]\\n' $release > releases/$release/clusterd.toml
            echo RELEASE=$release > releases/$release/.env
        done; cd current",
    );
    let given = |name: &str| deployed.0.worker(1).environment(name);
    assert_eq!(given("RELEASE").as_deref(), Some("1"));
    assert_eq!(given("PWD").as_deref(), deployed.0.folder().join("current").to_str());
    deployed.exchange("2");
    deployed.0.reload().expect("release 2 works");
    assert_eq!(given("RELEASE").as_deref(), Some("2"));
    let app = deployed.0.say("describe -o json").json();
    assert_eq!(app["command"], serde_json::json!(["python3", "app.py", "2"]));
}
