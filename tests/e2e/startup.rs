//! Apps that systemd starts at boot: the unit, what systemctl is told, and the primary as a service.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::harness::folder::fixtures;
use crate::harness::home::Home;
use crate::harness::needs::{self, needs};
use crate::harness::ports::free_port;
use crate::harness::{NOBODY, Said, until};

const SERVER: &str = "
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        names = ['SAYS', 'ADDED', 'NOTIFY_SOCKET', 'PATH']
        says = '|'.join([os.environ.get(name, '') for name in names] + [os.getcwd()]).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(says)))
        self.end_headers()
        self.wfile.write(says)

    def log_message(self, *_):
        pass

HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// What makes it look as if systemd were the init, with the units in a folder of the test.
const BOOTED: &str = "mkdir -p /etc/systemd/system && mount --bind \"$UNITS\" /etc/systemd/system && mount -t tmpfs tmpfs /run && \
     mkdir -p /run/systemd/system && exec \"$@\"";

const SYSTEM: [&str; 7] = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOTED];

/// A home folder on a machine that runs systemd.
struct Machine {
    home: Home,
    port: u16,
}

impl Machine {
    /// `None` where none can be made.
    fn new() -> Option<Self> {
        let has_programs = ["python3", "unshare", "mount", "systemctl"].into_iter().all(needs::program);
        if !has_programs || !needs::root() {
            return None;
        }
        let home = Home::new();
        home.write("web.py", SERVER);
        for folder in ["units", "bin", "config"] {
            fs::create_dir(home.folder().join(folder)).expect("a folder");
        }
        symlink(fixtures().join("systemctl.py"), home.folder().join("bin/systemctl")).expect("a link");
        Some(Self { home, port: free_port() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.folder().join(name)
    }

    fn unit(&self) -> PathBuf {
        self.path("units/clusterd-root@.service")
    }

    /// The apps whose instances are enabled.
    fn enabled(&self) -> Vec<String> {
        let wants = fs::read_dir(self.path("units/multi-user.target.wants")).into_iter().flatten();
        let mut names: Vec<_> =
            wants.map(|link| link.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    /// What systemctl was asked since this was last called.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        calls.lines().map(str::to_owned).collect()
    }

    fn say(&self, words: &str) -> Said {
        self.say_with(words, &[], &[])
    }

    fn say_with(&self, words: &str, variables: &[(&str, &str)], under: &[&str]) -> Said {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").expect("a PATH"));
        let folder = |name| self.path(name).to_str().expect("text").to_owned();
        let (calls, units, config) = (folder("calls"), folder("units"), folder("config"));
        let own = [("PATH", &*path), ("CALLS", &*calls), ("UNITS", &*units), ("XDG_CONFIG_HOME", &*config)];
        let under: Vec<_> = SYSTEM.into_iter().chain(["sh"]).chain(under.iter().copied()).collect();
        self.home.say_under(&under, words, &[&own, variables].concat())
    }

    /// Starts the app `web` detached, with what it answers.
    fn start_web(&self, says: &str) {
        let start = format!("start web.py --port {} -w 1", self.port);
        self.say_with(&start, &[("SAYS", says)], &[]).done();
    }

    fn saved_and_installed() -> Option<Self> {
        let machine = Self::new()?;
        machine.start_web("hello");
        machine.say("save").done();
        machine.say("startup").done();
        machine.calls();
        Some(machine)
    }
}

#[test]
fn systemd_gets_one_unit_and_an_instance_for_each_app_that_was_saved_to_run() {
    let Some(machine) = Machine::new() else { return };
    machine.start_web("hello");
    machine.say(&format!("start web.py --name api-2.x --port {}", free_port())).done();
    machine.say("stop api-2.x").done();
    until("the stop is kept", || {
        machine.home.file("api-2.x", "state.json").contains("stopped").then_some(())
    });
    machine.say("save").done();
    assert_eq!(machine.calls(), [""; 0], "nothing was installed");

    let said = machine.say("startup");
    assert_eq!(
        said.done(),
        "clusterd-root@.service: installed as /etc/systemd/system/clusterd-root@.service\n\
         web: starts at boot (clusterd-root@web.service)\n"
    );
    assert!(
        said.stderr.contains("already running, and systemd's from the next boot or start: web\n"),
        "{said:?}"
    );
    assert_eq!(machine.calls(), ["daemon-reload", "--quiet enable clusterd-root@web.service"]);
    assert_eq!(machine.enabled(), ["clusterd-root@web.service"]);
    let unit = fs::read_to_string(machine.unit()).expect("the unit");
    assert_eq!(unit, machine.say("startup --print").stdout);
    let home = format!("Environment=CLUSTERD_HOME={}\n", machine.home.home().display());
    assert!(unit.contains(&home) && unit.contains("\nUser=root\n") && !unit.contains("PATH"), "{unit}");
    assert_eq!(machine.unit().metadata().expect("the unit").permissions().mode() & 0o777, 0o644);

    // What is saved from now on is what is started at boot.
    machine.say("start api-2.x").done();
    until("the start is kept", || {
        machine.home.file("api-2.x", "state.json").contains("running").then_some(())
    });
    let said = machine.say("save");
    assert!(said.done().ends_with("api-2.x: starts at boot (clusterd-root@api-2.x.service)\n"), "{said:?}");
    assert_eq!(machine.enabled(), ["clusterd-root@api-2.x.service", "clusterd-root@web.service"]);

    fs::create_dir(machine.path("units/clusterd-root@web.service.d")).expect("a folder");
    fs::write(machine.path("units/ssh.service"), "").expect("another unit");
    machine.calls();
    let said = machine.say("unstartup");
    assert_eq!(
        said.done(),
        "api-2.x: starts at boot no more (clusterd-root@api-2.x.service)\n\
         web: starts at boot no more (clusterd-root@web.service)\nclusterd-root@.service: removed\n"
    );
    assert!(said.stderr.contains("/clusterd-root@web.service.d: left as it is"), "{said:?}");
    assert_eq!(machine.enabled(), [""; 0]);
    assert!(!machine.unit().exists() && machine.path("units/ssh.service").exists());
    assert_eq!(machine.say("unstartup").done(), "clusterd-root@.service: was not installed\n");
    assert!(machine.home.get(machine.port).is_some(), "apps go on");
}

#[test]
fn systemd_analyze_finds_nothing_wrong_with_the_units() {
    needs!("systemd-analyze");
    let Some(machine) = Machine::new() else { return };
    for (words, name) in [("startup --print", "clusterd-root@"), ("startup --user --print", "clusterd@")] {
        let unit = machine.say(words);
        // An instance by its own name, so that there is no template to be found.
        let file = machine.home.write(&format!("verify/{name}web-1.x.service"), unit.done());
        let mut verify = Command::new("systemd-analyze");
        let output = verify.args(["verify", "--man=no"]).arg(&file).output().expect("it can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        let about: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(output.status.success() && about.is_empty(), "{said}");
    }
}

#[test]
fn an_app_that_systemd_starts_at_boot_is_started_by_systemd() {
    let Some(machine) = Machine::saved_and_installed() else { return };
    machine.say("kill").done();
    let said = machine.say_with("start web", &[("SAYS", "not this")], &[]);
    let primary = machine.home.primary("web");
    assert!(said.done().starts_with("web: started with 1 worker on "), "{said:?}");
    assert_eq!(machine.calls(), ["start clusterd-root@web.service"]);
    // What the app was given at its start, then what the unit adds, and nothing that is only clusterd's.
    let answer = machine.home.get(machine.port).expect("an answer");
    let [says, added, socket, path, folder] =
        answer.split('|').collect::<Vec<_>>().try_into().expect("five parts");
    assert_eq!(
        [says, added, socket, folder],
        ["hello", "by the unit", "", machine.home.folder().to_str().expect("text")]
    );
    assert!(path.contains(machine.path("bin").to_str().expect("text")), "{path}");
    // It has the lock, obeys, and keeps what is wanted.
    let again = machine.home.say(&format!("--name web --port {} -- python3 web.py", free_port()));
    assert!(
        again.stderr.starts_with(&format!("clusterd: app web is running already (pid {})", primary.pid()))
    );
    machine.say("scale web 2").done();
    assert_eq!(machine.say("reload web").done(), "web: 2 workers replaced\n");
    until("the number is kept", || machine.home.file("web", "state.json").contains("2").then_some(()));
    assert!(machine.home.path("web").join("logs/error.log").exists());
    assert_eq!(machine.calls(), [""; 0]);

    assert_eq!(machine.say("delete web").done(), "web: deleted; its logs stay\n");
    assert_eq!(machine.calls(), ["--quiet disable --now clusterd-root@web.service"]);
    assert!(machine.enabled().is_empty() && !primary.is_alive());
}

#[test]
fn an_app_that_runs_by_itself_is_ended_and_disabled_by_delete() {
    let Some(machine) = Machine::saved_and_installed() else { return };
    let primary = machine.home.primary("web");
    machine.say("delete web").done();
    assert!(machine.enabled().is_empty() && !primary.is_alive());
}

#[test]
fn what_systemctl_refuses_is_told_with_what_would_help() {
    let Some(machine) = Machine::saved_and_installed() else { return };
    let said = machine.say_with("delete web", &[("REFUSES", "disable")], &[]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.starts_with("Failed to disable clusterd-root@web.service: Interactive auth"),
        "{said:?}"
    );
    assert!(said.stderr.contains("sudo systemctl disable --now clusterd-root@web.service"), "{said:?}");
    assert!(machine.home.get(machine.port).is_some(), "nothing was done");
    machine.say("kill").done();
    let said = machine.say_with("start web", &[("REFUSES", "start")], &[]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr
            .contains("hint: with the rights that it needs: sudo systemctl start clusterd-root@web.service")
    );
    // An app that cannot run is one that systemd cannot start.
    fs::remove_file(machine.path("web.py")).expect("the script");
    let said = machine.say("restart web");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr.contains("app web does not come up") || said.stderr.contains("Job for clusterd-root@web"),
        "{said:?}"
    );
}

#[test]
fn another_home_folder_has_nothing_to_do_with_the_unit() {
    let Some(machine) = Machine::saved_and_installed() else { return };
    let other = Home::new();
    other.write("web.py", SERVER);
    let home = other.home();
    let variables = [("CLUSTERD_HOME", home.to_str().expect("text"))];
    let start = format!("start {} --port {}", other.folder().join("web.py").display(), free_port());
    machine.say_with(&start, &variables, &[]).done();
    assert!(other.primary("web").is_alive() && machine.calls().is_empty());
    machine.say_with("save", &variables, &[]).done();
    machine.say_with("delete web", &variables, &[]).done();
    assert!(machine.calls().is_empty());
    assert_eq!(machine.enabled(), ["clusterd-root@web.service"]);
}

#[test]
fn who_is_not_root_gets_the_unit_and_the_command_for_root() {
    needs!("setpriv");
    let Some(machine) = Machine::new() else { return };
    for (verb, done) in [("startup", "installed"), ("unstartup", "taken back")] {
        let said = machine.say_with(verb, &[], &NOBODY);
        assert_eq!(said.code, 1, "{said:?}");
        let hint = format!(
            "clusterd: nothing was {done}: that needs root\nhint: run: sudo env CLUSTERD_HOME={} {} {verb} -u nobody\n",
            machine.home.home().display(),
            env!("CARGO_BIN_EXE_clusterd"),
        );
        if verb == "startup" {
            assert!(said.stdout.contains("\nUser=nobody\n") && said.stderr.ends_with(&hint), "{said:?}");
            machine.say("startup -u nobody").done();
        } else {
            assert!(said.stderr.ends_with(&hint), "{said:?}");
        }
    }
    assert!(machine.path("units/clusterd-nobody@.service").exists());
    machine.say("unstartup -u nobody").done();
    assert!(!machine.path("units/clusterd-nobody@.service").exists());
    let said = machine.say("startup -u no-such-user");
    assert_eq!((said.code, said.stderr.lines().next()), (1, Some("clusterd: there is no user no-such-user")));
}

#[test]
fn without_systemd_nothing_is_installed() {
    let home = Home::new();
    if std::path::Path::new("/run/systemd/system").exists() {
        println!("skipped: systemd runs here");
        return;
    }
    let said = home.say("startup");
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(
        said.stderr.contains("clusterd: systemd does not run here, so nothing was installed\nhint: "),
        "{said:?}"
    );
    assert!(home.say("startup --print").done().contains("[Service]\n"));
}

#[test]
fn a_unit_that_somebody_has_made_his_own_is_left_alone() {
    let Some(machine) = Machine::saved_and_installed() else { return };
    let own = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    fs::write(machine.unit(), own).expect("written");
    for verb in ["startup", "unstartup"] {
        let said = machine.say(verb);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{said:?}");
        assert!(
            said.stderr.contains("or was made somebody's own since; it is left alone\nhint: "),
            "{said:?}"
        );
    }
    assert_eq!(fs::read_to_string(machine.unit()).expect("the unit"), own);
    assert_eq!(machine.enabled(), ["clusterd-root@web.service"]);
}

#[test]
fn a_users_own_systemd_needs_no_root() {
    let Some(machine) = Machine::new() else { return };
    machine.start_web("hello");
    let said = machine.say("startup --user");
    assert!(said.done().ends_with("web: starts at boot (clusterd@web.service)\n"), "{said:?}");
    assert!(
        said.stderr.contains("hint: from boot on, and for good: loginctl enable-linger root\n"),
        "{said:?}"
    );
    let units = machine.path("config/systemd/user");
    assert!(units.join("clusterd@.service").exists());
    assert!(units.join("default.target.wants/clusterd@web.service").symlink_metadata().is_ok());
    machine.say("kill").done();
    machine.say("resurrect").done();
    assert_eq!(machine.calls()[2..], ["--user start clusterd@web.service"]);
    machine.say("unstartup --user").done();
    assert_eq!(
        fs::read_dir(&units)
            .expect("the folder")
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file()))
            .count(),
        0
    );
    assert_eq!(machine.say("startup --user -u nobody").code, 2);
}

#[test]
fn a_service_of_an_app_that_is_stopped_is_up_and_one_without_an_app_is_not_tried_again() {
    let Some(machine) = Machine::saved_and_installed() else { return };
    machine.say("stop web").done();
    until("the stop is kept", || machine.home.file("web", "state.json").contains("stopped").then_some(()));
    machine.say("kill").done();
    // As systemd does it at boot.
    let systemctl = machine.path("bin/systemctl");
    let units = machine.path("units");
    let run = |unit: &str| {
        let mut command = Command::new(SYSTEM[0]);
        command.args(&SYSTEM[1..]).arg("sh").arg(&systemctl).args(["start", unit]);
        command.env("CALLS", machine.path("calls")).env("UNITS", &units);
        command.output().expect("it can be started")
    };
    let started = run("clusterd-root@web.service");
    assert!(started.status.success(), "{started:?}");
    let app = machine.home.app("web").expect("it is listed");
    assert_eq!((&app["stopped"], machine.home.get(machine.port)), (&json!(true), None));
    machine.say("start web").done();
    assert!(machine.home.get(machine.port).is_some());
    let started = run("clusterd-root@nobody.service");
    assert_eq!(started.status.code(), Some(1));
    let journal = fs::read_to_string(machine.path("calls.journal")).expect("the journal");
    assert!(journal.contains("clusterd: there is no app nobody in "), "{journal}");
    assert_eq!(machine.home.say("primary nobody").code, 78);
    assert_eq!(machine.home.say("primary ../web").code, 78);
    let said = machine.home.say("primary web");
    assert!(said.code == 1 && said.stderr.starts_with("clusterd: app web is running already"), "{said:?}");
}
