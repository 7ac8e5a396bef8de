//! The images of the Dockerfile. There is no container runtime here: their root folders are made by the same steps, around the
//! static binary that is built already, and are run as a strict runtime would: as PID 1 of a namespace of its own, as the image's
//! user, with no capability, on a read-only root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::dist;
use crate::harness::folder::fixtures;
use crate::harness::load::Load;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, build, needs};

const DOCKERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile");

/// Mounts what a runtime mounts below the root `$1`, makes it read-only, and runs there what `$ENTRYPOINT` says in the place of the
/// clusterd `$2`. `$RUN` has the image's own steps, `$BASE` mounts what it is made from.
const ENTER: &str = r#"
    set -e; root=$1; shift 2
    eval "$BASE"
    mkdir -p "$root/proc" "$root/dev"
    eval "$RUN"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    for device in null zero urandom; do
        : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
    done
    mount -o "remount,$READ_ONLY" "$root"
    user=$USER_AND_GROUP entrypoint=$ENTRYPOINT
    unset HOME PWD OLDPWD CLUSTERD_HOME BASE RUN READ_ONLY USER_AND_GROUP ENTRYPOINT
    # What chroot itself needs goes with the change of the user.
    exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
        chroot --userspec="$user" --groups= "$root" "$entrypoint" "$@""#;

/// What one stage of the Dockerfile says.
#[derive(Default)]
struct Stage {
    name: String,
    from: String,
    /// Where what the first stage has built is copied to.
    copied_to: Vec<String>,
    run: Vec<String>,
    user: String,
    entrypoint: Vec<String>,
}

fn stages() -> Vec<Stage> {
    let text = fs::read_to_string(DOCKERFILE).expect("a Dockerfile").replace("\\\n", " ");
    let mut stages: Vec<Stage> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').expect("an instruction with arguments");
        let words: Vec<_> = rest.split_whitespace().collect();
        if instruction == "FROM" {
            let name = words.get(2).copied().unwrap_or_default().to_owned();
            stages.push(Stage { name, from: words[0].to_owned(), ..Stage::default() });
            continue;
        }
        let stage = stages.last_mut().expect("FROM is the first instruction");
        match (instruction, &words[..]) {
            ("COPY", ["--from=build", "/clusterd", to]) => stage.copied_to.push((*to).to_owned()),
            ("RUN", _) => stage.run.push(rest.to_owned()),
            ("USER", [user]) => stage.user = (*user).to_owned(),
            ("ENTRYPOINT", _) => stage.entrypoint = serde_json::from_str(rest).expect("a list of words"),
            ("COPY" | "WORKDIR", _) if stage.name == "build" => {}
            ("EXPOSE", _) => {}
            _ => panic!("the test does not know {line:?}"),
        }
    }
    stages
}

/// The static clusterd, where containers can be imitated; otherwise the test is skipped.
fn clusterd() -> Option<PathBuf> {
    let programs = ["unshare", "chroot", "mount", "setpriv"].into_iter().all(needs::program);
    dist().filter(|_| programs && needs::root()).map(|dist| dist.join("clusterd"))
}

/// A cluster that runs in the image of this stage, which holds these programs besides.
fn in_image(setup: Setup, stage: &Stage, clusterd: &Path, programs: &[(&str, &str)]) -> Setup {
    let folder = setup.folder.path();
    let (root, upper) = (folder.join("root"), folder.join("upper"));
    fs::create_dir_all(&root).expect("a folder in the temporary folder");
    let is_empty = stage.from == "scratch";
    let files = if is_empty { root.clone() } else { upper };
    let copied = stage.copied_to.iter().map(|to| (clusterd.to_str().expect("text"), &to[..]));
    for (from, to) in copied.chain(programs.iter().copied()) {
        let to = files.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder in the temporary folder");
        setup.folder.copy_program_as(Path::new(from), &to);
    }
    // For the image's base, this Debian.
    let layers = "lowerdir=/,upperdir=$root/../upper,workdir=$root/../work";
    let (base, read_only) = match is_empty {
        true => (r#"mount --bind "$root" "$root""#.to_owned(), "bind,ro"),
        false => (format!(r#"mkdir "$root/../work"; mount -t overlay overlay -o "{layers}" "$root""#), "ro"),
    };
    let run: Vec<_> = stage.run.iter().map(|step| format!("chroot \"$root\" sh -c '{step}'")).collect();
    let [entrypoint] = &stage.entrypoint[..] else { panic!("one word: {:?}", stage.entrypoint) };
    let unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"];
    setup
        .under(&[&unshare[..], &["sh", "-c", ENTER, "sh", root.to_str().expect("text")]].concat())
        .env("BASE", base)
        .env("RUN", run.join("\n"))
        .env("READ_ONLY", read_only)
        .env("USER_AND_GROUP", &stage.user)
        .env("ENTRYPOINT", entrypoint)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

fn all_answer(cluster: &Cluster) {
    cluster.all_answer(3, |answer| answer.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
}

fn serves(cluster: Cluster, user: u32) {
    all_answer(&cluster);
    assert_eq!(cluster.primary().user(), Some(user));
    assert_eq!(cluster.worker(1).user(), Some(user));
    Load::of_requests(&cluster).loses_nothing_by_a_reload(&cluster);
    all_answer(&cluster);
    let mut cluster = cluster;
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

fn stage(name: &str) -> Stage {
    stages().into_iter().find(|stage| stage.name == name).expect("a stage of that name")
}

#[test]
fn the_empty_image_serves_its_demo() {
    let Some(clusterd) = clusterd() else { return };
    let setup = Cluster::of("demo").of_demo().workers(3);
    serves(in_image(setup, &stage("static"), &clusterd, &[]).start(), 10001);
}

#[test]
fn the_empty_image_serves_a_static_server() {
    let Some(clusterd) = clusterd() else { return };
    if !needs::program("go") {
        return;
    }
    let server = build::go("go-scratch", "pages.go");
    let setup = Cluster::of("/server").workers(3);
    serves(in_image(setup, &stage("static"), &clusterd, &[(&server, "/server")]).start(), 10001);
}

#[test]
fn the_image_with_debian_serves_a_dynamic_server() {
    let Some(clusterd) = clusterd() else { return };
    let (perl, debian) = ("/usr/bin/perl", "/etc/debian_version");
    if [perl, debian].iter().any(|file| !needs::met(Path::new(file).exists(), &format!("there is no {file}")))
    {
        return;
    }
    let server = fixtures().join("server.pl");
    let setup = Cluster::of("/usr/bin/perl /server.pl").workers(3);
    let setup = in_image(setup, &stage(""), &clusterd, &[(server.to_str().expect("text"), "/server.pl")]);
    serves(setup.start(), 10001);
}

#[test]
fn the_dockerfile_is_as_its_linter_wants_it() {
    if !needs::program("hadolint") {
        return;
    }
    let output = Command::new("hadolint").arg(DOCKERFILE).output().expect("hadolint can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
