//! Where what workers and clusterd write is to go, and what it looks like there.
//!
//! It opens nothing: it is read by whoever writes logs and by whoever shows them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Local};

use super::write::Stream;
use crate::ids::Slot;
use crate::settings::date_format::DateFormat;
use crate::settings::{Config, LogFormat, LogType};

/// The name of the file of clusterd's own messages.
pub(crate) const OWN: &str = "clusterd.log";

/// Where everything goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPlan {
    /// What workers write to stdout.
    pub out: Place,
    /// What workers write to stderr.
    pub error: Place,
    /// Both, beside these.
    pub combined: Option<PathBuf>,
    /// What clusterd itself has to say.
    pub own: Place,
    /// Whether each worker has files of its own.
    pub is_by_worker: bool,
    /// What a line looks like in a file.
    pub format: LineFormat,
    /// What it looks like on clusterd's own standard streams.
    pub standard_format: LineFormat,
    /// When a file is set aside for another.
    pub rotation: Rotation,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One of clusterd's own standard streams.
    Standard,
    /// A file.
    File(PathBuf),
    /// They are read, and that is all.
    Nowhere,
}

/// What is done to a line of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineFormat {
    /// The time at which it ended is written in this way.
    pub stamp: Option<DateFormat>,
    /// It is an object, with the name of the app.
    pub json: Option<String>,
}

/// When a file is set aside, and how long it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// A file is no larger, in bytes.
    pub max_size: Option<u64>,
    /// A file is written no longer.
    pub max_age: Option<Duration>,
    /// How many stay beside the one that is written.
    pub keep: usize,
    /// Whether those are compressed.
    pub compress: bool,
}

/// The standard streams, lines as they come.
impl Default for LogPlan {
    fn default() -> Self {
        Self {
            out: Place::Standard,
            error: Place::Standard,
            combined: None,
            own: Place::Standard,
            is_by_worker: false,
            format: LineFormat::default(),
            standard_format: LineFormat::default(),
            rotation: Rotation { max_size: None, max_age: None, keep: 0, compress: false },
        }
    }
}

impl LogPlan {
    /// By these settings; `folder` is that of the app's logs, if it runs in the background.
    pub(crate) fn of(config: &Config, folder: Option<&Path>) -> Self {
        let place = |file: Option<PathBuf>| match file {
            None => Place::Standard,
            Some(path) if path == Path::new("/dev/null") => Place::Nowhere,
            Some(path) => Place::File(path),
        };
        let of_app = |name: &str| folder.map(|folder| folder.join(name));
        let named = |file: &Option<PathBuf>| file.as_ref().map(|file| config.in_start_folder(file));
        let workers = |file: &Option<PathBuf>, name| match config.disable_logs {
            true => Place::Nowhere,
            false => place(named(file).or_else(|| of_app(name))),
        };
        let format = LineFormat {
            stamp: config.log_date_format.clone(),
            json: (config.log_type == LogType::Json).then(|| config.name.clone()),
        };
        Self {
            out: workers(&config.out_file, "out.log"),
            error: workers(&config.error_file, "error.log"),
            combined: named(&config.log_file).filter(|_| !config.disable_logs),
            own: place(of_app(OWN)),
            is_by_worker: !config.merge_logs,
            standard_format: format.clone(),
            format,
            rotation: Rotation {
                max_size: config.log_max_size.map(|size| size.as_u64()),
                max_age: config.log_max_age,
                keep: config.log_keep as usize,
                compress: config.log_compress,
            },
        }
    }

    /// The same where others write to the standard streams, too: if clusterd's own messages are objects, all lines there are.
    pub(crate) fn beside_others(mut self, config: &Config) -> Self {
        if config.log_format == LogFormat::Json {
            self.standard_format.json = Some(config.name.clone());
        }
        self
    }

    /// Of an app in the background whose logs are there, if nobody says otherwise.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        let file = |name| Place::File(folder.join(name));
        Self { out: file("out.log"), error: file("error.log"), own: file(OWN), ..Self::default() }
    }

    /// The file of what this worker writes to stdout.
    pub(crate) fn out_of(&self, slot: Slot) -> Option<PathBuf> {
        self.file_of(&self.out, slot)
    }

    /// The file of what this worker writes to stderr.
    pub(crate) fn error_of(&self, slot: Slot) -> Option<PathBuf> {
        self.file_of(&self.error, slot)
    }

    fn file_of(&self, place: &Place, slot: Slot) -> Option<PathBuf> {
        let Place::File(path) = place else { return None };
        Some(if self.is_by_worker { of_worker(path, slot) } else { path.clone() })
    }

    /// Where the lines of a stream go, that of one worker.
    pub(super) fn places(&self, slot: Slot, stream: Stream) -> Vec<Place> {
        let place = match stream {
            Stream::Stdout => &self.out,
            Stream::Stderr => &self.error,
        };
        let mut places = vec![place.clone()];
        places.extend(self.combined.clone().map(Place::File));
        for place in &mut places {
            if let Place::File(path) = place
                && self.is_by_worker
            {
                *path = of_worker(path, slot);
            }
        }
        places.dedup();
        places
    }
}

