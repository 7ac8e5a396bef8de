//! The program that chooses, for each connection to a group of listening sockets, which of them gets it.
//!
//! Pure: it is only written here. A [`program`] is classic BPF, which needs no privilege (socket(7),
//! SO_ATTACH_REUSEPORT_CBPF), and so keeps nothing from one connection to the next: it chooses by chance, or by what the packet
//! says. [`in_turn`] is extended BPF, and counts.

use crate::sys::bpf::{
    self, ADD, AND, COPY_TO_X, DIVIDE, Instruction, JUMP, JUMP_IF_EQUAL, JUMP_UNLESS_LESS, LOAD, LOAD_BYTE,
    LOAD_STORED, MULTIPLY, REMAINDER, RETURN, RETURN_A, SHIFT_RIGHT, STORE, XOR_X,
};
use crate::sys::counter::{self, COUNTER, LOAD_COUNTER, registers};

/// By what it chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum By {
    /// Nothing: in turn where clusterd may have the kernel count, and otherwise by chance.
    #[default]
    Chance,
    /// By the client's address: the same client gets the same socket. While that one is left out it gets another, and
    /// nobody else does.
    Source,
}

/// A random number (`SKF_AD_OFF + SKF_AD_RANDOM`, linux/filter.h).
const RANDOM: u32 = 0xffff_f000 + 56;

/// Where the header of the network layer begins (`SKF_NET_OFF`, linux/filter.h).
const NETWORK: u32 = 0xfff0_0000;

/// The client's address in a header of IPv4.
const SOURCE_V4: u32 = NETWORK + 12;

/// The four words of that in a header of IPv6.
const SOURCE_V6: [u32; 4] = [NETWORK + 8, NETWORK + 12, NETWORK + 16, NETWORK + 20];

/// 2^32 divided by the golden ratio: multiplied by that, addresses that are near to each other come far apart (Knuth, The
/// Art of Computer Programming 6.4).
const SPREAD: u32 = 0x9e37_79b1;

/// The program that returns one of `takers`, which are indices in rising order; `None` if there are none. Those of
/// `left_out` are to take again.
pub(super) fn program(takers: &[usize], left_out: &[usize], by: By) -> Option<Vec<Instruction>> {
    let takers = numbers(takers);
    let program = match (&takers[..], by) {
        ([], _) => return None,
        ([only], _) => vec![bpf::plain(RETURN, *only)],
        (_, By::Chance) => {
            let mut program = vec![bpf::plain(LOAD, RANDOM)];
            program.extend(choose(&takers));
            program
        }
        (_, By::Source) => by_source(&takers, &numbers(left_out)),
    };
    Some(program)
}

/// `BPF_ALU64 | BPF_MOV | BPF_K`, and so on (linux/bpf.h).
const SET: u8 = 0xb7;
const ADD_64: u8 = 0x07;
const REMAINDER_64: u8 = 0x97;
/// `BPF_STX | BPF_ATOMIC | BPF_DW`, since Linux 5.12.
const ATOMIC: u8 = 0xdb;
const ADD_AND_FETCH: i32 = 0x01;
/// `BPF_JMP | BPF_JLT | BPF_K`.
const JUMP_IF_LESS: u8 = 0xa5;
const EXIT: u8 = 0x95;

/// The program that returns each of `takers`, which are indices in rising order, in turn; `None` if there is no choice.
pub(super) fn in_turn(takers: &[usize]) -> Option<Vec<counter::Instruction>> {
    let takers = numbers(takers);
    if takers.len() < 2 {
        return None;
    }
    // What is returned is in register 0, and there the number of the connection is first.
    let extended =
        |code, registers, offset, immediate| counter::Instruction { code, registers, offset, immediate };
    let with_result = |code, offset, number| {
        let number = i32::try_from(number).expect("far fewer sockets are in one group");
        extended(code, registers(0, 0), offset, number)
    };
    let mut program = vec![
        extended(LOAD_COUNTER, registers(1, COUNTER), 0, 0),
        extended(0, 0, 0, 0),
        with_result(SET, 0, 1),
        extended(ATOMIC, registers(1, 0), 0, ADD_AND_FETCH),
        with_result(REMAINDER_64, 0, len(&takers)),
    ];
    for (place, index) in runs(&takers).into_iter().rev() {
        if place > 0 {
            program.push(with_result(JUMP_IF_LESS, 2, place));
        }
        program.push(with_result(ADD_64, 0, index - place));
        program.push(extended(EXIT, 0, 0, 0));
    }
    Some(program)
}

