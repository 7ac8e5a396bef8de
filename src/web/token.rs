//! The secret by which a browser is known: whoever has it may see, and perhaps do, what the user of this process may.
//!
//! It comes in a header (`Authorization: Bearer`, RFC 6750), which another site's page cannot send.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use constant_time_eq::constant_time_eq;
use hyper::header::{AUTHORIZATION, HeaderMap};
use rustix::rand::{GetRandomFlags, getrandom};

/// The variable that gives one, for a page that is to have the same for ever.
pub(crate) const VARIABLE: &str = "CLUSTERD_WEB_TOKEN";

/// As long as 96 bits are in base64; a shorter one may be guessed.
const SHORTEST: usize = 16;

/// How long one may be, so that it has room in a head.
const LONGEST: usize = 256;

/// The secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{VARIABLE} is no token: it needs {SHORTEST} to {LONGEST} letters, digits, - or _\n\
     hint: make one with: openssl rand -hex 16"
)]
pub(crate) struct NoToken;

impl Token {
    /// One of 128 bits that nobody knows.
    ///
    /// # Errors
    /// The kernel has no random bytes (getrandom(2)).
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        // So few bytes come at once, or none.
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// One that the user has chosen.
    ///
    /// # Errors
    /// It is too short or too long, or has characters that mean something in an address.
    pub(crate) fn given(text: &str) -> Result<Self, NoToken> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let fits = (SHORTEST..=LONGEST).contains(&text.len());
        if is_plain && fits { Ok(Self(text.to_owned())) } else { Err(NoToken) }
    }

    /// As it is told to the user, once.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// Whether a request brings it.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(AUTHORIZATION) else { return false };
        let Some((scheme, secret)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && constant_time_eq(secret, self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_one() {
        let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(Token::given(one.secret()), Ok(one));
    }

    #[test]
    fn one_that_can_be_guessed_is_none() {
        for text in
            ["", "secret", "fifteen-letters", "sixteen letters!", &"a".repeat(257), "ünicode-ünicode-"]
        {
            assert_eq!(Token::given(text), Err(NoToken), "{text}");
        }
    }

    #[test]
    fn a_request_has_to_bring_all_of_it() {
        let token = Token::given("0123456789abcdef").unwrap();
        let table = [
            (Some("Bearer 0123456789abcdef"), true),
            (Some("bearer 0123456789abcdef"), true),
            (Some("Bearer 0123456789abcde"), false),
            (Some("Bearer 0123456789abcdef "), false),
            (Some("Basic 0123456789abcdef"), false),
            (Some("0123456789abcdef"), false),
            (Some(""), false),
            (None, false),
        ];
        for (header, expected) in table {
            let headers = header.map(|value| (AUTHORIZATION, value.parse().unwrap()));
            assert_eq!(token.is_in(&HeaderMap::from_iter(headers)), expected, "{header:?}");
        }
    }
}