/// A file that is there to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub kind: SourceKind,
    /// Whose it is, if it is of one worker.
    pub worker: Option<Slot>,
}

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    /// What workers write to stdout.
    Out,
    /// What workers write to stderr.
    Error,
    /// Both.
    Both,
    /// What clusterd says.
    Own,
}

impl SourceKind {
    /// In a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Out => Stream::Stdout.name(),
            Self::Error => Stream::Stderr.name(),
            Self::Both => "all",
            Self::Own => "clusterd",
        }
    }
}

impl LogPlan {
    /// The files in which everything is, each line once.
    pub(crate) fn sources(&self) -> Vec<Source> {
        let path = |place: &Place| match place {
            Place::File(path) => Some(path.clone()),
            Place::Standard | Place::Nowhere => None,
        };
        let (out, error) = (path(&self.out), path(&self.error));
        let is_apart = out != error;
        let both = self.combined.clone().filter(|_| out.is_none() && error.is_none());
        let of_workers = match is_apart {
            true => vec![(SourceKind::Out, out), (SourceKind::Error, error)],
            false => vec![(SourceKind::Both, out.or(both))],
        };
        let mut sources = Vec::new();
        for (kind, path) in of_workers {
            let Some(path) = path else { continue };
            match self.is_by_worker {
                true => sources.extend(files_of_workers(&path).map(|(path, slot)| Source {
                    path,
                    kind,
                    worker: Some(slot),
                })),
                false => sources.push(Source { path, kind, worker: None }),
            }
        }
        sources.extend(path(&self.own).map(|path| Source { path, kind: SourceKind::Own, worker: None }));
        sources
    }

    /// The folders in which its files are, or will be.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let places = [&self.out, &self.error, &self.own].into_iter().filter_map(|place| match place {
            Place::File(path) => Some(path),
            Place::Standard | Place::Nowhere => None,
        });
        let folders = places.chain(&self.combined).filter_map(|path| path.parent());
        let mut folders: Vec<_> = folders.map(Path::to_owned).collect();
        folders.dedup();
        folders
    }

    /// Every file that lines are written to.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let combined = Self {
            out: self.combined.clone().map_or(Place::Nowhere, Place::File),
            error: Place::Nowhere,
            own: Place::Nowhere,
            ..self.clone()
        };
        let mut files: Vec<_> =
            [self.sources(), combined.sources()].concat().into_iter().map(|source| source.path).collect();
        files.sort();
        files.dedup();
        files
    }

    /// The time that such a line bears.
    pub(crate) fn time_of(&self, kind: SourceKind, line: &str) -> Option<DateTime<Local>> {
        let rfc3339 = |text: &str| Some(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Local));
        let of_json = |line: &str| {
            let object: serde_json::Value = serde_json::from_str(line).ok()?;
            let text = object.get("timestamp")?.as_str()?.to_owned();
            let stamp = self.format.stamp.as_ref().filter(|_| kind != SourceKind::Own);
            stamp.map_or_else(|| rfc3339(&text), |stamp| Some(stamp.read(&text)?.0))
        };
        match (kind, &self.format) {
            _ if line.starts_with('{') && (kind == SourceKind::Own || self.format.json.is_some()) => {
                of_json(line)
            }
            (SourceKind::Own, _) => rfc3339(line.split(' ').next()?),
            (_, LineFormat { stamp: Some(stamp), json: None }) => Some(stamp.read(line)?.0),
            _ => None,
        }
    }
}

fn files_of_workers(all: &Path) -> impl Iterator<Item = (PathBuf, Slot)> {
    let folder = all.parent().map(Path::to_owned).unwrap_or_default();
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<_> =
        entries.filter_map(|entry| Some((entry.path(), worker_of(&entry.path(), all)?))).collect();
    files.sort_by_key(|(_, slot)| *slot);
    files.into_iter()
}

