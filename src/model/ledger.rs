//! The ledger: who owns each grant, who claims it, which call is in progress, and the audit rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Condition, DocumentKey, GrantKey, GroupId, MappingKey, MemberKey, ProviderName, Seq, UserId, pairs};

/// The subject of a claim. People are ids here; their names are stored elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Subject {
    /// One person.
    User(UserId),
    /// A group bound as one principal.
    Group(GroupId),
}

impl Subject {
    /// The id.
    #[must_use]
    pub(crate) fn id(self) -> uuid::Uuid {
        match self {
            Self::User(id) => id.0,
            Self::Group(id) => id.0,
        }
    }
}

/// One reason for a grant: this mapping wants it for this subject. A grant is removed when its last claim ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// The mapping.
    pub(crate) mapping: MappingKey,
    /// The subject.
    pub(crate) subject: Subject,
}

/// Where a claim came from when it was last wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ground {
    /// The provider of the subject.
    pub(crate) provider: ProviderName,
    /// The groups of the mapping that gave the claim.
    pub(crate) groups: BTreeSet<GroupId>,
    /// The groups nested in them that the subject was a direct member of; empty for a direct member.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) through: BTreeSet<GroupId>,
    /// The uid of the mapping object that made the claim; none where it is not known.
    pub(crate) mapping_uid: Option<Arc<str>>,
    /// Generation of the mapping when the other fields were recorded.
    pub(crate) generation: Option<i64>,
    /// The time at which the claim ends by itself (`notAfter`); none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<Timestamp>,
}

impl Ground {
    /// True when the claim ended by itself at this time or before.
    #[must_use]
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }

    /// True when both are equal except for the generation, which alone is no reason to record a claim again.
    #[must_use]
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let Self { provider, groups, through, mapping_uid, generation: _, not_after } = self;
        (provider, groups, through, mapping_uid, not_after)
            == (&other.provider, &other.groups, &other.through, &other.mapping_uid, &other.not_after)
    }
}

/// A claim as an audit row refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditClaim {
    /// The mapping.
    pub(crate) mapping: MappingKey,
    /// The uid of the mapping object, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// The generation of the mapping, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    /// The subject, as an id.
    pub(crate) subject: String,
}

/// Ownership of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum GrantState {
    /// Wanted, not yet granted by rolecall and not known to be in the policy.
    Wanted,
    /// Granted by rolecall; removed when the last claim ends.
    Owned,
    /// Wanted, but in the policy before rolecall could grant it; never removed.
    Unowned,
    /// Granted by rolecall and later found missing; not owned until it is granted again.
    Lost,
}

impl GrantState {
    /// The stored word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Owned => "owned",
            Self::Unowned => "unowned",
            Self::Lost => "lost",
        }
    }

    /// The state whose stored word this is.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Wanted, Self::Owned, Self::Unowned, Self::Lost].into_iter().find(|state| state.as_str() == word)
    }
}

/// The change that a call to Google makes to one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum IntentAction {
    /// Add the member.
    Grant,
    /// Remove the member.
    Revoke,
}

/// A planned change of one grant, written before the call and cleared when the outcome is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// The change.
    pub(crate) action: IntentAction,
    /// The revision that the call is conditional on (for a policy of Google: its etag).
    pub(crate) revision_before: String,
    /// Whether the member was in the policy before the call.
    pub(crate) present_before: bool,
    /// Time at which the intent was written.
    pub(crate) at: Timestamp,
    /// Hash of the plan that the call belongs to.
    pub(crate) plan_hash: String,
}

/// The ledger's row for one grant in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LedgerRow {
    /// Role, condition, member (folded).
    pub(crate) grant: GrantKey,
    /// The member as written to Google.
    pub(crate) member: String,
    /// The condition as written to Google.
    pub(crate) condition: Option<Condition>,
    /// Ownership of the grant.
    pub(crate) state: GrantState,
    /// The intent of a call whose outcome is not known yet, if any.
    pub(crate) intent: Option<Intent>,
    /// The claims for the grant. Empty: no mapping wants it any more.
    pub(crate) claims: BTreeSet<Claim>,
    /// Where the claims came from, where that is known; the first version did not record it.
    #[serde(with = "pairs")]
    pub(crate) grounds: BTreeMap<Claim, Ground>,
    /// Time at which the set call that granted it returned 2xx.
    pub(crate) acknowledged_at: Option<Timestamp>,
    /// Time at which a read that began after the acknowledgement showed the grant.
    pub(crate) verified_at: Option<Timestamp>,
    /// Since when the grant should be gone but is not (`oldestRevokingSince`).
    pub(crate) revoking_since: Option<Timestamp>,
    /// True when the guard has held the removal at least once since then.
    pub(crate) held: bool,
    /// The uid of the resource on whose policy the grant was written, where known. A resource with another uid has
    /// another policy.
    pub(crate) resource_uid: Option<String>,
    /// The spellings under which Google stores the member, where they differ from `member` (an alias becomes the
    /// primary address). Empty: as it was sent. A spelling that is in several rows belongs to all of them, because the
    /// rows cannot be told apart.
    pub(crate) stored_as: BTreeSet<String>,
    /// Since when everybody for whom the grant was wanted has left, while a grant that somebody else made stays. Then the
    /// claims are theirs.
    #[serde(default)]
    pub(crate) left_at: Option<Timestamp>,
}

