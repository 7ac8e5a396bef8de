//! Gives back to the kernel what this process has needed for its start and hardly ever needs again.
//!
//! It keeps nothing from being used: what is needed after all is there again at the next touch.

use std::ffi::c_void;
use std::ops::Range;

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};
use rustix::mm::Advice;

/// Gives back what is mapped of the program's and its libraries' code and constants, free memory of the heap, and what the first
/// thread, if it is that one that calls this, has had on its stack. The pages of files stay in the kernel's cache; those that
/// are needed again are mapped again, for a minor fault each sixteen. It takes about a millisecond. Without /proc only the heap is
/// looked at.
pub(crate) fn give_back() {
    let maps = maps();
    for pages in unchanged(&maps) {
        // SAFETY: a private mapping of a file that cannot be written to, and of which no page was: each is read from the
        // file again as it is (madvise(2), MADV_DONTNEED). Nobody unmaps the program or its libraries.
        unsafe { drop_pages(pages) };
    }
    if let Some(pages) = free_stack(&maps) {
        // SAFETY: a stack grows downwards, and nothing is kept below where this thread's has got to and its red zone (System V
        // ABI for x86_64, 3.2.2; on aarch64 there is none): what is there again at the next call is written before it is read.
        unsafe { drop_pages(pages) };
    }
    // SAFETY: it may be called at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has large blocks go back to the kernel as soon as they are free. By default, glibc takes the size of those that were freed as
/// a hint that others will follow, and keeps up to 32 MiB of each (mallopt(3), M_MMAP_THRESHOLD): lists that are long under load
/// alone would stay. To be called before there is a second thread.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    const LARGE: libc::c_int = 128 * 1024;
    // SAFETY: it changes how much is kept, and nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// What is locked is refused, and stays.
///
/// # Safety
/// These are pages of one mapping whose content nobody needs, or finds again in its file.
unsafe fn drop_pages(pages: Range<usize>) {
    // SAFETY: as the caller promises.
    let _ = unsafe { rustix::mm::madvise(pages.start as *mut c_void, pages.len(), Advice::LinuxDontNeed) };
}

fn maps() -> Vec<MemoryMap> {
    Process::myself().and_then(|process| process.smaps()).map(|maps| maps.0).unwrap_or_default()
}

/// The read-only mappings that are as in their files: the loader has relocated nothing there, and neither a debugger nor the
/// kernel, for a tracer, has put a breakpoint there, which would be lost.
fn unchanged(maps: &[MemoryMap]) -> Vec<Range<usize>> {
    maps.iter().filter(|map| is_unchanged(map)).map(pages).collect()
}

/// What is below this call on the first thread's stack, but for a few pages; `None` for another thread.
fn free_stack(maps: &[MemoryMap]) -> Option<Range<usize>> {
    let here = std::ptr::from_ref(&maps).addr();
    below(maps.iter().find(|map| map.pathname == MMapPath::Stack).map(pages)?, here)
}

fn below(stack: Range<usize>, here: usize) -> Option<Range<usize>> {
    const IN_USE: usize = 32 * 1024;
    let page = rustix::param::page_size();
    let free = stack.start..here.checked_sub(IN_USE)? / page * page;
    (stack.contains(&here) && !free.is_empty()).then_some(free)
}

fn is_unchanged(map: &MemoryMap) -> bool {
    matches!(map.pathname, MMapPath::Path(_))
        && map.perms.contains(MMPermissions::PRIVATE)
        && !map.perms.contains(MMPermissions::WRITE)
        // Pages of this process alone, which it has got by writing (proc_pid_smaps(5)).
        && map.extension.map.get("Anonymous") == Some(&0)
}

fn pages(map: &MemoryMap) -> Range<usize> {
    map.address.0 as usize..map.address.1 as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::scarcity::run_alone;

    /// How much of files this process has in memory, in kilobytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[test]
    fn code_is_given_back_and_runs_again() {
        run_alone("sys::memory::tests::alone_with_all_of_its_code");
    }

    #[test]
    #[ignore = "other tests would need code meanwhile; run by code_is_given_back_and_runs_again"]
    fn alone_with_all_of_its_code() {
        let code = unchanged(&maps()).into_iter().max_by_key(Range::len).expect("code");
        for page in code.clone().step_by(rustix::param::page_size()) {
            // SAFETY: it is mapped, and readable as code is.
            unsafe { (page as *const u8).read_volatile() };
        }
        let before = resident();
        assert!(before > code.len() / 1024 / 2, "{before} kB of {} bytes", code.len());
        give_back();
        let after = resident();
        assert!(after < before / 2, "{after} kB of {before}");
    }

    #[test]
    fn only_the_first_thread_has_its_stack_given_back() {
        assert_eq!(free_stack(&maps()), None, "tests run in threads of their own");
        let stack = 0x70_0000..0x80_0000;
        for (here, free) in [
            (0x7f_0123, Some(0x70_0000..0x7e_8000)),
            (0x70_9000, Some(0x70_0000..0x70_1000)),
            (0x70_8fff, None),
            (0x70_0000, None),
            (0x80_0000, None),
            (0x10, None),
        ] {
            assert_eq!(below(stack.clone(), here), free, "{here:x}");
        }
    }

    #[test]
    fn what_the_loader_has_written_stays() {
        // A table of pointers, which are relocated where programs are position-independent.
        static TABLE: &[fn() -> usize] = &[resident, || 1];
        let at = TABLE.as_ptr() as usize;
        let maps = maps();
        let map = maps.iter().find(|map| pages(map).contains(&at)).expect("the table's");
        let is_relocated = map.extension.map["Anonymous"] > 0;
        assert_eq!(unchanged(&maps).iter().any(|pages| pages.contains(&at)), !is_relocated);
        give_back();
        assert_eq!(std::hint::black_box(TABLE)[1](), 1);
    }
}
