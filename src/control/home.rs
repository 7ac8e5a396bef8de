//! Finds room for a control socket: the folder, the socket's name in it, and the abstract name where no folder can be
//! written. It exchanges nothing over them.
//!
//! A clusterd listens ([`Home::listen`]) until it drops the guard; a client looks at every address where one may
//! listen ([`Home::sockets`]).
//!
//! The folder is `CLUSTERD_HOME`; without it `~/.clusterd`, and `/run/clusterd` for root as PID 1 or without a home, whose apps in
//! the background have theirs in `/var/lib/clusterd`.
//! Where no folder can be written, as on a read-only root, the socket has an abstract name (unix(7)). Every process in
//! the network namespace sees such a name and can take it, as every user can create a socket in a shared folder: both
//! sides check the credentials of the other ([`peer`](super::peer)).

use std::collections::BTreeSet;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{env, fs};

use rustix::fs::{Access, AtFlags, CWD};
use tracing::{debug, warn};

use super::address::{SocketAddress, SocketGuard};
use super::app_name::encoded;
use crate::sys::unix::{self, Name};
use crate::sys::users;

/// The variable that names the folder.
pub(crate) const HOME_VARIABLE: &str = "CLUSTERD_HOME";

/// Where root's sockets are if it has no home.
const RUNTIME: &str = "/run/clusterd";

/// Where root's apps are if it has no home.
const LASTING: &str = "/var/lib/clusterd";

/// How every abstract name begins.
const ABSTRACT: &str = "clusterd-control-";

/// How many clients may wait in the backlog.
const BACKLOG: i32 = 64;

/// How many names are tried: only a clusterd in another container has the same name and number.
const TRIES: u32 = 8;

/// How many sockets a client looks at.
const MOST_SOCKETS: usize = 256;

/// The folders that may hold sockets, in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    folders: Vec<PathBuf>,
    /// The user has named the folder.
    is_named: bool,
    /// Where is kept what is to outlive a boot, if anywhere.
    lasting: Option<PathBuf>,
}

/// What decides which folders are tried.
#[derive(Clone, Debug, Default)]
struct Environment {
    variable: Option<PathBuf>,
    /// Only if it is the user's own: `sudo` may leave another's.
    home: Option<PathBuf>,
    is_root: bool,
    is_init: bool,
}

impl Home {
    /// The folders of this process.
    pub(crate) fn of_this_process() -> Self {
        let user = rustix::process::geteuid();
        Self::under(Environment {
            variable: named_folder(),
            home: users::home()
                .filter(|home| fs::metadata(home).is_ok_and(|home| home.uid() == user.as_raw())),
            is_root: user.is_root(),
            is_init: rustix::process::getpid().is_init(),
        })
    }

    /// The folders of a user with this home, who may be another one than this process runs as.
    pub(crate) fn of_user(home: &Path, is_root: bool) -> Self {
        Self::under(Environment {
            variable: named_folder(),
            home: Some(home.to_owned()),
            is_root,
            is_init: false,
        })
    }

    /// No folder: sockets have abstract names.
    pub(crate) fn without_folder() -> Self {
        Self { folders: Vec::new(), is_named: false, lasting: None }
    }

    /// This folder, and no other.
    #[cfg(test)]
    pub(crate) fn named(folder: &Path) -> Self {
        Self { folders: vec![folder.to_owned()], is_named: true, lasting: Some(folder.to_owned()) }
    }

    /// The folder for what outlives a boot: the apps. None for a user without a home that names none.
    pub(crate) fn lasting(&self) -> Option<PathBuf> {
        self.lasting.clone()
    }

    fn under(environment: Environment) -> Self {
        let Environment { variable, home, is_root, is_init } = environment;
        if let Some(folder) = variable {
            return Self { folders: vec![folder.clone()], is_named: true, lasting: Some(folder) };
        }
        // What accounts without a home have.
        let home = home.filter(|home| home.is_absolute() && home != Path::new("/"));
        let mut folders = Vec::from_iter(home.map(|home| home.join(".clusterd")));
        let lasting = folders.first().cloned().or_else(|| is_root.then(|| PathBuf::from(LASTING)));
        if is_root {
            folders.push(PathBuf::from(RUNTIME));
        }
        if is_init {
            folders.reverse();
        }
        // There are the sockets of apps in the background.
        folders.extend(lasting.clone().filter(|lasting| !folders.contains(lasting)));
        Self { folders, is_named: false, lasting }
    }

    /// Listens for the app `name`, in non-blocking mode: in the first folder that can be written, or at an abstract
    /// name.
    ///
    /// # Errors
    /// Those of bind(2) at the abstract name.
    pub(crate) fn listen(&self, name: &str) -> io::Result<(UnixListener, SocketGuard)> {
        for folder in &self.folders {
            match listen_in(folder, name) {
                Ok(listening) => return Ok(listening),
                Err(error) if self.is_named => {
                    let folder = folder.display();
                    warn!(
                        "cannot use {HOME_VARIABLE} {folder}: {error}; the control socket gets an abstract name"
                    );
                }
                Err(error) => {
                    debug!(folder = %folder.display(), %error, "cannot create the control socket here")
                }
            }
        }
        listen_abstract(name)
    }

