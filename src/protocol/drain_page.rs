//! The page in which the primary notes which launches of workers drain, and which the shim reads: the one definition
//! that both share.
//!
//! It only says where what stands. It does no I/O and needs nothing but `core`, since the shim includes this very file.
//!
//! ```text
//! 0      8192                                           40960
//! ├ ports ┼ places: the number of a launch that drains, or 0 ┤
//! ```

/// Environment of a worker: which launch it is and where the page is, as `LAUNCH:PATH`.
pub(crate) const ENV_DRAINING: &str = "CLUSTERD_ATTACH_DRAINING";

/// How long the page is, in bytes.
pub(crate) const LEN: usize = PORTS_LEN + PLACES * PLACE_LEN;

/// A bit for each public port.
const PORTS_LEN: usize = 65536 / 8;

/// How many launches have a place of their own: as many as live at a time, and more. Launches that are farther apart share
/// one, and the place tells whose it is at the moment.
const PLACES: usize = 4096;
const PLACE_LEN: usize = size_of::<u64>();

/// Where the number of this launch stands while it drains: a `u64` of this processor, aligned.
pub(crate) fn place(launch: u64) -> usize {
    PORTS_LEN + (launch % PLACES as u64) as usize * PLACE_LEN
}

/// The byte and the bit that say that this port is served.
pub(crate) fn port(port: u16) -> (usize, u8) {
    (usize::from(port / 8), 1 << (port % 8))
}

/// Takes the value of [`ENV_DRAINING`] apart.
pub(crate) fn parse(value: &[u8]) -> Option<(u64, &[u8])> {
    let colon = value.iter().position(|&byte| byte == b':')?;
    let (launch, path) = value.split_at_checked(colon)?;
    let launch = core::str::from_utf8(launch).ok()?.parse().ok().filter(|&launch| launch != 0)?;
    Some((launch, path.get(1..).filter(|path| !path.is_empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_places_lie_in_the_page_and_not_in_each_other() {
        assert_eq!(port(0), (0, 1));
        assert_eq!(port(u16::MAX), (PORTS_LEN - 1, 128));
        for launch in [0, 1, 4095, 4096, u64::MAX] {
            let place = place(launch);
            assert!(
                place >= PORTS_LEN && place + PLACE_LEN <= LEN && place.is_multiple_of(PLACE_LEN),
                "{launch}"
            );
        }
        assert_ne!(place(1), place(2));
        assert_eq!(place(1), place(4097));
    }

    #[test]
    fn what_a_worker_is_told_is_taken_apart() {
        let table: [(&str, Option<(u64, &str)>); 7] = [
            ("7:/run/clusterd-x/draining", Some((7, "/run/clusterd-x/draining"))),
            ("18446744073709551615:/a:b", Some((u64::MAX, "/a:b"))),
            ("0:/a", None),
            ("7:", None),
            (":/a", None),
            ("/a", None),
            ("", None),
        ];
        for (value, expected) in table {
            let expected = expected.map(|(launch, path)| (launch, path.as_bytes()));
            assert_eq!(parse(value.as_bytes()), expected, "{value}");
        }
    }
}
