//! Reloads to a version that does not work: the old workers serve on as if nothing had happened, the log says why, and
//! the next version that works is taken.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::{App, tests};
use crate::harness::folder::fixtures;
use crate::harness::{Cluster, Load, needs};

tests!([python, node]
    a_version_that_ends_at_its_start_changes_nothing,
    a_version_that_never_listens_changes_nothing,
    a_version_whose_program_is_gone_changes_nothing,
);
tests!([python, node, newconn] a_version_that_ends_as_soon_as_it_listens_changes_nothing);

/// A cluster whose workers run the script `version` in its folder with the program `shell` there, and its clients.
struct Deployment {
    app: App,
    load: Load,
    cluster: Cluster,
}

impl Deployment {
    fn start(app: App, options: &str) -> Self {
        let setup = app.under("{folder}/shell version").workers(2).options(options);
        let setup = setup.file("version", &good(app)).file("clusterd.toml", "");
        symlink(shell(), setup.folder.path().join("shell")).expect("a link in the temporary folder");
        let cluster = setup.start();
        Self { app, load: Load::of_requests(&cluster), cluster }
    }

    fn write_version(&self, script: &str) {
        fs::write(self.cluster.folder().join("version"), script).expect("a file in the temporary folder");
    }

    fn set_ready_timeout(&self, timeout: &str) {
        self.cluster.write("clusterd.toml", &format!("ready-timeout = '{timeout}'\n"));
    }

    /// A reload fails, which is said in these words, and the same workers serve on.
    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        let old = self.cluster.pids();
        let failed = self.cluster.reload().expect_err("the new version does not work");
        assert!(words.iter().all(|words| failed.contains(words)), "{failed}");
        self.load.goes_on();
        assert_eq!(self.cluster.pids(), old, "the old workers are there, and no other");
    }

    #[track_caller]
    fn takes_a_version_that_works(self) {
        let old = self.cluster.pids();
        self.write_version(&good(self.app));
        self.cluster.reload().expect("the new version works");
        let new = self.cluster.pids();
        assert!(new.len() == 2 && new.is_disjoint(&old), "{new:?} of {old:?}");
        self.load.lost_nothing();
    }
}

fn shell() -> std::path::PathBuf {
    needs::find("sh").expect("there is a shell")
}

fn good(app: App) -> String {
    format!("exec {}\n", app.command().replace("{fixtures}", &fixtures().to_string_lossy()))
}

fn a_version_that_ends_at_its_start_changes_nothing(app: App) {
    let deployment = Deployment::start(app, "--min-uptime 100ms");
    deployment.write_version("echo no database >&2; echo giving up >&2; exit 3");
    let last_lines = "the new worker's last lines: no database | giving up";
    deployment.refuses(&["the new worker 1 exited with code 3", "the old workers keep serving", last_lines]);
    let failed = deployment.cluster.metrics().count("clusterd_reloads_total", &[("result", "failed")]);
    assert_eq!(failed, 1);
    deployment.takes_a_version_that_works();
}

fn a_version_that_never_listens_changes_nothing(app: App) {
    let deployment = Deployment::start(app, "--config clusterd.toml --min-uptime 100ms");
    deployment.set_ready_timeout("1s");
    deployment.write_version("echo waiting for the database >&2; exec sleep 1000");
    deployment.refuses(&["the new worker 1 was not ready within 1s", "last lines: waiting for the database"]);
    // A version that works has more time, on a machine that is busy.
    deployment.set_ready_timeout("60s");
    deployment.takes_a_version_that_works();
}

/// It has listened, so clients may have been sent to it: what it has not accepted goes to the old workers. On a machine that
/// is busy it may take a while to end.
fn a_version_that_ends_as_soon_as_it_listens_changes_nothing(app: App) {
    let deployment = Deployment::start(app, "--min-uptime 5s");
    let variable = if app == App::Python { "SERVER_CRASH" } else { "CRASH" };
    deployment.write_version(&format!("export {variable}=1; {}", good(app)));
    deployment.refuses(&["the new worker 1 exited with code 4", "last lines: there is no database"]);
    deployment.takes_a_version_that_works();
}

fn a_version_whose_program_is_gone_changes_nothing(app: App) {
    let deployment = Deployment::start(app, "--min-uptime 100ms");
    let program = deployment.cluster.folder().join("shell");
    fs::remove_file(&program).expect("the link is there");
    deployment.refuses(&[&program.to_string_lossy(), "No such file"]);
    // It looks like a program, until it is started.
    fs::write(&program, "#!/no/such/interpreter\n").expect("a file in the temporary folder");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("the owner may");
    deployment.refuses(&["the new worker 1", &program.to_string_lossy(), "the old workers keep serving"]);
    fs::remove_file(&program).expect("the file is there");
    symlink(shell(), &program).expect("a link in the temporary folder");
    deployment.takes_a_version_that_works();
}
