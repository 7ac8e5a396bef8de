//! Which characters a terminal does not show but obeys, or shows as nothing at all.
//!
//! What workers, clients and other users' files have chosen is printed without them: they could forge lines, steer the
//! terminal, show text in another order than it is stored in, or hide some of it. It prints nothing itself.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character steers the display: a control character (ASCII, C1), one of Unicode's Bidi_Control (what GCC's
/// `-Wbidi-chars=any` and rustc warn of), a line or paragraph separator, or one that cannot be seen. The two joiners
/// (U+200C, U+200D) stay: Persian, Hindi and emoji need them.
pub(crate) fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Bidi_Control (Unicode, PropList.txt).
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Separators of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // Other format characters without a shape: soft hyphen, grapheme joiner, fillers, invisible operators,
            // byte order mark, annotations, tags, and variation selectors beyond those of emoji.
            | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The text with a blank in place of each such character.
pub(crate) fn blanked(text: &str) -> String {
    text.chars().map(|character| if is_control(character) { ' ' } else { character }).collect()
}

/// The same for a text of several lines, which stay lines.
pub(crate) fn blanked_lines(text: &str) -> String {
    text.split('\n').map(blanked).collect::<Vec<_>>().join("\n")
}

/// JSON in which such characters are escaped, so that it means the same; its own line ends stay.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
    let is_hidden = |character: char| is_control(character) && !matches!(character, '\n' | '\r' | '\t');
    if !json.contains(is_hidden) {
        return json.into();
    }
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if !is_hidden(character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_the_display_is_found_and_what_is_written_stays() {
        assert_eq!(blanked_lines("a\u{202e}\r\nhint: b\n"), "a  \nhint: b\n");
        // CVE-2021-42574: the comment is not where it seems to be.
        assert_eq!(blanked("a\u{202e}\u{2066}b\u{2069}"), "a  b ");
        assert_eq!(blanked("\u{1b}[31m\u{9b}2J\u{7f}\tx\n"), " [31m 2J  x ");
        assert_eq!(blanked("we\u{200b}b\u{ad}\u{feff}\u{2028}\u{e0041}"), "we b    ");
        for shown in [
            "web",
            "größer",
            "שלום",
            "مرحبا",
            "می\u{200c}خواهم",
            "👩\u{200d}👩",
            "❤\u{fe0f}",
            "日本\u{3000}語",
        ] {
            assert_eq!(blanked(shown), shown);
        }
    }

    proptest! {
        #[test]
        fn escaped_json_means_the_same(text in any::<String>(), hidden in "[\u{202a}-\u{202e}\u{e0001}\u{7f}]{0,3}") {
            let value = serde_json::json!({ "text": text + &hidden });
            let json = serde_json::to_string_pretty(&value).unwrap();
            let escaped = escaped_json(&json);
            prop_assert!(!escaped.contains(|character: char| is_control(character) && character != '\n'));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }
}
