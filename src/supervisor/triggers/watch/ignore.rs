//! Which changes do not matter: what version control, editors and runtimes leave in a folder, and what `--ignore` says.
//!
//! Pure: it looks at paths, not at files.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder};
use regex_lite::{Regex, RegexBuilder};

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
    names: Patterns,
    /// Of a path: below what is watched, or from the root.
    paths: Patterns,
}

impl Ignored {
    /// What is always ignored, and these. One without a slash is about names.
    ///
    /// # Errors
    /// Together they are too much for the matcher.
    pub(super) fn new(patterns: &[Glob]) -> Result<Self, Unmatchable> {
        let (mut names, mut paths) = (Vec::new(), Vec::new());
        for name in ALWAYS {
            names.push(Glob::new(name)?);
        }
        for pattern in patterns {
            // `logs/` is the folder, and `./logs` is what it is without the dot.
            let text = pattern.glob().trim_end_matches('/');
            let text = text.strip_prefix("./").unwrap_or(text);
            let set = if text.contains('/') { &mut paths } else { &mut names };
            set.push(GlobBuilder::new(text).literal_separator(true).build()?);
        }
        Ok(Self { names: Patterns::of(&names)?, paths: Patterns::of(&paths)? })
    }

    /// Whether `path`, relative to the watched folder `root`, or a folder above it within `root`, is ignored.
    pub(super) fn covers(&self, root: &Path, path: &Path) -> bool {
        let mut below = PathBuf::new();
        path.components().any(|name| {
            below.push(name);
            let name: &Path = name.as_ref();
            self.names.match_any(name)
                || self.paths.match_any(&below)
                || self.paths.match_any(&root.join(&below))
        })
    }
}

/// Why patterns cannot be matched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unmatchable {
    /// One of them is none.
    #[error(transparent)]
    Pattern(#[from] globset::Error),
    /// They are too much.
    #[error(transparent)]
    Size(#[from] regex_lite::Error),
}

/// How deep braces may be in braces, as in globset's own matcher.
const NESTING: u32 = 250;

/// Several patterns, as one expression. globset's own matcher is an engine for the fastest search there is, which would be a
/// twentieth of the program.
#[derive(Debug)]
struct Patterns(Option<Regex>);

impl Patterns {
    fn of(patterns: &[Glob]) -> Result<Self, Unmatchable> {
        // They are about bytes, which they say so, and take a byte for the character of its number.
        let each = patterns.iter().map(|pattern| pattern.regex().trim_start_matches("(?-u)").to_owned());
        let all = each.collect::<Vec<_>>().join("|");
        let any = || RegexBuilder::new(&all).dot_matches_new_line(true).nest_limit(NESTING).build();
        Ok(Self((!patterns.is_empty()).then(any).transpose()?))
    }

    fn match_any(&self, path: &Path) -> bool {
        let characters = || path.as_os_str().as_bytes().iter().copied().map(char::from);
        self.0.as_ref().is_some_and(|all| all.is_match(&characters().collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_about_names_or_paths() {
        let table: [(&[&str], &str, bool); 27] = [
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
            (&["{a,b}/*.js"], "b/c.js", true),
            (&["{a,b}/*.js"], "b/c/d.js", false),
            (&["cache-?"], "cache-1", true),
            (&[], "two\nlines.log", true),
            (&["two?lines"], "two\nlines", true),
            (&["two?lines"], "two/lines", false),
            (&["caf\u{e9}/[!a-c]*"], "caf\u{e9}/d", true),
            (&["caf\u{e9}/[!a-c]*"], "caf\u{e9}/a", false),
            (&["a\\*"], "a*", true),
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
