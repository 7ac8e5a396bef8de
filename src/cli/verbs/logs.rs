//! `clusterd logs`: what apps in the background have written, and what they write.
//!
//! It reads their files, so that it works for apps that do not run, and asks nobody.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Local};

use super::VerbError;
use super::kept_apps::kept;
use super::log_lines::{Form, LogLine, Origin, in_order};
use super::print::{self, Output, Shape};
use crate::home::apps::AppFolder;
use crate::home::logs::plan;
use crate::logs::look::Look;
use crate::logs::plan::{LogPlan, Source, SourceKind};
use crate::logs::read::Tail;
use crate::settings::date_format::DateFormat;

/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_millis(200);

/// After how many times it is looked whether there are more files.
const FILES: usize = 5;

/// Show the logs of every app in the background, or of some, and follow them [alias: log]
#[derive(Debug, clap::Args)]
#[command(alias = "log")]
pub(super) struct Logs {
    /// Names of apps, patterns such as `/^web/`, ids of workers, or `all`; without any, every app
    #[arg(value_name = "APP")]
    apps: Vec<String>,

    /// Begin with so many lines of each file
    #[arg(short = 'n', long, value_name = "N", default_value_t = 15)]
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
    source: Source,
    origin: Origin,
    tail: Tail,
    plan: LogPlan,
}

impl Logs {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let mut files = Vec::new();
        self.add(&kept(&self.apps)?, &mut files);
        let form = self.form();
        self.print(&form, &files.iter().map(label).collect::<Vec<_>>(), self.history(&mut files))?;
        if self.nostream {
            return Ok(ExitCode::SUCCESS);
        }
        loop {
            for _ in 0..FILES {
                tokio::time::sleep(LOOK).await;
                let news = in_order(files.iter_mut().map(|file| (file.more(), None)).collect());
                self.print(&form, &files.iter().map(label).collect::<Vec<_>>(), news)?;
            }
            // An app that was deleted meanwhile is no error.
            self.add(&kept(&self.apps).unwrap_or_default(), &mut files);
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
        for (number, app) in apps.iter().enumerate() {
            let plan = plan(app);
            for source in plan.sources() {
                let is_wanted = match source.kind {
                    SourceKind::Out => !self.err,
                    SourceKind::Error => !self.out,
                    SourceKind::Both => true,
                    SourceKind::Own => !self.out && !self.err,
                };
                if !is_wanted || files.iter().any(|file| file.source == source) {
                    continue;
                }
                let origin =
                    Origin { app: app.name().to_owned(), number, kind: source.kind, worker: source.worker };
                let tail = Tail::new(PathBuf::clone(&source.path));
                files.push(Shown { source, origin, tail, plan: plan.clone() });
            }
        }
    }

    fn history(&self, files: &mut [Shown]) -> Vec<LogLine> {
        let of_file = |file: &mut Shown| {
            let mut lines = file.tail.last(self.lines);
            if self.nostream {
                lines.extend(file.tail.rest());
            }
            let lines = lines.iter().map(|line| file.line(line, None)).collect();
            (lines, file.tail.written().map(DateTime::from))
        };
        in_order(files.iter_mut().map(of_file).collect())
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

fn label(file: &Shown) -> String {
    file.origin.label()
}

impl Shown {
    /// Lines that have come. They come now, unless they say otherwise.
    fn more(&mut self) -> Vec<LogLine> {
        let (mut lines, now) = (Vec::new(), Local::now());
        // A file that cannot be read now may be later.
        let _ = self.tail.more(|line| lines.push(line.to_vec()));
        lines.iter().map(|line| self.line(line, Some(now))).collect()
    }

    fn line(&self, bytes: &[u8], came: Option<DateTime<Local>>) -> LogLine {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let time = self.plan.time_of(self.source.kind, &text).or(came);
        LogLine { origin: self.origin.clone(), text, time }
    }
}
