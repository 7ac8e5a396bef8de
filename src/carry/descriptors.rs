//! Which descriptors are written down in a snapshot.
//!
//! They are found while it is read, and nothing of it is kept: clients wait meanwhile.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::CarriedFd;

/// Every descriptor that is written down in this, in order, as often as it is.
///
/// # Errors
/// It is no JSON.
pub(crate) fn descriptors(snapshot: &[u8]) -> serde_json::Result<Vec<CarriedFd>> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(snapshot);
    (&mut reader).deserialize_any(Search(&mut found))?;
    reader.end()?;
    Ok(found)
}

/// Looks through a value. What comes of it is the number, if it is one that a descriptor may have.
struct Search<'a>(&'a mut Vec<CarriedFd>);

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = Option<i32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = Option<i32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(number.try_into().ok())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(number.try_into().ok())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        while values.next_element_seed(Search(&mut *self.0))?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut count, mut descriptor) = (0, None);
        while let Some(is_descriptor) = fields.next_key_seed(IsKey)? {
            let number = fields.next_value_seed(Search(&mut *self.0))?;
            count += 1;
            descriptor = number.filter(|_| is_descriptor && count == 1);
        }
        self.0.extend(descriptor.map(CarriedFd::numbered));
        Ok(None)
    }
}

/// Whether a field is called as a descriptor is.
struct IsKey;

impl<'de> DeserializeSeed<'de> for IsKey {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == CarriedFd::KEY)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn numbers(snapshot: &[u8]) -> Vec<i32> {
        descriptors(snapshot).unwrap().into_iter().map(CarriedFd::number).collect()
    }

    #[test]
    fn descriptors_are_found_wherever_they_are_and_not_in_what_others_have_said() {
        let (reader, writer) = std::io::pipe().unwrap();
        let [reader, writer] = [CarriedFd::of(&reader), CarriedFd::of(&writer)];
        let snapshot = json!({
            "links": [{ "channel": writer, "untaken": [] }, { "ends": [reader, null, 1.5, -1, true] }],
            "said": "{\"descriptor\":1}",
            "named": { "descriptor": "web" },
        });
        assert_eq!(numbers(snapshot.to_string().as_bytes()), [writer.number(), reader.number()]);
    }

    #[test]
    fn only_what_is_a_descriptor_and_nothing_else_is_one() {
        for (snapshot, found) in [
            (r#"{"descriptor":7}"#, &[7][..]),
            (r#"[{"descriptor":7},{"descriptor":7},{"descriptor":-1}]"#, &[7, 7, -1]),
            (r#"{"descriptor":7,"of":8}"#, &[]),
            (r#"{"of":8,"descriptor":7}"#, &[]),
            (r#"{"descriptor":7.0}"#, &[]),
            (r#"{"descriptor":4294967296}"#, &[]),
            (r#"{"descriptor":{"descriptor":7}}"#, &[7]),
            (r#"{"descriptor":[7]}"#, &[]),
            (r#"{"Descriptor":7}"#, &[]),
            (r#"{"descr\u0069ptor":7}"#, &[7]),
            ("7", &[]),
        ] {
            assert_eq!(numbers(snapshot.as_bytes()), found, "{snapshot}");
        }
        for wrong in ["", "{", r#"{"descriptor":7} x"#, r#"[{"descriptor":}]"#] {
            assert!(descriptors(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
