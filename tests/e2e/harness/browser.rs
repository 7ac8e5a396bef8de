//! Scripts of Node that look at the page with a real browser: Debian's Chromium, driven by playwright-core.
//!
//! What they check is theirs (`fixtures/web`). Each begins a browser of its own, which ends with it.

use std::process::{Command, Stdio};

use super::folder::fixtures;
use super::home::Home;
use super::needs;

/// Whether the machine has what they need.
pub(crate) fn is_there() -> bool {
    needs::program("node")
        && needs::program("chromium")
        && ["playwright-core", "axe-core"].into_iter().all(needs::package)
}

/// Runs the checks of this script, for the apps of this home folder. They end by themselves, and all have to hold.
#[track_caller]
pub(crate) fn check(script: &str, home: &Home, variables: &[(&str, &str)]) {
    let output = Command::new("node")
        .arg(fixtures().join("web").join(script))
        .current_dir(home.folder())
        .env("CHROMIUM", needs::find("chromium").expect("it was looked for"))
        .env("CLUSTERD", env!("CARGO_BIN_EXE_clusterd"))
        .env("CLUSTERD_HOME", home.home())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("node can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}\n{said}\n{complained}", output.status);
    println!("{said}");
}
