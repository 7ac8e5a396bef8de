//! What a file of JavaScript exports, by the `node` in `PATH`.
//!
//! The one place where a file is run in order to be read: in its own folder, for a limited time. What it prints goes to
//! standard error.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::super::error::{Problem, Reason};
use super::tree::{self, Tree};

/// The program that Node runs.
const EVALUATOR: &str = include_str!("evaluate.js");

/// How long it may take.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The most that it may export, in bytes, as JSON.
const MAX_LEN: u64 = 16 << 20;

/// What comes of it.
#[derive(Debug, serde::Deserialize)]
struct Outcome {
    value: Option<serde_json::Value>,
    error: Option<Thrown>,
}

/// What was thrown.
#[derive(Debug, serde::Deserialize)]
struct Thrown {
    message: String,
    stack: String,
}

/// What the file exports. `file` is its path from the root, `named` is how it is named in messages.
///
/// # Errors
/// There is no `node`, or the file fails, exports nothing, or takes longer than `limit`.
pub(super) fn evaluate(file: &Path, named: &Path, limit: Duration) -> Result<Tree, Problem> {
    let problem = |reason: Reason| Problem::at(named.display(), reason);
    let mark = format!("clusterd-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut command = Command::new("node");
    crate::sys::signals::block_none_in(&mut command);
    let mut child = command
        .args([OsStr::new("-e"), EVALUATOR.as_ref(), file.as_os_str(), mark.as_ref()])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // So that what it has started ends with it.
        .process_group(0)
        .spawn()
        .map_err(|error| problem(cannot_start(&error)))?;
    let printed = printed(child.stdout.take(), mark.clone());
    let line = printed.as_ref().map(|printed| printed.recv_timeout(limit));
    end(&mut child);
    let line = line.map_err(|error| problem(Reason::new(format!("cannot start a thread: {error}"))))?;
    let line = match line {
        Ok(line) => line,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let limit = humantime::format_duration(limit);
            let reason = Reason::new(format!("the file has not exported its apps within {limit}"));
            return Err(problem(reason.hint("clusterd waits for no more than what the file exports")));
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let reason = Reason::new("Node ended before the file had exported its apps");
            return Err(problem(reason.hint(format!("see what it says: node {}", named.display()))));
        }
    };
    let outcome: Outcome = serde_json::from_str(&line)
        .map_err(|error| problem(Reason::new(format!("what the file exports cannot be read: {error}"))))?;
    match outcome {
        Outcome { value: Some(value), .. } => Ok(tree::of_program(&value, &mark)),
        Outcome { error: Some(thrown), .. } => Err(failed(file, named, &thrown)),
        Outcome { .. } => Err(problem(Reason::new("exports nothing").hint(EXPORT))),
    }
}

const EXPORT: &str =
    "export the apps, such as module.exports = { apps: [{ name: \"web\", script: \"app.js\" }] }";

fn cannot_start(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::NotFound => Reason::new("cannot be read without Node: no node in PATH")
            .hint("files of JSON, YAML and TOML need no Node"),
        _ => Reason::new(format!("cannot start node: {error}")),
    }
}

/// The line behind the mark, once it is there; nothing if there is none.
///
/// # Errors
/// No thread can be started that would read it.
fn printed(stdout: Option<ChildStdout>, mark: String) -> io::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let reads = move || {
        let mut lines = BufReader::new(stdout?.take(MAX_LEN));
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).ok()? == 0 {
                return None;
            }
            if let Some(json) = line.strip_prefix(mark.as_bytes()) {
                return sender.send(String::from_utf8_lossy(json).into_owned()).ok();
            }
        }
    };
    thread::Builder::new().spawn(reads)?;
    Ok(receiver)
}

/// Ends it, with what it has started.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Everything of it may have ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
    // It was killed; only its status is taken.
    let _ = child.wait();
}

