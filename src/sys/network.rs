//! For tests: a process in a network of its own, whose settings are nobody else's.
//!
//! The network is the whole process's, so that such a test is ignored, and run alone by another.

use std::process::Command;

/// Runs an ignored test in a network of its own, in which loopback is up. Where that is not permitted nothing is run.
pub(crate) fn run_in_its_own(test: &str) {
    let within = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).args(command);
        unshare.output()
    };
    if !within(&["true"]).is_ok_and(|output| output.status.success()) {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = within(&[&program.to_string_lossy(), "--exact", "--ignored", test]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
