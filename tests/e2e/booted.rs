//! A systemd that has booted, in namespaces of its own, and runs nothing but the unit of `config/`.
//!
//! It reads no unit of the machine, and what it might write to or tidy up are folders of its own.
//!
//! `CLUSTERD_TEST_STATIC` names the static clusterd, with which the same is seen.

use std::collections::BTreeSet;
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::folder::Folder;
use crate::harness::ports::free_port;
use crate::harness::process::Process;
use crate::harness::{http, needs, until};

/// clusterd is heard of twice as often, and at once whenever another one has taken over: only that is soon enough to be seen.
const WATCHDOG: &str = "WatchdogSec=1200";

const SYSTEMD: &str = "/lib/systemd/systemd";

/// What the unit wants and is there on every machine.
const TARGETS: [&str; 4] = ["sysinit", "basic", "network-online", "shutdown"];

/// Joins a control group of its own, `$1`, which systemd takes for the first; `$2` has the units and programs.
const BOOT: &str = r#"
    mkdir "$1" && echo $$ > "$1/cgroup.procs" || exit 1
    exec unshare --mount --propagation private --pid --fork --mount-proc --cgroup --uts --kill-child sh -ec '
        mount --bind "$1" /mnt
        for folder in /run /tmp /var/tmp; do mount -t tmpfs tmpfs $folder; done
        mkdir /run/none /run/programs; cp -r /mnt/units /run/; mount --bind /mnt/programs /run/programs
        echo 0123456789abcdef0123456789abcdef > /run/machine-id; mount --bind /run/machine-id /etc/machine-id
        umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
        export container=other SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/none
        exec "$2" --system --unit=try.target --show-status=0 --log-target=null' sh "$2" "$3""#;

/// The clusterds that are installed: the tested one, and the static one where there is one.
fn clusterds() -> Vec<PathBuf> {
    let has_programs = ["unshare", "nsenter", "mount", "systemctl"].into_iter().all(needs::program);
    let is_there = has_programs
        && needs::root()
        && needs::met(needs::is_executable(Path::new(SYSTEMD)), "systemd is not installed")
        && Path::new("/etc/machine-id").exists();
    let all = [
        Some(PathBuf::from(env!("CARGO_BIN_EXE_clusterd"))),
        env::var_os("CLUSTERD_TEST_STATIC").map(PathBuf::from),
    ];
    all.into_iter().flatten().filter(|_| is_there).collect()
}

/// The new file is put in the place of the old one, as package managers do, and the command is called that the guide names.
#[test]
fn a_service_is_upgraded_in_place_and_goes_on_as_it_was() {
    for clusterd in clusterds() {
        let often = |line: &str| line.replace("WatchdogSec=30", WATCHDOG);
        let Some(booted) = Booted::with(&clusterd, often) else { return };
        booted.is("active");
        let (process, answer) = (booted.property("MainPID"), booted.get());
        assert!(answer.starts_with("hello from worker "), "{answer}");
        let heard = || booted.property("WatchdogTimestampMonotonic");
        for _ in 0..2 {
            let before = heard();
            let said = booted
                .run("cd /run/programs && cp clusterd next && mv next clusterd && ./clusterd upgrade --all");
            assert!(said.is_some_and(|said| said.contains("upgraded from clusterd")));
            assert_eq!(
                (booted.property("MainPID"), booted.property("ActiveState")),
                (process.clone(), "active".to_owned())
            );
            booted.get();
            until("the watchdog hears of the new clusterd", || (heard() != before).then_some(()));
        }
        booted.is("active");
        let workers =
            || booted.run("/run/programs/clusterd describe web --output json").map(|app| pids(&app));
        let before = workers().expect("it is asked");
        booted.run("systemctl reload clusterd").expect("it reloads");
        until("the workers are others", || {
            workers().filter(|now| now.len() == 2 && now.is_disjoint(&before))
        });
        assert_eq!(booted.property("MainPID"), process);
        booted.run("systemctl stop clusterd").expect("it stops");
        assert_eq!(booted.property("ActiveState"), "inactive");
        assert_eq!(booted.property("Result"), "success");
    }
}

