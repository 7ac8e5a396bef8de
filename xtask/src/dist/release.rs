//! What every package holds and says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::order;

/// The only target that is built: nobody has tested another one.
pub(super) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Names a static binary that was built before.
const BUILT: &str = "XTASK_DIST_BINARY";

/// What cargo leaves out of the binary: its symbols, unless this says something else (`none`, for profilers).
const STRIP: &str = "CARGO_PROFILE_RELEASE_STRIP";

/// One version of clusterd.
#[derive(Debug)]
pub(super) struct Release {
    /// The tree that it is built from.
    pub root: PathBuf,
    /// As in Cargo.toml.
    pub version: String,
    /// The static binary, without symbols.
    pub binary: PathBuf,
    /// Seconds since 1970, which every file of every package has as its time (SOURCE_DATE_EPOCH of reproducible-builds.org).
    pub epoch: u64,
}

impl Release {
    /// Builds the binary of this tree, and puts it into `out` as `clusterd`.
    ///
    /// # Errors
    /// It does not build, or cannot be copied.
    pub(super) fn build(root: &Path, out: &Path) -> Result<Self> {
        let built = match std::env::var_os(BUILT) {
            Some(built) => built.into(),
            None => build_binary(root)?,
        };
        let binary = out.join("clusterd");
        // A copy of a file to itself would be empty.
        if fs::canonicalize(&built).ok() != fs::canonicalize(&binary).ok() {
            fs::copy(&built, &binary).with_context(|| format!("cannot copy {}", built.display()))?;
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let release = Self { root: root.to_owned(), version, binary, epoch: epoch(root)? };
        let said = String::from_utf8(release.says(&["--version"])?)?;
        ensure!(
            said.trim() == format!("clusterd {}", release.version),
            "the binary is of another version: {said}"
        );
        Ok(release)
    }
}

impl Release {
    /// What completes clusterd's words in this shell.
    ///
    /// # Errors
    /// The binary does not run here.
    pub(super) fn completions(&self, shell: &str) -> Result<Vec<u8>> {
        self.says(&["completions", shell])
    }

    fn says(&self, words: &[&str]) -> Result<Vec<u8>> {
        output(Command::new(&self.binary).args(words))
    }
}

/// Scripts for the linker, in this workspace.
const NO_UNWINDING: &str = "xtask/dist/no-unwinding.ld";
const SERVING: &str = "xtask/dist/serving.ld";

/// Where the linker writes down what it has put where.
const MAP: &str = "target/static/clusterd.map";

fn build_binary(root: &Path) -> Result<PathBuf> {
    let target = root.join("target/static");
    let mut cargo = Command::new(env!("CARGO"));
    let built = target.join(TARGET);
    let binary = built.join("release/clusterd");
    // cargo does not know that the binary is made from these, too.
    if binary.exists() && [NO_UNWINDING, SERVING].iter().any(|script| is_newer(&root.join(script), &binary)) {
        fs::remove_dir_all(&built).with_context(|| format!("cannot remove {}", built.display()))?;
    }
    fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
    cargo.current_dir(root).env("CARGO_ENCODED_RUSTFLAGS", rustflags(root)?);
    if std::env::var_os(STRIP).is_none() {
        cargo.env(STRIP, "symbols");
    }
    cargo.args(["build", "--release", "--locked", "--bin", "clusterd", "--target", TARGET, "--target-dir"]);
    run(cargo.arg(&target))?;
    order::check(&root.join(SERVING), &root.join(MAP))?;
    Ok(binary)
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let [changed, than] = [file, than].map(|file| fs::metadata(file).and_then(|file| file.modified()).ok());
    changed > than
}

/// As CARGO_ENCODED_RUSTFLAGS has them, which goes before all else that may set some. The target is named on the command line:
/// without that, they would be for proc-macros, too, which cannot be static.
fn rustflags(root: &Path) -> Result<String> {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        // The linker's way to pack half a megabyte of relocations into some kilobytes; glibc has it since 2.36.
        "-Clink-arg=-Wl,-z,pack-relative-relocs".to_owned(),
        // One copy of functions that are the same, by rustc's own linker, which is the default here.
        "-Clink-arg=-Wl,--icf=all".to_owned(),
        // Relative to the workspace: a path of this machine would change the symbols.
        format!("-Clink-arg=-Wl,-T,{NO_UNWINDING}"),
        format!("-Clink-arg=-Wl,-T,{SERVING}"),
        format!("-Clink-arg=-Wl,-Map,{MAP}"),
        // Names of functions that tell for which types they are, which the others do by a number: SERVING lists them.
        "-Csymbol-mangling-version=v0".to_owned(),
        // Folders of this machine are in messages of panics.
        format!("--remap-path-prefix={home}=/cargo"),
        format!("--remap-path-prefix={}=/clusterd", root.display()),
    ];
    Ok(flags.join("\x1f"))
}

/// When what is built was committed; SOURCE_DATE_EPOCH says so where there is no history.
fn epoch(root: &Path) -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {epoch:?}"));
    }
    let mut git = Command::new("git");
    let output =
        git.current_dir(root).args(["log", "-1", "--format=%ct"]).output().context("cannot run git")?;
    let time = String::from_utf8_lossy(&output.stdout);
    time.trim().parse().context("git does not tell the time of the last commit; set SOURCE_DATE_EPOCH")
}

/// Runs a tool, which writes to this terminal.
///
/// # Errors
/// It is not there, or fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}

/// What a tool writes to its standard output.
///
/// # Errors
/// It is not there, or fails.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output.stdout)
}
