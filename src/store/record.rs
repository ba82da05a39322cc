//! Input and output types of the directory part of the store.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::model::{AuditEntry, GroupFacts, Kind, MappingPhase, MemberChange, ProviderName, Seq, UserFacts};
use crate::scim::Filter;

/// Origin of a directory change: the actor and the request id of its audit row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name of the presented token; never the token itself.
    pub token: String,
    /// The id of the HTTP request, if any.
    pub request_id: Option<String>,
}

impl Origin {
    /// The audit actor: `idp:PROVIDER/TOKEN`.
    #[must_use]
    pub fn actor(&self, provider: &ProviderName) -> String {
        format!("idp:{provider}/{}", self.token)
    }
}

/// A user to store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUser {
    /// The SCIM resource without `id`, `meta` and `groups`, which the server adds to answers.
    pub resource: Value,
    /// Facts for look-ups and access; `facts.id` is the newly issued id.
    pub facts: UserFacts,
}

/// The new state of a user. `facts.id` must not change.
#[derive(Debug, Clone, PartialEq)]
pub struct UserUpdate {
    /// The whole new SCIM resource, as in [`NewUser`].
    pub resource: Value,
    /// The matching facts.
    pub facts: UserFacts,
}

/// A stored user.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRecord {
    /// The SCIM resource as in [`NewUser`].
    pub resource: Value,
    /// The facts, with the id.
    pub facts: UserFacts,
    /// Revision of this user, starting at 1; source of `meta.version`.
    pub version: i64,
    /// `meta.created`.
    pub created_at: Timestamp,
    /// `meta.lastModified`: changes only when something else changed.
    pub updated_at: Timestamp,
}

/// A group to store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGroup {
    /// The SCIM resource without `id`, `meta` and `members`.
    pub resource: Value,
    /// Facts for look-ups; `facts.id` is the newly issued id.
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
    /// Number of members: users and groups, without parked ids.
    pub member_count: u64,
    /// Revision of this group and its membership, starting at 1; source of `meta.version`.
    pub version: i64,
    /// `meta.created`.
    pub created_at: Timestamp,
    /// `meta.lastModified`: changes only when something else changed.
    pub updated_at: Timestamp,
}

/// The changes of a group, which take effect as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupUpdate {
    /// The whole new SCIM resource, if it changes.
    pub resource: Option<Value>,
    /// The matching facts, if they change. The id must not change.
    pub facts: Option<GroupFacts>,
    /// Changes of the membership, in this order.
    pub members: Vec<MemberChange>,
    /// Only apply to the version that was read (`If-Match`). Otherwise the members may have changed since.
    pub same_version: bool,
}

/// Kind of a member.
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
    /// The kind.
    pub kind: MemberKind,
}

/// A group of a direct member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: crate::model::GroupId,
    /// Its `displayName`.
    pub display_name: String,
}

/// The total effect of an update on the membership of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberDelta {
    /// Number of members before.
    pub before: u64,
    /// Number of members after.
    pub after: u64,
    /// Users and groups that became members.
    pub added: u64,
    /// Users and groups that ceased to be members.
    pub removed: u64,
    /// Groups among the added, which are stored and not expanded.
    pub nested: u64,
    /// Unknown ids that were parked.
    pub parked: u64,
}

/// A group after a create or an update, and the effect on its membership.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupChanged {
    /// The current group.
    pub group: GroupRecord,
    /// The effect on its membership.
    pub members: MemberDelta,
}

/// Outcome of an update.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateOutcome<R, E> {
    /// Stored; with the current resource.
    Changed(R),
    /// No difference: nothing was written, and version and `lastModified` stay.
    Unchanged(R),
    /// There is no such resource with this provider.
    NotFound,
    /// The caller's function refused.
    Refused(E),
}

/// Outcome of a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The resource was deleted.
    Deleted,
    /// There is no such resource with this provider.
    NotFound,
    /// It has another version than requested; nothing was deleted.
    VersionDiffers,
}

/// Query for a list of users or groups.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    /// The filter, with the names of the schema ([`Filter::resolved`]); none means all.
    pub filter: Option<Filter>,
    /// Position of the first result, from 1 (RFC 7644 §3.4.2.4).
    pub start_index: u64,
    /// Largest number of results; 0 requests the total only.
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
    /// Its position.
    pub position: i64,
    /// Number of bytes to read, without members.
    pub bytes: u64,
    /// Number of members; 0 for a user.
    pub members: u64,
}

/// Part of a list, to read row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPlan {
    /// The rows, in the order of their creation.
    pub rows: Vec<PlannedRow>,
    /// `totalResults`: exact.
    pub total: u64,
}

/// Size of the directory of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Users, including inactive ones.
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
    /// The written entry. When the names of a person were erased, the member of `grant` is `erased`.
    pub entry: AuditEntry,
    /// The name of the subject at that time; none when there is none, or it was erased.
    pub name: Option<String>,
    /// Counts of a membership change, as JSON.
    pub detail: Option<String>,
    /// SHA-256 over this row without its names and over the hash of the row before, as 64 hex digits.
    pub hash: String,
}

/// A custom resource as it last parsed successfully, so that a restart at a bad moment removes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSpec {
    /// The kind.
    pub kind: Kind,
    /// The namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// `metadata.generation`, or its substitute in folder mode.
    pub generation: i64,
    /// Its phase. Objects other than mappings are live as long as they are stored. Of a mapping that is not live, the
    /// rest of its phase follows from its spec and the ledger: it is restored as missing, or as terminating.
    pub phase: MappingPhase,
    /// The file it came from; empty in a cluster.
    pub source: String,
    /// The resource as JSON, with tokens as SHA-256 only.
    pub json: String,
}

/// One version of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecVersion {
    /// Position in the sequence shared with the event log.
    pub seq: Seq,
    /// Time at which it was stored.
    pub at: Timestamp,
    /// The kind.
    pub kind: Kind,
    /// The namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// Identity of the object: the uid of the API server, or one generated for each incarnation of an object of a
    /// folder.
    pub uid: String,
    /// `metadata.generation`, or its substitute in folder mode.
    pub generation: i64,
    /// Its phase from then on, as in [`StoredSpec::phase`]; none when it was removed completely, so that a later version
    /// of the same name is another object.
    pub phase: Option<MappingPhase>,
    /// Field manager or file that wrote it, where known.
    pub written_by: Option<String>,
    /// The file it came from.
    pub source: String,
    /// The resource as JSON, without status; none when it was removed.
    pub json: Option<String>,
}

/// Identifies a version of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRef {
    /// Its position.
    pub seq: Seq,
    /// The uid of its object.
    pub uid: String,
    /// True when it was appended by this call; false when nothing had changed.
    pub is_new: bool,
}
