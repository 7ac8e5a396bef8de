//! A folder with the files of a package, which a tool packs.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

/// The folder; it stays, for whoever wants to look.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// An empty one: what another build has left here is removed.
    ///
    /// # Errors
    /// That cannot be removed.
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the folders above it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.0.join(name);
        let folder = path.parent().unwrap_or(&self.0);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, content));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// The same, for a file that is executed.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write_program(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.write(name, content)?;
        Ok(fs::set_permissions(self.0.join(name), Permissions::from_mode(0o755))?)
    }

    /// Writes `NAME.gz`, as `gzip -9n` does, with nothing of the time.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write_compressed(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = GzBuilder::new().write(Vec::new(), Compression::best());
        file.write_all(content)?;
        self.write(&format!("{name}.gz"), file.finish()?)
    }

    /// Sets all permissions as if nobody had a umask, and tells how large it is: a folder is 1 KiB, and a file whole KiB.
    ///
    /// # Errors
    /// It cannot be read, or belongs to somebody else.
    pub(super) fn settle(&self) -> Result<u64> {
        settle(&self.0)
    }
}

fn settle(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path)?;
    let is_program = metadata.permissions().mode() & 0o100 != 0;
    let mode = if is_program { 0o755 } else { 0o644 };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    if metadata.is_file() {
        return Ok(metadata.len().div_ceil(1024));
    }
    fs::read_dir(path)?.try_fold(1, |size, entry| Ok(size + settle(&entry?.path())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_of_programs_and_of_other_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Tree::new(folder.path().join("tree")).expect("it is new");
        tree.write_program("bin/program", "1").expect("written");
        tree.write_compressed("text", &[0; 100_000]).expect("written");
        fs::set_permissions(tree.path().join("text.gz"), Permissions::from_mode(0o600)).expect("ours");
        assert_eq!(tree.settle().expect("it can be read"), 4);
        let modes = ["bin", "bin/program", "text.gz"]
            .map(|name| fs::metadata(tree.path().join(name)).expect(name).permissions().mode() & 0o777);
        assert_eq!(modes, [0o755, 0o755, 0o644]);
    }
}
