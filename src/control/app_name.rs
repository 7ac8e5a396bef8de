//! The name of an app as a part of a path: of a file, or of a URI. Letters, digits, dots, dashes and underscores stand for
//! themselves.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const OTHERS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// The name, with each byte of other characters as `%` and its number (RFC 3986, section 2.1).
pub(crate) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, OTHERS).to_string()
}

/// The name that is encoded so; `None` if none is.
pub(crate) fn decoded(part: &str) -> Option<String> {
    let name = percent_decode_str(part).decode_utf8().ok()?.into_owned();
    (encoded(&name) == part).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_plain_stays_as_it_is() {
        assert_eq!(encoded("my-app_1.2"), "my-app_1.2");
        assert_eq!(encoded("a b/\u{e4}%"), "a%20b%2F%C3%A4%25");
        assert_eq!(decoded("a%2fb"), None, "it has one spelling");
        assert_eq!(decoded("a b"), None);
        assert_eq!(decoded("%FF"), None);
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in any::<String>()) {
            let part = encoded(&name);
            prop_assert!(!part.contains('/') && part.is_ascii());
            prop_assert_eq!(decoded(&part), Some(name));
        }
    }
}
