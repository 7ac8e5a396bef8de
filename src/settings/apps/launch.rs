//! Which words run a script: by its first line, by its extension, or by what it is.
//!
//! It looks at the file and runs nothing. PM2's table of interpreters holds, but for what PM2 passes over: the first line of
//! a script (`#!`) says best what runs it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Run, Script};

/// What a script turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// There is no such file: a command of `PATH`.
    Nothing,
    /// A text; with the words of its first line, if that is `#!`.
    Text {
        /// The program, and the rest of the line as one argument, as execve(2) has it.
        shebang: Option<Vec<String>>,
    },
    /// Anything else.
    Binary,
}

/// What the usual interpreters of an extension are; the first that is in `PATH` is taken, or else the last.
const INTERPRETERS: [(&[&str], &[&str]); 10] = [
    (&["js", "mjs", "cjs"], &["node"]),
    (&["ts", "tsx", "mts", "cts"], &["bun", "node"]),
    (&["sh"], &["bash", "sh"]),
    (&["bash"], &["bash"]),
    (&["py"], &["python", "python3"]),
    (&["rb"], &["ruby"]),
    (&["php"], &["php"]),
    (&["pl"], &["perl"]),
    (&["coffee"], &["coffee"]),
    (&["ls"], &["lsc"]),
];

/// What runs a text of which nothing else is known, as PM2 has it.
const OTHERWISE: &str = "node";

/// A word that stands for none.
const NONE: &str = "none";

impl Run {
    /// The program and its arguments. `folder` is the one that workers run in; `is_command` tells whether there is a
    /// program of this name in `PATH`.
    pub(crate) fn words(&self, folder: &Path, is_command: &dyn Fn(&str) -> bool) -> Vec<String> {
        match self {
            Run::Command { words, .. } => words.clone(),
            Run::Script(script) => script.words(&look(&folder.join(&script.script.text)), is_command),
        }
    }
}

impl Script {
    /// The program and its arguments, if this is what there is.
    pub(crate) fn words(&self, seen: &Seen, is_command: &dyn Fn(&str) -> bool) -> Vec<String> {
        let script = &self.script.text;
        let begin = match (&self.interpreter, seen) {
            (None, Seen::Nothing) if script.contains(char::is_whitespace) => return self.line(is_command),
            (Some(none), _) if none == NONE => Vec::new(),
            (Some(interpreter), _) => vec![interpreter.clone()],
            (None, Seen::Text { shebang: Some(words) }) => words.clone(),
            (None, Seen::Text { .. }) => vec![self.usual(is_command).unwrap_or(OTHERWISE).to_owned()],
            // PM2 runs `script: "npm", node_args: "--x"` as `node --x npm`.
            (None, Seen::Nothing | Seen::Binary) => {
                self.usual(is_command).map(str::to_owned).into_iter().collect()
            }
        };
        let is_run_by_itself = begin.is_empty() || begin.first() == Some(script);
        // What has no slash is looked up in PATH, where a file of the app's folder is not.
        let is_bare_file = is_run_by_itself && *seen != Seen::Nothing && !script.contains('/');
        let script = if is_bare_file { format!("./{script}") } else { script.clone() };
        let interpreter_args = if begin.is_empty() { &[][..] } else { &self.interpreter_args };
        begin
            .into_iter()
            .chain(interpreter_args.iter().cloned())
            .chain([script])
            .chain(self.args.iter().cloned())
            .collect()
    }

    /// A line for a shell; what the script was to be given comes behind it.
    fn line(&self, is_command: &dyn Fn(&str) -> bool) -> Vec<String> {
        let shell = if is_command("bash") { "bash" } else { "sh" };
        let line = &self.script.text;
        let words = match self.args.is_empty() {
            true => vec![shell.to_owned(), "-c".to_owned(), line.clone()],
            false => vec![shell.to_owned(), "-c".to_owned(), format!("{line} \"$@\""), shell.to_owned()],
        };
        words.into_iter().chain(self.args.iter().cloned()).collect()
    }

    /// The usual interpreter of its extension.
    fn usual(&self, is_command: &dyn Fn(&str) -> bool) -> Option<&'static str> {
        let extension = Path::new(&self.script.text).extension()?.to_str()?.to_ascii_lowercase();
        let (_, programs) =
            INTERPRETERS.iter().find(|(extensions, _)| extensions.contains(&extension.as_str()))?;
        programs.iter().copied().find(|program| is_command(program)).or(programs.last().copied())
    }

    /// What it is given beside what was said, as PM2 does: Python keeps its output back where nobody watches.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let is_python = match &self.interpreter {
            Some(interpreter) => interpreter.contains("python"),
            None => self.script.text.ends_with(".py"),
        };
        is_python.then_some(("PYTHONUNBUFFERED", "1")).into_iter()
    }
}

