//! Which program it is that will listen: the one that a command names, or the one to which a script or a wrapper gives way.
//!
//! It looks as far as can be seen without running anything, and is right for what people write, not for all that could be
//! written.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) use super::elf::Kind;
use crate::settings::WorkerCommand;

/// The program that will listen, as far as can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its file.
    pub file: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// How often one program gives way to another.
const MOST_STEPS: usize = 6;

/// How much of a script is looked at.
const SCRIPT_LEN: u64 = 64 * 1024;

/// Shells, whose scripts are looked at for `exec`.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

/// Programs that change something of their process, and then run another one in it. Some of them are static, or Go.
const WRAPPERS: [&str; 15] = [
    "env",
    "nice",
    "ionice",
    "nohup",
    "setsid",
    "stdbuf",
    "taskset",
    "chrt",
    "setpriv",
    "gosu",
    "su-exec",
    "tini",
    "tini-static",
    "dumb-init",
    "catatonit",
];

/// Looks. `find` tells which file a word names as a command.
pub(crate) fn server_of(
    found: &Path,
    command: &WorkerCommand,
    find: impl Fn(&OsStr) -> Option<PathBuf>,
) -> Server {
    let mut file = found.to_owned();
    let mut arguments = match command {
        WorkerCommand::Demo => Vec::new(),
        WorkerCommand::Program { arguments, .. } => arguments.clone(),
    };
    for _ in 0..MOST_STEPS {
        let Some((next, rest)) = step(&file, &arguments, &find) else { break };
        (file, arguments) = (next, rest);
    }
    Server { kind: Kind::of(&file), file }
}

/// The programs that a shell runs, if the command is one or a script for one: those that its simple commands name.
pub(crate) fn run_by_shell(
    found: &Path,
    command: &WorkerCommand,
    find: impl Fn(&OsStr) -> Option<PathBuf>,
) -> Vec<PathBuf> {
    let WorkerCommand::Program { arguments, .. } = command else { return Vec::new() };
    let script = script(found);
    if script.is_none() && !is_one_of(found, &SHELLS) {
        return Vec::new();
    }
    let Some(text) = text_of_shell(script, arguments) else { return Vec::new() };
    let commands = text.split(['\n', ';', '&', '|', '(', ')', '{', '}']).map(str::trim);
    let names = commands.filter(|command| !command.starts_with('#')).flat_map(|command| {
        let mut words = command.split_whitespace().filter(|word| !word.contains('='));
        words.find(|word| !BEFORE_A_COMMAND.contains(word)).map(|word| word.trim_matches(['"', '\'']))
    });
    names.filter_map(|name| find(OsStr::new(name))).collect()
}

/// Words of the shell behind which a command stands.
const BEFORE_A_COMMAND: [&str; 9] = ["exec", "if", "then", "else", "elif", "do", "while", "until", "!"];

/// The program to which this one gives way, with its arguments.
fn step(
    file: &Path,
    arguments: &[OsString],
    find: impl Fn(&OsStr) -> Option<PathBuf>,
) -> Option<(PathBuf, Vec<OsString>)> {
    let script = script(file);
    let interpreter = script.as_deref().and_then(interpreter);
    let runs = match &interpreter {
        // What env is to find stands behind it.
        Some(words) if is_one_of(Path::new(words.first()?), &["env"]) => words.get(1).cloned(),
        Some(words) => words.first().cloned(),
        None => Some(file.display().to_string()),
    };
    let runs = PathBuf::from(runs?);
    if is_one_of(&runs, &SHELLS) {
        return replaced(&text_of_shell(script, arguments)?, arguments, &find);
    }
    if interpreter.is_some() {
        return Some((find(runs.as_os_str())?, Vec::new()));
    }
    if is_one_of(file, &WRAPPERS) {
        return arguments.iter().enumerate().find_map(|(at, word)| {
            let is_flag = word.as_bytes().starts_with(b"-");
            let next = find(word).filter(|_| !is_flag)?;
            Some((next, arguments.get(at + 1..)?.to_vec()))
        });
    }
    None
}

fn is_one_of(file: &Path, names: &[&str]) -> bool {
    file.file_name().and_then(OsStr::to_str).is_some_and(|name| names.contains(&name))
}

