//! Privileges of this process: it becomes another user for good, keeps some capabilities (capabilities(7)), and hands them on.
//!
//! Which ones are worth keeping is decided elsewhere. What is done for a moment as another user is in
//! [`acting`](super::acting), and what becomes of children in [`process`](super::process).

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::Uid;
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::process::{Credentials, has_proc};

/// How long threads that were waited for may take to be gone.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// How often it is looked whether they are.
const LOOK: Duration = Duration::from_millis(1);

/// The capabilities of this thread that are in force.
///
/// # Errors
/// Those of capget(2).
pub(crate) fn effective() -> io::Result<CapabilitySet> {
    Ok(rustix::thread::capabilities(None)?.effective)
}

/// What people call these.
pub(crate) fn names(capabilities: CapabilitySet) -> String {
    let names: Vec<_> = capabilities.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    names.join(", ")
}

/// This process is this user from now on, with these capabilities and no others. Children inherit none of them.
///
/// On Linux credentials are a thread's (setresuid(2), "C library/kernel differences"): it is done while there is one thread,
/// and those that are started later have what it has.
///
/// # Errors
/// There are other threads, or the capabilities for it are missing. The process must not go on then.
pub(crate) fn become_user(user: &Credentials, kept: CapabilitySet) -> io::Result<()> {
    wait_until_alone()?;
    let dumpable = rustix::process::dumpable_behavior()?;
    let parent_death = rustix::process::parent_process_death_signal()?;
    // Without this, capabilities go with user 0.
    rustix::thread::set_keep_capabilities(true)?;
    if let Some(groups) = &user.groups {
        rustix::thread::set_thread_groups(groups)?;
    }
    rustix::thread::set_thread_res_gid(user.gid, user.gid, user.gid)?;
    rustix::thread::set_thread_res_uid(user.uid, user.uid, user.uid)?;
    rustix::thread::set_keep_capabilities(false)?;
    keep_only(kept)?;
    // The change of user has taken these two (prctl(2)). Whoever is not dumpable has its files in /proc owned by root, and can
    // neither set its own oom_score_adj nor be found by its own user. What is in memory is this user's to know; where
    // capabilities are kept, only who has them may look into this process all the same (ptrace(2)).
    rustix::process::set_parent_process_death_signal(parent_death)?;
    if dumpable == DumpableBehavior::Dumpable {
        rustix::process::set_dumpable_behavior(dumpable)?;
    }
    Ok(())
}

/// This thread has these capabilities and no others, and programs that it starts have none of them.
///
/// # Errors
/// Those of capset(2): it lacks one of them.
pub(crate) fn keep_only(kept: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    // What is not inheritable is not ambient either.
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The next program that this thread executes in its own place has these capabilities, which it has itself (PR_CAP_AMBIENT,
/// prctl(2)). [`keep_only`] takes that back.
///
/// # Errors
/// Those of capset(2) and prctl(2): it lacks one of them.
pub(crate) fn hand_on(capabilities: CapabilitySet) -> io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: capabilities, ..own })?;
    for one in capabilities.iter() {
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// Gives the child of this command those of these capabilities that this process has. As root it has them anyway.
pub(crate) fn share(command: &mut Command, capabilities: CapabilitySet) {
    let shared = effective().unwrap_or(CapabilitySet::empty()) & capabilities;
    if shared.is_empty() || rustix::process::geteuid() == Uid::ROOT {
        return;
    }
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `hand_on` makes plain system calls, and neither
    // allocates nor locks.
    unsafe { command.pre_exec(move || hand_on(shared)) };
}

/// Threads that have ended, and were waited for, may be seen for another moment.
fn wait_until_alone() -> io::Result<()> {
    let until = Instant::now() + LAST_THREADS;
    while has_proc() && std::fs::read_dir("/proc/self/task")?.count() != 1 {
        if Instant::now() > until {
            return Err(io::Error::other("this process has several threads"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_names_that_people_know() {
        assert_eq!(names(CapabilitySet::empty()), "");
        assert_eq!(
            names(CapabilitySet::SETUID | CapabilitySet::KILL | CapabilitySet::NET_BIND_SERVICE),
            "CAP_KILL, CAP_SETUID, CAP_NET_BIND_SERVICE"
        );
    }

    #[test]
    fn nobody_becomes_another_user_beside_other_threads() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || receiver.recv());
        let own =
            Credentials { uid: rustix::process::geteuid(), gid: rustix::process::getegid(), groups: None };
        let refused = become_user(&own, CapabilitySet::empty()).unwrap_err();
        assert_eq!(refused.to_string(), "this process has several threads");
        drop(sender);
        assert!(other.join().unwrap().is_err());
    }

    #[test]
    fn what_is_handed_on_is_taken_back() {
        // On a thread of its own, for capabilities are a thread's.
        let seen = std::thread::spawn(|| {
            let kept = effective().unwrap() & CapabilitySet::NET_BIND_SERVICE;
            let ambient = || rustix::thread::capability_is_in_ambient_set(CapabilitySet::NET_BIND_SERVICE);
            hand_on(kept).unwrap();
            let handed_on = ambient().unwrap();
            keep_only(kept).unwrap();
            (kept, handed_on, ambient().unwrap(), rustix::thread::capabilities(None).unwrap())
        });
        let (kept, handed_on, after, sets) = seen.join().unwrap();
        assert_eq!((handed_on, after), (!kept.is_empty(), false));
        let inheritable = CapabilitySet::empty();
        assert_eq!(sets, CapabilitySets { effective: kept, permitted: kept, inheritable });
    }
}
