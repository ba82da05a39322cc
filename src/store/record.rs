//! What goes into the directory part of the store and what comes out of it.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::model::{
    AuditEntry, ClaimDisposal, FreezeReason, GroupFacts, MappingPhase, MemberChange, ProviderName, Seq, UserFacts,
};
use crate::scim::Filter;

/// On whose behalf a directory change is made: becomes the actor and the request id of its audit row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name of the token that was shown; never the token.
    pub token: String,
    /// The id of the HTTP request, where there is one.
    pub request_id: Option<String>,
}

impl Origin {
    /// The audit actor: `idp:PROVIDER/TOKEN`.
    #[must_use]
    pub fn actor(&self, provider: &ProviderName) -> String {
        format!("idp:{provider}/{}", self.token)
    }
}

/// A user that is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUser {
    /// The SCIM resource without `id`, `meta` and `groups`, which the server itself answers.
    pub resource: Value,
    /// What is looked up and what access depends on; `facts.id` is the id that is issued.
    pub facts: UserFacts,
}

/// What a user becomes. `facts.id` must stay what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct UserUpdate {
    /// The whole new SCIM resource, as in [`NewUser`].
    pub resource: Value,
    /// The facts that belong to it.
    pub facts: UserFacts,
}

/// A stored user.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRecord {
    /// The SCIM resource as in [`NewUser`].
    pub resource: Value,
    /// The facts, with the id.
    pub facts: UserFacts,
    /// Counts the changes of this user, from 1: the stuff of `meta.version`.
    pub version: i64,
    /// `meta.created`.
    pub created_at: Timestamp,
    /// `meta.lastModified`: moves only when something changed.
    pub updated_at: Timestamp,
}

/// A group that is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGroup {
    /// The SCIM resource without `id`, `meta` and `members`.
    pub resource: Value,
    /// What is looked up; `facts.id` is the id that is issued.
    pub facts: GroupFacts,
    /// Ids of users and groups. Unknown ids are parked until they exist.
    pub members: Vec<Uuid>,
}

/// A stored group, without its members.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRecord {
    /// The SCIM resource as in [`NewGroup`].
    pub resource: Value,
    /// The facts, with the id.
    pub facts: GroupFacts,
    /// How many members it has: users and groups, without parked ids.
    pub member_count: u64,
    /// Counts the changes of this group and of its membership, from 1: the stuff of `meta.version`.
    pub version: i64,
    /// `meta.created`.
    pub created_at: Timestamp,
    /// `meta.lastModified`: moves only when something changed.
    pub updated_at: Timestamp,
}

/// What is to change in a group. All of it, or nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupUpdate {
    /// The whole new SCIM resource, when it changes.
    pub resource: Option<Value>,
    /// The facts that belong to it, when they change. The id must stay what it was.
    pub facts: Option<GroupFacts>,
    /// Changes of the membership, applied in this order.
    pub members: Vec<MemberChange>,
    /// Only on the version that was read (`If-Match`). Otherwise the members may have changed since.
    pub same_version: bool,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberKind {
    /// A user.
    User,
    /// A group (stored, never expanded).
    Group,
}

/// One member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberRecord {
    /// The id of the user or group.
    pub id: Uuid,
    /// Which of both.
    pub kind: MemberKind,
}

/// A group that somebody is a direct member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: crate::model::GroupId,
    /// Its `displayName`.
    pub display_name: String,
}

/// What an update did to the membership of a group, in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberDelta {
    /// Members before.
    pub before: u64,
    /// Members after.
    pub after: u64,
    /// Users and groups that became members.
    pub added: u64,
    /// Users and groups that ceased to be members.
    pub removed: u64,
    /// Of those added: groups, which are stored and not expanded.
    pub nested: u64,
    /// Unknown ids that were parked.
    pub parked: u64,
}

/// A group after a create or an update, and what happened to its membership.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupChanged {
    /// The group as it is now.
    pub group: GroupRecord,
    /// What happened to its membership.
    pub members: MemberDelta,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateOutcome<R, E> {
    /// Stored; the resource as it is now.
    Changed(R),
    /// Nothing differed: nothing was written, version and `lastModified` stand.
    Unchanged(R),
    /// There is no such resource with this provider.
    NotFound,
    /// The caller's function refused.
    Refused(E),
}

/// How a delete ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// It is gone.
    Deleted,
    /// There is no such resource with this provider.
    NotFound,
    /// It has another version than the caller asked for; nothing was deleted.
    VersionDiffers,
}

/// Which users or groups to list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    /// What must hold, with the names of the schema ([`Filter::resolved`]); none means all.
    pub filter: Option<Filter>,
    /// Position of the first result, from 1 (RFC 7644 §3.4.2.4).
    pub start_index: u64,
    /// How many results at most; 0 asks for the total only.
    pub count: u64,
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The results, in the order of their creation.
    pub items: Vec<T>,
    /// `totalResults`: exact.
    pub total: u64,
}

