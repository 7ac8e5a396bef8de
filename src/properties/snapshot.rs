//! What the image of clusterd before has left: it is refused, or it is written again as it was and every room can begin with it.
//!
//! What it may be is bounded by what the rooms do with it (`primary::upgrade::trial`); that they go on as they were, their own
//! tests tell.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use rustix::fs::MemfdFlags;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::carry::{CarriedFd, descriptors};
use crate::primary::trial;

/// A snapshot with everything that there can be in one.
static WHOLE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../tests/golden/upgrade-1.json")).expect("a snapshot")
});

/// Where everything in it is, each before what it holds.
static PLACES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut places = Vec::new();
    find(&WHOLE, &mut String::new(), &mut places);
    places
});

thread_local! {
    static OTHER_ENDS: RefCell<Vec<Socket>> = const { RefCell::new(Vec::new()) };
}

/// As many changes are made.
const CHANGES: usize = 16;

/// With as many descriptors nothing is begun.
const DESCRIPTORS: usize = 256;

/// Reads `data` as a snapshot, or as changes to one.
pub fn check(data: &[u8]) {
    let written = if data.trim_ascii_start().starts_with(b"{") { data.to_vec() } else { changed(data) };
    let named = descriptors(&written).map_or(0, |named| named.len());
    if named > DESCRIPTORS {
        return;
    }
    let begun = trial::begin(&written, descriptor);
    OTHER_ENDS.with_borrow_mut(Vec::clear);
    if let Err(refused) = begun {
        assert!(!refused.is_empty() && refused.len() <= 4096 + 16 * written.len(), "{refused}");
    }
}

/// The whole one with a change for each line of `data`: a place, by its number or its path, and what becomes of it.
fn changed(data: &[u8]) -> Vec<u8> {
    let mut value = WHOLE.clone();
    for line in data.split(|&byte| byte == b'\n').take(CHANGES) {
        let _ = std::str::from_utf8(line).ok().and_then(|line| change(&mut value, line));
    }
    serde_json::to_vec(&value).expect("JSON")
}

/// `7={}` is what it is then, `7<8` has it be the same as another, `7+8` adds another to a list, and `7-` takes its last away.
fn change(value: &mut Value, line: &str) -> Option<()> {
    let end = line.find(['=', '<', '+', '-'])?;
    let (at, (does, with)) = (place(&line[..end])?, line[end..].split_at(1));
    let other = |value: &Value| value.pointer(place(with)?).cloned();
    match does {
        "=" => *value.pointer_mut(at)? = serde_json::from_str(with).ok()?,
        "<" => *value.pointer_mut(at)? = other(value)?,
        "+" => {
            let other = other(value)?;
            value.pointer_mut(at)?.as_array_mut()?.push(other);
        }
        _ => drop(value.pointer_mut(at)?.as_array_mut()?.pop()),
    }
    Some(())
}

fn place(name: &str) -> Option<&str> {
    if name.starts_with('/') {
        return Some(name);
    }
    PLACES.get(name.parse::<usize>().ok()?).map(String::as_str)
}

fn find(value: &Value, at: &mut String, places: &mut Vec<String>) {
    places.push(at.clone());
    let mut inside = |key: &str, value: &Value| {
        let len = at.len();
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        find(value, at, places);
        at.truncate(len);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| inside(key, value)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| inside(&index.to_string(), value));
        }
        _ => {}
    }
}

/// A descriptor of this number: the number says what it is of.
fn descriptor(number: CarriedFd) -> OwnedFd {
    of_kind(number.number().rem_euclid(8)).expect("a descriptor")
}

fn of_kind(kind: i32) -> io::Result<OwnedFd> {
    Ok(match kind {
        0 => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.into(),
        1 => TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?.into(),
        2 => Socket::new(Domain::IPV4, Type::STREAM, None)?.into(),
        3 => Socket::new(Domain::IPV6, Type::STREAM, None)?.into(),
        4 => one_end(Type::SEQPACKET)?,
        5 => one_end(Type::STREAM)?,
        6 => Socket::new(Domain::UNIX, Type::DGRAM, None)?.into(),
        _ => rustix::fs::memfd_create(c"trial", MemfdFlags::CLOEXEC)?,
    })
}

/// The other is open for as long as this is looked at.
fn one_end(kind: Type) -> io::Result<OwnedFd> {
    let (one, other) = Socket::pair(Domain::UNIX, kind, None)?;
    OTHER_ENDS.with_borrow_mut(|ends| ends.push(other));
    Ok(one.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_clusterd_has_left_can_be_begun_with() {
        let mut all = super::super::tests::seeds("snapshot");
        all.retain(|seed| seed.starts_with(b"{"));
        assert!(all.len() >= 8);
        for written in [serde_json::to_vec(&*WHOLE).unwrap()].iter().chain(&all) {
            let begun = trial::begin(written, descriptor);
            assert_eq!(begun, Ok(()), "{}", String::from_utf8_lossy(written));
        }
    }

    #[test]
    fn a_change_is_made_where_it_is_meant() {
        let at = |path: &str| PLACES.iter().position(|place| place == path).unwrap();
        let (format, ports, port) = ("/format", at("/front/ports"), at("/front/ports/3"));
        let told =
            format!("{format}=7\n{ports}-\n{ports}-\n{ports}+{port}\n{ports}+{format}\nno change\n99999=1");
        let changed: Value = serde_json::from_slice(&changed(told.as_bytes())).unwrap();
        let mut expected = WHOLE.clone();
        expected["format"] = 7.into();
        let ports = expected["front"]["ports"].as_array_mut().unwrap();
        ports.truncate(2);
        ports.push(7.into());
        assert_eq!(changed, expected);
    }
}
