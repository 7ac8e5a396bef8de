//! Whether the shim can be exposed, and is loaded into a program from there.
//!
//! It is exposed as clusterd does it, and loaded into clusterd itself, or into `cat` where clusterd has no dynamic linker.

use std::path::{Path, PathBuf};

use super::child::{self, Different, Started};
use super::finding::Found;
use crate::preload::{ExposeError, Exposed};
use crate::primary::RuntimeFolder;
use crate::supervisor::diagnose::elf::Kind;
use crate::sys::process::own_program;
use crate::sys::processes::has_mapped;

/// What has become of the shim.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// There is none for this processor.
    Unsupported,
    /// It is nowhere, for this reason.
    NotExposed(String),
    /// It was not tried: nothing here is linked dynamically.
    NotTried,
    /// No program can be started, for this reason.
    NotStarted(String),
    /// It was not loaded, for this reason.
    NotLoaded(String),
    /// It was.
    Loaded {
        /// From memory, not from a file.
        from_memory: bool,
    },
}

pub(super) fn preload() -> Found {
    let folder = RuntimeFolder::create(None);
    judge(&see(folder.as_ref().map(RuntimeFolder::path)))
}

pub(super) fn memory() -> Found {
    judge_memory(&see(None))
}

fn see(folder: Option<&Path>) -> Seen {
    let exposed = match Exposed::new(folder, false) {
        Ok(exposed) => exposed,
        Err(ExposeError::Unsupported) => return Seen::Unsupported,
        Err(ExposeError::OtherUser { file }) => return Seen::NotExposed(file.to_string()),
        Err(ExposeError::Nowhere { memfd, .. }) if folder.is_none() => {
            return Seen::NotExposed(memfd.to_string());
        }
        Err(ExposeError::Nowhere { file, memfd }) => {
            return Seen::NotExposed(format!("as a file: {file}; as a memfd: {memfd}"));
        }
    };
    let from_memory = folder.is_none_or(|folder| !exposed.path().starts_with(folder));
    let Some((program, arguments)) = dynamic_program() else { return Seen::NotTried };
    let different = Different { preloaded: Some(exposed.path()), ..Different::default() };
    match child::start(&program, &arguments, different) {
        Ok(child) => match load(child, exposed.path()) {
            Ok(()) => Seen::Loaded { from_memory },
            Err(why) => Seen::NotLoaded(why),
        },
        Err(error) => Seen::NotStarted(error.to_string()),
    }
}

