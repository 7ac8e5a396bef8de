//! Bytes of any kind, as text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes: a path, a variable, a line. Each is the character of its number, so that ASCII stays legible.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Raw(pub Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|&byte| char::from(byte)).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<_, _> = text.chars().map(u8::try_from).collect();
        bytes.map(Self).map_err(|_| de::Error::custom("a character that is no byte"))
    }
}

impl From<&Path> for Raw {
    fn from(path: &Path) -> Self {
        path.as_os_str().into()
    }
}

impl From<&OsStr> for Raw {
    fn from(text: &OsStr) -> Self {
        Self(text.as_bytes().to_owned())
    }
}

impl From<Raw> for OsString {
    fn from(raw: Raw) -> Self {
        OsString::from_vec(raw.0)
    }
}

impl From<Raw> for PathBuf {
    fn from(raw: Raw) -> Self {
        OsString::from(raw).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_it_is_it_comes_back(bytes: Vec<u8>) {
            let written = serde_json::to_string(&Raw(bytes.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Raw>(&written).unwrap().0, bytes);
        }
    }

    #[test]
    fn ascii_is_legible_and_what_is_no_byte_is_refused() {
        assert_eq!(
            serde_json::to_string(&Raw::from(Path::new("/srv/\u{e4}"))).unwrap(),
            "\"/srv/\u{c3}\u{a4}\""
        );
        assert!(serde_json::from_str::<Raw>("\"\u{100}\"").is_err());
    }
}