/// The text of a file that begins with `#!`.
fn script(file: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(file).ok()?.take(SCRIPT_LEN).read_to_end(&mut text).ok()?;
    text.starts_with(b"#!").then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The words of its first line.
fn interpreter(script: &str) -> Option<Vec<String>> {
    let first = script.lines().next()?.strip_prefix("#!")?;
    let words: Vec<String> = first.split_whitespace().map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

/// What a shell is to run: its script, or the text behind `-c`, or the file that it is given.
fn text_of_shell(script: Option<String>, arguments: &[OsString]) -> Option<String> {
    if script.is_some() {
        return script;
    }
    let is_command = |word: &OsString| {
        let word = word.as_bytes();
        word.starts_with(b"-") && !word.starts_with(b"--") && word.ends_with(b"c")
    };
    if let Some(at) = arguments.iter().position(is_command) {
        return Some(arguments.get(at + 1)?.to_str()?.to_owned());
    }
    let file = arguments.iter().find(|word| !word.as_bytes().starts_with(b"-"))?;
    let mut text = String::new();
    File::open(file).ok()?.take(SCRIPT_LEN).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The program that takes the shell's place at last, by `exec`, if it can be seen which.
fn replaced(
    text: &str,
    arguments: &[OsString],
    find: impl Fn(&OsStr) -> Option<PathBuf>,
) -> Option<(PathBuf, Vec<OsString>)> {
    let commands = text.split(['\n', ';', '&', '|']).map(str::trim);
    let last = commands.filter_map(|command| command.strip_prefix("exec ")).next_back()?;
    let mut words = Vec::new();
    for word in last.split_whitespace() {
        match word {
            "\"$@\"" | "$@" => words.extend(arguments.iter().cloned()),
            _ => words.push(OsString::from(word.trim_matches(['"', '\'']))),
        }
    }
    let (program, rest) = words.split_first()?;
    Some((find(program)?, rest.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with programs that are nothing but names, and scripts.
    struct Place(tempfile::TempDir);

    impl Place {
        fn with(files: &[(&str, &str)]) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let file = place.path(name);
                fs::write(&file, text).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            }
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// The name of the program that will listen.
        fn server_of(&self, command: &[&str]) -> String {
            let (program, arguments) = command.split_first().unwrap();
            let arguments = arguments.iter().map(OsString::from).collect();
            let command = WorkerCommand::Program { program: program.into(), arguments };
            let find = |word: &OsStr| {
                let name = Path::new(word).file_name()?;
                let file = self.0.path().join(name);
                file.exists().then_some(file)
            };
            let server = server_of(&self.path(program), &command, find);
            server.file.file_name().unwrap().to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn the_server_is_the_one_to_which_scripts_and_wrappers_give_way() {
        let place = Place::with(&[
            ("srv", ""),
            ("sh", ""),
            ("python3", ""),
            ("gosu", ""),
            ("tini", ""),
            ("env", ""),
            ("start", "#!/bin/sh\nset -e\nexec ./srv --port 1\n"),
            (
                "entrypoint",
                "#!/usr/bin/env bash\nif [ -z \"$1\" ]; then exec sh; fi\nexec gosu nobody \"$@\"\n",
            ),
            ("app", "#!/usr/bin/env python3\nexec('x')\n"),
            ("stays", "#!/bin/sh\n./srv; echo gone\n"),
            ("unknown", "#!/bin/sh\nexec $SERVER\n"),
            ("itself", "#!/bin/sh\nexec ./itself\n"),
        ]);
        let table: [(&[&str], &str); 14] = [
            (&["srv"], "srv"),
            (&["start"], "srv"),
            (&["sh", "-c", "exec ./srv -x"], "srv"),
            (&["sh", "-ec", "cd /tmp && exec ./srv"], "srv"),
            (&["sh", "-c", "./srv; true"], "sh"),
            (&["entrypoint", "srv", "-x"], "srv"),
            (&["tini", "--", "srv"], "srv"),
            (&["gosu", "nobody", "tini", "-g", "--", "start"], "srv"),
            (&["env", "A=1", "srv"], "srv"),
            (&["env", "A=1"], "env"),
            (&["app"], "python3"),
            (&["stays"], "stays"),
            (&["unknown"], "unknown"),
            (&["itself"], "itself"),
        ];
        for (command, expected) in table {
            assert_eq!(place.server_of(command), expected, "{command:?}");
        }
    }

    #[test]
    fn what_a_shell_runs_is_named_by_its_commands() {
        let place = Place::with(&[
            ("srv", ""),
            ("go", ""),
            ("sh", ""),
            ("start", "#!/bin/sh\n# go away\nset -e\nif ! srv check; then\n  exec go run x.go\nfi\n"),
        ]);
        let run = |command: &[&str]| {
            let arguments = command[1..].iter().map(OsString::from).collect();
            let program = WorkerCommand::Program { program: command[0].into(), arguments };
            let find = |word: &OsStr| {
                Some(place.path(Path::new(word).file_name()?.to_str()?)).filter(|file| file.exists())
            };
            let files = run_by_shell(&place.path(command[0]), &program, find);
            files
                .iter()
                .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(&["sh", "-c", "X=1 Y=2 go run FILE"]), ["go"]);
        assert_eq!(run(&["sh", "-c", "cd /; (./srv && true) || exit 1"]), ["srv"]);
        assert_eq!(run(&["start"]), ["srv", "go"]);
        assert_eq!(run(&["srv", "-c", "go"]), [""; 0]);
    }
}