/// `out-2.log`, where `out.log` is that of all workers. What is there already and is no file has no other name.
fn of_worker(path: &Path, slot: Slot) -> PathBuf {
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|text| format!(".{}", text.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{slot}{extension}"))
}

/// The worker whose file of this name is `path`; `None` if it is not of one.
fn worker_of(path: &Path, all: &Path) -> Option<Slot> {
    let name = path.file_name()?.to_str()?;
    let stem = all.file_stem()?.to_str()?;
    let extension = all.extension().map(|text| format!(".{}", text.to_string_lossy())).unwrap_or_default();
    let number = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| is_number).map(Slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_its_number_in_the_name_of_its_file() {
        let table = [("/l/out.log", "/l/out-2.log"), ("/l/out", "/l/out-2"), ("/l/a.b.log", "/l/a.b-2.log")];
        for (all, expected) in table {
            let path = of_worker(Path::new(all), Slot(2));
            assert_eq!(path, Path::new(expected));
            assert_eq!(worker_of(&path, Path::new(all)), Some(Slot(2)));
        }
        assert_eq!(of_worker(Path::new("/dev/null"), Slot(2)), Path::new("/dev/null"));
        for other in ["/l/out.log", "/l/out-x.log", "/l/out-.log", "/l/out-2.log.gz", "/l/error-2.log"] {
            assert_eq!(worker_of(Path::new(other), Path::new("/l/out.log")), None, "{other}");
        }
    }

    #[test]
    fn what_there_is_to_read_is_each_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let plan = LogPlan::in_folder(folder.path());
        let shown = |plan: &LogPlan| {
            let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
            let sources = plan.sources().into_iter();
            sources.map(|source| (name(&source.path), source.kind.name())).collect::<Vec<_>>()
        };
        let named = |pairs: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
            pairs.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
        };
        let own = ("clusterd.log", "clusterd");
        assert_eq!(shown(&plan), named(&[("out.log", "out"), ("error.log", "err"), own]));
        let same = LogPlan { error: plan.out.clone(), ..plan.clone() };
        assert_eq!(shown(&same), named(&[("out.log", "all"), own]));
        let nowhere = LogPlan { out: Place::Nowhere, error: Place::Nowhere, ..plan.clone() };
        assert_eq!(shown(&nowhere), named(&[own]));
        let combined = LogPlan { combined: Some(file("all.log")), ..nowhere };
        assert_eq!(shown(&combined), named(&[("all.log", "all"), own]));
        for name in ["out-2.log", "out-10.log", "error-2.log", "out-2.log.20261128T235959.123Z"] {
            std::fs::write(file(name), "").unwrap();
        }
        let by_worker = LogPlan { is_by_worker: true, combined: Some(file("all.log")), ..plan };
        assert_eq!(
            shown(&by_worker),
            named(&[("out-2.log", "out"), ("out-10.log", "out"), ("error-2.log", "err"), own])
        );
        std::fs::write(file("all-2.log"), "").unwrap();
        assert_eq!(by_worker.files().len(), 5);
    }

    #[test]
    fn a_line_tells_when_it_was_written_if_it_has_a_time() {
        let plan = LogPlan::in_folder(Path::new("/l"));
        let is_timed = |plan: &LogPlan, kind, line: &str| plan.time_of(kind, line).is_some();
        let own = "2026-11-28T23:59:59.123Z  INFO worker started worker=1";
        let json = r#"{"message":"x","timestamp":"2026-11-28T23:59:59.123Z"}"#;
        let table = [
            (SourceKind::Own, own, true),
            (SourceKind::Own, json, true),
            (SourceKind::Own, "thread panicked", false),
            (SourceKind::Out, own, false),
            (SourceKind::Out, json, false),
        ];
        for (kind, line, expected) in table {
            assert_eq!(is_timed(&plan, kind, line), expected, "{line}");
        }
        let of_json = LineFormat { stamp: None, json: Some("web".to_owned()) };
        assert!(is_timed(&LogPlan { format: of_json, ..plan.clone() }, SourceKind::Out, json));
        let stamped = LineFormat { stamp: DateFormat::of("%F %T").ok(), json: None };
        let plan = LogPlan { format: stamped, ..plan };
        assert!(is_timed(&plan, SourceKind::Error, "2026-11-28 23:59:59: x"));
        assert!(!is_timed(&plan, SourceKind::Error, "x") && is_timed(&plan, SourceKind::Own, own));
    }

    #[test]
    fn one_file_for_several_streams_gets_each_line_once() {
        let file = || Place::File("/l/all.log".into());
        let plan = LogPlan {
            out: file(),
            error: Place::Nowhere,
            combined: Some("/l/all.log".into()),
            is_by_worker: true,
            ..LogPlan::default()
        };
        let of_worker = Place::File("/l/all-3.log".into());
        assert_eq!(plan.places(Slot(3), Stream::Stdout), std::slice::from_ref(&of_worker));
        assert_eq!(plan.places(Slot(3), Stream::Stderr), [Place::Nowhere, of_worker]);
        let merged = LogPlan { is_by_worker: false, ..plan };
        assert_eq!(merged.places(Slot(3), Stream::Stdout), [file()]);
    }
}
