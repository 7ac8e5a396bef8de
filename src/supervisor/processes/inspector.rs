//! The port on which each Node worker waits for a debugger: one for each launch, as under Node's own cluster primary.
//!
//! Pure. With the same one for all, the first worker would have it and the others would start without.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The port that Node takes if none is named.
const DEFAULT: u16 = 9229;

/// The arguments of a program, where the launch in lane `number` (from 0) gets a port of its own if Node is to wait for a debugger.
pub(super) fn arguments(program: &OsStr, arguments: &[OsString], number: u32) -> Vec<OsString> {
    let mut arguments = arguments.to_vec();
    let name = program.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if !name.starts_with(b"node") {
        return arguments;
    }
    let options = arguments.iter().enumerate().take(script(&arguments));
    let mut inspected = options.filter_map(|(at, option)| Some((at, port(option.to_str()?)?)));
    if let Some((at, port)) = inspected.next_back() {
        arguments.splice(at + 1..at + 1, own_port(port, number).map(OsString::from));
    }
    arguments
}

/// Where the script stands among the arguments: what follows it is its own.
fn script(arguments: &[OsString]) -> usize {
    const WITH_VALUE: [&str; 6] = ["-r", "--require", "--import", "--loader", "--experimental-loader", "-C"];
    let is_value = |at: usize| at > 0 && WITH_VALUE.iter().any(|option| arguments[at - 1] == *option);
    let is_script = |at: &usize| !arguments[*at].as_bytes().starts_with(b"-") && !is_value(*at);
    (0..arguments.len()).find(is_script).unwrap_or(arguments.len())
}

/// `NODE_OPTIONS` in the same way.
pub(super) fn node_options(options: &str, number: u32) -> Option<String> {
    let port = options.split_whitespace().filter_map(port).next_back()?;
    Some(format!("{options} {}", own_port(port, number)?))
}

/// The port that an option of Node names for a debugger, or implies.
fn port(option: &str) -> Option<u16> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match name {
        "--inspect" | "--inspect-brk" | "--inspect-wait" | "--inspect-port" | "--debug-port" => {}
        _ => return None,
    }
    let port = value.rsplit(':').next().unwrap_or(value);
    Some(port.parse().unwrap_or(DEFAULT))
}

/// Any free port, which 0 stands for, is another for each worker anyway.
fn own_port(first: u16, number: u32) -> Option<String> {
    let port = u16::try_from(u32::from(first) + number).ok()?;
    (first != 0 && number != 0).then(|| format!("--inspect-port={port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn third(line: &str) -> String {
        let mut words = line.split(' ').map(OsString::from);
        let program = words.next().unwrap();
        let words: Vec<_> = words.collect();
        let given = arguments(&program, &words, 2);
        given.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_worker_has_a_port_of_its_own() {
        for (line, expected) in [
            ("node --inspect app.js", "--inspect --inspect-port=9231 app.js"),
            ("/usr/bin/node --inspect=9300 app.js", "--inspect=9300 --inspect-port=9302 app.js"),
            ("node --inspect=0.0.0.0:9300 app.js", "--inspect=0.0.0.0:9300 --inspect-port=9302 app.js"),
            ("node --inspect=localhost app.js", "--inspect=localhost --inspect-port=9231 app.js"),
            (
                "node --inspect-brk=9300 --trace-warnings app.js",
                "--inspect-brk=9300 --inspect-port=9302 --trace-warnings app.js",
            ),
            (
                "node -r dotenv/config --inspect app.js",
                "-r dotenv/config --inspect --inspect-port=9231 app.js",
            ),
            ("node --inspect=0 app.js", "--inspect=0 app.js"),
            ("node app.js --inspect=9300", "app.js --inspect=9300"),
            ("python3 --inspect app.py", "--inspect app.py"),
            ("node --inspect=65535 app.js", "--inspect=65535 app.js"),
        ] {
            assert_eq!(third(line), expected, "{line}");
        }
        let words = ["--inspect".into(), "app.js".into()];
        assert_eq!(arguments(OsStr::new("node"), &words, 0), words, "the first has what was asked for");
    }

    #[test]
    fn so_it_has_if_the_environment_asks_for_it() {
        let options = node_options("--max-old-space-size=512 --inspect=9300", 1);
        assert_eq!(options.as_deref(), Some("--max-old-space-size=512 --inspect=9300 --inspect-port=9301"));
        assert_eq!(node_options("--max-old-space-size=512", 1), None);
        assert_eq!(node_options("--inspect", 0), None);
    }
}
