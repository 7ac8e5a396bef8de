//! An environment file: lines in their order, values no longer than the file, and a variable that is written is read again.
//!
//! What dotenv itself makes of a text, the table in `settings::dotenv` has.

use crate::settings::dotenv::{Assignment, Parsed, parse};

/// Reads `data` as a file.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = parse(text);
    has_lines_of(&parsed, text);
    if !text.contains('\r') {
        let with_returns = parse(&text.replace('\n', "\r\n"));
        assert_eq!(with_returns, parsed, "how lines end does not matter");
    }
    parsed.assignments.iter().for_each(is_read_again);
    let all: Option<Vec<_>> = parsed.assignments.iter().map(plain).collect();
    if let Some(lines) = all {
        let again = parse(&lines.concat());
        assert_eq!(names_and_values(&again), names_and_values(&parsed));
        assert!(again.unread.is_empty());
    }
}

fn has_lines_of(parsed: &Parsed, text: &str) {
    let lines = text.matches(['\n', '\r']).count() + 1;
    let begun: Vec<_> = parsed.assignments.iter().map(|one| one.line).collect();
    assert!(begun.is_sorted() && parsed.unread.is_sorted_by(|one, next| one < next));
    assert!(begun.iter().chain(&parsed.unread).all(|line| (1..=lines).contains(line)));
    let len = |one: &Assignment| one.name.len() + one.value.len();
    assert!(parsed.assignments.iter().map(len).sum::<usize>() <= text.len(), "nothing is read twice");
    for Assignment { name, .. } in &parsed.assignments {
        assert!(
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        );
    }
}

/// Alone in a file, in each kind of quotes that it does not hold.
fn is_read_again(assignment: &Assignment) {
    let Assignment { name, value, .. } = assignment;
    for quote in ['\'', '`'].into_iter().filter(|&quote| !value.contains(quote)) {
        let text = format!("{name}={quote}{value}{quote}\n");
        let expected = value.replace("\r\n", "\n").replace('\r', "\n");
        let again = parse(&text);
        assert_eq!(names_and_values(&again), [(name.as_str(), expected.as_str())], "{text:?}");
        assert_eq!(again.unread, [0; 0], "{text:?}");
    }
}

/// The line of a variable whose value needs no quotes, or quotes in which nothing has a meaning.
fn plain(assignment: &Assignment) -> Option<String> {
    let Assignment { name, value, .. } = assignment;
    (!value.contains(['\'', '\\', '\r'])).then(|| format!("{name}='{value}'\n"))
}

fn names_and_values(parsed: &Parsed) -> Vec<(&str, &str)> {
    parsed.assignments.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect()
}
