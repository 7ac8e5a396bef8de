//! Which kind of program a file is, as far as the shim cares: can a preloaded library stand in for its calls?
//!
//! It reads headers and section names alone, and nothing of it is trusted beyond a sentence of advice.

use std::fs::File;
use std::path::Path;

use memchr::memmem;
use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{FileKind, ReadCache, ReadRef};

use crate::protocol::wire;

/// What a program's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is loaded with the C library, and so with the shim.
    Dynamic,
    /// It has everything in itself, and nothing is preloaded into it.
    Static,
    /// It was compiled by Go, which calls the kernel past the C library.
    Go,
    /// It is static, and attaches by itself: with the library, or as Node does.
    Attaching,
    /// A script, another format, or a file that may not be read.
    Unknown,
}

impl Kind {
    /// Looks at a file.
    pub(crate) fn of(file: &Path) -> Self {
        File::open(file).ok().and_then(|file| Self::read(&ReadCache::new(file))).unwrap_or(Kind::Unknown)
    }

    fn read(data: &ReadCache<File>) -> Option<Self> {
        match FileKind::parse(data).ok()? {
            FileKind::Elf32 => Self::of_elf::<FileHeader32<Endianness>>(data),
            FileKind::Elf64 => Self::of_elf::<FileHeader64<Endianness>>(data),
            _ => None,
        }
    }

    fn of_elf<Elf: FileHeader<Endian = Endianness>>(data: &ReadCache<File>) -> Option<Self> {
        let header = Elf::parse(data).ok()?;
        let endian = header.endian().ok()?;
        if is_go(header, endian, data) {
            return Some(Kind::Go);
        }
        let segments = header.program_headers(endian, data).ok()?;
        let is_loaded = segments.iter().any(|segment| segment.p_type(endian) == elf::PT_INTERP);
        Some(match is_loaded {
            true => Kind::Dynamic,
            false if names_a_way(data) => Kind::Attaching,
            false => Kind::Static,
        })
    }
}

/// Go's linker leaves these sections, also when the file is stripped.
fn is_go<'data, Elf: FileHeader, R: ReadRef<'data>>(header: &Elf, endian: Elf::Endian, data: R) -> bool {
    let Ok(sections) = header.sections(endian, data) else {
        return false;
    };
    let mut names = sections.iter().filter_map(|section| sections.section_name(endian, section).ok());
    names.any(|name| matches!(name, b".go.buildinfo" | b".note.go.buildid"))
}

/// Whether it has the name of a variable in which those that attach by themselves look for their way.
fn names_a_way<'data, R: ReadRef<'data>>(data: R) -> bool {
    let Ok(bytes) = data.len().and_then(|len| data.read_bytes_at(0, len)) else { return false };
    let names = [wire::ENV_SOCKET.as_bytes(), b"NODE_CHANNEL_FD"];
    names.iter().any(|name| memmem::find(bytes, name).is_some())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn this_test_is_loaded_with_the_c_library() {
        assert_eq!(Kind::of(Path::new("/proc/self/exe")), Kind::Dynamic);
    }

    #[test]
    fn what_is_no_program_is_unknown() {
        for file in ["/proc/self/status", "/dev/null", "/no/such/file", "/"] {
            assert_eq!(Kind::of(Path::new(file)), Kind::Unknown);
        }
    }

    #[test]
    fn gos_own_compiler_is_a_go_program() {
        match Command::new("go").args(["env", "GOROOT"]).output() {
            Ok(root) => {
                let root = String::from_utf8(root.stdout).expect("text");
                assert_eq!(Kind::of(&Path::new(root.trim()).join("bin/go")), Kind::Go);
            }
            Err(_) => eprintln!("skipped: go is not installed"),
        }
    }

    #[test]
    fn a_static_program_is_told_from_a_dynamic_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("a.c");
        std::fs::write(&source, "int main(void) { return 0; }").expect("written");
        for (flags, kind) in
            [(vec!["-static"], Kind::Static), (vec!["-static-pie"], Kind::Static), (vec![], Kind::Dynamic)]
        {
            let program = folder.path().join("a");
            let compiled = Command::new("gcc").args(flags).arg(&source).arg("-o").arg(&program).status();
            match compiled {
                Ok(status) => {
                    assert!(status.success());
                    assert_eq!(Kind::of(&program), kind);
                }
                Err(_) => return eprintln!("skipped: gcc is not installed"),
            }
        }
    }
}