fn pids(app: &str) -> BTreeSet<u64> {
    let app: serde_json::Value = serde_json::from_str(app).expect("JSON");
    let workers = app["workers"].as_array().expect("workers").iter();
    workers.filter(|worker| worker["state"] == "online").filter_map(|worker| worker["pid"].as_u64()).collect()
}

/// A systemd that runs the unit; dropping it ends all that it has started.
struct Booted {
    child: Child,
    group: PathBuf,
    port: u16,
    _folder: Folder,
}

impl Booted {
    /// With clusterd as root has installed it, and this change of the unit's lines.
    fn with(clusterd: &Path, change: impl Fn(&str) -> String) -> Option<Self> {
        let (folder, port) = (Folder::new(), free_port());
        folder.write("programs/clusterd.toml", &format!("name = \"web\"\nport = {port}\nworkers = 2\n"));
        folder.copy_program_as(clusterd, "programs/clusterd".as_ref());
        for target in TARGETS {
            folder.write(&format!("units/{target}.target"), "[Unit]\nDefaultDependencies=no\n");
        }
        folder.write("units/try.target", "[Unit]\nDefaultDependencies=no\nWants=clusterd.service\n");
        let unit = include_str!("../../config/clusterd.service");
        let unit = unit
            .replace("/usr/local/bin/", "/run/programs/")
            .replace("/etc/clusterd.toml", "/run/programs/clusterd.toml");
        folder.write(
            "units/clusterd.service",
            &unit.lines().map(|line| change(line) + "\n").collect::<String>(),
        );
        let group = control_groups()?.join(folder.path().file_name().expect("it has a name"));
        let mut command = Command::new("sh");
        command.args(["-c", BOOT, "sh"]).arg(&group).arg(folder.path()).arg(SYSTEMD);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a shell");
        let booted = Self { child, group, port, _folder: folder };
        until("systemd answers", || {
            booted.run("systemctl show --property Version").filter(|said| !said.is_empty())
        });
        Some(booted)
    }

    /// What this command says in its namespaces, if it succeeds.
    fn run(&self, command: &str) -> Option<String> {
        let unshare = Process::find(i32::try_from(self.child.id()).expect("a process id"))?;
        let systemd = unshare.children().into_iter().next()?;
        let mut inside = Command::new("nsenter");
        inside.args([
            "--target",
            &systemd.pid().to_string(),
            "--mount",
            "--pid",
            "--cgroup",
            "sh",
            "-c",
            command,
        ]);
        let output = inside
            .env_remove("CLUSTERD_HOME")
            .env("HOME", "/run/home")
            .output()
            .expect("nsenter can be started");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A property of the service.
    fn property(&self, name: &str) -> String {
        let said = self.run(&format!("systemctl show clusterd --value --property {name}"));
        said.unwrap_or_default().trim().to_owned()
    }

    /// Waits until it is in this state, with no process but the first.
    #[track_caller]
    fn is(&self, state: &str) {
        until(&format!("the service is {state}"), || {
            let now = self.property("ActiveState");
            assert_eq!(self.property("NRestarts"), "0", "{}", self.property("Result"));
            (now == state).then_some(())
        });
    }

    fn get(&self) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        http::request(address, "GET", "/").expect("it answers").text()
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Once all of its processes are gone.
        let removes = || {
            let groups =
                Command::new("find").arg(&self.group).args(["-depth", "-type", "d", "-delete"]).output();
            (groups.is_err() || !self.group.exists()).then_some(())
        };
        until("its control groups are gone", removes);
    }
}

/// Where control groups of version 2 are, which systemd takes.
pub(crate) fn control_groups() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc");
    let found = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    found.into_iter().find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| fields[1].into())
}
