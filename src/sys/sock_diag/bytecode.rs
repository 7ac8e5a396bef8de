//! Programs that the kernel runs for us: which sockets it lists, and of which it tells.
//!
//! They only make less of what is read. Whoever reads looks at the port all the same.

use crate::sys::bpf::{self, Instruction, JUMP_IF_EQUAL, LOAD_HALF, RETURN};

/// More ports make a program too long to be worth it.
const MOST: usize = 256;
/// The same for a filter, which is run for each socket that is destroyed and may have 255 instructions in a jump.
const MOST_OF_EVENTS: usize = 64;

const JUMP: u8 = 1;
const LOCAL_AT_LEAST: u8 = 2;
const LOCAL_AT_MOST: u8 = 3;

/// How long a condition is: an instruction, and another one that has the port.
const CONDITION: u16 = 8;
/// How long an instruction is.
const INSTRUCTION: u16 = 4;

/// A program for INET_DIAG_REQ_BYTECODE that is true of sockets with one of these local ports; nothing if there are too
/// many, which is true of all.
///
/// Each instruction jumps forward, by `yes` bytes or by `no`: exactly to the end for true, and four bytes beyond it for false.
pub(super) fn local_ports(ports: &[u16]) -> Vec<u8> {
    let mut program = Vec::new();
    if ports.len() > MOST {
        return program;
    }
    const BLOCK: u16 = 2 * CONDITION + INSTRUCTION;
    let mut left = u16::try_from(ports.len()).unwrap_or(0);
    for port in ports {
        left = left.saturating_sub(1);
        // The jump of the last block would lead nowhere: it is left out, and false is beyond the end.
        let to_next = if left == 0 { 2 * CONDITION + INSTRUCTION } else { BLOCK };
        condition(&mut program, LOCAL_AT_LEAST, to_next, *port);
        condition(&mut program, LOCAL_AT_MOST, to_next - CONDITION, *port);
        if left > 0 {
            let to_end = left * BLOCK;
            instruction(&mut program, JUMP, 4, to_end);
        }
    }
    program
}

fn condition(program: &mut Vec<u8>, code: u8, no: u16, port: u16) {
    instruction(program, code, 8, no);
    instruction(program, 0, 0, port);
}

fn instruction(program: &mut Vec<u8>, code: u8, yes: u8, no: u16) {
    program.extend([code, yes]);
    program.extend(no.to_ne_bytes());
}

/// A classic BPF program for a socket that hears of destroyed sockets; nothing if there are too many ports.
pub(super) fn event_filter(ports: &[u16]) -> Vec<Instruction> {
    /// In a netlink message: behind its header, family, state and two more bytes (`struct inet_diag_msg`).
    const LOCAL_PORT: u32 = 16 + 4;
    let mut filter = Vec::new();
    let Some(count) = u8::try_from(ports.len()).ok().filter(|&count| usize::from(count) <= MOST_OF_EVENTS)
    else {
        return filter;
    };
    filter.push(bpf::plain(LOAD_HALF, LOCAL_PORT));
    for (port, passed) in ports.iter().zip(1..) {
        // Over the rest of the comparisons, and the instruction that drops.
        let to_keep: u8 = count - passed + 1;
        filter.push(bpf::branch(JUMP_IF_EQUAL, u32::from(*port), to_keep, 0));
    }
    filter.push(bpf::plain(RETURN, 0));
    filter.push(bpf::plain(RETURN, u32::MAX));
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_keeps_what_is_about_one_of_the_ports() {
        let keeps = |ports: &[u16], port: u16| {
            let kept = bpf::run(&event_filter(ports), |size, at| match (size, at) {
                (2, 20) => port.into(),
                other => panic!("it reads {other:?}"),
            });
            kept != 0
        };
        let most: Vec<u16> = (1..=64).collect();
        for port in [1, 2, 63, 64] {
            assert!(keeps(&most, port), "{port}");
        }
        for port in [0, 65, u16::MAX] {
            assert!(!keeps(&most, port), "{port}");
        }
        assert!(keeps(&[u16::MAX], u16::MAX));
        assert!(event_filter(&(1..=65).collect::<Vec<_>>()).is_empty());
    }
}
