//! The log of one app of the home folder, for whoever watches it: its last lines, and then those that come.
//!
//! It asks no clusterd, so that it works for apps that do not run, and shows nothing itself.
//!
//! Files are read on the runtime's threads for blocking work, and not before whoever watches has taken what was read last.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::apps::{AppFolder, Apps};
use super::logs::plan;
use crate::logs::follow::{Change, Folders};
use crate::logs::source_file::{Ending, Line, SourceFile, in_order};
use crate::sys::blocking;
use crate::tasks;

/// How many lines are told at first, and at most each time. Nobody reads more.
const LINES: usize = 500;

/// How long a line is at most, in bytes. What is behind that is cut off.
const LONGEST: usize = 16 * 1024;

/// How much is read of all files for their last lines, in bytes: so much text can be shown.
const TEXT: u64 = (LINES * LONGEST) as u64;

/// How many turns of a file are read, where few lines are in it, before it is seen whether anybody watches still.
const TURNS: usize = 16;

/// How long it takes from one reading to the next at least.
const PACE: Duration = Duration::from_millis(100);

/// What is read of an app's log.
#[derive(Debug)]
pub(crate) struct AppLog {
    batches: mpsc::Receiver<Batch>,
}

/// Lines that have come.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the order of their times, as far as these are known.
    pub lines: Vec<Line>,
    /// Whether others before these were passed over: more came than can be shown, or files were removed.
    pub missed: bool,
}

impl AppLog {
    /// That of the app of this name; `None` if the home folder has no such app, or it writes no files.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub(crate) fn open(name: &str) -> Option<Self> {
        Self::of(Apps::of_this_process().ok()?, name)
    }

    fn of(apps: Apps, name: &str) -> Option<Self> {
        let files = Files::of(apps, name)?;
        // One, so that no more is read than is taken.
        let (told, batches) = mpsc::channel(1);
        tasks::spawn(follow(files, told));
        Some(Self { batches })
    }

    /// At first the last lines, if there are any or not; then those that come. Nothing is lost if this is dropped.
    pub(crate) async fn next(&mut self) -> Batch {
        match self.batches.recv().await {
            Some(batch) => batch,
            // The runtime shuts down.
            None => std::future::pending().await,
        }
    }
}

/// Until nobody watches any more.
async fn follow(mut files: Files, told: mpsc::Sender<Batch>) {
    let mut read: fn(&mut Files) -> Option<Batch> = Files::history;
    loop {
        let Ok(room) = told.reserve().await else { return };
        let reading = move || {
            let batch = read(&mut files);
            (files, batch)
        };
        let batch;
        (files, batch) = blocking::run(reading).await;
        match batch {
            Some(batch) => room.send(batch),
            None => drop(room),
        }
        let is_more = files.is_more;
        let changed = async {
            sleep(PACE).await;
            if is_more { Change::Lines } else { files.folders.changed().await }
        };
        read = tokio::select! {
            () = told.closed() => return,
            change = changed => match change {
                Change::Lines => Files::more,
                Change::Files => Files::look_again,
            },
        };
    }
}

/// The files of an app, and their folders.
#[derive(Debug)]
struct Files {
    apps: Apps,
    app: AppFolder,
    files: Vec<SourceFile>,
    folders: Folders,
    /// There was more to read than was read at once.
    is_more: bool,
}

impl Files {
    fn of(apps: Apps, name: &str) -> Option<Self> {
        let app = apps.app(name);
        let mut files = Self { apps, app, files: Vec::new(), folders: Folders::new(), is_more: false };
        files.add();
        Some(files).filter(|files| !files.files.is_empty())
    }

    /// Adds those that are not among them yet. Other settings may have others.
    fn add(&mut self) {
        if !self.app.is_defined() {
            return;
        }
        let plan = plan(&self.app);
        for source in plan.sources() {
            if !self.files.iter().any(|file| *file.source() == source) {
                self.files.push(SourceFile::new(source, &plan));
            }
        }
    }

    /// What has come into a folder before it was watched is looked for, too.
    fn watch(&mut self) {
        while watch(&self.apps, [&self.app], &self.files, &mut self.folders) {
            self.add();
        }
    }

