//! The key of one grant in a document, and its optional condition.

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::raw::RawJson;
use super::{MemberKey, Role};

/// An IAM condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    /// Required by Google.
    pub(crate) title: String,
    /// Free text.
    pub(crate) description: String,
    /// The CEL expression.
    pub(crate) expression: String,
    /// Free text that says where the expression comes from.
    pub(crate) location: String,
    /// The condition as it was read, when it is not fully expressed by the four texts.
    pub(crate) beyond: Option<RawJson>,
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

/// A condition as part of a key: empty for no condition, otherwise 16 hex digits over its four texts. If the condition
/// has further fields, the digits cover all of it, so that no other condition has the same key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ConditionHash(Arc<str>);

impl ConditionHash {
    /// Computes the key part for a binding's condition.
    #[must_use]
    pub(crate) fn of(condition: Option<&Condition>) -> Self {
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

    /// Creates the value from its stored text form.
    #[must_use]
    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The text form; empty for no condition.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConditionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The key of one grant inside a document: role, condition and member.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GrantKey {
    /// The role, which must be one that rolecall may grant.
    pub(crate) role: Role,
    /// The condition, if any.
    pub(crate) condition: ConditionHash,
    /// The member, folded for comparison.
    pub(crate) member: MemberKey,
}

impl GrantKey {
    /// 16 hex digits that identify this grant where only equality matters.
    #[must_use]
    pub(crate) fn digest(&self) -> String {
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
