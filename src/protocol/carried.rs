//! The attach protocol's words as they are written down for the next image of clusterd.
//!
//! [`wire`](super::wire) itself is shared with the shim, which knows nothing but `core`.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::wire::{Binding, Endpoint, Linger, SocketOption, Token};
use crate::carry::Raw;

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Raw(self.to_hex().as_ref().to_vec()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw(hex) = Raw::deserialize(deserializer)?;
        Token::from_hex(&hex).ok_or_else(|| de::Error::custom("not a token of a worker"))
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SocketAddr::from(*self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SocketAddr::deserialize(deserializer).map(Endpoint::from)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    to: Endpoint,
    only_v6: bool,
    reuses_address: bool,
    reuses_port: bool,
}

impl Serialize for Binding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Binding { address: to, only_v6, reuses_address, reuses_port } = *self;
        Bound { to, only_v6, reuses_address, reuses_port }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bound { to, only_v6, reuses_address, reuses_port } = Bound::deserialize(deserializer)?;
        Ok(Binding { address: to, only_v6, reuses_address, reuses_port })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    level: i32,
    name: i32,
    value: Raw,
}

impl Serialize for SocketOption {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Set { level: self.level, name: self.name, value: Raw(self.bytes().to_owned()) }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SocketOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Set { level, name, value } = Set::deserialize(deserializer)?;
        SocketOption::new(level, name, &value.0)
            .ok_or_else(|| de::Error::custom("no value of a socket option"))
    }
}

impl Serialize for Linger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Linger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i32::deserialize(deserializer).map(Linger)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::net::SocketAddrV6;

    use serde::de::DeserializeOwned;

    use super::*;

    fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(word: &T) {
        let written = serde_json::to_string(word).unwrap();
        assert_eq!(serde_json::from_str::<T>(&written).unwrap(), *word, "{written}");
    }

    #[test]
    fn words_come_back_as_they_were() {
        let token = Token([7, 0, 255, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        let written = serde_json::to_string(&token).unwrap();
        assert!(serde_json::from_str::<Token>(&written).unwrap() == token, "{written}");
        assert!(serde_json::from_str::<Token>("\"07\"").is_err());
        let v4 = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };
        same(&v4);
        same(&Endpoint::from(SocketAddr::from(SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 5, 2))));
        same(&Binding { only_v6: true, ..Binding::new(v4) });
        same(&SocketOption::new(1, 13, &[1, 0, 0, 0, 200, 0, 0, 0]).unwrap());
        same(&Linger(-1));
        assert!(serde_json::from_str::<SocketOption>(r#"{"level":1,"name":2,"value":""}"#).is_err());
    }
}
