//! What an entry of a mapping gives besides the role: under which condition, and until when.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::GrantSpec;
use crate::model::{Condition, ConditionHash, MAX_OPERATORS, Reason, ResourceKind, Role};

/// The terms of one entry of `spec.grants`.
pub(super) struct Terms {
    condition: Option<Arc<Condition>>,
    /// The condition where policies take conditions: with the end, unless the two together are too long for Google.
    whole: Option<Arc<Condition>>,
    not_after: Option<Timestamp>,
}

impl Terms {
    pub(super) fn of(spec: &GrantSpec) -> Self {
        let condition = spec.condition.as_ref().map(|condition| Condition {
            title: condition.title.clone(),
            description: condition.description.clone().unwrap_or_default(),
            expression: condition.expression.clone(),
            ..Condition::default()
        });
        // A condition of Google and a clock that rolecall reads agree to the second; the end is never later than said.
        let not_after = spec.not_after.as_ref().and_then(|end| Timestamp::from_second(end.0.as_second()).ok());
        let whole = not_after.and_then(|end| Condition::ending(condition.as_ref(), end));
        let condition = condition.map(Arc::new);
        let whole = whole.map(Arc::new).or_else(|| condition.clone());
        Self { condition, whole, not_after }
    }

    /// The time at which everything that the entry gives ends.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// Why the entry gives nothing on resources of this kind, if it does not.
    pub(super) fn refused_on(&self, kind: ResourceKind) -> Option<Reason> {
        let condition = self.condition.as_ref()?;
        if !kind.takes_conditions() {
            return Some(Reason::ConditionNotSupported);
        }
        (condition.logical_operators() > MAX_OPERATORS).then_some(Reason::ConditionInvalid)
    }

    /// What the entry gives on resources of this kind.
    pub(super) fn entitlement(&self, role: &Role, kind: ResourceKind) -> Entitlement {
        let condition = self.whole.clone().filter(|_| kind.takes_conditions());
        let hash = ConditionHash::of(condition.as_deref());
        Entitlement { role: role.clone(), condition, hash, not_after: self.not_after }
    }
}

/// A role, the condition under which a mapping gives it, and the time at which that ends.
#[derive(Debug, Clone)]
pub(super) struct Entitlement {
    pub(super) role: Role,
    pub(super) condition: Option<Arc<Condition>>,
    /// The condition as part of a key.
    pub(super) hash: ConditionHash,
    pub(super) not_after: Option<Timestamp>,
}

impl Entitlement {
    /// True when it has ended at this time.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }

    fn key(&self) -> (&Role, &ConditionHash, Option<Timestamp>) {
        (&self.role, &self.hash, self.not_after)
    }
}

impl PartialEq for Entitlement {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entitlement {}

impl Ord for Entitlement {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Entitlement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
