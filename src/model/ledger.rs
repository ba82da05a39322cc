//! What rolecall remembers about grants: whose they are, who claims them, what is under way, and the audit row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Condition, DocumentKey, GrantKey, GroupId, MappingKey, MemberKey, ProviderName, Seq, UserId, pairs};

/// Whom a claim is made for. People are ids here; names stand elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// One person.
    User(UserId),
    /// A group bound as one principal.
    Group(GroupId),
}

/// One reason for a grant: this mapping wants it for this subject. A grant goes when its last claim goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Which mapping.
    pub mapping: MappingKey,
    /// For whom.
    pub subject: Subject,
}

/// Where a claim came from when it was last wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ground {
    /// The provider of the subject.
    pub provider: ProviderName,
    /// The groups of the mapping that gave it.
    pub groups: BTreeSet<GroupId>,
    /// Which object of the mapping's name made the claim; none where that is not known.
    pub mapping_uid: Option<Arc<str>>,
    /// Generation of the mapping when the rest of this was recorded.
    pub generation: Option<i64>,
}

impl Ground {
    /// True when both say the same but for the generation, which alone is no reason to record a claim again.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        (&self.provider, &self.groups, &self.mapping_uid) == (&other.provider, &other.groups, &other.mapping_uid)
    }
}

/// A claim as an audit row names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditClaim {
    /// Which mapping.
    pub mapping: MappingKey,
    /// Which object of that name, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its generation, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// For whom, as an id.
    pub subject: String,
}

/// Whose a grant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GrantState {
    /// Wanted, not (yet) granted by us and not known to be there.
    Wanted,
    /// rolecall granted it: removed when the last claim goes.
    Owned,
    /// Wanted, but it was there before us: never removed.
    Unowned,
    /// rolecall granted it and saw it gone: not owned until granted again.
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

/// What a call to Google is about to do to one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IntentAction {
    /// Put the member in.
    Grant,
    /// Take the member out.
    Revoke,
}

/// Written before the call, cleared when the outcome is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What the call does.
    pub action: IntentAction,
    /// The revision that the call was made upon (of a policy of Google: its etag).
    pub revision_before: String,
    /// Was the member in the policy before the call?
    pub present_before: bool,
    /// When the intent was written.
    pub at: Timestamp,
    /// Hash of the plan the call belongs to.
    pub plan_hash: String,
}

/// What the ledger holds about one grant in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRow {
    /// Role, condition, member (folded).
    pub grant: GrantKey,
    /// The member as it is written to Google.
    pub member: String,
    /// The condition as it is written to Google.
    pub condition: Option<Condition>,
    /// Whose it is.
    pub state: GrantState,
    /// What is under way, if anything.
    pub intent: Option<Intent>,
    /// Why it is wanted. Empty: nobody wants it any more.
    pub claims: BTreeSet<Claim>,
    /// Where the claims came from, as far as that is known: a first version did not remember it.
    #[serde(with = "pairs")]
    pub grounds: BTreeMap<Claim, Ground>,
    /// When the set call that granted it returned 2xx.
    pub acknowledged_at: Option<Timestamp>,
    /// When a read begun after that saw it.
    pub verified_at: Option<Timestamp>,
    /// Since when it should be gone and is not (`oldestRevokingSince`).
    pub revoking_since: Option<Timestamp>,
    /// The guard held its removal at least once since then.
    pub held: bool,
    /// The uid of the resource on whose policy the grant was written, as far as it was known. A resource of another uid
    /// has another policy.
    pub resource_uid: Option<String>,
    /// The spellings under which Google keeps the member, where they are not that of `member` (an alias becomes the
    /// primary address). Empty: as it was sent. A spelling that stands in several rows belongs to all of them, because they
    /// cannot be told apart.
    pub stored_as: BTreeSet<String>,
}

impl LedgerRow {
    /// The keys under which the grant may stand in the policy.
    pub fn spellings(&self) -> impl Iterator<Item = GrantKey> + '_ {
        let stored =
            self.stored_as.iter().map(|member| GrantKey { member: MemberKey::of(member), ..self.grant.clone() });
        let sent = self.stored_as.is_empty().then(|| self.grant.clone());
        sent.into_iter().chain(stored)
    }
}

/// What is remembered about the versions of one policy document: the last acknowledged write, and what stood beside our
/// grants in its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// What the last acknowledged write returned (of a policy of Google: its etag). A document that is read with it is the
    /// current one.
    pub id: String,
    /// [`GrantKey::digest`] of all members that stood under roles of ours in that answer and were not ours.
    pub beside: BTreeSet<String>,
    /// The uid of the resource, as far as it was known.
    pub resource_uid: Option<String>,
}

/// A write that Google acknowledged, as the store remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcknowledgedWrite {
    /// What is in force now.
    pub revision: Revision,
    /// Revisions that are known to be older from now on.
    pub superseded: BTreeSet<String>,
    /// When the write was acknowledged.
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
    /// Forget the row.
    Remove(GrantKey),
}

/// How an audited action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditOutcome {
    /// Written before the call.
    Intended,
    /// Google returned 2xx.
    Acknowledged,
    /// Seen in a read begun after the acknowledgement.
    Verified,
    /// The call failed and may be tried again.
    Failed,
    /// A guard keeps it from being written.
    Held,
    /// Google refused it definitively.
    Refused,
    /// The outcome was unknown and the later state does not tell who did it (`AttributionAmbiguous`).
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
    /// When.
    pub at: Timestamp,
    /// `idp:NAME/TOKEN`, `mapping:NAMESPACE/NAME@GENERATION`, `drift`, `expiry`, `approver:NAME`; of configuration:
    /// `manager:NAME`, `file:PATH`, `cluster`, `command`.
    pub actor: String,
    /// The request that caused it, where there is one.
    pub request_id: Option<String>,
    /// Event-log positions that caused it.
    pub cause_seqs: Vec<Seq>,
    /// Which policy document; none for directory actions.
    pub document: Option<DocumentKey>,
    /// The uid of the resource behind the document, when known.
    pub resource_uid: Option<String>,
    /// A stable word: `grant`, `revoke`, `lost`, `forget`, `remains`, `abandon`, `user.create`, `user.deactivate`,
    /// `group.member.add` and the like; of configuration `mapping.apply`, `target.change`, `provider.remove`, `token.add`,
    /// `delegation.change`, `mode.change`, `store.accept` and the like.
    pub action: String,
    /// Which grant.
    pub grant: Option<GrantKey>,
    /// For whom, as an id: the subject of the first claim of a grant.
    pub subject: Option<String>,
    /// All claims of the grant.
    pub claims: Vec<AuditClaim>,
    /// The plan it belongs to.
    pub plan_hash: Option<String>,
    /// The revision that the call was made upon.
    pub revision_before: Option<String>,
    /// The revision that the call returned.
    pub revision_after: Option<String>,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// The stable reason word, where there is one.
    pub reason: Option<String>,
}

/// A group name as a mapping meant it, fixed to the id it meant when it was first resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pin {
    /// The mapping that named the group.
    pub mapping: MappingKey,
    /// The tenant.
    pub provider: ProviderName,
    /// How it was named: `displayName:team-checkout` or `externalId:00g1abcd`.
    pub selector: String,
    /// The group that it means.
    pub group: GroupId,
}
