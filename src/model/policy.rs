//! IAM policies as Google writes them, and the key of one grant in them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{MemberKey, Role};

/// Google's limit: all appearances of principals in all bindings of one policy.
pub const MAX_PRINCIPALS: usize = 1500;

/// An allow policy. Unknown fields travel through unchanged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// 0, 1 or 3; rolecall always asks for and writes 3.
    #[serde(default)]
    pub version: i32,
    /// Opaque; a write carries the etag of the read it was planned on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub etag: String,
    /// Role bindings, in Google's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
    /// Whatever else the policy has (`auditConfigs`).
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One binding of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The role as Google spells it; foreign bindings may have any.
    pub role: String,
    /// Members byte for byte as read.
    #[serde(default)]
    pub members: Vec<String>,
    /// The IAM condition, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Whatever else the binding has.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An IAM condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Required by Google.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The CEL expression.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expression: String,
    /// Free text that says where the expression came from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
}

/// A condition as part of a key: empty for none, otherwise 16 hex digits over all its fields.
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
