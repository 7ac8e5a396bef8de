//! The watched files and folders, as inotify(7) tells of them.
//!
//! A folder is watched with everything below it, but for what is ignored: a `node_modules` costs nothing. A file, and
//! the watched folder itself, is watched by its name in the folder above, for editors and deployments put a new one in
//! its place. Links below it are not followed. Those that lead to the watched path itself are, and so is the file that it leads
//! to: each may be exchanged, as `current` for another release, or as `..data` is when a ConfigMap of Kubernetes changes.
//!
//! Why not the crate `notify`: a test of version 8.2.2 lost what we need most. If a watched link is switched to another
//! folder (a `current` that leads to another release), a watched folder is removed and created again, or another file is
//! renamed over a watched one, it reports nothing from then on; of the switch itself it reports nothing either. It also
//! watches what is ignored. notify-debouncer-full 0.6 is built on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// As many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

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
    /// The names in it that decide what roots are: their own, and those that lead there.
    names: BTreeMap<OsString, BTreeSet<PathBuf>>,
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
        let is_written = event.flags.contains(ReadFlags::CLOSE_WRITE);
        let is_new = event.flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        if let Some(roots) = folder.names.get(&event.name).cloned() {
            for root in roots.iter().filter(|_| !is_written) {
                self.forget_below(root);
                if is_new {
                    self.watch_again(root);
                }
            }
        } else {
            let root = folder.root.clone()?;
            if self.ignored.covers(&root, path.strip_prefix(&root).ok()?) {
                return None;
            }
            if event.flags.contains(ReadFlags::ISDIR) && !is_written {
                self.forget_below(&path);
                if is_new {
                    self.watch_new(&path, &root);
                }
            }
        }
        (!event.flags.contains(ReadFlags::CREATE) || is_whole(&path)).then_some(path)
    }

    /// More has happened than the kernel has kept.
    fn watch_anew(&mut self) -> Option<PathBuf> {
        for root in self.roots.clone() {
            self.forget_below(&root);
            self.watch_again(&root);
        }
        self.roots.first().cloned()
    }

    fn watch_root(&mut self, root: &Path) -> io::Result<()> {
        for (folder, name) in names_of(root) {
            match self.watch(&folder, CHANGES) {
                Ok(watched) => drop(watched.names.entry(name).or_default().insert(root.to_owned())),
                // What is in it is seen even if it is not seen whether it is exchanged.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && root.is_dir() => {}
                // A link that leads nowhere.
                Err(_) if root.parent() != Some(folder.as_path()) => {}
                Err(error) => return Err(error),
            }
        }
        self.watch_below(root, root)
    }

    /// What leads to a root is another by now.
    fn watch_again(&mut self, root: &Path) {
        for folder in self.folders.values_mut() {
            folder.names.retain(|_, roots| {
                roots.remove(root);
                !roots.is_empty()
            });
        }
        if let Err(error) = self.watch_root(root) {
            tracing::warn!("{}; changes there are missed", failed(root, error));
        }
        let inotify = &self.inotify;
        self.folders.retain(|&number, folder| {
            let is_of_use = folder.root.is_some() || !folder.names.is_empty();
            if !is_of_use {
                // It may be gone already.
                let _ = inotify::remove_watch(inotify, number);
            }
            is_of_use
        });
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
        let new = || Folder { path: path.to_owned(), root: None, names: BTreeMap::new() };
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

/// The names that decide what a path is, each with the folder that it is in: its own, that of each link on the way there, and
/// that of what these lead to.
fn names_of(path: &Path) -> Vec<(PathBuf, OsString)> {
    let in_folder = |path: &Path| Some((path.parent()?.to_owned(), path.file_name()?.to_owned()));
    let mut names: Vec<_> = in_folder(path).into_iter().collect();
    let (mut left, mut here, mut links) = (parts(path), PathBuf::new(), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        // From the root, if the part is that.
        let next = here.join(&part);
        match fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                names.push((here.clone(), part));
                left.extend(parts(&target));
            }
            _ => here = next,
        }
    }
    if here != path {
        names.extend(in_folder(&here));
    }
    names
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
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
            Self { folder, noticed: channel().1 }.watch(watch, ignore)
        }

        /// Watches these from now on.
        fn watch(self, watch: &[&str], ignore: &[&str]) -> Self {
            let paths: Vec<_> = watch.iter().map(|path| self.path(path)).collect();
            let ignore: Vec<_> = ignore.iter().map(|pattern| Glob::new(pattern).unwrap()).collect();
            let mut tree = Tree::new(&paths, Ignored::new(&ignore).unwrap()).unwrap();
            let (tell, noticed) = channel();
            std::thread::spawn(move || {
                while tree.changed().unwrap().into_iter().all(|path| tell.send(path).is_ok()) {}
            });
            Self { noticed, ..self }
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
    fn a_link_on_the_way_and_what_it_leads_to_may_be_exchanged() {
        // What the kubelet makes of a ConfigMap, and a file of one of its keys.
        let watched = WatchedFolder::watching(&[], &[]);
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, watched.path(name)).unwrap();
        for version in ["app/..1", "app/..2"] {
            fs::create_dir(watched.path(version)).unwrap();
            watched.write(&format!("{version}/key"));
        }
        link("..1", "app/..data");
        link("..data/key", "app/key");
        let watched = watched.watch(&["app/key", "current/src"], &[]);
        watched.write("app/..1/key");
        watched.notices("app/..1/key", &[]);
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, watched.path(name)).unwrap();
        link("..2", "app/..data_tmp");
        fs::rename(watched.path("app/..data_tmp"), watched.path("app/..data")).unwrap();
        watched.notices("app/..data", &[]);
        watched.write("app/..1/key");
        watched.write("app/..2/key");
        watched.notices("app/..2/key", &[]);
        // A link in the middle of the path.
        fs::create_dir(watched.path("release-2/src")).unwrap();
        link("release-2", "next");
        fs::rename(watched.path("next"), watched.path("current")).unwrap();
        watched.notices("current", &[]);
        watched.write("app/src/a.js");
        watched.write("release-2/src/a.js");
        watched.notices("current/src/a.js", &[]);
    }

    #[test]
    fn what_decides_what_a_path_is() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
        fs::create_dir_all(folder.join("releases/1")).unwrap();
        link("releases/1", "current");
        link("../current/../../current", "releases/1/round");
        link("loop", "loop");
        link("nowhere/at/all", "dangling");
        let absolute = folder.join("current");
        std::os::unix::fs::symlink(&absolute, folder.join("absolute")).unwrap();
        let cases: [(&str, &[&str]); 7] = [
            ("releases/1", &["releases/1"]),
            ("current", &["current", "current", "releases/1"]),
            ("current/app.js", &["current/app.js", "current", "releases/1/app.js"]),
            ("absolute", &["absolute", "absolute", "current", "releases/1"]),
            ("current/round", &["current/round", "current", "releases/1/round", "current", "releases/1"]),
            ("dangling", &["dangling", "dangling", "nowhere/at/all"]),
            ("no/such", &["no/such"]),
        ];
        for (path, expected) in cases {
            let names: Vec<_> =
                names_of(&folder.join(path)).into_iter().map(|(folder, name)| folder.join(name)).collect();
            let expected: Vec<_> = expected.iter().map(|name| folder.join(name)).collect();
            assert_eq!(names, expected, "{path}");
        }
        assert_eq!(names_of(&folder.join("loop")).len(), MOST_LINKS + 1, "it ends");
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
