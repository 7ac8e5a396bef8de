//! The Python wheel, as pip and uv install it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::package;
use crate::harness::folder::Folder;
use crate::harness::home::Home;
use crate::harness::needs::{self, needs};
use crate::harness::ports::free_port;
use crate::harness::up::Up;
use crate::harness::{Signal, build, until};

fn wheel() -> Option<PathBuf> {
    package("clusterd-", ".whl").filter(|_| needs::program("python3"))
}

#[test]
fn its_tags_are_true_and_its_metadata_is_whole() {
    needs!("auditwheel", "twine", "check-wheel-contents");
    let Some(wheel) = wheel() else { return };
    let name = wheel.file_name().expect("it has a name").to_string_lossy().into_owned();
    let platforms = name.strip_suffix(".whl").and_then(|name| name.rsplit('-').next()).expect("tags");
    assert_eq!(platforms, "manylinux2014_x86_64.manylinux_2_17_x86_64.musllinux_1_1_x86_64");
    let audit = does(Command::new("auditwheel").arg("show").arg(&wheel));
    // What is as old as that runs on what is newer, too, and what needs no library does with any.
    let words: Vec<_> = audit.split_whitespace().collect();
    let audit = words.join(" ");
    assert!(audit.contains(r#"following platform tag: "manylinux_2_5_x86_64""#), "{audit}");
    assert!(audit.contains("requires no external shared libraries"), "{audit}");
    does(Command::new("twine").args(["check", "--strict"]).arg(&wheel));
    // W007: it has no module of Python.
    does(Command::new("check-wheel-contents").args(["--ignore", "W007"]).arg(&wheel));
}

#[test]
fn pip_installs_it_a_python_server_is_served_and_nothing_is_left() {
    let Some(wheel) = wheel() else { return };
    let home = Home::new();
    let environment = home.folder().join("environment");
    does(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    let before = files(&environment);
    let pip = environment.join("bin/pip");
    does(Command::new(&pip).args(["install", "--no-index", "--no-compile"]).arg(&wheel));
    let program = environment.join("bin/clusterd");
    assert!(needs::is_executable(&program));

    let port = free_port().to_string();
    let words = [
        "--port",
        &port,
        "--workers",
        "2",
        "--",
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &port,
    ];
    home.write("index.html", "from Python\n");
    let program = program.to_str().expect("a path in UTF-8");
    let mut up = Up::by(&home, &[&[program], &words[..]].concat(), &[]);
    let port = port.parse().expect("a number");
    until("it serves", || home.get(port).filter(|answer| answer == "from Python\n"));
    up.signal(Signal::TERM);
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
    up.leaves_no_process();

    does(Command::new(&pip).args(["uninstall", "--yes", "clusterd"]));
    assert_eq!(files(&environment), before);
}

#[test]
fn uv_runs_it_without_installing_it() {
    needs!("uv");
    let Some(wheel) = wheel() else { return };
    let folder = Folder::new();
    let mut uv = Command::new("uv");
    uv.args(["tool", "run", "--no-index", "--from"]).arg(&wheel).args(["clusterd", "--version"]);
    assert_eq!(does(in_folder(&mut uv, &folder)), format!("clusterd {}\n", env!("CARGO_PKG_VERSION")));
}

/// As a Python that is linked with musl has it installed, in a root that has musl and no other C library.
#[test]
fn it_is_chosen_for_musl_and_serves_where_there_is_nothing_else() {
    needs!("uv", "musl-gcc", "unshare", "chroot", "mount");
    let Some(wheel) = wheel().filter(|_| needs::root()) else { return };
    let (folder, home) = (Folder::new(), Home::new());
    let root = folder.path().join("root");
    let mut uv = Command::new("uv");
    uv.args(["pip", "install", "--no-index", "--only-binary=:all:", "clusterd"]);
    uv.args(["--python-platform", "x86_64-unknown-linux-musl", "--find-links"]);
    uv.arg(wheel.parent().expect("it is in a folder")).arg("--target").arg(&root);
    does(in_folder(&mut uv, &folder));
    for name in ["lib", "proc"] {
        fs::create_dir(root.join(name)).expect("a folder in the temporary folder");
    }
    folder.copy_program_as(Path::new(MUSL), &root.join(&MUSL[1..]));
    folder.copy_program_as(Path::new(&build::c("musl-wheel", &["musl-gcc"])), &root.join("server"));

    let (port, path) = (free_port(), root.to_str().expect("a path in UTF-8"));
    let unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", ENTER, "sh", path];
    let words = ["/bin/clusterd", "--port", &port.to_string(), "--workers", "2", "--", "/server"];
    let mut up = Up::by(&home, &[&unshare[..], &words].concat(), &[]);
    until("it serves", || home.get(port).filter(|answer| answer == "c"));
    let clusterd = up.process().children().into_iter().next().expect("it runs");
    clusterd.signal(Signal::TERM);
    assert_eq!(up.code(), 0, "{}", up.stderr.text());
    // The shim was loaded by musl: no worker was turned to something else.
    assert_eq!(up.stderr.line_with(&["WARN"]), None);
}

/// What is musl and its loader.
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";

/// Runs a command in the root `$1`.
const ENTER: &str = r#"mount -t proc proc "$1/proc"; exec chroot "$@""#;

/// uv keeps all that it makes in this folder.
fn in_folder<'a>(uv: &'a mut Command, folder: &Folder) -> &'a mut Command {
    uv.env("UV_CACHE_DIR", folder.path().join("cache")).env("UV_TOOL_DIR", folder.path().join("tools"));
    uv.env("UV_OFFLINE", "1").env("UV_NO_CONFIG", "1").env("UV_PYTHON_DOWNLOADS", "never")
}

/// What a command that succeeds says; pip takes no settings of this machine.
#[track_caller]
fn does(command: &mut Command) -> String {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PIP_")) {
        command.env_remove(name);
    }
    command.env("PIP_CONFIG_FILE", "/dev/null").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    let output = command.stdin(Stdio::null()).output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Every file but what Python compiles as it runs.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = folder.read_dir().expect("it can be read").map(|entry| entry.expect("an entry").path());
    let kept = entries.filter(|path| !path.ends_with("__pycache__"));
    kept.flat_map(|path| if path.is_dir() && !path.is_symlink() { files(&path) } else { [path].into() })
        .collect()
}
