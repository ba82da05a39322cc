//! IAM policies as Google writes them, and the key of one grant in them.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::raw::RawJson;
use super::{MemberKey, Role};

/// Google's limit: all appearances of principals in all bindings of one policy.
pub const MAX_PRINCIPALS: usize = 1500;

const ROLE: &str = "role";
const MEMBERS: &str = "members";
const CONDITION: &str = "condition";

/// An allow policy. What rolecall does not know travels through as it was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// 0, 1 or 3; rolecall always asks for and writes 3.
    pub version: i32,
    /// Opaque; a write carries the etag of the read it was planned on.
    pub etag: String,
    /// Role bindings, in Google's order.
    pub bindings: Vec<Binding>,
    /// Whatever else the policy has (`auditConfigs`).
    pub(crate) rest: Vec<(String, RawJson)>,
}

/// One binding of a policy. One that was read and not edited is written back as the very text that was read; of an edited
/// one, every field but the edited ones.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The role as Google spells it; foreign bindings may have any.
    pub role: String,
    /// Members byte for byte as read.
    pub members: Vec<String>,
    /// The IAM condition, if any.
    pub condition: Option<Condition>,
    /// Fields that rolecall does not know.
    unknown: Vec<(String, RawJson)>,
    /// The binding as it was read; none for a binding that rolecall made.
    read: Option<RawJson>,
}

/// An IAM condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// Required by Google.
    pub title: String,
    /// Free text.
    pub description: String,
    /// The CEL expression.
    pub expression: String,
    /// Free text that says where the expression came from.
    pub location: String,
    /// The condition as it was read, when it says more than the four texts, or something else.
    pub(crate) beyond: Option<RawJson>,
}

impl Binding {
    /// A binding of rolecall's own making.
    #[must_use]
    pub fn new(role: String, members: Vec<String>, condition: Option<Condition>) -> Self {
        Self { role, members, condition, unknown: vec![], read: None }
    }

    /// Whether the binding has fields that rolecall does not know: they may narrow or widen what it grants.
    #[must_use]
    pub fn has_unknown_fields(&self) -> bool {
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

/// Two bindings are equal when they say the same, however it is written.
impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.role == other.role
            && self.members == other.members
            && self.condition == other.condition
            && self.unknown == other.unknown
    }
}

impl Condition {
    fn of(read: &RawJson) -> Self {
        let known = || {
            let mut condition = Self::default();
            for (name, value) in read.fields().ok()? {
                let field = match name.as_str() {
                    "title" => &mut condition.title,
                    "description" => &mut condition.description,
                    "expression" => &mut condition.expression,
                    "location" => &mut condition.location,
                    _ => return None,
                };
                *field = value.parse().ok()?;
            }
            Some(condition)
        };
        known().unwrap_or_else(|| Self { beyond: Some(read.clone()), ..Self::default() })
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
        // What was not edited stands as it was read, in its place; what was edited, or is new, stands behind it.
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

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(&RawJson::deserialize(deserializer)?))
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(beyond) = &self.beyond {
            return beyond.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        let fields = [
            ("title", &self.title),
            ("description", &self.description),
            ("expression", &self.expression),
            ("location", &self.location),
        ];
        for (name, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
            map.serialize_entry(name, text)?;
        }
        map.end()
    }
}

/// A condition as part of a key: empty for none, otherwise 16 hex digits over its four texts. Where it has anything else,
/// the digits are over all of it, so that it is nobody else's key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConditionHash(Arc<str>);

impl ConditionHash {
    /// The key part for a binding's condition.
    #[must_use]
    pub fn of(condition: Option<&Condition>) -> Self {
        let Some(condition) = condition else { return Self::default() };
        let mut hash = Sha256::new();
        for field in [&condition.title, &condition.description, &condition.expression, &condition.location] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
        if let Some(beyond) = &condition.beyond {
            hash.update(beyond.text().as_bytes());
        }
        let digest = hash.finalize();
        let (head, _) = digest.split_at(8);
        let head = head.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        Self(format!("{head:016x}").into())
    }

    /// From the text form, as stored.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The text form; empty for "no condition".
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConditionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What one grant is keyed by inside a document: role, condition, member.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GrantKey {
    /// The role, which is one that rolecall may grant.
    pub role: Role,
    /// Which condition, if any.
    pub condition: ConditionHash,
    /// Who, folded.
    pub member: MemberKey,
}

impl GrantKey {
    /// 16 hex digits that stand for this grant where only equality matters.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.role.as_str(), self.condition.as_str(), self.member.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        digest.iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
            text.extend([byte >> 4, byte & 0xf].into_iter().filter_map(|half| char::from_digit(u32::from(half), 16)));
            text
        })
    }
}
