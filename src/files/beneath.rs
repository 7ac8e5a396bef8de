//! What a folder shows: its files, by whichever way a path leads to them, but for those that lie outside of it or have a hidden name.
//!
//! It is asked by path, and decides by what the path has led to: whoever moves a link meanwhile gains nothing. It knows no
//! HTTP.

use std::fs::{self, Metadata};
use std::io::{self, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File};

use crate::sys::blocking;

/// What stands for a folder.
const INDEX: &str = "index.html";

/// How much of a file is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// The folder. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Beneath {
    root: Arc<Path>,
}

impl Beneath {
    /// This folder, whose path is absolute and without links. Where another takes its place, that one is shown.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Whether there is something to show at this path, relative to the folder.
    pub(super) async fn shows(&self, relative: PathBuf) -> bool {
        self.metadata(self.root.join(relative)).await.is_ok()
    }

    /// Holds what the path leads to, without opening it: a FIFO or a device is not touched.
    fn hold(&self, path: &Path) -> io::Result<(fs::File, Metadata)> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let held = fs::File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(not_shown)?);
        let there = fs::read_link(link_to(&held))?;
        let within = there.strip_prefix(&self.root).map_err(|_| io::ErrorKind::NotFound)?;
        if within.iter().any(|part| is_hidden(part.as_encoded_bytes())) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let metadata = held.metadata()?;
        Ok((held, metadata))
    }

    /// A folder is one that has something to show.
    fn look(&self, path: &Path) -> io::Result<Metadata> {
        let (_, metadata) = self.hold(path)?;
        if !metadata.is_dir() {
            return regular(metadata);
        }
        let (_, index) = self.hold(&path.join(INDEX))?;
        regular(index).map(|_| metadata)
    }

    fn read(&self, path: &Path) -> io::Result<Opened> {
        let (held, metadata) = self.hold(path)?;
        regular(metadata)?;
        Ok(Opened { file: Arc::new(fs::File::open(link_to(&held))?), at: 0, reading: None })
    }
}

/// By which the kernel opens what is held, and says where it is (proc_pid_fd(5)).
fn link_to(held: &fs::File) -> PathBuf {
    Path::new("/proc/self/fd").join(held.as_raw_fd().to_string())
}

/// `.env`, `.git`, and `..`.
pub(super) fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
}

/// A path that leads nowhere is one of the client's, whatever is the matter with it.
fn not_shown(error: Errno) -> io::Error {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO => error.into(),
        _ => io::ErrorKind::NotFound.into(),
    }
}

fn regular(metadata: Metadata) -> io::Result<Metadata> {
    if metadata.is_file() { Ok(metadata) } else { Err(io::ErrorKind::NotFound.into()) }
}

impl Backend for Beneath {
    type File = Opened;
    type Metadata = Metadata;
    type OpenFuture = BoxFuture<'static, io::Result<Opened>>;
    type MetadataFuture = BoxFuture<'static, io::Result<Metadata>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let beneath = self.clone();
        Box::pin(blocking::run(move || beneath.read(&path)))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let beneath = self.clone();
        Box::pin(blocking::run(move || beneath.look(&path)))
    }
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send + Sync>>;

/// A file that is shown, and where in it is read next.
pub(super) struct Opened {
    file: Arc<fs::File>,
    at: u64,
    reading: Option<Reading>,
}

impl File for Opened {
    type Metadata = Metadata;
    type MetadataFuture<'a> = BoxFuture<'a, io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        let file = Arc::clone(&self.file);
        Box::pin(blocking::run(move || file.metadata()))
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { file, at, reading } = &mut *self;
        let begin = || -> Reading {
            let (file, at, room) = (Arc::clone(file), *at, buf.remaining().min(PIECE));
            Box::pin(blocking::run(move || {
                let mut piece = vec![0; room];
                let read = file.read_at(&mut piece, at)?;
                piece.truncate(read);
                Ok(piece)
            }))
        };
        let piece = ready!(reading.get_or_insert_with(begin).as_mut().poll(cx));
        *reading = None;
        let mut piece = piece?;
        // What there is no room for now is read again.
        piece.truncate(buf.remaining());
        buf.put_slice(&piece);
        *at += piece.len() as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Opened {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let (from, by) = match position {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (self.at, by),
            SeekFrom::End(by) => (self.file.metadata()?.len(), by),
        };
        self.at = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        self.reading = None;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use rustix::fs::{CWD, FileType};

    use super::*;

    /// A folder `site` beside a secret, and what it shows.
    fn site() -> (tempfile::TempDir, Beneath) {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().canonicalize().unwrap().join("site");
        for folder in ["docs", ".git", "linked", "empty"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (file, text) in [
            ("../secret", "secret"),
            (".env", "secret"),
            (".git/index.html", "secret"),
            ("docs/index.html", "docs"),
        ] {
            fs::write(root.join(file), text).unwrap();
        }
        (parent, Beneath::new(&root))
    }

    fn text(beneath: &Beneath, path: &str) -> io::Result<String> {
        let opened = beneath.read(&beneath.root.join(path))?;
        io::read_to_string(&*opened.file)
    }

    #[test]
    fn a_link_leads_to_what_the_folder_shows_and_to_nothing_else() {
        let (_parent, beneath) = site();
        let root = &*beneath.root;
        let absolute = |path: &str| root.join(path).to_str().unwrap().to_owned();
        let links = [
            ("in", "docs/index.html".to_owned(), true),
            ("whole", absolute("docs/index.html"), true),
            ("folder", "docs".to_owned(), true),
            ("by-way-of-outside", "../site/docs/index.html".to_owned(), true),
            ("linked/index.html", "../.env".to_owned(), false),
            ("out", "../secret".to_owned(), false),
            ("hidden", ".env".to_owned(), false),
            ("hidden-folder", ".git".to_owned(), false),
            ("absolute", "/etc/passwd".to_owned(), false),
            ("process", "/proc/self/environ".to_owned(), false),
            ("loop", "loop".to_owned(), false),
        ];
        for (link, target, is_shown) in &links {
            symlink(target, root.join(link)).unwrap();
            assert_eq!(beneath.look(&root.join(link)).is_ok(), *is_shown, "{link}");
            let found = text(&beneath, link);
            assert_eq!(found.is_ok_and(|text| text == "docs"), *is_shown && *link != "folder", "{link}");
        }
        for (folder, is_shown) in
            [("docs", true), ("linked", false), ("empty", false), ("hidden-folder", false)]
        {
            assert_eq!(beneath.look(&root.join(folder)).is_ok(), is_shown, "{folder}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_touched() {
        let (_parent, beneath) = site();
        let pipe = beneath.root.join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(beneath.look(&pipe).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(beneath.read(&pipe).err().unwrap().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn who_moves_a_link_meanwhile_gains_nothing() {
        let (_parent, beneath) = site();
        let (root, done) = (&*beneath.root, AtomicBool::new(false));
        symlink(".env", root.join("link")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for target in ["docs/index.html", "../secret", ".env"] {
                        symlink(target, root.join("new")).unwrap();
                        fs::rename(root.join("new"), root.join("link")).unwrap();
                    }
                }
            });
            let (mut tries, mut shown, until) = (0, Vec::new(), Instant::now() + Duration::from_secs(40));
            // On a busy machine the link may stay as it is for long.
            while (tries < 3000 || shown.is_empty()) && Instant::now() < until {
                shown.extend(text(&beneath, "link").ok());
                tries += 1;
            }
            done.store(true, Ordering::Relaxed);
            assert!(shown.iter().all(|text| text == "docs") && !shown.is_empty(), "{}", shown.len());
        });
    }
}
