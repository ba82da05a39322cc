//! Input and output types of the directory part of the store.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::model::{AuditEntry, GroupFacts, GroupId, Kind, MappingPhase, MemberChanges, ProviderName, Seq, UserFacts};
use crate::scim::{Filter, ResourceType, Sort, SortKey};

/// Origin of a directory change: the actor and the request id of its audit row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The name of the presented token; never the token itself.
    pub(crate) token: String,
    /// The id of the HTTP request, if any.
    pub(crate) request_id: Option<String>,
}

impl Origin {
    /// The audit actor: `idp:PROVIDER/TOKEN`.
    #[must_use]
    pub(crate) fn actor(&self, provider: &ProviderName) -> String {
        format!("idp:{provider}/{}", self.token)
    }
}

/// A user to store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewUser {
    /// The SCIM resource without `id`, `meta` and `groups`, which the server adds to answers.
    pub(crate) resource: Value,
    /// Facts for look-ups and access; `facts.id` is the newly issued id.
    pub(crate) facts: UserFacts,
}

/// The new state of a user. `facts.id` must not change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UserUpdate {
    /// The whole new SCIM resource, as in [`NewUser`].
    pub(crate) resource: Value,
    /// The matching facts.
    pub(crate) facts: UserFacts,
}

/// A stored user.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UserRecord {
    /// The SCIM resource as in [`NewUser`].
    pub(crate) resource: Value,
    /// The facts, with the id.
    pub(crate) facts: UserFacts,
    /// Revision of this user, starting at 1; source of `meta.version`.
    pub(crate) version: i64,
    /// `meta.created`.
    pub(crate) created_at: Timestamp,
    /// `meta.lastModified`: changes only when something else changed.
    pub(crate) updated_at: Timestamp,
    /// After a write that set the `externalId`: whether another user of the provider has the same one. False when read.
    pub(crate) shares_external_id: bool,
}

/// A resource of a type from a file, to store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewResource {
    /// The newly issued id.
    pub(crate) id: Uuid,
    /// The SCIM resource without `id` and `meta`.
    pub(crate) resource: Value,
}

/// A stored resource of a type from a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScimResource {
    /// The id.
    pub(crate) id: Uuid,
    /// The SCIM resource as in [`NewResource`].
    pub(crate) resource: Value,
    /// Revision, starting at 1; source of `meta.version`.
    pub(crate) version: i64,
    /// `meta.created`.
    pub(crate) created_at: Timestamp,
    /// `meta.lastModified`.
    pub(crate) updated_at: Timestamp,
}

/// A group to store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewGroup {
    /// The SCIM resource without `id`, `meta` and `members`.
    pub(crate) resource: Value,
    /// Facts for look-ups; `facts.id` is the newly issued id.
    pub(crate) facts: GroupFacts,
    /// Additions. Unknown ids are parked until they exist.
    pub(crate) members: MemberChanges,
}

/// A stored group, without its members.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupRecord {
    /// The SCIM resource as in [`NewGroup`].
    pub(crate) resource: Value,
    /// The facts, with the id.
    pub(crate) facts: GroupFacts,
    /// Number of members: users and groups, without parked ids.
    pub(crate) member_count: u64,
    /// Revision of this group and its membership, starting at 1; source of `meta.version`.
    pub(crate) version: i64,
    /// `meta.created`.
    pub(crate) created_at: Timestamp,
    /// `meta.lastModified`: changes only when something else changed.
    pub(crate) updated_at: Timestamp,
    /// After a write that set the `externalId`: whether another group of the provider has the same one. False when read.
    pub(crate) shares_external_id: bool,
}

/// The changes of a group, which take effect as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GroupUpdate {
    /// The whole new SCIM resource, if it changes.
    pub(crate) resource: Option<Value>,
    /// The matching facts, if they change. The id must not change.
    pub(crate) facts: Option<GroupFacts>,
    /// Changes of the membership.
    pub(crate) members: MemberChanges,
    /// Only apply to the version that was read (`If-Match`). Otherwise the members may have changed since.
    pub(crate) same_version: bool,
}

/// A group that a user is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserGroup {
    /// The group.
    pub(crate) id: GroupId,
    /// Its name.
    pub(crate) display_name: String,
    /// Whether the user is a member itself, and not only through another group.
    pub(crate) direct: bool,
}

impl UserGroup {
    /// The element of `groups` of the user. `base` is the tenant's SCIM base URL.
    #[must_use]
    pub(crate) fn rendered(&self, base: &str) -> Value {
        serde_json::json!({
            "value": self.id.to_string(),
            "$ref": format!("{base}{}/{}", ResourceType::Group.endpoint(), self.id),
            "display": self.display_name,
            "type": if self.direct { "direct" } else { "indirect" },
        })
    }
}

/// Kind of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum MemberKind {
    /// A user.
    User,
    /// A group (stored, never expanded).
    Group,
}

/// One member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MemberRecord {
    /// The id of the user or group.
    pub(crate) id: Uuid,
    /// The kind.
    pub(crate) kind: MemberKind,
}

/// A group of a direct member.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The group.
    pub(crate) group: crate::model::GroupId,
    /// Its `displayName`.
    pub(crate) display_name: String,
}

