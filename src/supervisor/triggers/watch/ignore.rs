//! Which changes do not matter: what version control, editors and runtimes leave in a folder, and what `--ignore` says.
//!
//! Pure: it looks at paths, not at files.

use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Names that are always ignored, at any depth.
const ALWAYS: [&str; 23] = [
    // Version control and packages.
    ".git",
    ".hg",
    ".svn",
    "node_modules",
    // What running a program writes.
    "__pycache__",
    "*.pyc",
    "*.log",
    "*.pid",
    "*.sock",
    ".DS_Store",
    // Vim, whose probe for a writable folder is called 4913; Emacs; JetBrains; gedit, Kate and others.
    "*.swp",
    "*.swo",
    "*.swx",
    "4913",
    "*~",
    ".#*",
    "#*#",
    "*___jb_tmp___",
    "*___jb_old___",
    ".goutputstream-*",
    ".*.kate-swp",
    "*.tmp",
    "*.part",
];

/// The patterns.
#[derive(Debug)]
pub(super) struct Ignored {
    /// Of a name, wherever it is.
    names: GlobSet,
    /// Of a path: below what is watched, or from the root.
    paths: GlobSet,
}

impl Ignored {
    /// What is always ignored, and these. One without a slash is about names.
    ///
    /// # Errors
    /// Together they are too much for the matcher.
    pub(super) fn new(patterns: &[Glob]) -> Result<Self, globset::Error> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for name in ALWAYS {
            names.add(Glob::new(name)?);
        }
        for pattern in patterns {
            // `logs/` is the folder, and `./logs` is what it is without the dot.
            let text = pattern.glob().trim_end_matches('/');
            let text = text.strip_prefix("./").unwrap_or(text);
            let set = if text.contains('/') { &mut paths } else { &mut names };
            set.add(GlobBuilder::new(text).literal_separator(true).build()?);
        }
        Ok(Self { names: names.build()?, paths: paths.build()? })
    }

    /// Whether `path`, relative to the watched folder `root`, or a folder above it within `root`, is ignored.
    pub(super) fn covers(&self, root: &Path, path: &Path) -> bool {
        let mut below = PathBuf::new();
        path.components().any(|name| {
            below.push(name);
            let name: &Path = name.as_ref();
            self.names.is_match(name) || self.paths.is_match(&below) || self.paths.is_match(root.join(&below))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_about_names_or_paths() {
        let table: [(&[&str], &str, bool); 18] = [
            (&[], "server.js", false),
            (&[], "src/server.js", false),
            (&[], "src/.server.js.swp", true),
            (&[], "server.js~", true),
            (&[], "node_modules/a/index.js", true),
            (&[], "packages/a/node_modules/b", true),
            (&[], ".git/index", true),
            (&[], ".gitignore", false),
            (&[], "..data", false),
            (&["*.md"], "docs/a.md", true),
            (&["*.md"], "docs/a.mdx", false),
            (&["logs/"], "logs/today.txt", true),
            (&["./logs"], "logs", true),
            (&["**/*.txt"], "a.txt", true),
            (&["public/**"], "public/a/b.css", true),
            (&["public/**"], "src/public/b.css", false),
            (&["/srv/app/tmp"], "tmp/a", true),
            (&["{a,b}.js"], "b.js", true),
        ];
        for (patterns, path, expected) in table {
            let patterns: Vec<_> = patterns.iter().map(|pattern| Glob::new(pattern).unwrap()).collect();
            let ignored = Ignored::new(&patterns).unwrap();
            assert_eq!(
                ignored.covers(Path::new("/srv/app"), Path::new(path)),
                expected,
                "{patterns:?} {path}"
            );
        }
    }
}
