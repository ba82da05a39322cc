//! IAM policies in Google's JSON.

use serde::de::Error as _;
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{Condition, RawJson};

const ROLE: &str = "role";
const MEMBERS: &str = "members";
const CONDITION: &str = "condition";

/// An allow policy. Parts that rolecall does not know are preserved as they were read.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Policy {
    /// 0, 1 or 3; rolecall always asks for and writes 3.
    pub(crate) version: i32,
    /// Opaque; a write carries the etag of the read that it was planned on.
    pub(crate) etag: String,
    /// Role bindings, in Google's order.
    pub(crate) bindings: Vec<Binding>,
    /// All other fields of the policy (`auditConfigs`).
    pub(crate) rest: Vec<(String, RawJson)>,
}

/// One binding of a policy. An unedited binding is written back as the text that was read. In an edited one, every
/// field but the edited ones is preserved.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    /// The role as Google spells it; foreign bindings may have any role.
    pub(crate) role: String,
    /// Members byte for byte as read.
    pub(crate) members: Vec<String>,
    /// The IAM condition, if any.
    pub(crate) condition: Option<Condition>,
    /// Unknown fields.
    unknown: Vec<(String, RawJson)>,
    /// The binding as it was read; none for a binding that rolecall made.
    read: Option<RawJson>,
}

impl Binding {
    /// Creates a new binding.
    #[must_use]
    pub(crate) fn new(role: String, members: Vec<String>, condition: Option<Condition>) -> Self {
        Self { role, members, condition, unknown: vec![], read: None }
    }

    /// True when the binding has unknown fields, which may narrow or widen what it grants.
    #[must_use]
    pub(crate) fn has_unknown_fields(&self) -> bool {
        !self.unknown.is_empty()
    }

    fn of(read: &RawJson) -> Result<Self, serde_json::Error> {
        let mut binding = Self { read: Some(read.clone()), ..Self::new(String::new(), vec![], None) };
        for (name, value) in read.fields()? {
            match name.as_str() {
                ROLE => binding.role = value.parse()?,
                MEMBERS => binding.members = value.parse()?,
                CONDITION => binding.condition = value.parse()?,
                _ => binding.unknown.push((name, value)),
            }
        }
        Ok(binding)
    }
}

/// Two bindings are equal when they have the same meaning, whatever their notation.
impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.role == other.role
            && self.members == other.members
            && self.condition == other.condition
            && self.unknown == other.unknown
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut policy = Self::default();
        for (name, value) in RawJson::deserialize(deserializer)?.fields().map_err(D::Error::custom)? {
            match name.as_str() {
                "version" => policy.version = value.parse().map_err(D::Error::custom)?,
                "etag" => policy.etag = value.parse().map_err(D::Error::custom)?,
                "bindings" => policy.bindings = value.parse().map_err(D::Error::custom)?,
                _ => policy.rest.push((name, value)),
            }
        }
        Ok(policy)
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &self.version)?;
        if !self.etag.is_empty() {
            map.serialize_entry("etag", &self.etag)?;
        }
        if !self.bindings.is_empty() {
            map.serialize_entry("bindings", &self.bindings)?;
        }
        for (name, value) in &self.rest {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(&RawJson::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Binding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut was = Self::new(String::new(), vec![], None);
        let mut fields = vec![];
        if let Some(read) = &self.read {
            was = Self::of(read).map_err(S::Error::custom)?;
            if was == *self {
                return read.serialize(serializer);
            }
            fields = read.fields().map_err(S::Error::custom)?;
        }
        // Unedited fields keep their text and place; edited and new ones follow.
        let edited = [
            (ROLE, self.role != was.role),
            (MEMBERS, self.members != was.members),
            (CONDITION, self.condition != was.condition),
        ];
        fields.retain(|(name, _)| !edited.contains(&(name.as_str(), true)));
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &fields {
            map.serialize_entry(name, value)?;
        }
        for (name, _) in edited.iter().filter(|(_, edited)| *edited) {
            match (*name, &self.condition) {
                (ROLE, _) => map.serialize_entry(ROLE, &self.role)?,
                (MEMBERS, _) => map.serialize_entry(MEMBERS, &self.members)?,
                (_, Some(condition)) => map.serialize_entry(CONDITION, condition)?,
                (_, None) => {}
            }
        }
        map.end()
    }
}
