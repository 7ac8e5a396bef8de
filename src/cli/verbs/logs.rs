//! `clusterd logs`: what apps in the background have written, and what they write.
//!
//! It reads their files, so that it works for apps that do not run, and asks nobody.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::kept_apps::kept;
use super::log_lines::{Form, LogLine, Origin};
use super::print::{self, Output, Shape};
use super::{VerbError, rest, whole};
use crate::cli::complain;
use crate::home::app_log;
use crate::home::apps::{AppFolder, Apps};
use crate::home::logs::plan;
use crate::logs::follow::{Change, Folders};
use crate::logs::id_of;
use crate::logs::look::Look;
use crate::logs::plan::SourceKind;
use crate::logs::source_file::{Line, SourceFile, in_order};
use crate::settings::date_format::DateFormat;

/// How often it is looked at most whether there are other files: in their folders there may be much besides.
const FILES: Duration = Duration::from_millis(200);

/// How long it is not said again that lines are missing.
const AGAIN: Duration = Duration::from_secs(10);

/// How much is read of a file for its last lines, in bytes: of a file without line ends it would be all.
const TEXT: u64 = 8 * 1024 * 1024;

/// The same for each line that is asked for, where that is more.
const TEXT_OF_LINE: u64 = 1024;

/// Show the logs of all apps in the background, or of some, and follow [alias: log]
#[derive(Debug, clap::Args)]
#[command(alias = "log")]
pub(super) struct Logs {
    /// Names of apps, patterns such as `/^web/`, ids of workers, or `all`; without any, every app
    #[arg(value_name = "APP")]
    apps: Vec<String>,

    /// Begin with so many lines of each file
    #[arg(short = 'n', long, value_name = "N", default_value_t = 15, value_parser = whole::lines, allow_negative_numbers = true)]
    lines: usize,

    /// Only what workers write to stdout
    #[arg(long, conflicts_with = "err")]
    out: bool,

    /// Only what workers write to stderr
    #[arg(long)]
    err: bool,

    /// Do not follow them
    #[arg(long, alias = "no-stream")]
    nostream: bool,

    /// Print lines as they are in the files, without the app
    #[arg(long, group = "form")]
    raw: bool,

    /// Print a JSON object for each line; the same as `-o json`
    #[arg(long, group = "form")]
    json: bool,

    /// Print `key=value` pairs for each line
    #[arg(long, group = "form")]
    format: bool,

    /// Print the time before each line, if it is known: that in the line, or when the line came
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "YYYY-MM-DDTHH:mm:ss", value_parser = date_format)]
    timestamp: Option<DateFormat>,

    /// Have this text stand out
    #[arg(long, value_name = "TEXT")]
    highlight: Option<String>,

    #[command(flatten)]
    shape: Shape,
}

fn date_format(text: &str) -> Result<DateFormat, String> {
    DateFormat::of(text).map_err(|reason| format!("{reason}"))
}

/// A file that is shown.
struct Shown {
    origin: Origin,
    file: SourceFile,
    /// When it was last said that lines of it are missing.
    told: Option<Instant>,
}

