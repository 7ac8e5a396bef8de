//! The filter that has bind(2) and listen(2) of a process told to another one (seccomp(2)), for each processor.
//!
//! Pure. It reads nothing but the number of the call and the convention by which it was made, so that the kernel computes once
//! what becomes of each call, and runs the filter for those two alone.

use crate::sys::bpf::{self, Instruction, JUMP_IF_EQUAL, LOAD, RETURN};

/// A convention by which calls are made, and the numbers of the two calls in it (syscalls(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convention {
    /// `AUDIT_ARCH_*` of linux/audit.h.
    arch: u32,
    bind: u32,
    listen: u32,
    /// The bit that calls of a second kind have, which shares `arch` (x32's on x86_64).
    other_kind: Option<u32>,
}

/// 64-bit programs on x86_64. 32-bit ones make other calls, and are not covered.
pub(crate) const X86_64: Convention =
    Convention { arch: 0xc000_003e, bind: 49, listen: 50, other_kind: Some(0x4000_0000) };

/// 64-bit programs on aarch64. 32-bit ones make other calls, and are not covered.
pub(crate) const AARCH64: Convention =
    Convention { arch: 0xc000_00b7, bind: 200, listen: 201, other_kind: None };

/// That of this program itself; `None` on a processor for which there is none.
pub(crate) const OWN: Option<Convention> = if cfg!(target_arch = "x86_64") {
    Some(X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(AARCH64)
} else {
    None
};

/// Which call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// bind(2).
    Bind,
    /// listen(2).
    Listen,
}

impl Convention {
    /// The call of this number, as a notification tells it.
    pub(crate) fn call(self, number: u32) -> Option<Number> {
        let number = number & !self.other_kind.unwrap_or(0);
        match number {
            _ if number == self.bind => Some(Number::Bind),
            _ if number == self.listen => Some(Number::Listen),
            _ => None,
        }
    }

    fn numbers(self) -> impl Iterator<Item = u32> {
        let both = [self.bind, self.listen];
        both.into_iter()
            .chain(self.other_kind.into_iter().flat_map(move |bit| both.map(|number| number | bit)))
    }
}

/// Where `struct seccomp_data` has them.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

/// The filter: notifies of bind and listen, and lets everything else pass, whatever its convention.
pub(crate) fn filter(convention: Convention) -> Vec<Instruction> {
    let numbers: Vec<u32> = convention.numbers().collect();
    // At most four, so that every jump fits.
    let count = numbers.len() as u8;
    let mut program = vec![
        bpf::plain(LOAD, ARCH_AT),
        bpf::branch(JUMP_IF_EQUAL, convention.arch, 0, count + 1),
        bpf::plain(LOAD, NUMBER_AT),
    ];
    let told = |(index, number)| bpf::branch(JUMP_IF_EQUAL, number, count - index + 1, 0);
    program.extend((1..=count).zip(numbers).map(told));
    program.push(bpf::plain(RETURN, libc::SECCOMP_RET_ALLOW));
    program.push(bpf::plain(RETURN, libc::SECCOMP_RET_USER_NOTIF));
    program
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const I386: u32 = 0x4000_0003;
    const ARM: u32 = 0x4000_0028;

    /// What the filter returns, as the kernel runs it.
    fn run(program: &[Instruction], arch: u32, number: u32) -> u32 {
        bpf::run(program, |size, at| match (size, at) {
            (4, NUMBER_AT) => number,
            (4, ARCH_AT) => arch,
            other => panic!("it reads {other:?}"),
        })
    }

    #[test]
    fn bind_and_listen_are_told_and_nothing_else() {
        let told = libc::SECCOMP_RET_USER_NOTIF;
        let passes = libc::SECCOMP_RET_ALLOW;
        let table = [
            (X86_64, X86_64.arch, 49, told),
            (X86_64, X86_64.arch, 50, told),
            (X86_64, X86_64.arch, 0x4000_0000 | 49, told),
            (X86_64, X86_64.arch, 0x4000_0000 | 50, told),
            (X86_64, X86_64.arch, 48, passes),
            (X86_64, X86_64.arch, 51, passes),
            // 49 is geteuid there, and 200 setresgid32.
            (X86_64, I386, 49, passes),
            (X86_64, AARCH64.arch, 49, passes),
            (AARCH64, AARCH64.arch, 200, told),
            (AARCH64, AARCH64.arch, 201, told),
            (AARCH64, AARCH64.arch, 49, passes),
            (AARCH64, AARCH64.arch, 202, passes),
            (AARCH64, AARCH64.arch, 0x4000_0000 | 200, passes),
            (AARCH64, ARM, 200, passes),
        ];
        for (convention, arch, number, expected) in table {
            assert_eq!(run(&filter(convention), arch, number), expected, "{arch:#x} {number}");
        }
    }

    #[test]
    fn the_numbers_are_those_of_this_processor() {
        let own = OWN.expect("tests run on a processor for which there is one");
        assert_eq!(own.call(libc::SYS_bind as u32), Some(Number::Bind));
        assert_eq!(own.call(libc::SYS_listen as u32), Some(Number::Listen));
    }

    proptest! {
        #[test]
        fn what_is_told_is_known(arch: u32, number in 0_u32..600, other_kind: bool) {
            for convention in [X86_64, AARCH64] {
                let number = if other_kind { number | 0x4000_0000 } else { number };
                for arch in [arch, convention.arch] {
                    let is_told = run(&filter(convention), arch, number) == libc::SECCOMP_RET_USER_NOTIF;
                    let is_known = arch == convention.arch && convention.call(number).is_some();
                    prop_assert_eq!(is_told, is_known);
                }
            }
        }
    }
}
