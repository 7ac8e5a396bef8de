//! Who has a TCP port that cannot be opened: an app of this home folder, if it is one.
//!
//! It only looks, which may take milliseconds.

use std::fmt;

use procfs::process::Process;

use crate::home::apps::Apps;
use crate::home::lock::{Holder, Lock};
use crate::supervisor::process_table::{self, Named};

/// How far up it is looked for the primary of a process.
const MOST_PARENTS: usize = 32;

/// Who has the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This process, for another address.
    This,
    /// An app of this home folder.
    App {
        /// What it is called.
        name: String,
        /// Its primary.
        pid: u32,
        /// Whether it was seen to listen; otherwise it has said that the port is its own.
        listens: bool,
    },
    /// A process of which no more is known.
    Process(Named),
    /// One that cannot be seen, or does not listen.
    Unknown,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::This => f.write_str("another address of this port is open for this app already"),
            Owner::App { name, pid, listens } => {
                let does = if *listens { "listens there" } else { "has this port" };
                write!(f, "app {name} (pid {pid}) {does}; choose another port, or clusterd delete {name}")
            }
            Owner::Process(process) => write!(f, "{process} listens there; stop it, or choose another port"),
            Owner::Unknown => f.write_str("another process has this port; stop it, or choose another port"),
        }
    }
}

/// An app whose primary lives.
#[derive(Clone, Debug)]
struct Living {
    name: String,
    holder: Holder,
}

/// Looks for it.
pub(super) fn of_port(port: u16) -> Owner {
    let listener = process_table::listener_of(port);
    let line = listener.as_ref().map(|process| line_of(process.pid)).unwrap_or_default();
    decide(port, std::process::id(), listener.map(|process| (process, line)), &living())
}

/// A `listener` comes with its own number and those of its parents.
fn decide(port: u16, this: u32, listener: Option<(Named, Vec<u32>)>, apps: &[Living]) -> Owner {
    let app = |app: &Living, listens| Owner::App { name: app.name.clone(), pid: app.holder.pid, listens };
    let Some((process, line)) = listener else {
        let is_its_own = |app: &&Living| app.holder.pid != this && app.holder.ports.contains(&port);
        return apps.iter().find(is_its_own).map_or(Owner::Unknown, |found| app(found, false));
    };
    if line.contains(&this) {
        return Owner::This;
    }
    match apps.iter().find(|app| line.contains(&app.holder.pid)) {
        Some(found) => app(found, true),
        None => Owner::Process(process),
    }
}

fn living() -> Vec<Living> {
    let Ok(apps) = Apps::of_this_process() else { return Vec::new() };
    let living = apps
        .folders()
        .filter(Lock::is_held)
        .filter_map(|app| Some(Living { name: app.name().to_owned(), holder: Lock::holder(&app)? }));
    living.collect()
}

/// This process and its parents: a worker that accepts by itself has its primary among them.
fn line_of(pid: i32) -> Vec<u32> {
    let parent = |pid: &i32| Process::new(*pid).and_then(|process| process.stat()).map(|stat| stat.ppid).ok();
    let line = std::iter::successors(Some(pid), parent).take_while(|pid| *pid > 0).take(MOST_PARENTS);
    line.filter_map(|pid| u32::try_from(pid).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_named_by_whoever_listens_or_by_what_it_has_said() {
        let living = |name: &str, pid, ports: &[u16]| Living {
            name: name.to_owned(),
            holder: Holder { pid, terminal: None, ports: ports.to_vec() },
        };
        let apps = [living("api", 7, &[80]), living("web", 8, &[80, 81]), living("job", 9, &[])];
        let process = |line: &[u32]| Some((Named { pid: 5, name: "nginx".to_owned() }, line.to_vec()));
        let table: [(u16, _, &str); 7] = [
            (
                80,
                process(&[8, 1]),
                "app web (pid 8) listens there; choose another port, or clusterd delete web",
            ),
            (
                82,
                process(&[5, 9, 1]),
                "app job (pid 9) listens there; choose another port, or clusterd delete job",
            ),
            (80, process(&[5, 1]), "nginx (pid 5) listens there; stop it, or choose another port"),
            (80, process(&[7, 1]), "another address of this port is open for this app already"),
            (80, None, "app web (pid 8) has this port; choose another port, or clusterd delete web"),
            (81, None, "app web (pid 8) has this port; choose another port, or clusterd delete web"),
            (82, None, "another process has this port; stop it, or choose another port"),
        ];
        for (port, listener, expected) in table {
            assert_eq!(decide(port, 7, listener.clone(), &apps).to_string(), expected, "{port} {listener:?}");
        }
    }

    #[test]
    fn a_process_has_its_parents_behind_it() {
        let pid = std::process::id();
        let line = line_of(i32::try_from(pid).unwrap());
        assert_eq!(line[..2], [pid, std::os::unix::process::parent_id()]);
    }
}
