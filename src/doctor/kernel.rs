//! The kernel's version, and what one before lacks of what clusterd uses.
//!
//! A version tells nothing of what a filter of system calls forbids: other checks try each thing.

use super::finding::Found;

/// Since when there is what clusterd uses, if not from the beginning, and what is missing before.
const NEWS: [((u32, u32), &str); 4] = [
    ((5, 9), "the interception by which Go and static servers are served"),
    ((5, 12), "taking turns with --accept workers"),
    ((5, 14), "--tcp-migrate"),
    ((5, 19), "interception that no signal disturbs (bind and listen are made again)"),
];

/// As uname(2) tells it.
pub(super) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(super) fn look() -> Found {
    judge(&release())
}

fn judge(release: &str) -> Found {
    let Some(version) = version(release) else {
        return Found::limited(
            format!("the kernel calls itself {release}, which is no version of Linux"),
            "What it has and what it lacks is told by the other checks alone",
        );
    };
    let lacks: Vec<_> = NEWS.iter().filter(|(since, _)| version < *since).map(|(_, what)| *what).collect();
    match lacks.last() {
        None => Found::works(format!("Linux {release} has all that clusterd uses")),
        Some(_) => Found::limited(
            format!("Linux {release} lacks {}", lacks.join("; ")),
            "A kernel from 5.19 on has all of it",
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_an_older_kernel_lacks_is_named() {
        let table = [
            ("6.18.44-custom", Verdict::Works, "has all that clusterd uses"),
            ("5.19.0", Verdict::Works, "has all"),
            ("5.15.0-91-generic", Verdict::Limited, "lacks interception that no signal disturbs"),
            ("5.10.0", Verdict::Limited, "taking turns with --accept workers; --tcp-migrate; "),
            ("4.4.0", Verdict::Limited, "lacks the interception"),
            ("10.0", Verdict::Works, "has all"),
            ("unknown", Verdict::Limited, "calls itself unknown"),
        ];
        for (release, verdict, words) in table {
            let found = judge(release);
            assert_eq!(found.verdict, verdict, "{release}");
            assert!(found.what.contains(words), "{found:?}");
        }
    }
}
