//! What is told of a worker that does not listen where it should: what was seen, and what would help.
//!
//! Pure: from findings to sentences. It looks at nothing itself.

use std::fmt::Write as _;

use humantime::format_duration;

use super::super::ends::Ended;
use super::super::turn::Turned;
use super::{Awaited, Findings, Obstacle, Why};
use crate::sys::seccomp::Privilege;

/// What to tell of a program that bound its port, and ended without having taken a connection.
pub(crate) fn advice_on_ring(ring: &Obstacle) -> String {
    format!("the worker ended before it took a connection: {}", about_obstacle(ring))
}

/// What is told where all workers accept by themselves from now on, because of one of them.
pub(crate) fn advice_on_turn(Obstacle { program, why }: &Obstacle, turned: Turned) -> String {
    let what = match why {
        Why::Go => "is a Go program, which bypasses the C library",
        Why::Static => "is statically linked, so that nothing is preloaded into it",
        _ => "has an io_uring, and accepts past the C library",
    };
    let how = match turned {
        Turned::BySeccomp(Privilege::Capability) => "--attach seccomp",
        Turned::BySeccomp(Privilege::NoNewPrivileges) => {
            "--attach seccomp, with no_new_privs: sudo, ping and other setuid programs do not work in them"
        }
        Turned::ByShim => "--accept workers",
    };
    format!("{program} {what}; workers accept by themselves from their next start on: {how}")
}

impl Findings {
    /// Whether other workers listen on the ports on which this one did not.
    fn is_served_elsewhere(&self) -> bool {
        self.missing.iter().all(|port| self.served.contains(port))
    }
}

/// What to tell the user: what was seen, and what to do.
pub(crate) fn advice(seen: &Findings) -> String {
    if seen.ended.is_none() && seen.missing.is_empty() {
        return about_readiness(seen);
    }
    let missing = list(seen.missing.iter().map(|port| port.0));
    let mut text = match seen.ended {
        Some(how) if seen.missing.is_empty() => format!("the worker {how} as soon as it listened"),
        Some(how) => format!("the worker {how} before it listened on {missing}"),
        None => format!("the worker does not listen on {missing} after {}", format_duration(seen.after)),
    };
    let rest = match (&seen.obstacle, seen.ended) {
        (Some(obstacle), _) => about_obstacle(obstacle),
        (None, Some(how)) => about_end(how, seen),
        (None, None) => about_ports(seen, &missing),
    };
    // Writing into a string cannot fail.
    let _ = write!(text, ": {rest}");
    text
}

pub(super) fn about_obstacle(Obstacle { program, why }: &Obstacle) -> String {
    match why {
        Why::Go => format!(
            "{program} is a Go program, which bypasses the C library, so clusterd's shim cannot serve it; use \
             --attach seccomp"
        ),
        Why::Static => format!(
            "{program} is statically linked, so clusterd's shim is not loaded into it; use --attach seccomp, or \
             link it dynamically"
        ),
        Why::NotNamed => format!(
            "the environment of {program} lacks clusterd's LD_PRELOAD: something between clusterd and it clears \
             the environment (env -i, sudo, su), or replaces LD_PRELOAD; let LD_PRELOAD and CLUSTERD_* \
             through, or use --attach seccomp"
        ),
        Why::NoShim => format!(
            "with --attach node, and on processors without a shim, nothing is preloaded into {program}, and only Node \
             and programs that use the library are served; use --attach auto, or ignore this if it is only slow to start"
        ),
        Why::InMemory => format!(
            "{program} could not load clusterd's shim, which is only in clusterd's own memory here, out of reach for a \
             process that has changed its user: mount a tmpfs without noexec at /run, or let TMPDIR name a folder \
             that is writable and mounted without noexec"
        ),
        Why::Ring => format!(
            "{program} has an io_uring; if it accepts by it, past the C library, accept fails with EINVAL, and clusterd \
             cannot give it connections: use --accept workers, or have it accept without io_uring"
        ),
        Why::NotLoaded => format!(
            "clusterd's shim was not loaded into {program}: a program that is setuid, has file capabilities, or is \
             started with another effective user than its real one ignores LD_PRELOAD, and one that changed its user \
             or root folder may not find the shim; use --attach seccomp, or start it as the user that it is to run as"
        ),
    }
}