/// A program that is linked dynamically and writes what it reads, with its arguments.
fn dynamic_program() -> Option<(PathBuf, Vec<&'static str>)> {
    let own = own_program();
    if Kind::of(&own) == Kind::Dynamic {
        return Some((own, vec![child::VERB, child::ECHOES]));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let cat = std::env::split_paths(&path).map(|folder| folder.join("cat"));
    cat.into_iter().find(|cat| Kind::of(cat) == Kind::Dynamic).map(|cat| (cat, Vec::new()))
}

/// Whether this program has loaded it. `Err`: why not.
fn load(mut child: Started, shim: &Path) -> Result<(), String> {
    let ran = child.echo();
    let is_mapped = child.pid().and_then(|pid| has_mapped(pid, shim));
    let said = child.last_words();
    ran.map_err(|error| format!("with it, a program does not run: {error}"))?;
    loaded(is_mapped, &said, shim)
}

/// Whether it was loaded, from whether it is mapped, where that is known, and from what the dynamic linker says. `Err`: why not.
fn loaded(is_mapped: Option<bool>, said: &str, shim: &Path) -> Result<(), String> {
    let complains = |line: &&str| line.contains("LD_PRELOAD") || line.starts_with("Error ");
    match said.lines().find(complains) {
        // The path may have a user's name in it.
        Some(complaint) => Err(complaint.replace(&*shim.to_string_lossy(), "the shim")),
        None if is_mapped == Some(false) => Err("the dynamic linker passed over it".to_owned()),
        None => Ok(()),
    }
}

fn judge(seen: &Seen) -> Found {
    match seen {
        Seen::Unsupported => Found::limited(
            format!("there is no shim for {}", std::env::consts::ARCH),
            "Only Node and servers that use the library clusterd-worker are served",
        ),
        Seen::NotExposed(why) => Found::fails(
            format!("the shim can be put nowhere: {why}"),
            "clusterd does not start, except with --attach node; mount one of /run, TMPDIR, /tmp and /dev/shm without noexec, and \
             writable (docker run --tmpfs /run:exec)",
        ),
        Seen::NotTried => Found::not_applicable(
            "this clusterd is static, and there is no program here into which anything could be preloaded",
        ),
        Seen::NotStarted(why) => Found::not_applicable(format!(
            "whether the shim is loaded cannot be tried, for no program starts: {why}"
        )),
        Seen::NotLoaded(why) => Found::fails(
            format!("the shim is not loaded into programs: {why}"),
            "Servers that are linked dynamically get no connections; Node is served with --attach node, Go and static servers \
             with --attach seccomp",
        ),
        Seen::Loaded { from_memory: true } => Found::works("the shim is loaded into programs, from memory"),
        Seen::Loaded { from_memory: false } => Found::works("the shim is loaded into programs, from a file"),
    }
}

fn judge_memory(seen: &Seen) -> Found {
    const FOLLOWS: &str = "The shim has no other place than a folder; keep one of /run, TMPDIR, /tmp and /dev/shm writable and \
                           without noexec, or set vm.memfd_noexec to 0 or 1, and mount /proc";
    match seen {
        Seen::Unsupported | Seen::NotTried | Seen::NotStarted(_) => {
            Found::not_applicable("nothing is loaded from memory here")
        }
        Seen::NotExposed(why) => Found::fails(format!("no file in memory can be executable: {why}"), FOLLOWS),
        Seen::NotLoaded(why) => Found::fails(format!("programs load nothing from memory: {why}"), FOLLOWS),
        Seen::Loaded { .. } => Found::works("programs can load the shim from memory, too"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_was_seen_of_the_shim_becomes_a_verdict() {
        let loaded = |from_memory| Seen::Loaded { from_memory };
        let why = || "no such luck".to_owned();
        let table = [
            (loaded(false), Verdict::Works, Verdict::Works),
            (loaded(true), Verdict::Works, Verdict::Works),
            (Seen::Unsupported, Verdict::Limited, Verdict::NotApplicable),
            (Seen::NotTried, Verdict::NotApplicable, Verdict::NotApplicable),
            (Seen::NotStarted(why()), Verdict::NotApplicable, Verdict::NotApplicable),
            (Seen::NotExposed(why()), Verdict::Fails, Verdict::Fails),
            (Seen::NotLoaded(why()), Verdict::Fails, Verdict::Fails),
        ];
        for (seen, preload, memory) in table {
            let found = (judge(&seen), judge_memory(&seen));
            assert_eq!((found.0.verdict, found.1.verdict), (preload, memory), "{seen:?}");
            if matches!(seen, Seen::NotExposed(_) | Seen::NotLoaded(_)) {
                assert!(found.0.what.contains("no such luck") && found.1.what.contains("no such luck"));
            }
        }
    }

    #[test]
    fn the_dynamic_linker_is_believed_before_the_map_of_memory() {
        let glibc = "ERROR: ld.so: object '/home/ann/s.so' from LD_PRELOAD cannot be preloaded (failed to map segment): ignored.";
        let musl = "Error relocating /home/ann/s.so: __register_atfork: symbol not found";
        let shim = Path::new("/home/ann/s.so");
        for complaint in [glibc, musl] {
            let why = loaded(None, &format!("something else\n{complaint}\n"), shim).unwrap_err();
            assert!(why.contains("the shim") && !why.contains("/home"), "{why}");
        }
        assert_eq!(loaded(Some(true), "", shim), Ok(()));
        assert_eq!(loaded(None, "", shim), Ok(()), "nobody knows otherwise");
        assert!(loaded(Some(false), "", shim).is_err());
    }
}
