//! The ledger: who owns each grant, who claims it, which call is in progress, and the audit rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Condition, DocumentKey, GrantKey, GroupId, MappingKey, MemberKey, ProviderName, Seq, UserId, pairs};

/// The subject of a claim. People are ids here; their names are stored elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// One person.
    User(UserId),
    /// A group bound as one principal.
    Group(GroupId),
}

/// One reason for a grant: this mapping wants it for this subject. A grant is removed when its last claim ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The mapping.
    pub mapping: MappingKey,
    /// The subject.
    pub subject: Subject,
}

/// Where a claim came from when it was last wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ground {
    /// The provider of the subject.
    pub provider: ProviderName,
    /// The groups of the mapping that gave the claim.
    pub groups: BTreeSet<GroupId>,
    /// The uid of the mapping object that made the claim; none where it is not known.
    pub mapping_uid: Option<Arc<str>>,
    /// Generation of the mapping when the other fields were recorded.
    pub generation: Option<i64>,
}

impl Ground {
    /// True when both are equal except for the generation, which alone is no reason to record a claim again.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        (&self.provider, &self.groups, &self.mapping_uid) == (&other.provider, &other.groups, &other.mapping_uid)
    }
}

/// A claim as an audit row refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditClaim {
    /// The mapping.
    pub mapping: MappingKey,
    /// The uid of the mapping object, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The generation of the mapping, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The subject, as an id.
    pub subject: String,
}

/// Ownership of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GrantState {
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
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Owned => "owned",
            Self::Unowned => "unowned",
            Self::Lost => "lost",
        }
    }

    /// The state whose stored word this is.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Wanted, Self::Owned, Self::Unowned, Self::Lost].into_iter().find(|state| state.as_str() == word)
    }
}

/// The change that a call to Google makes to one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IntentAction {
    /// Add the member.
    Grant,
    /// Remove the member.
    Revoke,
}

/// A planned change of one grant, written before the call and cleared when the outcome is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The change.
    pub action: IntentAction,
    /// The revision that the call is conditional on (for a policy of Google: its etag).
    pub revision_before: String,
    /// Whether the member was in the policy before the call.
    pub present_before: bool,
    /// Time at which the intent was written.
    pub at: Timestamp,
    /// Hash of the plan that the call belongs to.
    pub plan_hash: String,
}

/// The ledger's row for one grant in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRow {
    /// Role, condition, member (folded).
    pub grant: GrantKey,
    /// The member as written to Google.
    pub member: String,
    /// The condition as written to Google.
    pub condition: Option<Condition>,
    /// Ownership of the grant.
    pub state: GrantState,
    /// The intent of a call whose outcome is not known yet, if any.
    pub intent: Option<Intent>,
    /// The claims for the grant. Empty: no mapping wants it any more.
    pub claims: BTreeSet<Claim>,
    /// Where the claims came from, where that is known; the first version did not record it.
    #[serde(with = "pairs")]
    pub grounds: BTreeMap<Claim, Ground>,
    /// Time at which the set call that granted it returned 2xx.
    pub acknowledged_at: Option<Timestamp>,
    /// Time at which a read that began after the acknowledgement showed the grant.
    pub verified_at: Option<Timestamp>,
    /// Since when the grant should be gone but is not (`oldestRevokingSince`).
    pub revoking_since: Option<Timestamp>,
    /// True when the guard has held the removal at least once since then.
    pub held: bool,
    /// The uid of the resource on whose policy the grant was written, where known. A resource with another uid has
    /// another policy.
    pub resource_uid: Option<String>,
    /// The spellings under which Google stores the member, where they differ from `member` (an alias becomes the
    /// primary address). Empty: as it was sent. A spelling that is in several rows belongs to all of them, because the
    /// rows cannot be told apart.
    pub stored_as: BTreeSet<String>,
}

impl LedgerRow {
    /// The keys under which the grant may be in the policy.
    pub fn spellings(&self) -> impl Iterator<Item = GrantKey> + '_ {
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
pub struct Revision {
    /// The revision that the last acknowledged write returned (for a policy of Google: its etag). A read with this
    /// revision is current.
    pub id: String,
    /// [`GrantKey::digest`] of every member in that answer that was under a managed role and was not granted by
    /// rolecall.
    pub beside: BTreeSet<String>,
    /// The uid of the resource, where it was known.
    pub resource_uid: Option<String>,
}

/// A write that Google acknowledged, as the store records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcknowledgedWrite {
    /// The revision that is in force now.
    pub revision: Revision,
    /// Revisions that are known to be older than it.
    pub superseded: BTreeSet<String>,
    /// Time of the acknowledgement.
    pub at: Timestamp,
}

/// One change of the ledger. A batch of them is one transaction, together with its audit rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all changes are `Put`; a box would only add an allocation to each"
)]
pub enum LedgerChange {
    /// Insert or replace the row of this grant.
    Put(LedgerRow),
    /// Delete the row.
    Remove(GrantKey),
}

/// The outcome of an audited action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditOutcome {
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
    pub fn as_str(self) -> &'static str {
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
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Intended, Self::Acknowledged, Self::Verified, Self::Failed, Self::Held, Self::Refused, Self::Ambiguous]
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }
}

/// One audit row before the store gives it a `seq` and the hash of its predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The time of the action.
    pub at: Timestamp,
    /// `idp:NAME/TOKEN`, `mapping:NAMESPACE/NAME@GENERATION`, `drift`, `expiry`, `approver:NAME`; of configuration:
    /// `manager:NAME`, `file:PATH`, `cluster`, `command`.
    pub actor: String,
    /// The request that caused it, if any.
    pub request_id: Option<String>,
    /// Positions in the event log that caused it.
    pub cause_seqs: Vec<Seq>,
    /// The policy document; none for directory actions.
    pub document: Option<DocumentKey>,
    /// The uid of the resource behind the document, where known.
    pub resource_uid: Option<String>,
    /// A stable word: `grant`, `revoke`, `lost`, `forget`, `remains`, `abandon`, `user.create`, `user.deactivate`,
    /// `group.member.add` and the like; of configuration `mapping.apply`, `target.change`, `provider.remove`, `token.add`,
    /// `delegation.change`, `mode.change`, `store.accept` and the like.
    pub action: String,
    /// The grant.
    pub grant: Option<GrantKey>,
    /// The id of the subject of the grant's first claim.
    pub subject: Option<String>,
    /// All claims of the grant.
    pub claims: Vec<AuditClaim>,
    /// The plan that the action belongs to.
    pub plan_hash: Option<String>,
    /// The revision that the call was conditional on.
    pub revision_before: Option<String>,
    /// The revision that the call returned.
    pub revision_after: Option<String>,
    /// The outcome.
    pub outcome: AuditOutcome,
    /// The stable reason word, if any.
    pub reason: Option<String>,
}

/// A group name used by a mapping, fixed to the id that it had when it was first resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pin {
    /// The mapping that named the group.
    pub mapping: MappingKey,
    /// The tenant.
    pub provider: ProviderName,
    /// The selector: `displayName:team-checkout` or `externalId:00g1abcd`.
    pub selector: String,
    /// The group that it refers to.
    pub group: GroupId,
}