fn about_end(how: Ended, seen: &Findings) -> String {
    if matches!(how, Ended::Code(code) if code != 0)
        && let Some(text) = about_collision(seen)
    {
        return text;
    }
    match how {
        Ended::Code(0) if !seen.left => {
            "it left no process behind, so it is no daemon; if it ends when its standard input ends, which is /dev/null, \
             set --stdin open; otherwise see its output"
                .to_owned()
        }
        Ended::Code(0) => {
            "a server has to stay in the foreground; turn its daemon mode off (nginx: -g 'daemon off;', \
             redis-server: --daemonize no); what all workers share, as Erlang's epmd, is to be started before clusterd"
                .to_owned()
        }
        Ended::Code(126) => {
            "126 is a shell's code for a command that cannot be executed; see the worker's output".to_owned()
        }
        Ended::Code(127) => {
            "127 is a shell's code for a command that was not found; see the worker's output".to_owned()
        }
        Ended::Code(_) if seen.needs_shim => {
            "see its output; if that says that the address is in use, the server calls the kernel past clusterd's shim, or \
             something clears or replaces LD_PRELOAD before it starts: use --attach seccomp; a UDP port beside it each worker \
             binds itself: have it set SO_REUSEPORT; if there is no output, run the command without clusterd"
                .to_owned()
        }
        Ended::Code(_) | Ended::Signal { .. } => {
            "see its output; if there is none, run the command without clusterd".to_owned()
        }
    }
}

/// What another worker has opened that this one would have, if anything. Without the shim, workers listen on their ports
/// themselves.
fn about_collision(seen: &Findings) -> Option<String> {
    let (own, others) = opened(seen);
    if !own.is_empty() && seen.needs_shim {
        return Some(format!("another worker {}", about_own(own)));
    }
    if others.is_empty() {
        return None;
    }
    let help = if seen.is_served_elsewhere() { share_port(seen) } else { agree_on_port(seen) };
    let opened = list(others.into_iter());
    Some(format!("another worker opened {opened} itself, and only one can; {help}"))
}

/// The ports that were opened past clusterd: those on which it is expected, and others.
fn opened(seen: &Findings) -> (Vec<u16>, Vec<u16>) {
    let is_missing = |port: &u16| seen.missing.iter().any(|missing| missing.0 == *port);
    seen.opened.iter().copied().partition(is_missing)
}

fn about_own(ports: Vec<u16>) -> String {
    format!(
        "opened {} without the C library (direct system calls, or io_uring), so clusterd's shim cannot serve it; use \
         --attach seccomp, or turn io_uring off",
        list(ports.into_iter())
    )
}

fn about_ports(seen: &Findings, missing: &str) -> String {
    let (own, other) = opened(seen);
    if !own.is_empty() {
        return format!("it {}", about_own(own));
    }
    if !other.is_empty() {
        let other = list(other.into_iter());
        return format!("it listens on {other} instead; {}", agree_on_port(seen));
    }
    if !seen.served.is_empty() {
        let served = list(seen.served.iter().map(|port| port.0));
        return format!(
            "it listens only on {served}; every worker must listen on every port, so remove a --port that is not used"
        );
    }
    format!(
        "it runs and listens on nothing; ignore this if it is only slow to start; otherwise see its output, and \
         have it listen on {missing}"
    )
}

/// It listens, so that nothing is wrong with how it is served.
fn about_readiness(seen: &Findings) -> String {
    let served = list(seen.served.iter().map(|port| port.0));
    let awaited = match seen.awaited {
        Awaited::Nothing | Awaited::Word => {
            "--wait-ready waits until it reports that it is: process.send('ready') in Node, READY=1 to the socket that \
             NOTIFY_SOCKET names, or the library"
        }
        Awaited::Answer => {
            "--ready-http waits for an answer of 2xx or 3xx; the last answer is in the messages above"
        }
    };
    let after = format_duration(seen.after);
    format!(
        "the worker listens on {served} and is not ready after {after}: {awaited}; ignore this if it is only slow to start"
    )
}

/// It is a port beside the one that clients come to: metrics, a debugger.
fn share_port(seen: &Findings) -> String {
    let opened = seen.opened.first().copied().unwrap_or(0);
    format!(
        "give each worker another port (a number from the environment variable CLUSTERD_LANE, as in \
         $((9100 + CLUSTERD_LANE))), or have clusterd serve it too, to every client: --port {opened}"
    )
}

fn agree_on_port(seen: &Findings) -> String {
    let wanted = seen.missing.first().map_or(0, |port| port.0);
    let opened = seen.opened.first().copied().unwrap_or(0);
    format!(
        "have it listen on port {wanted} (the environment variable PORT says so), or tell clusterd which port to \
         expect, as in --port {wanted}:{opened}"
    )
}

