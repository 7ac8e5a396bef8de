//! The Debian package, as dpkg installs, upgrades and removes it in a minimal Debian.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::debian::Debian;
use super::package;
use crate::harness::folder::Folder;
use crate::harness::http;
use crate::harness::needs::needs;
use crate::harness::ports::free_port;
use crate::harness::until;

/// Packs the same package with another version.
const NEXT: &str = "dpkg-deb --raw-extract /mnt/clusterd.deb /tmp/next
    sed -i 's/^Version: .*/&.1/' /tmp/next/DEBIAN/control
    dpkg-deb -Znone --build /tmp/next /tmp/next.deb";

fn deb() -> Option<PathBuf> {
    package("clusterd_", "_amd64.deb")
}

#[test]
fn lintian_has_nothing_to_say() {
    needs!("lintian");
    let Some(deb) = deb() else { return };
    let (mut lintian, folder) = (Command::new("lintian"), Folder::new());
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(deb);
    // It leaves files there.
    let output = lintian.env("TMPDIR", folder.path()).output().expect("lintian can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_systemd_it_is_installed_serves_and_leaves_nothing() {
    let Some(debian) = deb().and_then(|deb| Debian::without_systemd(&deb)) else { return };
    let before = debian.files();
    debian.does("dpkg --install /mnt/clusterd.deb");
    let version = format!("clusterd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(debian.does("clusterd --version"), version);
    let added: BTreeSet<_> = debian.files().difference(&before).cloned().collect();
    for file in [
        "/usr/bin/clusterd",
        "/etc/clusterd/README",
        "/usr/share/bash-completion/completions/clusterd",
        "/usr/share/doc/clusterd/copyright",
        "/usr/share/fish/vendor_completions.d/clusterd.fish",
        "/usr/share/zsh/vendor-completions/_clusterd",
    ] {
        assert!(added.contains(file), "{file} is not among {added:?}");
    }
    let port = free_port();
    debian.does(&format!("clusterd start --name web --port {port} -- perl /mnt/server"));
    assert_eq!(get(port), "perl");
    debian.does("clusterd delete web && rm -r /root/.clusterd");
    debian.does("dpkg --remove clusterd");
    assert!(debian.files().contains("/etc/clusterd/README"));
    debian.does("dpkg --purge clusterd");
    assert_eq!(debian.files(), before);
}

#[test]
fn the_service_is_upgraded_while_it_serves_and_ends_with_the_package() {
    let Some(debian) = deb().and_then(|deb| Debian::booted(&deb)) else { return };
    let before = debian.files();
    debian.does("dpkg --install /mnt/clusterd.deb");
    debian.does("systemd-analyze verify --man=no /usr/lib/systemd/system/clusterd@.service");
    let services = || debian.does("systemctl list-units --all --no-legend --plain 'clusterd*.service'");
    assert_eq!(services(), "", "an installation starts nothing");
    assert_ne!(debian.run("systemctl start clusterd@none").code, 0, "there is no none.toml");
    let state = debian.does("systemctl show clusterd@none --value --property ActiveState");
    assert_eq!(state, "failed\n", "it would fail again");
    debian.does("systemctl reset-failed");
    let port = free_port();
    let app = format!(r#"port = {port}\nworkers = 2\ncommand = ["perl", "/mnt/server"]\n"#);
    debian.does(&format!("printf '{app}' > /etc/clusterd/web.toml && systemctl enable --now clusterd@web"));
    assert_eq!(get(port), "perl");

    debian.does(NEXT);
    let (process, workers) = (property(&debian, "MainPID"), workers(&debian));
    assert!(!workers.is_empty());
    // Accepted before the upgrade, and asks after it.
    let early = http::connect(address(port)).expect("it is accepted");
    let asked = while_asked(port, || {
        debian.does("dpkg --install /tmp/next.deb");
        until("it is upgraded", || (!app_of(&debian)["upgrade"].is_null()).then_some(()));
    });
    assert!(asked > 0);
    let answer = http::send_on(early, "GET", "/").and_then(http::Pending::response).expect("it stands");
    assert_eq!(answer.text(), "perl");
    assert!(app_of(&debian)["upgrade"]["failed"].is_null(), "{}", app_of(&debian));
    assert_eq!((property(&debian, "MainPID"), property(&debian, "NRestarts")), (process, "0".to_owned()));
    assert_eq!(self::workers(&debian), workers);
    debian.does("systemctl reload clusterd@web");
    assert!(self::workers(&debian).is_disjoint(&workers));
    assert_eq!(get(port), "perl");

    debian.does("dpkg --remove clusterd");
    assert_eq!(services(), "", "a removal leaves nothing that runs");
    assert!(http::connect(address(port)).is_err());
    debian.does("rm /etc/clusterd/web.toml && dpkg --purge clusterd");
    // Files may belong to the user, and another one must not get its number.
    let left: BTreeSet<_> = debian.files().difference(&before).cloned().collect();
    let is_of_users =
        |file: &String| file == "/etc/.pwd.lock" || file.starts_with("/etc/") && file.ends_with('-');
    assert!(left.iter().all(is_of_users), "{left:?}");
    assert_eq!(before.difference(&debian.files()).count(), 0);
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[track_caller]
fn get(port: u16) -> String {
    http::request(address(port), "GET", "/").expect("it answers").text()
}

/// Asks for as long as this takes, gets each answer, and says how many they were.
fn while_asked(port: u16, action: impl FnOnce()) -> u64 {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(get(port), "perl");
                asked += 1;
            }
            asked
        });
        // Also if it fails, or the client would never end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
        is_over.store(true, Ordering::Relaxed);
        let asked = client.join().expect("each request is answered");
        done.expect("it is done");
        asked
    })
}

fn app_of(debian: &Debian) -> serde_json::Value {
    debian.run("clusterd describe web --output json").json()
}

fn workers(debian: &Debian) -> BTreeSet<u64> {
    let app = app_of(debian);
    let workers = app["workers"].as_array().expect("workers").iter();
    workers.filter(|worker| worker["state"] == "online").filter_map(|worker| worker["pid"].as_u64()).collect()
}

fn property(debian: &Debian, name: &str) -> String {
    debian.does(&format!("systemctl show clusterd@web --value --property {name}")).trim().to_owned()
}
