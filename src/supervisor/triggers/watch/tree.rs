//! The watched files and folders, as inotify(7) tells of them.
//!
//! A folder is watched with everything below it, but for what is ignored: a `node_modules` costs nothing. A file, and
//! the watched folder itself, is watched by its name in the folder above, for editors and deployments put a new one in
//! its place. Links are not followed, but for the watched path itself, which may be one that is exchanged.
//!
//! Why not the crate `notify`: a test of version 8.2.2 lost what we need most. If a watched link is switched to another
//! folder (a `current` that leads to another release), a watched folder is removed and created again, or another file is
//! renamed over a watched one, it reports nothing from then on; of the switch itself it reports nothing either. It also
//! watches what is ignored. notify-debouncer-full 0.6 is built on it.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::WatchError;
use super::ignore::Ignored;

/// What has to happen for a change: that a file is complete, and not that it is being written.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// What is watched.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: OwnedFd,
    ignored: Ignored,
    /// What `--watch` names, as absolute paths.
    roots: Vec<PathBuf>,
    /// By the number that the kernel gave.
    folders: HashMap<i32, Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The root that it is in, or is, if everything in it matters.
    root: Option<PathBuf>,
    /// The names in it that are roots.
    names: BTreeSet<OsString>,
}

/// Something that happened in a folder.
#[derive(Debug)]
struct FolderEvent {
    folder: i32,
    name: OsString,
    flags: ReadFlags,
}

impl Tree {
    pub(super) fn new(paths: &[PathBuf], ignored: Ignored) -> Result<Self, WatchError> {
        let inotify = inotify::init(CreateFlags::CLOEXEC);
        let inotify = inotify
            .map_err(|error| failed(paths.first().map_or(Path::new("/"), PathBuf::as_path), error.into()))?;
        let mut tree = Self { inotify, ignored, roots: Vec::new(), folders: HashMap::new() };
        for path in paths {
            let root = std::path::absolute(path).map_err(|error| failed(path, error))?;
            fs::metadata(&root).map_err(|error| failed(path, error))?;
            tree.watch_root(&root).map_err(|error| failed(path, error))?;
            tree.roots.push(root);
        }
        Ok(tree)
    }

    /// Waits for something to happen, and says what of it matters: paths of which one that came more than once is
    /// named once.
    ///
    /// # Errors
    /// Those of read(2).
    pub(super) fn changed(&mut self) -> io::Result<BTreeSet<PathBuf>> {
        let events = self.read()?;
        Ok(events.into_iter().filter_map(|event| self.note(&event)).collect())
    }