/// `port 80`, `ports 80 and 443`, `ports 80, 81 and 443`.
fn list(ports: impl ExactSizeIterator<Item = u16>) -> String {
    let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
    match ports.split_last() {
        Some((last, [])) => format!("port {last}"),
        Some((last, rest)) => format!("ports {} and {last}", rest.join(", ")),
        None => "any port".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::ids::WorkerPort;

    fn seen() -> Findings {
        Findings {
            missing: vec![WorkerPort(3000)],
            served: vec![],
            ended: None,
            opened: BTreeSet::new(),
            obstacle: None,
            needs_shim: true,
            left: false,
            awaited: Awaited::Nothing,
            after: Duration::from_secs(10),
        }
    }

    fn with(why: Why) -> Findings {
        Findings { obstacle: Some(Obstacle { program: "server".to_owned(), why }), ..seen() }
    }

    #[test]
    fn advice_says_what_was_seen_and_what_to_do() {
        let opened = |ports: &[u16]| Findings { opened: ports.iter().copied().collect(), ..seen() };
        let ended = |how| Findings { ended: Some(how), ..seen() };
        let collided = Findings { ended: Some(Ended::Code(1)), ..opened(&[8000]) };
        let ready_but =
            |awaited| Findings { missing: vec![], served: vec![WorkerPort(3000)], awaited, ..seen() };
        let daemon = Findings { left: true, ..ended(Ended::Code(0)) };
        let one_of_two = Findings { served: vec![WorkerPort(3001)], ..seen() };
        let cases = [
            (seen(), "does not listen on port 3000 after 10s: it runs and listens on nothing"),
            (opened(&[8080]), "it listens on port 8080 instead; "),
            (opened(&[8080, 9000]), "it listens on ports 8080 and 9000 instead; "),
            (opened(&[8080]), "--port 3000:8080"),
            (opened(&[3000]), "it opened port 3000 without the C library"),
            (opened(&[3000]), "use --attach seccomp"),
            (
                Findings { ended: Some(Ended::Code(217)), ..opened(&[3000]) },
                "port 3000: another worker opened port 3000 without the C library",
            ),
            (one_of_two, "it listens only on port 3001"),
            (
                collided.clone(),
                "exited with code 1 before it listened on port 3000: another worker opened port 8000",
            ),
            (collided.clone(), "--port 3000:8000"),
            (Findings { served: vec![WorkerPort(3000)], ..collided.clone() }, "to every client: --port 8000"),
            (Findings { served: vec![WorkerPort(3000)], ..collided }, "$((9100 + CLUSTERD_LANE))"),
            (ready_but(Awaited::Word), "listens on port 3000 and is not ready after 10s: --wait-ready waits"),
            (ready_but(Awaited::Word), "process.send('ready')"),
            (
                ready_but(Awaited::Answer),
                "listens on port 3000 and is not ready after 10s: --ready-http waits",
            ),
            (with(Why::Go), "server is a Go program"),
            (with(Why::Static), "server is statically linked"),
            (with(Why::NotNamed), "clears the environment"),
            (with(Why::NotLoaded), "setuid"),
            (with(Why::NoShim), "use --attach auto"),
            (with(Why::InMemory), "mount a tmpfs without noexec at /run"),
            (
                Findings { missing: vec![], ..daemon.clone() },
                "exited with code 0 as soon as it listened: a server has to stay",
            ),
            (daemon, "exited with code 0 before it listened on port 3000: a server has to stay"),
            (ended(Ended::Code(0)), "exited with code 0 before it listened on port 3000: it left no process"),
            (ended(Ended::Code(0)), "--stdin open"),
            (ended(Ended::Code(127)), "a command that was not found"),
            (ended(Ended::Code(1)), "exited with code 1 before it listened on port 3000: see its output"),
            (ended(Ended::Code(1)), "says that the address is in use, the server calls the kernel past"),
            (
                Findings { needs_shim: false, ..ended(Ended::Code(1)) },
                "see its output; if there is none, run the command without clusterd",
            ),
            (
                Findings { needs_shim: false, ended: Some(Ended::Code(1)), ..opened(&[3000]) },
                "see its output; if there is none, run the command without clusterd",
            ),
            (ended(Ended::Code(1)), "a UDP port"),
            (with(Why::NotLoaded), "use --attach seccomp"),
            (ended(Ended::Signal { signal: libc::SIGSEGV, core: false }), "was killed by SIGSEGV before"),
        ];
        for (seen, part) in cases {
            let advice = advice(&seen);
            assert!(advice.contains(part), "{part:?} in {advice:?}");
        }
    }

    #[test]
    fn an_obstacle_counts_more_than_how_it_ended() {
        let seen = Findings { ended: Some(Ended::Code(1)), ..with(Why::Go) };
        assert!(advice(&seen).contains("Go program"));
    }

    #[test]
    fn ports_are_listed_in_words() {
        assert_eq!(list([80].into_iter()), "port 80");
        assert_eq!(list([80, 443].into_iter()), "ports 80 and 443");
        assert_eq!(list([80, 81, 443].into_iter()), "ports 80, 81 and 443");
    }
}
