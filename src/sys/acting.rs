//! Doing one thing with the rights of another user: on one thread, and not for longer than it takes.
//!
//! A process that is to *be* somebody else from its start is made by [`ChildSetup`](super::process::ChildSetup).

use std::io;

use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::process::Credentials;

/// Does something with the rights that this user has to files and ports. On Linux credentials are a thread's
/// (setresuid(2), "C library/kernel differences"), so that no other thread notices; what is done must stay on this one.
///
/// # Errors
/// The rights of the caller do not permit that; nothing was done then.
///
/// # Panics
/// The thread cannot take back what it has put aside, which the kernel grants.
pub(crate) fn with_rights_of<T>(user: &Credentials, act: impl FnOnce() -> T) -> io::Result<T> {
    let own = Own::put_aside()?;
    if let Some(groups) = &user.groups {
        rustix::thread::set_thread_groups(groups)?;
    }
    rustix::thread::set_thread_res_gid(None, user.gid, None)?;
    // It takes away the right to the others; the saved user is the way back.
    rustix::thread::set_thread_res_uid(None, user.uid, None)?;
    // Only from root's is it done by the kernel: the right to ports, say, would stay.
    if user.uid != own.uid {
        put_in_force(CapabilitySet::empty())?;
    }
    Ok(act())
}

/// The same for whom workers run as, if that is another user than clusterd's: an outcome of the system either way.
///
/// # Errors
/// As above, and those of what is done.
pub(crate) fn with_rights_of_workers<T>(
    user: Option<&Credentials>,
    act: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    match user {
        Some(user) => with_rights_of(user, act)?,
        None => act(),
    }
}

/// What the thread was before; dropping it brings that back.
struct Own {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// Those in force.
    capabilities: CapabilitySet,
    // Each change of credentials takes these two from the process (prctl(2)).
    dumpable: DumpableBehavior,
    parent_death: Option<Signal>,
}

impl Own {
    fn put_aside() -> io::Result<Self> {
        Ok(Self {
            uid: rustix::process::geteuid(),
            gid: rustix::process::getegid(),
            groups: rustix::process::getgroups()?,
            capabilities: rustix::thread::capabilities(None)?.effective,
            dumpable: rustix::process::dumpable_behavior()?,
            parent_death: rustix::process::parent_process_death_signal()?,
        })
    }

    fn take_back(&self) -> rustix::io::Result<()> {
        put_in_force(self.capabilities)?;
        rustix::thread::set_thread_res_uid(None, self.uid, None)?;
        rustix::thread::set_thread_res_gid(None, self.gid, None)?;
        if rustix::process::getgroups()? != self.groups {
            rustix::thread::set_thread_groups(&self.groups)?;
        }
        // With the user, root's come and go.
        put_in_force(self.capabilities)?;
        rustix::process::set_parent_process_death_signal(self.parent_death)?;
        // Anything else cannot be set, and then is what it was.
        if self.dumpable == DumpableBehavior::Dumpable {
            rustix::process::set_dumpable_behavior(self.dumpable)?;
        }
        Ok(())
    }
}

/// Of the capabilities that the thread may have, these count.
fn put_in_force(capabilities: CapabilitySet) -> rustix::io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    match own.effective == capabilities {
        true => Ok(()),
        false => rustix::thread::set_capabilities(None, CapabilitySets { effective: capabilities, ..own }),
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.take_back().expect("the saved user may become the effective one again");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::net::TcpListener;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn other() -> Credentials {
        let (uid, gid) = (Uid::from_raw(12_345), Gid::from_raw(54_321));
        Credentials { uid, gid, groups: Some(vec![gid]) }
    }

    /// One test for all: the process has but one dumpable flag.
    #[test]
    fn rights_are_another_users_for_as_long_as_it_takes() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (closed, open) = (folder.path().join("closed"), folder.path().join("open"));
        for (path, mode) in [(&closed, 0o755), (&open, 0o777)] {
            std::fs::create_dir(path).unwrap();
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let capabilities = || rustix::thread::capabilities(None).unwrap().effective;
        let (before, groups) = (capabilities(), rustix::process::getgroups().unwrap());

        let (refused, made, bound) = with_rights_of(&other(), || {
            let refused = std::fs::write(closed.join("file"), "").map_err(|error| error.kind());
            let made = std::fs::write(open.join("file"), "");
            let bound = TcpListener::bind("127.0.0.1:81").map(drop).map_err(|error| error.kind());
            (refused, made, bound)
        })
        .unwrap();

        assert_eq!(refused, Err(io::ErrorKind::PermissionDenied));
        made.unwrap();
        let owner = open.join("file").metadata().unwrap();
        assert_eq!((owner.uid(), owner.gid()), (12_345, 54_321));
        let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        if first.trim() == "1024" {
            assert_eq!(bound, Err(io::ErrorKind::PermissionDenied));
        }
        std::fs::write(closed.join("file"), "").expect("root again");
        assert_eq!((capabilities(), rustix::process::getgroups().unwrap()), (before, groups));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    }

    #[test]
    fn who_is_not_root_lends_no_capability_either() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let seen = std::thread::spawn(|| {
            let kept = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::NET_BIND_SERVICE;
            let dumpable = rustix::process::dumpable_behavior().unwrap();
            rustix::thread::set_keep_capabilities(true).unwrap();
            let third = Uid::from_raw(23_456);
            rustix::thread::set_thread_res_uid(third, third, third).unwrap();
            let sets =
                CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
            rustix::thread::set_capabilities(None, sets).unwrap();
            let within = || (rustix::process::geteuid(), rustix::thread::capabilities(None).unwrap());
            let (user, lent) = with_rights_of(&other(), within).unwrap();
            let after = within();
            rustix::process::set_dumpable_behavior(dumpable).unwrap();
            (user, lent.effective, after.0 == third, after.1 == sets)
        });
        let seen = seen.join().unwrap();
        assert_eq!(seen, (other().uid, CapabilitySet::empty(), true, true));
    }
}