fn numbers(indices: &[usize]) -> Vec<u32> {
    indices.iter().filter_map(|&index| u32::try_from(index).ok()).collect()
}

fn len(of: &[u32]) -> u32 {
    u32::try_from(of.len()).unwrap_or(u32::MAX)
}

/// Returns one of these, by the number in A.
fn choose(takers: &[u32]) -> Vec<Instruction> {
    let mut program = vec![bpf::plain(REMAINDER, len(takers))];
    // In A is a place among them. In a run of indices without a gap, the index is that many more than the place.
    for (place, index) in runs(takers).into_iter().rev() {
        if place > 0 {
            program.push(bpf::branch(JUMP_UNLESS_LESS, place, 0, 2));
        }
        program.push(bpf::plain(ADD, index - place));
        program.push(bpf::plain(RETURN_A, 0));
    }
    program
}

/// Chooses among all, and once more for who would get one that is left out.
fn by_source(takers: &[u32], left_out: &[u32]) -> Vec<Instruction> {
    let mut all = [takers, left_out].concat();
    all.sort_unstable();
    let mut program = source();
    program.push(bpf::plain(STORE, 0));
    let mut first = choose(&all);
    let instead = 2 * left_out.len() + first.len() - 1;
    program.push(first.remove(0));
    for (number, index) in left_out.iter().enumerate() {
        let place = all.iter().take_while(|&known| known < index).count();
        let skipped = instead - 2 * (number + 1);
        program.push(bpf::branch(JUMP_IF_EQUAL, u32::try_from(place).unwrap_or_default(), 0, 1));
        program.push(bpf::plain(JUMP, u32::try_from(skipped).unwrap_or_default()));
    }
    program.append(&mut first);
    if !left_out.is_empty() {
        program.push(bpf::plain(LOAD_STORED, 0));
        program.push(bpf::plain(DIVIDE, len(&all)));
        program.extend(choose(takers));
    }
    program
}

/// Where runs of indices without a gap begin: the place, and the index there.
fn runs(takers: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (place, &index) in (0..).zip(takers) {
        if runs.last().is_none_or(|&(start, first)| first + (place - start) != index) {
            runs.push((place, index));
        }
    }
    runs
}

