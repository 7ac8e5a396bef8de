//! Where contenders run: a temporary folder, what was built, where programs are looked for, free ports.
//!
//! Programs that `.ci/servers` and `.ci/run` install are found there (`CLUSTERD_CI_TOOLS`).

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::application::{Application, Builds};

/// Where Debian and others have nginx's module for TCP, if it is one.
const NGINX_MODULES: [&str; 3] = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/etc/nginx/modules"];

pub(crate) struct Place {
    folder: tempfile::TempDir,
    path: String,
    clusterd: String,
    builds: Builds,
}

impl Place {
    /// Builds what these applications need, for so long at most. Without a `program`, clusterd is the one that cargo has built.
    pub(crate) fn new(
        applications: &[Application],
        program: Option<&Path>,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let program = program.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_clusterd")));
        let clusterd =
            program.canonicalize().with_context(|| format!("cannot find {}", program.display()))?;
        let clusterd =
            clusterd.into_os_string().into_string().ok().context("the program's path is no UTF-8")?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let path = search_path();
        let wanted: Vec<_> =
            applications.iter().copied().filter(|wanted| find(&path, wanted.program()).is_some()).collect();
        let builds = Builds::new(folder.path(), &path, &wanted, patience);
        Ok(Self { folder, path, clusterd, builds })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of clusterd.
    pub(crate) fn clusterd(&self) -> &str {
        &self.clusterd
    }

    /// The `PATH` of contenders.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn has(&self, program: &str) -> bool {
        find(&self.path, program).is_some()
    }

    pub(crate) fn built(&self, application: Application) -> anyhow::Result<&Path> {
        self.builds.get(application)
    }

    /// A file for one contender; one that was there is emptied.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Where one PM2 has its sockets: it is found there by its command.
    pub(crate) fn pm2_home(&self, port: u16) -> PathBuf {
        self.folder().join(format!("pm2-{port}"))
    }

    /// Where a contender's complaints go, and the last of them.
    pub(crate) fn said(&self) -> anyhow::Result<File> {
        Ok(File::create(self.folder().join("said"))?)
    }

    pub(crate) fn last_words(&self) -> String {
        let said = fs::read(self.folder().join("said")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let folder = self.folder().display().to_string();
        last.trim().replace(&folder, ".").chars().take(200).collect()
    }

    /// nginx's module for TCP: `None` if it is built in or missing, which nginx itself will say.
    pub(crate) fn nginx_stream_module(&self) -> Option<PathBuf> {
        let tools = tools().join("nginx");
        let folders = NGINX_MODULES.iter().map(PathBuf::from).chain([tools]);
        folders.map(|folder| folder.join("ngx_stream_module.so")).find(|module| module.exists())
    }
}

/// A port that nobody listens on, another one each time. It is none of those that the system gives to clients
/// (`ip_local_port_range`), one of whom could have it before the server does.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: Range<u16> = 20_000..32_000;
    let first = u16::try_from(process::id() % u32::from(PORTS.end - PORTS.start))?;
    for _ in PORTS {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(first) % (PORTS.end - PORTS.start);
        let port = PORTS.start + turn;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}

fn tools() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-tools");
    env::var_os("CLUSTERD_CI_TOOLS").map_or(default, PathBuf::from)
}

fn search_path() -> String {
    let tools = tools();
    let own = ["python/bin", "node/node_modules/.bin", "npm/node_modules/.bin"];
    let mut folders: Vec<_> = own.iter().map(|folder| tools.join(folder).display().to_string()).collect();
    folders.push(env::var("PATH").unwrap_or_default());
    folders.push("/usr/sbin".to_owned());
    folders.join(":")
}

fn find(path: &str, program: &str) -> Option<PathBuf> {
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|program| program.is_file())
}