fn failed(file: &Path, named: &Path, thrown: &Thrown) -> Problem {
    let place = match line_of(file, &thrown.stack) {
        Some(line) => format!("{}:{line}", named.display()),
        None => named.display().to_string(),
    };
    let reason = Reason::new(format!("the file fails: {}", thrown.message));
    Problem::at(place, if thrown.stack.contains("exports nothing") { reason.hint(EXPORT) } else { reason })
}

/// The first line of the file that a stack names.
fn line_of(file: &Path, stack: &str) -> Option<usize> {
    let name = file.to_str()?;
    let mut rest = stack;
    while let Some((_, behind)) = rest.split_once(name) {
        let digits: String = behind.strip_prefix(':')?.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(line) = digits.parse() {
            return Some(line);
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the file exports as JSON, or what is said of it; `None` without Node.
    fn exported(name: &str, text: &str, others: &[(&str, &str)]) -> Option<String> {
        let found = super::super::launch::is_in(std::env::var_os("PATH").as_deref(), "node");
        if !found {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(name);
        for (name, text) in others.iter().chain([&(name, text)]) {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let outcome = evaluate(&file, Path::new(name), TIME_LIMIT);
        Some(outcome.map_or_else(|problem| problem.to_string(), |tree| tree.json()))
    }

    #[test]
    fn every_form_of_export_is_read() {
        type Files<'a> = &'a [(&'a str, &'a str)];
        const MODULE: (&str, &str) = ("package.json", r#"{"type":"module"}"#);
        let apps = r#"{"apps":[{"name":"a"}]}"#;
        let cases: [(&str, &str, Files<'_>); 9] = [
            ("a.config.js", "console.log('x'); module.exports = { apps: [{ name: 'a' }] }", &[]),
            ("a.config.js", "exports.apps = [{ name: 'a' }]; setInterval(() => {}, 1000)", &[]),
            ("a.config.cjs", "module.exports = () => ({ apps: [{ name: 'a' }] })", &[MODULE]),
            ("a.config.mjs", "export default { apps: [{ name: 'a' }] }", &[]),
            ("a.config.mjs", "export const apps = [{ name: 'a' }]", &[]),
            ("a.config.js", "export default async () => ({ apps: [{ name: 'a' }] })", &[MODULE]),
            ("a.config.js", "module.exports = { apps: [{ name: 'a' }] }", &[MODULE]),
            (
                "a.config.js",
                "module.exports = { apps: [require('./b.json')] }",
                &[MODULE, ("b.json", r#"{"name":"a"}"#)],
            ),
            ("a.config.js", "exports.__esModule = true; exports.default = { apps: [{ name: 'a' }] }", &[]),
        ];
        for (name, text, others) in cases {
            let Some(exported) = exported(name, text, others) else { return };
            assert_eq!(exported, apps, "{name}: {text}");
        }
    }

    #[test]
    fn what_fails_is_named_with_its_line() {
        let cases = [
            (
                "a.config.js",
                "\nmodule.exports = { apps: [ {} {} ] }",
                "a.config.js:2: the file fails: Unexpected token '{'",
            ),
            (
                "a.config.mjs",
                "\n\nexport default { apps: [ {} {} ] }",
                "a.config.mjs:3: the file fails: Unexpected token '{'",
            ),
            (
                "a.config.mjs",
                "export default {\n  apps: [nosuch] }",
                "a.config.mjs:2: the file fails: nosuch is not defined",
            ),
            ("a.config.cjs", "throw new Error('no')", "a.config.cjs:1: the file fails: no"),
            (
                "a.config.js",
                "process.exit(3)",
                "a.config.js: Node ended before the file had exported its apps\nhint: see what it says: node a.config.js",
            ),
            (
                "a.config.mjs",
                "export default undefined",
                "a.config.mjs: the file fails: the file exports nothing",
            ),
        ];
        for (name, text, expected) in cases {
            let Some(said) = exported(name, text, &[]) else { return };
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.config.js");
        fs::write(&file, "for (;;);").expect("written");
        let limit = Duration::from_millis(300);
        let said = evaluate(&file, Path::new("a.config.js"), limit).expect_err("too late").to_string();
        assert!(said.contains("within 300ms") || said.contains("no node in PATH"), "{said}");
    }
}
