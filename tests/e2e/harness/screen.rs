//! A program in a terminal of its own, whose screen is read and whose keys are pressed.

use std::io::{Read, Write as _};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::process::Process;
use super::wait::until;

/// The terminal; dropping it ends what runs in it.
pub(crate) struct Screen {
    script: Child,
    keys: ChildStdin,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    /// Runs a shell command in a terminal of this size, with these variables. script(1) makes the terminal.
    pub(crate) fn run(
        folder: &Path,
        (columns, rows): (u16, u16),
        command: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        // script gives its terminal the size of its own, and has none.
        let command = format!("stty cols {columns} rows {rows} && {command}");
        let mut script = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(folder)
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script can be started");
        let keys = script.stdin.take().expect("a pipe");
        let mut output = script.stdout.take().expect("a pipe");
        let parser = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let shown = Arc::clone(&parser);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { script, keys, parser }
    }

    /// Presses these keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("somebody reads them");
    }

    /// The terminal has another size now.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.parser.lock().unwrap().screen_mut().set_size(cells(rows), cells(columns));
    }

    /// What is on the screen.
    pub(crate) fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Whether a program has the screen for itself, or has hidden the cursor.
    pub(crate) fn is_taken(&self) -> bool {
        let parser = self.parser.lock().unwrap();
        parser.screen().alternate_screen() || parser.screen().hide_cursor()
    }

    /// Whether anything on the screen has a colour.
    pub(crate) fn has_colours(&self) -> bool {
        let parser = self.parser.lock().unwrap();
        let (rows, columns) = parser.screen().size();
        let mut cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
        cells.any(|(row, column)| {
            parser.screen().cell(row, column).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
        })
    }

    /// Waits until all of these texts are on the screen.
    #[track_caller]
    pub(crate) fn shows(&self, texts: &[&str]) {
        let mut last = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("it is on the screen", || {
                last = self.text();
                texts.iter().all(|text| last.contains(text)).then_some(())
            });
        }));
        assert!(shown.is_ok(), "{texts:?} is not on the screen:\n{last}");
    }

    /// The program that runs in the terminal, by a word of its command line.
    #[track_caller]
    pub(crate) fn program(&self, word: &str) -> Process {
        until("the program runs", || {
            let own = i32::try_from(self.script.id()).expect("a process id");
            let has_word = |process: &procfs::process::Process| {
                process.cmdline().is_ok_and(|words| {
                    words.iter().any(|found| found == word) && words[0].ends_with("clusterd")
                })
            };
            let all = procfs::process::all_processes().ok()?.flatten();
            let found = all
                .filter(|process| has_word(process) && descends(process, own))
                .map(|process| process.pid)
                .next();
            Process::find(found?)
        })
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a terminal has some")
}

/// Whether it is a child of this one, or a child's.
fn descends(process: &procfs::process::Process, from: i32) -> bool {
    let mut parent = process.stat().map(|stat| stat.ppid).unwrap_or_default();
    while parent > 1 {
        if parent == from {
            return true;
        }
        let next = procfs::process::Process::new(parent).and_then(|process| process.stat());
        parent = next.map(|stat| stat.ppid).unwrap_or_default();
    }
    false
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal goes with it, and a hang-up comes to all that is left in it.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