    /// The last lines.
    fn history(&mut self) -> Option<Batch> {
        self.watch();
        let text = self.text();
        let of_files = self.files.iter_mut().map(|file| file.last(LINES, text)).collect();
        Some(Batch { missed: false, ..batch(of_files) })
    }

    /// How much is read of each for its last lines.
    fn text(&self) -> u64 {
        TEXT / self.files.len().max(1) as u64
    }

    /// What has come.
    fn more(&mut self) -> Option<Batch> {
        let (text, mut missed, mut is_any_more) = (self.text(), false, false);
        let mut of_file = |file: &mut SourceFile| {
            // One more shows that there were more.
            let (mut lines, mut is_more) = file.more(LINES + 1);
            // None of those that are told already is among the last lines then.
            for _ in 1..TURNS {
                if !is_more || lines.len() >= LINES {
                    break;
                }
                let (next, is_more_yet) = file.more(LINES + 1);
                lines.extend(next);
                is_more = is_more_yet;
            }
            let is_flood = is_more && lines.len() >= LINES;
            if is_flood {
                lines = file.skip_to_last(LINES, text);
            }
            missed |= is_flood || file.has_missed();
            is_any_more |= is_more && !is_flood;
            (lines, None)
        };
        let mut batch = batch(self.files.iter_mut().map(&mut of_file).collect());
        self.is_more = is_any_more;
        batch.missed |= missed;
        Some(batch).filter(|batch| batch.missed || !batch.lines.is_empty())
    }

    /// The same, where there may be other files.
    fn look_again(&mut self) -> Option<Batch> {
        self.add();
        self.watch();
        self.more()
    }
}

/// The last of all these lines.
fn batch(of_files: Vec<Ending<Line>>) -> Batch {
    let mut all = in_order(of_files, |line: &Line| line.time);
    let passed_over = all.len().saturating_sub(LINES);
    all.drain(..passed_over);
    for line in &mut all {
        line.text.truncate(line.text.floor_char_boundary(LONGEST));
    }
    Batch { lines: all, missed: passed_over > 0 }
}