    fn read(&self) -> io::Result<Vec<FolderEvent>> {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push(FolderEvent {
                    folder: event.wd(),
                    name: OsStr::from_bytes(event.file_name().unwrap_or_default().to_bytes()).to_owned(),
                    flags: event.events(),
                }),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if reader.is_buffer_empty() {
                return Ok(events);
            }
        }
    }

    /// Keeps up with what happened; the path, if it is a change that matters.
    fn note(&mut self, event: &FolderEvent) -> Option<PathBuf> {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.watch_anew();
        }
        if event.flags.contains(ReadFlags::IGNORED) {
            self.folders.remove(&event.folder);
            return None;
        }
        let folder = self.folders.get(&event.folder).filter(|_| !event.name.is_empty())?;
        let path = folder.path.join(&event.name);
        let root = match &folder.root {
            _ if folder.names.contains(&event.name) => path.clone(),
            Some(root) if !self.ignored.covers(root, path.strip_prefix(root).ok()?) => root.clone(),
            _ => return None,
        };
        let is_folder = event.flags.contains(ReadFlags::ISDIR) || path == root;
        if is_folder && !event.flags.contains(ReadFlags::CLOSE_WRITE) {
            self.forget_below(&path);
        }
        if is_folder && event.flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.watch_new(&path, &root);
        }
        (!event.flags.contains(ReadFlags::CREATE) || is_whole(&path)).then_some(path)
    }

    /// More has happened than the kernel has kept.
    fn watch_anew(&mut self) -> Option<PathBuf> {
        for root in self.roots.clone() {
            self.forget_below(&root);
            self.watch_new(&root.clone(), &root);
        }
        self.roots.first().cloned()
    }

    fn watch_root(&mut self, root: &Path) -> io::Result<()> {
        if let (Some(parent), Some(name)) = (root.parent(), root.file_name()) {
            match self.watch(parent, CHANGES) {
                Ok(folder) => drop(folder.names.insert(name.to_owned())),
                // What is in it is seen even if it is not seen whether it is exchanged.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && root.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        self.watch_below(root, root)
    }

    fn watch_new(&mut self, path: &Path, root: &Path) {
        if let Err(error) = self.watch_below(path, root) {
            tracing::warn!("{}; changes there are missed", failed(path, error));
        }
    }

    /// Watches a folder and those below it; a file is watched from above. What is gone meanwhile, or lets nobody see
    /// it, is left out.
    fn watch_below(&mut self, top: &Path, root: &Path) -> io::Result<()> {
        let mut folders = vec![top.to_owned()];
        while let Some(path) = folders.pop() {
            let flags = if path == root { CHANGES } else { CHANGES | WatchFlags::DONT_FOLLOW };
            match self.watch(&path, flags) {
                Ok(folder) => drop(folder.root.get_or_insert_with(|| root.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path != *root => {
                    tracing::warn!("cannot watch {}: {error}", path.display());
                    continue;
                }
                Err(error) if is_no_folder(&error) => continue,
                Err(error) => return Err(error),
            }
            // After the watch, so that nothing comes in between.
            let entries = fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below = below.map(|entry| entry.path());
            folders.extend(below.filter(|path| {
                path.strip_prefix(root).is_ok_and(|relative| !self.ignored.covers(root, relative))
            }));
        }
        Ok(())
    }

    /// One folder alone. A folder has one number, however many paths lead to it.
    fn watch(&mut self, path: &Path, flags: WatchFlags) -> io::Result<&mut Folder> {
        let number = inotify::add_watch(&self.inotify, path, flags)?;
        let new = || Folder { path: path.to_owned(), root: None, names: BTreeSet::new() };
        Ok(self.folders.entry(number).or_insert_with(new))
    }

    /// Forgets a folder that has gone, or of which is not known what it is by now.
    fn forget_below(&mut self, path: &Path) {
        let inotify = &self.inotify;
        self.folders.retain(|&number, folder| {
            if !folder.path.starts_with(path) {
                return true;
            }
            folder.root = None;
            if folder.names.is_empty() {
                // It may be gone already.
                let _ = inotify::remove_watch(inotify, number);
            }
            !folder.names.is_empty()
        });
    }
}

/// Whether something that was just created is there as a whole: a folder or a link, and not a file that is still to be
/// written, nor a socket.
fn is_whole(path: &Path) -> bool {
    let Ok(file) = fs::symlink_metadata(path) else {
        return false;
    };
    file.is_dir() || file.is_symlink() || (file.is_file() && file.nlink() > 1)
}

fn is_no_folder(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound)
        // A link, which is not followed.
        || error.raw_os_error() == Some(libc::ELOOP)
}

fn failed(path: &Path, source: io::Error) -> WatchError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EMFILE | libc::ENFILE) => WatchError::Limit { path, source },
        _ => WatchError::Path { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use globset::Glob;

    use super::*;

    /// A folder in which `app` is watched, and what is noticed there.
    struct WatchedFolder {
        folder: tempfile::TempDir,
        noticed: Receiver<PathBuf>,
    }

    impl WatchedFolder {
        fn watching(watch: &[&str], ignore: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["app/src/deep", "app/node_modules/left-pad", "release-2"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            fs::write(folder.path().join("app/server.js"), "1").unwrap();
            std::os::unix::fs::symlink("app", folder.path().join("current")).unwrap();
            let paths: Vec<_> = watch.iter().map(|path| folder.path().join(path)).collect();
            let ignore: Vec<_> = ignore.iter().map(|pattern| Glob::new(pattern).unwrap()).collect();
            let mut tree = Tree::new(&paths, Ignored::new(&ignore).unwrap()).unwrap();
            let (tell, noticed) = channel();
            std::thread::spawn(move || {
                while tree.changed().unwrap().into_iter().all(|path| tell.send(path).is_ok()) {}
            });
            Self { folder, noticed }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str) {
            fs::write(self.path(name), name).unwrap();
        }

        /// Waits until this is noticed; what is noticed before it has to be something else of `also`.
        #[track_caller]
        fn notices(&self, name: &str, also: &[&str]) {
            loop {
                let noticed = self.noticed.recv_timeout(Duration::from_secs(20)).expect(name);
                if noticed == self.path(name) {
                    return;
                }
                assert!(also.iter().any(|other| self.path(other) == noticed), "{}", noticed.display());
            }
        }
    }

    #[test]
    fn a_folder_is_watched_with_what_is_below_it() {
        let watched = WatchedFolder::watching(&["app"], &["*.md"]);
        watched.write("app/src/deep/a.js");
        watched.notices("app/src/deep/a.js", &[]);
        // Neither the first three of these nor what happens beside the folder is noticed.
        watched.write("app/node_modules/left-pad/index.js");
        watched.write("app/README.md");
        watched.write("app/src/.a.js.swp");
        watched.write("beside");
        fs::read(watched.path("app/server.js")).unwrap();
        let _socket = UnixListener::bind(watched.path("app/socket")).unwrap();
        fs::rename(watched.path("app/server.js"), watched.path("app/index.js")).unwrap();
        watched.notices("app/index.js", &["app/server.js"]);
        fs::remove_file(watched.path("app/index.js")).unwrap();
        watched.notices("app/index.js", &["app/server.js"]);
    }

    #[test]
    fn what_is_new_is_watched_and_what_is_moved_keeps_no_old_name() {
        let watched = WatchedFolder::watching(&["app"], &[]);
        // One after the other: a folder is watched by the time that it is noticed, and not before.
        for folder in ["app/new", "app/new/deeper"] {
            fs::create_dir(watched.path(folder)).unwrap();
            watched.notices(folder, &[]);
        }
        watched.write("app/new/deeper/b.js");
        watched.notices("app/new/deeper/b.js", &[]);
        fs::rename(watched.path("app/new"), watched.path("app/newer")).unwrap();
        watched.notices("app/newer", &["app/new"]);
        watched.write("app/newer/deeper/c.js");
        watched.notices("app/newer/deeper/c.js", &[]);
        fs::rename(watched.path("app/newer"), watched.path("elsewhere")).unwrap();
        watched.notices("app/newer", &[]);
        watched.write("elsewhere/deeper/d.js");
        watched.write("app/last.js");
        watched.notices("app/last.js", &[]);
    }

    #[test]
    fn a_file_is_watched_by_its_name() {
        let watched = WatchedFolder::watching(&["app/server.js"], &[]);
        watched.write("app/other.js");
        watched.write("app/server.js");
        watched.notices("app/server.js", &[]);
        watched.write("app/server.js.new");
        fs::rename(watched.path("app/server.js.new"), watched.path("app/server.js")).unwrap();
        watched.notices("app/server.js", &[]);
    }

    #[test]
    fn a_link_that_is_exchanged_leads_to_what_is_watched_then() {
        let watched = WatchedFolder::watching(&["current"], &[]);
        watched.write("app/server.js");
        watched.notices("current/server.js", &[]);
        std::os::unix::fs::symlink("release-2", watched.path("next")).unwrap();
        fs::rename(watched.path("next"), watched.path("current")).unwrap();
        watched.notices("current", &[]);
        watched.write("app/server.js");
        watched.write("release-2/server.js");
        watched.notices("current/server.js", &[]);
        watched.write("release-2/more.js");
        watched.notices("current/more.js", &[]);
    }

    #[test]
    fn a_folder_that_is_replaced_is_watched_again() {
        let watched = WatchedFolder::watching(&["app/src"], &[]);
        fs::remove_dir_all(watched.path("app/src")).unwrap();
        watched.notices("app/src", &["app/src/deep"]);
        fs::create_dir(watched.path("app/src")).unwrap();
        watched.notices("app/src", &["app/src/deep"]);
        watched.write("app/src/a.js");
        watched.notices("app/src/a.js", &["app/src/deep"]);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let error =
            Tree::new(&["/no/such/folder".into()], Ignored::new(&[]).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("cannot watch /no/such/folder: No such file or directory"), "{error}");
    }
}
