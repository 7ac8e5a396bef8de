//! A minimal Debian in namespaces of its own, over whose files lies a layer that takes what is written.
//!
//! It has the network of the machine. Of its systemd's units it has none but those of what is installed in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::booted::control_groups;
use crate::harness::folder::Folder;
use crate::harness::process::Process;
use crate::harness::{Said, needs, tools, until};

/// A server that every Debian can run, for one client at a time, as /mnt/server.
const SERVER: &str = r#"use Socket;
socket(my $server, PF_INET, SOCK_STREAM, 0) or die;
setsockopt($server, SOL_SOCKET, SO_REUSEADDR, 1) or die;
bind($server, sockaddr_in($ENV{PORT}, INADDR_ANY)) or die;
listen($server, 9) or die;
while (accept(my $client, $server)) {
    sysread($client, my $request, 4096);
    syswrite($client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nperl");
    close($client);
}
"#;

/// What units of services want or are wanted by.
const TARGETS: [&str; 5] = ["sysinit", "basic", "network-online", "shutdown", "multi-user"];

/// Joins a control group of its own, `$1`, and makes the root, of `$2`, in which `$4` is run; `$3` is its /mnt.
const ENTER: &str = r#"
    mkdir "$1" && echo $$ > "$1/cgroup.procs" || exit 1
    shift
    exec unshare --mount --propagation private --pid --fork --mount-proc --cgroup --uts --ipc --kill-child sh -ec '
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
        cd /mnt/root
        mount -t proc proc proc
        mount -t sysfs -o ro sysfs sys
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        for folder in dev run tmp usr/lib/systemd/system; do mount -t tmpfs -o mode=755 tmpfs $folder; done
        chmod 1777 tmp
        for device in null zero full random urandom; do
            touch dev/$device
            mount --bind /dev/$device dev/$device
        done
        mount --bind "$2" mnt
        cp mnt/units/* usr/lib/systemd/system/
        mkdir run/of-the-test
        echo 0123456789abcdef0123456789abcdef > run/machine-id
        touch etc/machine-id
        mount --bind run/machine-id etc/machine-id
        export container=other SYSTEMD_GENERATOR_PATH=/run/of-the-test
        exec chroot . sh -ec "$3"' sh "$@""#;

const BOOT: &str = "exec /lib/systemd/systemd --system --unit=try.target --show-status=0 --log-target=null";

/// As in a container without systemd, whose first process buries all others.
const REMAIN: &str = r#"rm /usr/bin/systemd-sysusers /usr/bin/systemctl
    exec perl -e '$SIG{CHLD} = "IGNORE"; sleep while 1'"#;

/// Runs `$1`, but nowhere else than there: not in the machine's own root, in which the first process begins.
const INSIDE: &str = r#"test -d /run/of-the-test && eval "$1""#;

/// The Debian; dropping it ends all that runs in it, and nothing is left.
pub(super) struct Debian {
    child: Child,
    group: PathBuf,
    _folder: Folder,
}

impl Debian {
    /// With a systemd that has booted; the package is in its /mnt.
    pub(super) fn booted(package: &Path) -> Option<Self> {
        let debian = Self::that_runs(package, BOOT)?;
        until("systemd answers", || {
            let said = debian.run("systemctl show --property Version");
            (said.code == 0 && !said.stdout.is_empty()).then_some(())
        });
        Some(debian)
    }

    /// Without systemd, in which nothing runs.
    pub(super) fn without_systemd(package: &Path) -> Option<Self> {
        let debian = Self::that_runs(package, REMAIN)?;
        until("it is there", || (debian.run("! test -e /usr/bin/systemctl").code == 0).then_some(()));
        Some(debian)
    }

    fn that_runs(package: &Path, first: &str) -> Option<Self> {
        let has_programs = ["unshare", "nsenter", "mount", "chroot"].into_iter().all(needs::program);
        let root = tools::debian().filter(|_| has_programs && needs::root())?;
        let folder = Folder::new();
        std::fs::copy(package, folder.path().join("clusterd.deb")).expect("it can be read");
        folder.write("server", SERVER);
        for target in TARGETS.into_iter().chain(["try"]) {
            folder.write(&format!("units/{target}.target"), "[Unit]\nDefaultDependencies=no\n");
        }
        let group = control_groups()?.join(folder.path().file_name().expect("it has a name"));
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "sh"]).arg(&group).arg(root).arg(folder.path()).arg(first);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a shell");
        Some(Self { child, group, _folder: folder })
    }

    /// What this command says in it.
    pub(super) fn run(&self, command: &str) -> Said {
        let unshare = Process::find(self.child.id() as i32).expect("it runs");
        let first = until("its first process runs", || unshare.children().into_iter().next());
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &first.pid().to_string()]);
        inside.args(["--mount", "--pid", "--cgroup", "--root", "--wd", "sh", "-c", INSIDE, "sh", command]);
        inside.env_clear().env("HOME", "/root").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        inside.stdin(Stdio::null()).output().expect("nsenter can be started").into()
    }

    /// The same, which has to succeed.
    #[track_caller]
    pub(super) fn does(&self, command: &str) -> String {
        self.run(command).done().to_owned()
    }

    /// Every file but those of the kernel, of dpkg itself, and what a program makes in /tmp.
    pub(super) fn files(&self) -> BTreeSet<String> {
        let found = "find / ( -path /proc -o -path /sys -o -path /dev -o -path /mnt -o -path /tmp \
                     -o -path /var/lib/dpkg -o -path /var/log -o -path /run/systemd ) -prune -o -print";
        let found = found.replace('(', r"\(").replace(')', r"\)");
        self.does(&found).lines().map(str::to_owned).collect()
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Once all of its processes are gone.
        let removes = || {
            let _ = Command::new("find").arg(&self.group).args(["-depth", "-type", "d", "-delete"]).output();
            (!self.group.exists()).then_some(())
        };
        until("its control groups are gone", removes);
    }
}