/// Looks at a file. What cannot be read is taken for a program: whoever starts it says what is wrong.
pub(crate) fn look(file: &Path) -> Seen {
    let mut begin = Vec::new();
    let read = File::open(file).and_then(|file| {
        let is_file = file.metadata()?.is_file();
        file.take(4096).read_to_end(&mut begin).map(|_| is_file)
    });
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Seen::Binary,
        Err(_) | Ok(false) => Seen::Nothing,
        Ok(true)
            if begin.contains(&0)
                || std::str::from_utf8(&begin).is_err_and(|error| error.error_len().is_some()) =>
        {
            Seen::Binary
        }
        Ok(true) => Seen::Text { shebang: shebang(&begin) },
    }
}

fn shebang(begin: &[u8]) -> Option<Vec<String>> {
    let line = begin.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let (program, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let words = [program, rest.trim()].into_iter().filter(|word| !word.is_empty()).map(str::to_owned);
    (!program.is_empty()).then(|| words.collect())
}

/// Whether a program of this name is in these folders.
pub(crate) fn is_in(path: Option<&std::ffi::OsStr>, name: &str) -> bool {
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    folders.map(|folder| folder.join(name)).any(|file| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::origin::{Origin, Value};
    use super::*;

    fn script(script: &str, interpreter: Option<&str>, interpreter_args: &[&str], args: &[&str]) -> Script {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Script {
            script: Value::new("script", script, Origin::CommandLine),
            interpreter: interpreter.map(str::to_owned),
            interpreter_args: owned(interpreter_args),
            args: owned(args),
        }
    }

    fn text() -> Seen {
        Seen::Text { shebang: None }
    }

    fn with_shebang(words: &[&str]) -> Seen {
        Seen::Text { shebang: Some(words.iter().map(|word| (*word).to_owned()).collect()) }
    }

    #[test]
    fn a_script_is_run_by_its_first_line_its_extension_or_what_it_is() {
        let cases = [
            (script("app.js", None, &[], &["-x"]), text(), "node app.js -x"),
            (script("app.mjs", None, &["--inspect"], &[]), text(), "node --inspect app.mjs"),
            (script("app.py", None, &[], &[]), text(), "python3 app.py"),
            (script("run.sh", None, &[], &[]), text(), "bash run.sh"),
            (script("app.ts", None, &[], &[]), text(), "node app.ts"),
            (script("x.rb", None, &[], &[]), text(), "ruby x.rb"),
            (script("x.coffee", None, &[], &[]), text(), "coffee x.coffee"),
            (script("server", None, &[], &[]), text(), "node server"),
            (script("server", None, &[], &["a"]), Seen::Binary, "./server a"),
            (script("bin/server", None, &[], &[]), Seen::Binary, "bin/server"),
            (script("tool", None, &[], &[]), with_shebang(&["/usr/bin/python3"]), "/usr/bin/python3 tool"),
            (
                script("app.js", None, &["--x"], &[]),
                with_shebang(&["/usr/bin/env", "node"]),
                "/usr/bin/env node --x app.js",
            ),
            (script("app.py", None, &[], &[]), with_shebang(&["/opt/python"]), "/opt/python app.py"),
            (script("app.js", Some("bun"), &["run"], &[]), with_shebang(&["/x"]), "bun run app.js"),
            (script("tool", Some("none"), &[], &[]), with_shebang(&["/x"]), "./tool"),
            (script("npm", None, &[], &["start"]), Seen::Nothing, "npm start"),
            (script("sleep", Some("none"), &[], &["4"]), Seen::Nothing, "sleep 4"),
            (script("python3 a.py | cat", None, &[], &[]), Seen::Nothing, "bash -c python3 a.py | cat"),
            (script("npm run", None, &[], &["a b"]), Seen::Nothing, "bash -c npm run \"$@\" bash a b"),
            (script("my app.js", None, &[], &[]), text(), "node my app.js"),
        ];
        let is_command = |name: &str| matches!(name, "bash" | "python3" | "node");
        for (script, seen, expected) in cases {
            assert_eq!(script.words(&seen, &is_command).join(" "), expected, "{script:?}");
        }
        let line = script("a b", None, &[], &[]).words(&Seen::Nothing, &|_| false);
        assert_eq!(line, ["sh", "-c", "a b"]);
    }

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let seen = |bytes: &[u8]| {
            let file = folder.path().join("file");
            fs::write(&file, bytes).unwrap();
            look(&file)
        };
        assert_eq!(seen(b"console.log(1)"), text());
        assert_eq!(seen(b""), text());
        assert_eq!(seen(b"\x7fELF\x02\x01\x01\0\0"), Seen::Binary);
        assert_eq!(seen(b"\xff\xfe"), Seen::Binary);
        assert_eq!(seen(b"#!/bin/sh\necho"), with_shebang(&["/bin/sh"]));
        assert_eq!(seen(b"#! /usr/bin/env -S node --x\r\n"), with_shebang(&["/usr/bin/env", "-S node --x"]));
        assert_eq!(seen(b"#!\n"), text());
        let cut = [vec![b'a'; 4095], "ä".as_bytes().to_vec()].concat();
        assert_eq!(seen(&cut), text());
        assert_eq!(look(folder.path()), Seen::Nothing);
        assert_eq!(look(&folder.path().join("none")), Seen::Nothing);
    }
}
