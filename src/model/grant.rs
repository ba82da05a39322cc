//! The key of one grant in a document, and its optional condition.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
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

/// Title of a condition that says nothing but when the grant ends.
const NOT_AFTER: &str = "rolecall-not-after";

/// Largest number of logical operators that Google accepts in one condition.
pub(crate) const MAX_OPERATORS: usize = 12;

impl Condition {
    /// The condition of a grant that ends at `end` and has the condition `base` besides. None where Google would refuse
    /// the two together, because they have too many logical operators.
    #[must_use]
    pub(crate) fn ending(base: Option<&Self>, end: Timestamp) -> Option<Self> {
        let before_end = format!("request.time < timestamp(\"{end:.0}\")");
        let Some(base) = base else {
            return Some(Self { title: NOT_AFTER.to_owned(), expression: before_end, ..Self::default() });
        };
        let both = Self { expression: format!("({}) && {before_end}", base.expression), ..base.clone() };
        (both.logical_operators() <= MAX_OPERATORS).then_some(both)
    }

    /// Number of `&&`, `||` and `!` in the expression, outside of texts.
    #[must_use]
    pub(crate) fn logical_operators(&self) -> usize {
        let (mut count, mut text) = (0, None);
        let mut characters = self.expression.chars().peekable();
        while let Some(character) = characters.next() {
            match (text, character) {
                (Some(_), '\\') => drop(characters.next()),
                (Some(open), close) if open == close => text = None,
                (None, '\'' | '"') => text = Some(character),
                (None, '&' | '|') if characters.next_if_eq(&character).is_some() => count += 1,
                (None, '!') if characters.peek() != Some(&'=') => count += 1,
                (Some(_) | None, _) => {}
            }
        }
        count
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(expression: &str) -> Condition {
        Condition { title: "office-hours".to_owned(), expression: expression.to_owned(), ..Condition::default() }
    }

    #[test]
    fn the_end_of_a_grant_is_a_condition_alone_or_beside_another_one() {
        let end = "2027-03-31T00:00:00Z".parse().unwrap();
        let alone = Condition::ending(None, end).unwrap();
        assert_eq!(alone.title, "rolecall-not-after");
        assert_eq!(alone.expression, "request.time < timestamp(\"2027-03-31T00:00:00Z\")");
        let both = Condition::ending(Some(&condition("a || b")), end).unwrap();
        assert_eq!(both.title, "office-hours");
        assert_eq!(both.expression, "(a || b) && request.time < timestamp(\"2027-03-31T00:00:00Z\")");
        let full = condition(&vec!["a"; MAX_OPERATORS + 1].join(" && "));
        assert_eq!(full.logical_operators(), MAX_OPERATORS);
        assert_eq!(Condition::ending(Some(&full), end), None, "one operator more than Google accepts");
    }

    #[test]
    fn logical_operators_in_texts_do_not_count() {
        for (expression, count) in [
            ("a && !b || c", 3),
            ("a != b", 0),
            ("a == 'x && y' && b == \"||\"", 1),
            ("a == '\\'&&' || b", 1),
            ("a & b", 0),
        ] {
            assert_eq!(condition(expression).logical_operators(), count, "{expression}");
        }
    }
}
