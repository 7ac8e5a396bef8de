//! Programs of classic BPF, which the kernel runs on packets, connections and system calls: their instructions.
//!
//! Pure: what a program says, and where it is attached, is up to its caller.

pub(crate) use libc::sock_filter as Instruction;

/// Load into A what is at this offset: a word of four bytes, a half of two, or one byte.
pub(crate) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
pub(crate) const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
pub(crate) const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;

/// Keep A in a place of memory, and load it from there.
pub(crate) const STORE: u16 = libc::BPF_ST as u16;
pub(crate) const LOAD_STORED: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_MEM) as u16;

/// X becomes what A is.
pub(crate) const COPY_TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;

/// A becomes A and this value, computed; with X instead of the value where the name says so.
pub(crate) const ADD: u16 = (libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K) as u16;
pub(crate) const MULTIPLY: u16 = (libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K) as u16;
pub(crate) const DIVIDE: u16 = (libc::BPF_ALU | libc::BPF_DIV | libc::BPF_K) as u16;
pub(crate) const REMAINDER: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
pub(crate) const SHIFT_RIGHT: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K) as u16;
pub(crate) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
pub(crate) const XOR_X: u16 = (libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X) as u16;

/// Skip so many instructions.
pub(crate) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;

/// Compare A with this value: see [`branch`].
pub(crate) const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
pub(crate) const JUMP_UNLESS_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
/// Whether they have a bit in common.
pub(crate) const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;

/// Return this value, or A.
pub(crate) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
pub(crate) const RETURN_A: u16 = (libc::BPF_RET | libc::BPF_A) as u16;

/// An instruction that the next one follows.
pub(crate) const fn plain(code: u16, value: u32) -> Instruction {
    branch(code, value, 0, 0)
}

/// An instruction that compares, and skips so many if that is true, and so many if it is not.
pub(crate) const fn branch(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, jt: if_true, jf: if_false, k: value }
}

/// What a program returns, as the kernel runs it. `load` gives so many bytes at this offset as a number.
#[cfg(test)]
pub(crate) fn run(program: &[Instruction], load: impl Fn(usize, u32) -> u32) -> u32 {
    let (mut a, mut x, mut stored, mut next) = (0_u32, 0_u32, 0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[next];
        next += 1;
        let skipped = |is_true: bool| usize::from(if is_true { jt } else { jf });
        match code {
            LOAD => a = load(4, k),
            LOAD_HALF => a = load(2, k),
            LOAD_BYTE => a = load(1, k),
            STORE => stored = a,
            LOAD_STORED => a = stored,
            COPY_TO_X => x = a,
            ADD => a = a.wrapping_add(k),
            MULTIPLY => a = a.wrapping_mul(k),
            DIVIDE => a /= k,
            REMAINDER => a %= k,
            SHIFT_RIGHT => a >>= k,
            AND => a &= k,
            XOR_X => a ^= x,
            JUMP => next += k as usize,
            JUMP_IF_EQUAL => next += skipped(a == k),
            JUMP_UNLESS_LESS => next += skipped(a >= k),
            JUMP_IF_SET => next += skipped(a & k != 0),
            RETURN => return k,
            RETURN_A => return a,
            other => panic!("instruction {other:#x}"),
        }
    }
}