/// A row of a list that is not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRow {
    /// Where it is.
    pub position: i64,
    /// How many bytes of it are to be read, its members aside.
    pub bytes: u64,
    /// How many members it has; 0 for a user.
    pub members: u64,
}

/// Part of a list, to be read row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPlan {
    /// The rows, in the order of their creation.
    pub rows: Vec<PlannedRow>,
    /// `totalResults`: exact.
    pub total: u64,
}

/// How large the directory of one provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Users, inactive ones included.
    pub users: u64,
    /// Groups.
    pub groups: u64,
    /// Memberships of ids that are not known (yet).
    pub pending: u64,
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Position in the log, from 1, without gaps.
    pub seq: i64,
    /// What was written. When the names of a person were erased, the member of `grant` reads `erased`.
    pub entry: AuditEntry,
    /// The name that belonged to the subject then; none when there is none, or it was erased.
    pub name: Option<String>,
    /// Counts of a membership change, as JSON.
    pub detail: Option<String>,
    /// SHA-256 over this row without its names and over the hash of the row before, as 64 hex digits.
    pub hash: String,
}

/// A custom resource as it last parsed, so that a restart in a bad moment removes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSpec {
    /// The kind.
    pub kind: String,
    /// The namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// `metadata.generation`, or what stands for it in folder mode.
    pub generation: i64,
    /// Where it stands.
    pub state: SpecState,
    /// Which file it came from; empty in a cluster.
    pub source: String,
    /// The resource as JSON. Tokens only as SHA-256.
    pub json: String,
}

/// Phase of a version of a custom resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecPhase {
    /// In force.
    Active,
    /// Deleted properly; its claims are being ended.
    Terminating,
    /// Gone without a deletion that anybody saw; its claims are frozen.
    Missing,
    /// Nothing is left of it. A later version of the same name is another object.
    Removed,
}

impl SpecPhase {
    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Terminating => "terminating",
            Self::Missing => "missing",
            Self::Removed => "removed",
        }
    }

    /// The phase whose stored word this is.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Terminating, Self::Missing, Self::Removed].into_iter().find(|it| it.as_str() == word)
    }
}

impl From<SpecState> for SpecPhase {
    fn from(state: SpecState) -> Self {
        match state {
            SpecState::Active => Self::Active,
            SpecState::Ending => Self::Terminating,
            SpecState::Vanished => Self::Missing,
        }
    }
}

/// One version of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecVersion {
    /// Position in the one sequence that the event log shares.
    pub seq: Seq,
    /// When it was stored.
    pub at: Timestamp,
    /// The kind.
    pub kind: String,
    /// The namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// Which object of that name: the uid of the API server, or one generated for each life of an object of a folder.
    pub uid: String,
    /// `metadata.generation`, or its substitute in folder mode.
    pub generation: i64,
    /// Its phase from then on.
    pub phase: SpecPhase,
    /// Field manager or file that wrote it, as far as known.
    pub written_by: Option<String>,
    /// Which file it came from.
    pub source: String,
    /// The resource as JSON, without status; none when it was removed.
    pub json: Option<String>,
}

/// Names a version of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRef {
    /// Its position.
    pub seq: Seq,
    /// The uid of its object.
    pub uid: String,
    /// True when it was appended now; false when nothing had changed since.
    pub is_new: bool,
}

/// Where a stored custom resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecState {
    /// In force.
    Active,
    /// Deleted properly; its claims are being ended.
    Ending,
    /// Gone without a deletion that anybody saw; its claims are frozen.
    Vanished,
}

impl From<MappingPhase> for SpecState {
    fn from(phase: MappingPhase) -> Self {
        match phase {
            MappingPhase::Live => Self::Active,
            MappingPhase::Missing(_) => Self::Vanished,
            MappingPhase::Terminating(_)
            | MappingPhase::ApprovedForRemoval(_)
            | MappingPhase::RevocationDeferred(_)
            | MappingPhase::Orphaned => Self::Ending,
        }
    }
}

impl SpecState {
    /// The phase of a mapping that is restored from here. `claims`: what its stored spec says about its end.
    #[must_use]
    pub fn phase(self, claims: ClaimDisposal) -> MappingPhase {
        match self {
            Self::Active => MappingPhase::Live,
            Self::Ending => MappingPhase::Terminating(claims),
            Self::Vanished => MappingPhase::Missing(FreezeReason::MappingVanished),
        }
    }

    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Ending => "ending",
            Self::Vanished => "vanished",
        }
    }

    /// The state whose stored word this is.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Ending, Self::Vanished].into_iter().find(|state| state.as_str() == word)
    }
}