    /// Whether a socket can be in one of the folders, as it is or once it is made. Nothing is made.
    pub(crate) fn has_room(&self) -> bool {
        let nearest = |folder: &PathBuf| {
            let folder = std::path::absolute(folder).ok()?;
            folder.ancestors().find(|place| place.exists()).map(is_usable)
        };
        self.folders.iter().any(|folder| nearest(folder) == Some(true))
    }

    /// Every address where a clusterd may listen. Abstract names are left out if the user has named a folder that
    /// clusterd could use.
    pub(crate) fn sockets(&self) -> Vec<SocketAddress> {
        let files = self.folders.iter().flat_map(|folder| files_in(folder));
        let includes_abstract = !(self.is_named && self.folders.iter().any(|folder| is_usable(folder)));
        let names = includes_abstract.then(abstract_names).into_iter().flatten();
        let addresses: BTreeSet<_> = files.chain(names).collect();
        addresses.into_iter().take(MOST_SOCKETS).collect()
    }
}

/// The folder that the user has named.
pub(crate) fn named_folder() -> Option<PathBuf> {
    env::var_os(HOME_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The socket listens before it gets the name that others look for: they would take it for one that was left behind.
fn listen_in(folder: &Path, name: &str) -> io::Result<(UnixListener, SocketGuard)> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let folder = folder.canonicalize()?;
    let file = names(name).map(|name| folder.join(name + ".sock")).find(|file| is_free(file));
    listen_at(file.ok_or(io::ErrorKind::AddrInUse)?)
}

/// Listens where another socket of this process was that has lost its file. The folder is made again, too, but not the one that
/// it is in.
///
/// # Errors
/// Those of mkdir(2), bind(2) and rename(2).
pub(crate) fn listen_again(address: &SocketAddress) -> io::Result<(UnixListener, SocketGuard)> {
    let SocketAddress::File(file) = address else { return Err(io::ErrorKind::Unsupported.into()) };
    match file.parent() {
        Some(folder) if !folder.is_dir() => DirBuilder::new().mode(0o700).create(folder)?,
        _ => {}
    }
    listen_at(file.clone())
}

fn listen_at(file: PathBuf) -> io::Result<(UnixListener, SocketGuard)> {
    let hidden = file.with_extension("new");
    let _ = fs::remove_file(&hidden);
    let listener = unix::listen(Name::Path(&hidden), BACKLOG)?;
    let settle = || {
        fs::set_permissions(&hidden, Permissions::from_mode(0o600))?;
        fs::rename(&hidden, &file)
    };
    settle().inspect_err(|_| drop(fs::remove_file(&hidden)))?;
    Ok((listener, SocketGuard::new(SocketAddress::File(file))))
}

fn is_free(file: &Path) -> bool {
    match unix::connect(Name::Path(file)) {
        Ok(_) => false,
        Err(error) => matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

fn listen_abstract(name: &str) -> io::Result<(UnixListener, SocketGuard)> {
    let user = rustix::process::geteuid();
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for name in names(name) {
        let name = format!("{ABSTRACT}{user}-{name}");
        match unix::listen(Name::Abstract(name.as_bytes()), BACKLOG) {
            Ok(listener) => return Ok((listener, SocketGuard::new(SocketAddress::Abstract(name)))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

/// Names for the socket of this process, in the order in which they are tried.
fn names(app: &str) -> impl Iterator<Item = String> {
    let own = format!("{}-{}", encoded(app), std::process::id());
    (0..TRIES).map(move |other| match other {
        0 => own.clone(),
        other => format!("{own}-{other}"),
    })
}

fn files_in(folder: &Path) -> Vec<SocketAddress> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_socket = |entry: &fs::DirEntry| {
        let is_named_so = entry.path().extension().is_some_and(|ending| ending == "sock");
        is_named_so && entry.file_type().is_ok_and(|kind| kind.is_socket())
    };
    entries.filter(is_socket).map(|entry| SocketAddress::File(entry.path())).collect()
}

fn abstract_names() -> Vec<SocketAddress> {
    unix::listening(ABSTRACT).unwrap_or_default().into_iter().map(SocketAddress::Abstract).collect()
}

/// Whether a clusterd of this user could create its socket here.
fn is_usable(folder: &Path) -> bool {
    let rights = Access::WRITE_OK | Access::EXEC_OK;
    folder.is_dir() && rustix::fs::accessat(CWD, folder, rights, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_folder_depends_on_who_runs_it_and_where() {
        let plain = Environment::default();
        let home = |home: &str| Environment { home: Some(home.into()), ..Environment::default() };
        let root = |environment| Environment { is_root: true, ..environment };
        let init = |environment| Environment { is_init: true, ..environment };
        let named = |variable: &str, rest| Environment { variable: Some(variable.into()), ..rest };
        // Where sockets are, and where apps are.
        let table: [(_, &[&str], &str); 10] = [
            (home("/home/ann"), &["/home/ann/.clusterd"], "/home/ann/.clusterd"),
            (home("/"), &[], ""),
            (home(""), &[], ""),
            (init(plain.clone()), &[], ""),
            (root(home("/root")), &["/root/.clusterd", "/run/clusterd"], "/root/.clusterd"),
            (init(root(home("/root"))), &["/run/clusterd", "/root/.clusterd"], "/root/.clusterd"),
            (root(plain.clone()), &["/run/clusterd", "/var/lib/clusterd"], "/var/lib/clusterd"),
            (init(root(plain.clone())), &["/run/clusterd", "/var/lib/clusterd"], "/var/lib/clusterd"),
            (named("/srv/x", init(root(home("/root")))), &["/srv/x"], "/srv/x"),
            (named("x", plain), &["x"], "x"),
        ];
        for (environment, sockets, apps) in table {
            let home = Home::under(environment.clone());
            let folders: Vec<_> = sockets.iter().map(PathBuf::from).collect();
            assert_eq!(home.folders, folders, "{environment:?}");
            assert_eq!(home.lasting, (!apps.is_empty()).then(|| apps.into()), "{environment:?}");
        }
    }

    #[test]
    fn a_socket_is_for_its_user_alone_and_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let home = Home::named(&folder);
        assert_eq!(
            home.sockets().iter().filter(|address| matches!(address, SocketAddress::File(_))).count(),
            0
        );
        let (_listener, guard) = home.listen("web").unwrap();
        let file = folder.canonicalize().unwrap().join(format!("web-{}.sock", std::process::id()));
        assert_eq!(*guard.address(), SocketAddress::File(file.clone()));
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        assert_eq!(home.sockets(), [SocketAddress::File(file.clone())]);
        guard.address().connect().unwrap();
        assert!(guard.address().folder_owner().is_some());
        drop(guard);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn there_is_room_where_a_folder_can_be_made() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Home::named(&parent.path().join("a/b")).has_room());
        assert!(!Home::named(&file.join("a")).has_room());
        assert!(!Home::without_folder().has_room());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "nothing was made");
    }

    #[test]
    fn a_socket_that_was_removed_is_made_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("home");
        let (_first, first) = Home::named(&folder).listen("web").unwrap();
        assert!(first.is_there());
        fs::remove_dir_all(&folder).unwrap();
        assert!(!first.is_there());
        let (_second, second) = listen_again(first.address()).unwrap();
        assert_eq!((first.address(), first.is_there()), (second.address(), false));
        drop(first);
        assert!(second.is_there() && second.address().connect().is_ok());
        assert_eq!(mode(&folder), 0o700);
    }

    #[test]
    fn a_folder_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let (_listener, guard) = Home::named(folder.path()).listen("web").unwrap();
        assert_eq!(mode(folder.path()), 0o777);
        assert_eq!(guard.address().folder_owner(), None, "others may make sockets in it");
    }

    #[test]
    fn what_was_left_behind_is_removed_by_whoever_meets_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::named(folder.path());
        let file = folder.path().join(format!("web-{}.sock", std::process::id()));
        drop(UnixListener::bind(&file).unwrap());
        let [left] = home.sockets().try_into().unwrap();
        assert_eq!(left.connect_or_clear().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(home.sockets(), []);
        drop(UnixListener::bind(&file).unwrap());
        let (_listener, guard) = home.listen("web").unwrap();
        assert!(guard.address().connect().is_ok());
        assert_eq!(home.sockets().len(), 1);
    }

    #[test]
    fn a_living_socket_of_the_same_name_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (_first, first) = Home::named(folder.path()).listen("web").unwrap();
        let (_second, second) = Home::named(folder.path()).listen("web").unwrap();
        assert_ne!(first.address(), second.address());
        assert!(first.address().connect().is_ok() && second.address().connect().is_ok());
        assert_eq!(Home::named(folder.path()).sockets().len(), 2);
    }

    #[test]
    fn without_a_folder_there_is_an_abstract_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let home = Home::named(&file.path().join("not a folder"));
        let app = format!("test-{:x}", fastrand::u64(..));
        let listening = [home.listen(&app).unwrap(), home.listen(&app).unwrap()];
        let user = rustix::process::geteuid();
        let own = format!("clusterd-control-{user}-{app}-{}", std::process::id());
        assert_eq!(listening[0].1.address().to_string(), format!("@{own}"));
        assert_eq!(listening[1].1.address().to_string(), format!("@{own}-1"));
        for (_, guard) in &listening {
            assert!(home.sockets().contains(guard.address()));
            assert!(guard.address().connect().is_ok());
        }
        assert!(!Home::named(&env::temp_dir()).sockets().contains(listening[0].1.address()));
    }

    #[test]
    fn a_long_path_is_no_obstacle() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("x".repeat(200));
        let (_listener, guard) = Home::named(&folder).listen(&"n".repeat(64)).unwrap();
        assert!(matches!(guard.address(), SocketAddress::File(_)));
        assert!(Home::named(&folder).sockets()[0].connect().is_ok());
    }
}