/// A number from the client's address. A client over IPv4 is one at a socket of IPv6 too.
fn source() -> Vec<Instruction> {
    let mut over_ipv6 = vec![bpf::plain(LOAD, SOURCE_V6[0])];
    for &word in &SOURCE_V6[1..] {
        over_ipv6.push(bpf::plain(COPY_TO_X, 0));
        over_ipv6.push(bpf::plain(LOAD, word));
        over_ipv6.push(bpf::plain(XOR_X, 0));
    }
    let mut program = vec![
        bpf::plain(LOAD_BYTE, NETWORK),
        bpf::plain(AND, 0xf0),
        bpf::branch(JUMP_IF_EQUAL, 0x40, 0, 2),
        bpf::plain(LOAD, SOURCE_V4),
        bpf::plain(JUMP, u32::try_from(over_ipv6.len()).unwrap_or_default()),
    ];
    program.append(&mut over_ipv6);
    program.push(bpf::plain(MULTIPLY, SPREAD));
    program.push(bpf::plain(SHIFT_RIGHT, 16));
    program
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, TcpListener, TcpStream};

    use proptest::prelude::*;
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::sys::counter::Counter;
    use crate::sys::reuseport::attach_program;

    /// What the kernel makes of a program: the index that it returns for a client, if chance says `random`.
    fn run(program: &[Instruction], random: u32, client: IpAddr) -> u32 {
        let mut header = [0; 40];
        match client {
            IpAddr::V4(ip) => {
                header[0] = 0x45;
                header[12..16].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                header[0] = 0x60;
                header[8..24].copy_from_slice(&ip.octets());
            }
        }
        bpf::run(program, |size, at| {
            let offset = at.wrapping_sub(NETWORK) as usize;
            match size {
                4 if at == RANDOM => random,
                4 => u32::from_be_bytes(header[offset..offset + 4].try_into().unwrap()),
                1 => header[offset].into(),
                other => panic!("it reads {other} bytes"),
            }
        })
    }

    /// The same for one that counts.
    fn run_counting(program: &[counter::Instruction], counter: &mut u64) -> u64 {
        let (mut result, mut next) = (0_u64, 0);
        loop {
            let counter::Instruction { code, offset, immediate, .. } = program[next];
            next += 1;
            let number = immediate as u64;
            match code {
                // Only one address is known.
                LOAD_COUNTER => next += 1,
                SET => result = number,
                ATOMIC => {
                    (*counter, result) = (counter.wrapping_add(result), *counter);
                }
                REMAINDER_64 => result %= number,
                ADD_64 => result += number,
                JUMP_IF_LESS if result < number => next += offset as usize,
                JUMP_IF_LESS => {}
                EXIT => return result,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn nobody_is_chosen_where_nobody_takes() {
        assert!(program(&[], &[], By::Chance).is_none());
        assert_eq!(program(&[3], &[], By::Source).unwrap().len(), 1);
    }

    #[test]
    fn the_length_grows_with_the_gaps_and_not_with_the_takers() {
        let all: Vec<usize> = (0..500).collect();
        assert_eq!(program(&all, &[], By::Chance).unwrap().len(), 4);
        let halves: Vec<usize> = all.iter().copied().filter(|&index| index != 250).collect();
        assert_eq!(program(&halves, &[], By::Chance).unwrap().len(), 7);
    }

    proptest! {
        #[test]
        fn each_taker_is_chosen_equally_often(takers in proptest::collection::btree_set(0_usize..64, 1..40)) {
            let takers: Vec<usize> = takers.into_iter().collect();
            let program = program(&takers, &[], By::Chance).unwrap();
            let chosen: Vec<_> =
                (0..takers.len()).map(|random| run(&program, random as u32, CLIENT) as usize).collect();
            prop_assert_eq!(chosen, takers);
        }

        #[test]
        fn takers_are_chosen_in_turn(
            takers in proptest::collection::btree_set(0_usize..64, 2..40), mut counter in 0..u64::MAX / 2,
        ) {
            let takers: Vec<usize> = takers.into_iter().collect();
            let program = in_turn(&takers).unwrap();
            counter -= counter % takers.len() as u64;
            for &taker in takers.iter().chain(&takers) {
                prop_assert_eq!(run_counting(&program, &mut counter), taker as u64);
            }
        }

        #[test]
        fn a_client_gets_the_same_taker_each_time(
            takers in proptest::collection::btree_set(0_usize..64, 1..40), v4: u32, v6: u128, random: u32,
        ) {
            let takers: Vec<usize> = takers.into_iter().collect();
            let program = program(&takers, &[], By::Source).unwrap();
            for client in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let chosen = run(&program, random, client);
                prop_assert!(takers.contains(&(chosen as usize)));
                prop_assert_eq!(chosen, run(&program, !random, client));
            }
        }
    }

    #[test]
    fn only_who_would_get_one_that_is_left_out_gets_another() {
        let all = program(&[0, 1, 2, 3, 4], &[], By::Source).unwrap();
        for left_out in [&[0][..], &[2], &[4], &[1, 3], &[0, 1, 4]] {
            let takers: Vec<_> = (0..5).filter(|index| !left_out.contains(index)).collect();
            let fewer = program(&takers, left_out, By::Source).unwrap();
            let clients = (0..200_u32).map(|n| IpAddr::V4((0xc000_0200 + n).into()));
            let mut instead = BTreeSet::new();
            for client in clients {
                let [before, now] = [&all, &fewer].map(|program| run(program, 0, client) as usize);
                if left_out.contains(&before) {
                    instead.insert(now);
                } else {
                    assert_eq!(before, now, "{client}, without {left_out:?}");
                }
            }
            assert_eq!(
                instead,
                takers.into_iter().collect(),
                "all take their share of those of {left_out:?}"
            );
        }
    }

    #[test]
    fn clients_are_spread_over_all_takers() {
        let program = program(&[0, 2, 3, 7], &[], By::Source).unwrap();
        let of =
            |client: fn(u32) -> IpAddr| (0..64).map(|n| run(&program, 0, client(n))).collect::<BTreeSet<_>>();
        let everybody = BTreeSet::from([0, 2, 3, 7]);
        assert_eq!(of(|n| IpAddr::V4((0xc000_0200 + n).into())), everybody);
        assert_eq!(of(|n| IpAddr::V6((0x2001_0db8 << 96 | u128::from(n)).into())), everybody);
        assert_eq!(of(|n| IpAddr::V6((0x2001_0db8 << 96 | u128::from(n) << 64).into())), everybody);
    }

    fn members(count: usize, to: &str) -> Vec<TcpListener> {
        let mut address: std::net::SocketAddr = to.parse().unwrap();
        let member = |_| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(128).unwrap();
            socket.set_nonblocking(true).unwrap();
            let member = TcpListener::from(socket);
            address = member.local_addr().unwrap();
            member
        };
        (0..count).map(member).collect()
    }

    /// How many of `count` connections each gets.
    fn shares(members: &[TcpListener], count: usize) -> Vec<usize> {
        let address = members[0].local_addr().unwrap();
        let _clients: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        members.iter().map(|member| std::iter::from_fn(|| member.accept().ok()).count()).collect()
    }

    fn attach(to: &TcpListener, takers: &[usize], by: By) {
        attach_program(to, &program(takers, &[], by).unwrap()).unwrap();
    }

    #[test]
    fn the_kernel_does_as_the_program_says() {
        let mut members = members(4, "127.0.0.1:0");
        attach(&members[0], &[0, 1, 3], By::Chance);
        let seen = shares(&members, 96);
        assert_eq!((seen[2], seen.iter().sum()), (0, 96));
        // By chance one of three gets fewer than 8 of 96 once in a hundred million times.
        assert!([0, 1, 3].into_iter().all(|taker| seen[taker] >= 8), "{seen:?}");

        // The last one takes the place of one that ceases to listen.
        drop(members.swap_remove(1));
        attach(&members[2], &[1], By::Chance);
        assert_eq!(shares(&members, 16), [0, 16, 0]);
        rustix::net::shutdown(&members[0], rustix::net::Shutdown::Read).unwrap();
        members.swap_remove(0);
        attach(&members[0], &[0], By::Chance);
        assert_eq!(shares(&members, 16), [16, 0]);
    }

    #[test]
    fn the_kernel_takes_turns_whoever_takes() {
        let Ok(counter) = Counter::new() else { return eprintln!("skipped: bpf(2) is not for us") };
        let mut members = members(4, "127.0.0.1:0");
        let attach =
            |to: &TcpListener, takers: &[usize]| counter.attach(to, &in_turn(takers).unwrap()).unwrap();
        attach(&members[0], &[0, 1, 2, 3]);
        assert_eq!(shares(&members, 32), [8, 8, 8, 8]);
        attach(&members[0], &[0, 1, 3]);
        assert_eq!(shares(&members, 30), [10, 10, 0, 10]);
        drop(members.swap_remove(1));
        attach(&members[2], &[1, 2]);
        assert_eq!(shares(&members, 16), [0, 8, 8]);
        // One that counts, and one that does not, take each other's place.
        attach_program(&members[0], &program(&[1], &[], By::Chance).unwrap()).unwrap();
        assert_eq!(shares(&members, 16), [0, 16, 0]);
        attach(&members[0], &[0, 2]);
        assert_eq!(shares(&members, 16), [8, 0, 8]);
    }

    #[test]
    fn there_are_no_turns_for_one() {
        assert!(in_turn(&[]).is_none());
        assert!(in_turn(&[3]).is_none());
    }

    #[test]
    fn the_kernel_sends_a_client_to_the_same_member_each_time() {
        for to in ["127.0.0.1:0", "[::1]:0"] {
            if TcpListener::bind(to).is_err() {
                continue;
            }
            let members = members(4, to);
            let takers = [0, 2, 3];
            attach(&members[0], &takers, By::Source);
            let client = members[0].local_addr().unwrap().ip();
            attach_program(&members[0], &program(&[0, 3], &[1, 2], By::Source).unwrap()).unwrap();
            attach(&members[0], &takers, By::Source);
            let expected = run(&program(&takers, &[], By::Source).unwrap(), 0, client) as usize;
            assert_eq!(shares(&members, 16)[expected], 16, "{to}");
        }
    }
}
