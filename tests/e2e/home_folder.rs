//! The folder that apps share: full, written by another version, and shown on a terminal.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::home::Home;
use crate::harness::needs::{self, needs};
use crate::harness::ports::free_port;
use crate::harness::{Said, until};

const SERVER: &str = "
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '5')
        self.end_headers()
        self.wfile.write(b'hello')

    def log_message(self, *_):
        pass

HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// A home folder on a disk of its own, which is small; dropping it ends its apps.
struct Disk {
    home: Home,
    holder: Child,
}

impl Disk {
    fn new() -> Self {
        let home = Home::new();
        home.write("web.py", SERVER);
        fs::create_dir_all(home.home()).expect("a folder");
        let mount = "mount -t tmpfs -o size=256k,mode=0700 tmpfs \"$1\" && echo && exec sleep 1000";
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--propagation", "private", "sh", "-c", mount, "sh"]).arg(home.home());
        let mut holder = holder.stdout(Stdio::piped()).spawn().expect("it can be started");
        holder.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("it is mounted");
        Self { home, holder }
    }

    /// The home folder, seen from outside.
    fn folder(&self) -> PathBuf {
        let inside = self.home.home();
        let inside = inside.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    fn say(&self, words: &str) -> Said {
        let inside = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        let enter = format!("cd {} && exec \"$@\"", self.home.folder().display());
        self.home.say_under(&["nsenter", &inside, "sh", "-c", &enter, "sh"], words, &[])
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.folder().join("fill")).expect("a file");
        std::io::copy(&mut std::io::repeat(0), &mut file).expect_err("it is full");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.say("kill");
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// As `sudo -E` leaves it.
#[test]
fn root_in_anothers_home_finds_its_apps_again() {
    needs!("python3", "unshare", "mount");
    if !needs::root() {
        return;
    }
    let home = Home::new();
    home.write("web.py", SERVER);
    std::os::unix::fs::chown(home.folder(), Some(65534), None).expect("root may give it away");
    let script = "set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
trap 'CLUSTERD_HOME=/var/lib/clusterd \"$0\" kill' EXIT
\"$0\" start web.py --port \"$1\" -w 1
\"$0\" pid web
\"$0\" delete web
! \"$0\" pid web
echo gone";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    command.args([env!("CARGO_BIN_EXE_clusterd"), &free_port().to_string()]).current_dir(home.folder());
    command.env("HOME", home.folder()).env("PWD", home.folder()).env_remove("CLUSTERD_HOME");
    let said: Said = command.stdin(Stdio::null()).output().expect("it can be started").into();
    assert!(said.code == 0 && said.stdout.contains("gone"), "{said:?}");
}

#[test]
fn on_a_full_disk_nothing_is_half_written_and_apps_go_on() {
    needs!("python3", "unshare", "nsenter", "mount");
    if !needs::root() {
        return;
    }
    let disk = Disk::new();
    let port = free_port();
    disk.say(&format!("start web.py --port {port} -w 1")).done();
    disk.say("save").done();
    let saved = fs::read(disk.folder().join("saved.json")).expect("what was saved");
    let kept = || {
        let file = |name| fs::read(disk.folder().join("apps/web").join(name)).expect("a file of the app");
        ["app.toml", "environment", "state.json"].map(file)
    };
    let before = kept();
    disk.fill();
    let start = format!("start web.py --name api --port {}", free_port());
    for words in [start.as_str(), "save"] {
        let said = disk.say(words);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{words}: {said:?}");
        assert!(said.stderr.contains("No space left on device"), "{words}: {said:?}");
        assert!(said.stderr.contains("CLUSTERD_HOME"), "{words}: {said:?}");
    }
    assert!(!disk.folder().join("apps/api").exists());
    assert_eq!(fs::read(disk.folder().join("saved.json")).expect("what was saved"), saved);
    assert_eq!(disk.home.get(port).as_deref(), Some("hello"));
    assert_eq!(disk.say("scale web 2").code, 0);
    assert_eq!(disk.home.get(port).as_deref(), Some("hello"));
    // An app that is at rest is still what it was.
    disk.say("kill").done();
    let said = disk.say(&format!("start web.py --port {port} -w 3"));
    assert!(said.code == 1 && said.stderr.contains("CLUSTERD_HOME"), "{said:?}");
    assert_eq!(kept()[..2], before[..2]);
    let all = fs::read_dir(disk.folder().join("apps/web")).expect("the folder");
    let names = all.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    assert_eq!(names.filter(|name| name.ends_with(".new")).count(), 0);
    fs::remove_file(disk.folder().join("fill")).expect("the file");
    disk.say("start web").done();
    disk.say(&start).done();
    disk.say("save").done();
}

#[test]
fn what_a_newer_version_has_written_is_told_of_and_kept() {
    needs!("python3");
    let home = Home::new();
    home.write("web.py", SERVER);
    let port = free_port();
    home.say(&format!("start web.py --port {port} -w 1")).done();
    home.say("kill").done();
    let path = |name: &str| home.path("web").join(name);
    let definition = format!("hold-back = \"much\"\n{}\n[moons]\nphobos = 1\n", home.file("web", "app.toml"));
    fs::write(path("app.toml"), definition).expect("written");
    let change = |file: PathBuf, key: &str, value: Value| {
        let mut all: Value = serde_json::from_slice(&fs::read(&file).expect("the file")).expect("JSON");
        all[key] = value;
        fs::write(&file, all.to_string()).expect("written");
    };
    change(path("state.json"), "colour", json!({ "of": "tomorrow" }));
    change(home.home().join("ids.json"), "spare", json!([7]));
    let is_kept = || {
        let text = home.file("web", "app.toml");
        assert!(text.contains("hold-back = \"much\"") && text.contains("phobos = 1"), "{text}");
        let state: Value = serde_json::from_str(&home.file("web", "state.json")).expect("JSON");
        assert_eq!(state["colour"], json!({ "of": "tomorrow" }));
        let ids: Value =
            serde_json::from_slice(&fs::read(home.home().join("ids.json")).expect("ids")).expect("JSON");
        assert_eq!(ids["spare"], json!([7]));
    };
    let said = home.say("start web");
    said.done();
    for key in ["hold-back", "moons"] {
        let warning = format!(
            "app.toml: {key}: clusterd {} does not know this setting\nhint: ",
            env!("CARGO_PKG_VERSION")
        );
        assert!(said.stderr.contains(&warning), "{said:?}");
    }
    assert_eq!(home.get(port).as_deref(), Some("hello"));
    home.say("scale web 2").done();
    until("the number is kept", || home.file("web", "state.json").contains("\"workers\": 2").then_some(()));
    home.say("reload web").done();
    home.say("list").done();
    home.say("save").done();
    is_kept();
    // Crash: the guardian starts it again.
    let before = home.primary("web");
    before.signal(crate::harness::Signal::KILL);
    until("it is back", || {
        home.app("web")
            .filter(|app| app["pid"].as_i64() != Some(i64::from(before.pid())) && app["ready"] == true)
    });
    is_kept();
}

#[test]
fn an_app_whose_folder_is_removed_is_found_again() {
    needs!("python3");
    let home = Home::new();
    home.write("web.py", SERVER);
    let port = free_port();
    home.say(&format!("start web.py --port {port} -w 2")).done();
    home.say("scale web 1").done();
    until("the number is kept", || home.file("web", "state.json").contains("\"workers\": 1").then_some(()));
    let before = ["app.toml", "environment", "state.json"].map(|name| home.file("web", name));
    let (primary, app) = (home.primary("web"), home.app("web").expect("it runs"));
    // A line may be written to a log meanwhile.
    until("it is removed", || fs::remove_dir_all(home.home()).ok());
    until("it is found again, and its worker has its number", || {
        home.app("web").filter(|found| {
            (&found["pid"], &found["workers"][0]["id"]) == (&app["pid"], &app["workers"][0]["id"])
        })
    });
    until("its folder is as it was", || {
        (["app.toml", "environment", "state.json"].map(|name| home.file("web", name)) == before).then_some(())
    });
    let own = || home.file("web", "logs/clusterd.log");
    until("it says so", || own().contains("files in it were removed; they are made again").then_some(()));
    until("scripts find the worker", || home.home().join("pids/web-0.pid").exists().then_some(()));
    let said = home.say(&format!("start web.py --port {port}"));
    assert!(said.stderr.contains(&format!("app web is running already (pid {})", primary.pid())), "{said:?}");
    assert_eq!(home.get(port).as_deref(), Some("hello"));
    home.say("kill").done();
    assert!(!primary.is_alive());
    home.say("delete web").done();
}

#[test]
fn a_terminal_gets_a_table_that_fits_with_states_in_colours() {
    needs!("python3", "script", "stty");
    let home = Home::new();
    home.write("web.py", SERVER);
    let name = format!("a-name-{}", "x".repeat(40));
    home.say(&format!("start web.py --name {name} --port {} -w 1", free_port())).done();
    let program = env!("CARGO_BIN_EXE_clusterd");
    let list = |columns: u32, colour: &str| {
        let command = format!("stty cols {columns} rows 24 && {program} list");
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("CLUSTERD_HOME", home.home())
            .env("TERM", "xterm")
            .env("NO_COLOR", colour)
            .stdin(Stdio::null())
            .output()
            .expect("it can be started");
        String::from_utf8(output.stdout).expect("text").replace('\r', "")
    };
    let narrow = list(80, "");
    let green = "\u{1b}[32monline\u{1b}[0m";
    assert!(narrow.contains(green) && narrow.contains("a-name-xxxxxxxxxxxx…"), "{narrow}");
    let plain = list(80, "1");
    assert!(!plain.contains('\u{1b}') && plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
    let wide = list(200, "1");
    assert!(wide.contains(&name) && wide.contains(" taken "), "{wide}");
    // For a program, everything as it is.
    let piped = home.say("list");
    assert!(
        piped.done().contains(&name) && !piped.stdout.contains('\u{1b}') && piped.stdout.contains("taken")
    );
}
