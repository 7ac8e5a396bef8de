//! What the environment says: sockets that were opened for clusterd, and settings.
//!
//! No descriptor is looked at. What a value may be is `settings_file`'s and `settings::parse`'s.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;

use super::settings_file::is_kept;
use super::told::{CPUS, names_a_place};
use crate::settings::resolve::{Sources, resolve};
use crate::settings::{Listen, environment, parse};
use crate::systemd::inherit::{Plan, is_asked_for, plan, promised};

/// The process that reads it.
const OWN: u32 = 7;

/// Reads each line of `data` as a variable; `INHERITED` is where the sockets listen.
pub fn check(data: &[u8]) {
    let variable = |wanted: &str| {
        let mut lines = data.split(|&byte| byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(wanted.as_bytes())?.strip_prefix(b"="));
        value.filter(|value| !value.contains(&0)).map(|value| OsString::from_vec(value.to_vec()))
    };
    let text = |wanted: &str| variable(wanted).map(|value| value.to_string_lossy().into_owned());
    are_promised(text("LISTEN_PID"), text("LISTEN_FDS"));

    let environment = environment::read(&variable);
    let sources = Sources {
        environment: environment.own,
        platform: environment.platform,
        problems: environment.problems,
        ..Sources::default()
    };
    match resolve(sources, CPUS) {
        Ok(resolved) => {
            is_kept(&resolved);
            let listen = resolved.config.listen();
            let addresses = text("INHERITED").unwrap_or_default();
            // What listens has a port.
            let inherited = addresses
                .split(',')
                .filter_map(|address| address.trim().parse().ok())
                .filter(|address: &SocketAddr| address.port() != 0)
                .collect();
            are_given(listen, resolved.config.listen_is_default, inherited);
        }
        Err(invalid) => invalid.problems().iter().for_each(|problem| {
            names_a_place(problem, |said| {
                let name = said.split(['=', ':']).next().unwrap_or_default();
                variable(name).is_some_and(|value| !value.is_empty())
            });
        }),
    }
}

fn are_promised(pid: Option<String>, count: Option<String>) {
    let is_ours = pid.as_ref().is_some_and(|pid| pid.parse() == Ok(OWN));
    match promised(pid, count.clone(), OWN) {
        Ok(0) => {}
        Ok(number) => assert!(is_ours && count.is_some_and(|count| count.parse() == Ok(number))),
        Err(error) => assert!(is_ours && error.to_string().lines().count() == 1),
    }
}

/// Each socket goes to one who asks for it; or there is one that nobody asks for, and the flag that would is named.
fn are_given(listen: Vec<Listen>, is_default: bool, inherited: Vec<SocketAddr>) {
    let numbered = || inherited.iter().copied().zip(0..);
    match plan(&listen, is_default, numbered()) {
        Ok(Plan { ports }) => {
            let mut given: Vec<usize> = ports.iter().flat_map(|(_, sockets)| sockets).copied().collect();
            for (listen, sockets) in &ports {
                assert!(sockets.is_sorted(), "in the order in which they were inherited");
                assert!(sockets.iter().all(|&number| is_asked_for(listen.bind, inherited[number])));
            }
            given.sort_unstable();
            assert!(given.into_iter().eq(0..inherited.len()));
            let asked: Vec<_> = ports.into_iter().map(|(listen, _)| listen).collect();
            assert!(asked == listen || (is_default && !inherited.is_empty()));
        }
        Err(error) => {
            assert!(!is_default);
            let said = error.to_string();
            let flag = said.split_once("name it with ").and_then(|(_, rest)| rest.split_once(','));
            let asked = match flag.and_then(|(flag, _)| flag.split_once(' ')) {
                Some(("--port", port)) => parse::port(port),
                Some(("--bind", address)) => parse::bind(address),
                _ => panic!("it names no flag: {said}"),
            };
            let asked = asked.unwrap_or_else(|reason| panic!("{said}: {reason}"));
            let fit = |asked| numbered().filter(|&(address, _)| is_asked_for(asked, address)).count();
            assert!(fit(asked.bind) > 0, "{said}");
            assert!(!listen.contains(&asked), "{said}");
        }
    }
}
