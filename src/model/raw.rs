//! JSON that is written back exactly as it was read: numbers of any size, spelling, order and whitespace included.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The text of one JSON value.
#[derive(Clone)]
pub(crate) struct RawJson(Arc<RawValue>);

impl RawJson {
    /// The text.
    pub(crate) fn text(&self) -> &str {
        self.0.get()
    }

    /// Parses the value; `null` means the default, as in the JSON mapping of protobuf.
    pub(crate) fn parse<T: DeserializeOwned + Default>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str::<Option<T>>(self.text()).map(Option::unwrap_or_default)
    }

    /// The fields of an object, in their order. A duplicate name is an error, because readers differ on which value
    /// counts.
    pub(crate) fn fields(&self) -> Result<Vec<(String, RawJson)>, serde_json::Error> {
        serde_json::from_str::<Fields>(self.text()).map(|fields| fields.0)
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for RawJson {}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|value| Self(Arc::from(value)))
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

struct Fields(Vec<(String, RawJson)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let (mut fields, mut names) = (vec![], BTreeSet::new());
                while let Some((name, value)) = map.next_entry::<String, RawJson>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("the field `{name}` is a duplicate")));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