impl LedgerRow {
    /// The keys under which the grant may be in the policy.
    pub(crate) fn spellings(&self) -> impl Iterator<Item = GrantKey> + '_ {
        let stored =
            self.stored_as.iter().map(|member| GrantKey { member: MemberKey::of(member), ..self.grant.clone() });
        let sent = self.stored_as.is_empty().then(|| self.grant.clone());
        sent.into_iter().chain(stored)
    }
}

/// What the ledger stores about the versions of one policy document: the last acknowledged write, and the other members
/// in Google's answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revision {
    /// The revision that the last acknowledged write returned (for a policy of Google: its etag). A read with this
    /// revision is current.
    pub(crate) id: String,
    /// [`GrantKey::digest`] of every member in that answer that was under a managed role and was not granted by
    /// rolecall.
    pub(crate) beside: BTreeSet<String>,
    /// The uid of the resource, where it was known.
    pub(crate) resource_uid: Option<String>,
}

/// A write that Google acknowledged, as the store records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AcknowledgedWrite {
    /// The revision that is in force now.
    pub(crate) revision: Revision,
    /// Revisions that are known to be older than it.
    pub(crate) superseded: BTreeSet<String>,
    /// Time of the acknowledgement.
    pub(crate) at: Timestamp,
}

/// One change of the ledger. A batch of them is one transaction, together with its audit rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all changes are `Put`; a box would only add an allocation to each"
)]
pub(crate) enum LedgerChange {
    /// Insert or replace the row of this grant.
    Put(LedgerRow),
    /// Delete the row.
    Remove(GrantKey),
}

/// The outcome of an audited action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum AuditOutcome {
    /// Written before the call.
    Intended,
    /// Google returned 2xx.
    Acknowledged,
    /// Observed in a read that began after the acknowledgement.
    Verified,
    /// The call failed and may be retried.
    Failed,
    /// Withheld by the guard.
    Held,
    /// Google refused it definitively.
    Refused,
    /// The outcome was unknown, and the later state does not show who made the change (`AttributionAmbiguous`).
    Ambiguous,
}

impl AuditOutcome {
    /// The stored word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Acknowledged => "acknowledged",
            Self::Verified => "verified",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Refused => "refused",
            Self::Ambiguous => "ambiguous",
        }
    }

    /// The outcome whose stored word this is.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Intended, Self::Acknowledged, Self::Verified, Self::Failed, Self::Held, Self::Refused, Self::Ambiguous]
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }
}

/// One audit row before the store gives it a `seq` and the hash of its predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    /// The time of the action.
    pub(crate) at: Timestamp,
    /// `idp:NAME/TOKEN`, `mapping:NAMESPACE/NAME@GENERATION`, `drift`, `expiry`, `approver:NAME`; of configuration:
    /// `manager:NAME`, `file:PATH`, `cluster`, `command`.
    pub(crate) actor: String,
    /// The request that caused it, if any.
    pub(crate) request_id: Option<String>,
    /// Positions in the event log that caused it.
    pub(crate) cause_seqs: Vec<Seq>,
    /// The policy document; none for directory actions.
    pub(crate) document: Option<DocumentKey>,
    /// The uid of the resource behind the document, where known.
    pub(crate) resource_uid: Option<String>,
    /// A stable word: `grant`, `revoke`, `adopt`, `lost`, `forget`, `remains`, `abandon`, `user.create`, `user.deactivate`,
    /// `group.member.add` and the like; of configuration `mapping.apply`, `target.change`, `provider.remove`, `token.add`,
    /// `delegation.change`, `mode.change`, `store.accept` and the like.
    pub(crate) action: String,
    /// The grant.
    pub(crate) grant: Option<GrantKey>,
    /// The id of the subject of the grant's first claim.
    pub(crate) subject: Option<String>,
    /// All claims of the grant.
    pub(crate) claims: Vec<AuditClaim>,
    /// The plan that the action belongs to.
    pub(crate) plan_hash: Option<String>,
    /// The revision that the call was conditional on.
    pub(crate) revision_before: Option<String>,
    /// The revision that the call returned.
    pub(crate) revision_after: Option<String>,
    /// The outcome.
    pub(crate) outcome: AuditOutcome,
    /// The stable reason word, if any.
    pub(crate) reason: Option<String>,
}

/// A group name used by a mapping, fixed to the id that it had when it was first resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Pin {
    /// The mapping that named the group.
    pub(crate) mapping: MappingKey,
    /// The tenant.
    pub(crate) provider: ProviderName,
    /// The selector: `displayName:team-checkout` or `externalId:00g1abcd`.
    pub(crate) selector: String,
    /// The group that it refers to.
    pub(crate) group: GroupId,
}