/// Watches the folders in which such files of these apps are, or will be. Whether one is among them that was not watched
/// before.
pub(crate) fn watch<'a>(
    all: &Apps,
    apps: impl IntoIterator<Item = &'a AppFolder>,
    files: impl IntoIterator<Item = &'a SourceFile>,
    folders: &mut Folders,
) -> bool {
    let of_apps = apps.into_iter().map(AppFolder::path);
    let of_logs = files.into_iter().flat_map(SourceFile::folders);
    let wanted: BTreeSet<_> =
        [all.home().to_owned(), all.path()].into_iter().chain(of_apps).chain(of_logs).collect();
    wanted.iter().filter(|folder| folders.watch(folder)).count() > 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::path::Path;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::ids::Slot;

    /// A home with an app `web` that does not run.
    fn home() -> (TempDir, Apps) {
        let folder = tempfile::tempdir().unwrap();
        let apps = Apps::in_folder(folder.path());
        let app = apps.app("web");
        fs::create_dir_all(app.logs()).unwrap();
        fs::write(app.definition(), "").unwrap();
        (folder, apps)
    }

    fn add(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    async fn next(log: &mut AppLog) -> (Vec<String>, bool) {
        let batch = timeout(Duration::from_secs(30), log.next()).await.expect("a batch");
        (batch.lines.into_iter().map(|line| line.text).collect(), batch.missed)
    }

    /// The next lines, of as many batches as they come in.
    async fn next_lines(log: &mut AppLog, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            let (lines, missed) = next(log).await;
            assert!(!missed, "nothing is passed over");
            all.extend(lines);
        }
        all
    }

    #[tokio::test]
    async fn the_last_lines_come_first_and_then_those_that_are_written() {
        let (_folder, apps) = home();
        assert!(AppLog::of(apps.clone(), "other").is_none());
        let logs = apps.app("web").logs();
        let all: String = (0..LINES + 5).map(|number| format!("{number}\n")).collect();
        fs::write(logs.join("out.log"), all).unwrap();
        let mut log = AppLog::of(apps, "web").expect("an app with files");
        let (lines, missed) = next(&mut log).await;
        assert_eq!((lines.len(), lines[0].as_str(), missed), (LINES, "5", false));
        add(&logs.join("out.log"), "to stdout\n");
        assert_eq!(next_lines(&mut log, 1).await, ["to stdout"]);
        add(&logs.join("error.log"), &format!("{}\n", "x".repeat(LONGEST + 1)));
        let batch = timeout(Duration::from_secs(30), log.next()).await.expect("a batch");
        let line = &batch.lines[0];
        assert!(line.is_error() && line.time.is_some() && line.text.len() == LONGEST);
    }

    #[tokio::test]
    async fn nothing_is_told_twice_or_lost_by_one_who_stops_waiting() {
        let (_folder, apps) = home();
        let out = apps.app("web").logs().join("out.log");
        let mut log = AppLog::of(apps, "web").expect("an app with files");
        assert_eq!(next(&mut log).await, (Vec::new(), false));
        let mut seen = Vec::new();
        for number in 0..20 {
            add(&out, &format!("{number}\n"));
            if let Ok(batch) = timeout(Duration::from_millis(20), log.next()).await {
                seen.extend(batch.lines.into_iter().map(|line| line.text));
            }
        }
        let left = 20 - seen.len();
        seen.extend(next_lines(&mut log, left).await);
        assert_eq!(seen, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn files_that_come_later_are_found() {
        let (_folder, apps) = home();
        let app = apps.app("web");
        fs::write(app.definition(), "merge-logs = false\n").unwrap();
        let mut log = AppLog::of(apps, "web").expect("an app with files");
        assert_eq!(next(&mut log).await, (Vec::new(), false));
        add(&app.logs().join("out-3.log"), "of worker 3\n");
        let batch = timeout(Duration::from_secs(30), log.next()).await.expect("a batch");
        assert_eq!((batch.lines[0].text.as_str(), batch.lines[0].worker), ("of worker 3", Some(Slot(3))));
        fs::rename(app.logs().join("out-3.log"), app.logs().join("out-3.log.20261128T235959.123Z")).unwrap();
        add(&app.logs().join("out-3.log"), "of the next file\n");
        assert_eq!(next_lines(&mut log, 1).await, ["of the next file"]);
    }

    #[tokio::test]
    async fn neither_a_named_pipe_nor_a_file_without_line_ends_holds_or_fills_who_watches() {
        let (_folder, apps) = home();
        let logs = apps.app("web").logs();
        let (out, error) = (logs.join("out.log"), logs.join("error.log"));
        mknodat(CWD, &out, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        File::create(&error).unwrap().set_len(1 << 30).unwrap();
        let mut log = AppLog::of(apps, "web").expect("an app with files");
        assert_eq!(next(&mut log).await, (Vec::new(), false));
        add(&error, "the rest of it\nnext\n");
        assert_eq!(next_lines(&mut log, 1).await, ["next"]);
        // More than is read at once, and then nothing that tells of a change.
        let more = (TURNS as u64 + 1) << 20;
        File::options().append(true).open(&error).unwrap().set_len(more + (1 << 30)).unwrap();
        add(&error, "\nafter it\n");
        let lines = next_lines(&mut log, 2).await;
        assert_eq!((lines[0].len(), lines[1].as_str()), (LONGEST, "after it"));
    }

    #[tokio::test]
    async fn a_flood_is_passed_over_to_its_end() {
        let (_folder, apps) = home();
        let out = apps.app("web").logs().join("out.log");
        let mut log = AppLog::of(apps, "web").expect("an app with files");
        next(&mut log).await;
        let flood: String = (0..1_000_000).map(|number| format!("{number}\n")).collect();
        add(&out, &flood);
        // It may be read before it is whole.
        let mut has_missed = false;
        loop {
            let (lines, missed) = next(&mut log).await;
            assert!(lines.len() <= LINES);
            has_missed |= missed;
            if lines.last().is_some_and(|line| line == "999999") {
                break;
            }
        }
        assert!(has_missed);
        add(&out, "after it\n");
        assert_eq!(next_lines(&mut log, 1).await, ["after it"]);
    }
}
