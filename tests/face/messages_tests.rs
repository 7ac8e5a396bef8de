//! That the check of the runbook's quotations finds what it should, and can fail.
//!
//! The check itself is in `messages`.

use super::messages::{is_said, quotations, strings, warnings, without_values};

const SOURCE: &str = r##"
//! "in a comment"
fn f<'a>(reason: &'a str) {
    let quote = '"'; // "after a character"
    let escaped = '\'';
    warn!(%worker, "worker {reason}; starting it again in {wait}");
    let text = format!(
        "the limit has room for {queue}, not {}: raise it \
         or lower --queue\nhint: see \"limits\"",
        1,
    );
    let json = r#"{{"error": "{code}"}}"#;
}
"##;

fn said() -> Vec<String> {
    strings(SOURCE).iter().map(|string| without_values(string)).collect()
}

#[test]
fn strings_are_found_among_comments_characters_and_lifetimes() {
    let expected = [
        "worker {reason}; starting it again in {wait}",
        "the limit has room for {queue}, not {}: raise it or lower --queue\nhint: see \"limits\"",
        "{{\"error\": \"{code}\"}}",
    ];
    assert_eq!(strings(SOURCE), expected);
}

#[test]
fn a_message_that_is_said_is_found() {
    let quotations = [
        "worker <reason>; starting it again in <time>",
        "starting it again in",
        "the limit has room for <number>, not <number>: raise it or lower --queue",
        "hint: see \"limits\"",
        "{\"error\": \"<code>\"}",
    ];
    for quotation in quotations {
        assert!(is_said(quotation, &said()), "{quotation}");
    }
}

#[test]
fn an_invented_message_is_not_found() {
    let quotations = [
        "worker <reason>; never mind",
        "worker starting it again in <time>",
        "worker <reason> <number>; starting it again",
        "in a comment",
        "starting it again in <time>: the limit has room for <number>",
        "<reason>",
    ];
    for quotation in quotations {
        assert!(!is_said(quotation, &said()), "{quotation}");
    }
}

#[test]
fn warnings_are_found_where_they_are_logged() {
    assert_eq!(warnings(SOURCE), ["worker \0; starting it again in \0"]);
    let passed_on =
        r#"warn!("{error}"); warn!(a, "{name}: {refused}"); error!("hook: {line}"); info!("all is well");"#;
    assert_eq!(warnings(passed_on), [""; 0]);
}

#[test]
fn what_is_bold_and_code_is_a_quotation() {
    let page = "**`one <value>\ntwo`**, **``three `four` ``** and `code`, **bold**.";
    assert_eq!(quotations(page), ["one <value> two", "three `four`"]);
}