/// The total effect of an update on the membership of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MemberDelta {
    /// Number of members before.
    pub(crate) before: u64,
    /// Number of members after.
    pub(crate) after: u64,
    /// Users and groups that became members.
    pub(crate) added: u64,
    /// Users and groups that ceased to be members.
    pub(crate) removed: u64,
    /// Groups among the added, which are stored and not expanded.
    pub(crate) nested: u64,
    /// Unknown ids that were parked.
    pub(crate) parked: u64,
}

/// A group after a create or an update, and the effect on its membership.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupChanged {
    /// The current group.
    pub(crate) group: GroupRecord,
    /// The effect on its membership.
    pub(crate) members: MemberDelta,
}

/// Outcome of an update.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum UpdateOutcome<R, E> {
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
pub(crate) enum DeleteOutcome {
    /// The resource was deleted.
    Deleted,
    /// There is no such resource with this provider.
    NotFound,
    /// It has another version than requested; nothing was deleted.
    VersionDiffers,
}

/// Query for a list of users or groups.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ListQuery {
    /// The filter, with the names of the schema ([`Filter::resolved`]); none means all.
    pub(crate) filter: Option<Filter>,
    /// Position of the first result, from 1 (RFC 7644 §3.4.2.4).
    pub(crate) start_index: u64,
    /// Largest number of results; 0 requests the total only.
    pub(crate) count: u64,
    /// The order; none means that of creation.
    pub(crate) sort: Option<Sort>,
    /// Only results behind this position, in the order of creation. They count towards the total all the same.
    pub(crate) after: Option<i64>,
    /// The tenant's SCIM base URL, for filters on `meta.location`.
    pub(crate) base: String,
}

/// Part of a list.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page<T> {
    /// The results, in the order of their creation.
    pub(crate) items: Vec<T>,
    /// `totalResults`: exact.
    pub(crate) total: u64,
}

/// A row of a list that is not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedRow {
    /// Its position.
    pub(crate) position: i64,
    /// Number of bytes to read, without members.
    pub(crate) bytes: u64,
    /// Number of members; 0 for a user.
    pub(crate) members: u64,
}

/// A resource of a list that is sorted.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    /// Its row.
    pub(crate) row: PlannedRow,
    /// The value that it is sorted by; [`SortKey::Missing`] where the list is not sorted.
    pub(crate) key: SortKey,
}

/// Part of a list, to read row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListPlan {
    /// The rows, in their order.
    pub(crate) rows: Vec<PlannedRow>,
    /// `totalResults`: exact.
    pub(crate) total: u64,
}

/// Size of the directory of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Users, including inactive ones.
    pub(crate) users: u64,
    /// Groups.
    pub(crate) groups: u64,
    /// Memberships of ids that are not known (yet).
    pub(crate) pending: u64,
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    /// Position in the log, from 1, without gaps.
    pub(crate) seq: i64,
    /// The written entry. When the names of a person were erased, the member of `grant` is `erased`.
    pub(crate) entry: AuditEntry,
    /// The name of the subject at that time; none when there is none, or it was erased.
    pub(crate) name: Option<String>,
    /// Counts of a membership change, as JSON.
    pub(crate) detail: Option<String>,
    /// SHA-256 over this row without its names and over the hash of the row before, as 64 hex digits.
    pub(crate) hash: String,
}

/// A custom resource as it last parsed successfully, so that a restart at a bad moment removes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSpec {
    /// The kind.
    pub(crate) kind: Kind,
    /// The namespace; none for cluster-scoped kinds.
    pub(crate) namespace: Option<String>,
    /// The name.
    pub(crate) name: String,
    /// `metadata.generation`, or its substitute in folder mode.
    pub(crate) generation: i64,
    /// Its phase. Objects other than mappings are live as long as they are stored. Of a mapping that is not live, the
    /// rest of its phase follows from its spec and the ledger: it is restored as missing, or as terminating.
    pub(crate) phase: MappingPhase,
    /// The file it came from; empty in a cluster.
    pub(crate) source: String,
    /// The resource as JSON, with tokens as SHA-256 only.
    pub(crate) json: String,
}

/// One version of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecVersion {
    /// Position in the sequence shared with the event log.
    pub(crate) seq: Seq,
    /// Time at which it was stored.
    pub(crate) at: Timestamp,
    /// The kind.
    pub(crate) kind: Kind,
    /// The namespace; none for cluster-scoped kinds.
    pub(crate) namespace: Option<String>,
    /// The name.
    pub(crate) name: String,
    /// Identity of the object: the uid of the API server, or one generated for each incarnation of an object of a
    /// folder.
    pub(crate) uid: String,
    /// `metadata.generation`, or its substitute in folder mode.
    pub(crate) generation: i64,
    /// Its phase from then on, as in [`StoredSpec::phase`]; none when it was removed completely, so that a later version
    /// of the same name is another object.
    pub(crate) phase: Option<MappingPhase>,
    /// Field manager or file that wrote it, where known.
    pub(crate) written_by: Option<String>,
    /// The file it came from.
    pub(crate) source: String,
    /// The resource as JSON, without status; none when it was removed.
    pub(crate) json: Option<String>,
}

/// Identifies a version of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionRef {
    /// Its position.
    pub(crate) seq: Seq,
    /// The uid of its object.
    pub(crate) uid: String,
    /// True when it was appended by this call; false when nothing had changed.
    pub(crate) is_new: bool,
}