impl Logs {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let mut files = Vec::new();
        let mut apps = kept(&self.apps)?;
        self.add(&apps, &mut files);
        let form = self.form();
        self.print(&form, &files.iter().map(label).collect::<Vec<_>>(), self.history(&mut files))?;
        if self.nostream {
            return Ok(ExitCode::SUCCESS);
        }
        let (mut folders, mut looked) = (Folders::new(), Instant::now());
        loop {
            // What has come into a folder before it was watched is looked for now.
            while watch(&apps, &files, &mut folders) {
                self.add(&apps, &mut files);
            }
            self.print_news(&form, &mut files)?;
            if folders.changed().await == Change::Files {
                sleep_until(looked + FILES).await;
                looked = Instant::now();
                // An app that was deleted meanwhile is no error.
                apps = kept(&self.apps).unwrap_or_default();
                self.add(&apps, &mut files);
            }
        }
    }

    /// Prints what has come, a turn of each file after the other.
    fn print_news(&self, form: &Form, files: &mut [Shown]) -> Result<(), VerbError> {
        let labels: Vec<_> = files.iter().map(label).collect();
        loop {
            let news: Vec<_> = files.iter_mut().map(Shown::more).collect();
            let is_all = !news.iter().any(|(_, is_more)| *is_more);
            self.print(
                form,
                &labels,
                in_order(news.into_iter().map(|(lines, _)| (lines, None)).collect(), LogLine::time),
            )?;
            files.iter_mut().for_each(Shown::tell_of_missing);
            if is_all {
                return Ok(());
            }
        }
    }

    fn form(&self) -> Form {
        match () {
            () if self.json || self.shape.output == Output::Json => Form::Json,
            () if self.raw => Form::Raw,
            () if self.format => Form::Pairs,
            () => Form::Text {
                look: Look::of(std::io::stdout()),
                stamp: self.timestamp.clone(),
                highlight: self.highlight.clone().filter(|word| !word.is_empty()),
            },
        }
    }

    /// Adds the files of these apps that are not among them yet.
    fn add(&self, apps: &[AppFolder], files: &mut Vec<Shown>) {
        let ids = rest::ids();
        for (number, app) in apps.iter().enumerate() {
            let (plan, ids) = (plan(app), ids.of_app(app.name()));
            for source in plan.sources() {
                let is_wanted = match source.kind {
                    SourceKind::Out => !self.err,
                    SourceKind::Error => !self.out,
                    SourceKind::Both => true,
                    SourceKind::Own => !self.out && !self.err,
                };
                if !is_wanted || files.iter().any(|shown| *shown.file.source() == source) {
                    continue;
                }
                let worker = source.worker.map(|slot| (slot, id_of(ids, slot)));
                let origin = Origin { app: app.name().to_owned(), number, kind: source.kind, worker };
                let shown = Shown { origin, file: SourceFile::new(source, &plan), told: None };
                shown.tell_if_no_file();
                files.push(shown);
            }
        }
    }

    fn history(&self, files: &mut [Shown]) -> Vec<LogLine> {
        let text = TEXT.max((self.lines as u64).saturating_mul(TEXT_OF_LINE));
        let of_file = |shown: &mut Shown| {
            let (mut lines, written) = shown.file.last(self.lines, text);
            if self.nostream {
                lines.extend(shown.file.rest());
            }
            (shown.lines(lines), written)
        };
        in_order(files.iter_mut().map(of_file).collect(), LogLine::time)
    }

    fn print(&self, form: &Form, labels: &[String], lines: Vec<LogLine>) -> Result<(), VerbError> {
        if lines.is_empty() {
            return Ok(());
        }
        let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or_default();
        let text: String = lines.iter().map(|line| form.shown(line, width)).collect();
        Ok(print::bytes(text.as_bytes())?)
    }
}

/// Watches the folders in which files are, or will be. Whether one is among them that was not watched before.
fn watch(apps: &[AppFolder], files: &[Shown], folders: &mut Folders) -> bool {
    let Ok(all) = Apps::of_this_process() else { return false };
    app_log::watch(&all, apps, files.iter().map(|shown| &shown.file), folders)
}

fn label(file: &Shown) -> String {
    file.origin.label()
}

impl Shown {
    /// Who reads lines of a named pipe takes them from somebody else.
    fn tell_if_no_file(&self) {
        if self.file.is_no_file() {
            let path = self.file.source().path.display();
            complain(&format!("lines of {} are not shown: {path} is no regular file", label(self)));
        }
    }

    /// Says it now and then: a worker that writes as fast as it can leaves gaps all the time.
    fn tell_of_missing(&mut self) {
        if !self.file.has_missed() || self.told.is_some_and(|told| told.elapsed() < AGAIN) {
            return;
        }
        self.told = Some(Instant::now());
        complain(&format!(
            "lines of {} may be missing here: files were removed before they were shown, or are damaged\n\
             hint: more files stay with --log-keep",
            label(self)
        ));
    }

    /// Lines that have come, and whether there may be more by now.
    fn more(&mut self) -> (Vec<LogLine>, bool) {
        let (lines, is_more) = self.file.more(usize::MAX);
        (self.lines(lines), is_more)
    }

    fn lines(&self, lines: Vec<Line>) -> Vec<LogLine> {
        let line = |Line { text, time, .. }| LogLine { origin: self.origin.clone(), text, time };
        lines.into_iter().map(line).collect()
    }
}
