//! Drift: differences between a document and what is wanted there, by kind.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionHash, MappingKey, MemberKey, Reason, Subject};

/// The kinds of drift, starting with what matters most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "The kind of difference between the policy and what is wanted.")]
pub(crate) enum DriftKind {
    /// The policy grants a role to everybody: allUsers or allAuthenticatedUsers.
    PublicPrincipal,
    /// Somebody who left still has a grant that somebody else made.
    LeaverHasForeignGrant,
    /// Somebody else removed a grant that rolecall made.
    #[serde(alias = "Missing")]
    GrantMissing,
    /// Somebody else put a grant that rolecall made under another condition.
    ConditionChanged,
    /// The resource was deleted and created again, so that its policy started empty.
    TargetRecreated,
    /// A grant is no longer wanted, but rolecall did not make it; it stays.
    #[serde(alias = "Remains")]
    GrantRemains,
    /// A grant that rolecall neither made nor wants; it stays.
    #[serde(alias = "Foreign", alias = "Unowned")]
    GrantUnexpected,
    /// A grant of a deleted account that rolecall did not make; it still counts towards the limits of the policy.
    Tombstone,
    /// The service does not check roles/run.invoker at all.
    InvokerCheckDisabled,
}

impl DriftKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 9] = [
        Self::PublicPrincipal,
        Self::LeaverHasForeignGrant,
        Self::GrantMissing,
        Self::ConditionChanged,
        Self::TargetRecreated,
        Self::GrantRemains,
        Self::GrantUnexpected,
        Self::Tombstone,
        Self::InvokerCheckDisabled,
    ];

    /// The stable word.
    #[must_use]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::PublicPrincipal => Reason::PublicPrincipal.word(),
            Self::LeaverHasForeignGrant => Reason::LeaverHasForeignGrant.word(),
            Self::GrantMissing => "GrantMissing",
            Self::ConditionChanged => Reason::ConditionChanged.word(),
            Self::TargetRecreated => Reason::TargetRecreated.word(),
            Self::GrantRemains => Reason::GrantRemains.word(),
            Self::GrantUnexpected => "GrantUnexpected",
            Self::Tombstone => Reason::Tombstone.word(),
            Self::InvokerCheckDisabled => "InvokerCheckDisabled",
        }
    }

    /// The kind with this word.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The reason of the condition `Drifted`.
    #[must_use]
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::PublicPrincipal => Reason::PublicPrincipal,
            Self::LeaverHasForeignGrant => Reason::LeaverHasForeignGrant,
            Self::GrantMissing => Reason::DriftReported,
            Self::ConditionChanged => Reason::ConditionChanged,
            Self::TargetRecreated => Reason::TargetRecreated,
            Self::GrantRemains => Reason::GrantRemains,
            Self::GrantUnexpected => Reason::ForeignMembers,
            Self::Tombstone => Reason::Tombstone,
            Self::InvokerCheckDisabled => Reason::InvokerIamDisabled,
        }
    }
}

/// The identity of one difference in a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DriftKey {
    /// The kind.
    pub(crate) kind: DriftKind,
    /// The role as the document spells it; empty for a difference of the whole resource.
    pub(crate) role: String,
    /// The condition of the grant.
    pub(crate) condition: ConditionHash,
    /// The member; none for a difference of the whole resource.
    pub(crate) member: Option<MemberKey>,
}

impl DriftKey {
    /// A difference of the whole resource.
    #[must_use]
    pub(crate) fn of_resource(kind: DriftKind) -> Self {
        Self { kind, role: String::new(), condition: ConditionHash::default(), member: None }
    }
}

/// The mappings and the subject that a difference concerns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Concerns {
    /// The mappings; empty: all that reach the document.
    pub(crate) mappings: BTreeSet<MappingKey>,
    /// The subject for whom the grant is claimed, or was.
    pub(crate) subject: Option<Subject>,
}

/// The differences of a document.
pub(crate) type Differences = BTreeMap<DriftKey, Concerns>;

/// A difference, and since when it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Time of the first observation.
    pub(crate) first_seen: Timestamp,
    /// The mappings and the subject that it concerns.
    pub(crate) concerns: Concerns,
}

/// Changes of the stored differences of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DriftChanges {
    /// New and changed ones.
    pub(crate) put: BTreeMap<DriftKey, Difference>,
    /// Those that are over.
    pub(crate) remove: BTreeSet<DriftKey>,
}

impl DriftChanges {
    /// These changes and then the others.
    #[must_use]
    pub(crate) fn followed_by(mut self, later: Self) -> Self {
        for key in later.remove {
            self.put.remove(&key);
            self.remove.insert(key);
        }
        for (key, difference) in later.put {
            self.remove.remove(&key);
            self.put.insert(key, difference);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_written_as_its_word_and_former_words_are_understood() {
        for kind in DriftKind::ALL {
            assert_eq!(DriftKind::from_word(kind.word()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        assert!(DriftKind::ALL.is_sorted());
        for (former, kind) in [
            ("Missing", DriftKind::GrantMissing),
            ("Foreign", DriftKind::GrantUnexpected),
            ("Unowned", DriftKind::GrantUnexpected),
            ("Remains", DriftKind::GrantRemains),
        ] {
            assert_eq!(serde_json::from_value::<DriftKind>(former.into()).unwrap(), kind);
        }
    }
}
