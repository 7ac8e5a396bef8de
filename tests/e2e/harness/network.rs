//! Tests that change the settings of a network run in one of their own, as processes of their own.

use std::process::Command;

/// Runs an ignored test in a network of its own, in which loopback is up. Where that is not permitted nothing is run.
#[track_caller]
pub(crate) fn run_in_its_own(test: &str) {
    let within = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).args(command);
        unshare.output()
    };
    if !within(&["true"]).is_ok_and(|output| output.status.success()) {
        println!("skipped: the tests may not make networks");
        return;
    }
    let program = std::env::current_exe().expect("a file");
    let program = program.to_string_lossy();
    let output = within(&[&program, "--exact", "--ignored", "--nocapture", test]).expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(text.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
}
