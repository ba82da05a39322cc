//! `RoleMapping`: which groups get which roles on which resources.

#![expect(clippy::duplicated_attributes, reason = "printer columns of the derive repeat their keys")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use crate::model::{ClaimDisposal, DriftKind};

/// Who gets which role on what.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "rolecall.dev",
    version = "v1alpha1",
    kind = "RoleMapping",
    plural = "rolemappings",
    shortname = "rmap",
    category = "rolecall",
    namespaced,
    status = "RoleMappingStatus",
    derive = "PartialEq",
    doc = "Grants roles on Google Cloud Run resources to groups of an identity provider. Only what the CloudRunTarget delegates to this namespace is granted.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Grants",
        type_ = "string",
        json_path = ".status.grants.summary",
        description = "acknowledged/desired"
    ),
    printcolumn(
        name = "Held",
        type_ = "integer",
        json_path = ".status.held.people",
        description = "people whose removal the guard holds"
    ),
    printcolumn(
        name = "Drift",
        type_ = "integer",
        json_path = ".status.drift.missing",
        description = "grants that somebody else removed"
    ),
    printcolumn(
        name = "Lag",
        type_ = "string",
        json_path = ".status.lag",
        description = "last change: directory event to acknowledgement by Google"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoleMappingSpec {
    /// The purpose of the mapping, as free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub(crate) description: Option<String>,

    /// The groups whose members get the roles: direct members and those of groups nested in them, as `spec.nestedGroups`
    /// of the `IdentityProvider` says.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["identityProvider"]))]
    pub(crate) subjects: Vec<SubjectSpec>,

    /// The roles, and where they are granted.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) grants: Vec<GrantSpec>,

    /// Enforce writes policies. Observe plans and reports without writing. Suspend leaves everything as it is.
    #[serde(default)]
    pub(crate) mode: MappingMode,

    /// What happens when somebody else removes a grant of this mapping: Revert grants it again, Report only reports it
    /// in status.
    #[serde(default)]
    pub(crate) on_missing: OnMissing,

    /// What happens to the grants when the mapping is deleted: Revoke removes them, Orphan leaves them in the policies
    /// and forgets them.
    #[serde(default)]
    pub(crate) deletion_policy: DeletionPolicy,
}

/// The groups of one identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubjectSpec {
    /// The name of the `IdentityProvider`.
    #[schemars(schema_with = "schema::object_name")]
    pub(crate) identity_provider: String,

    /// Groups that the `IdentityProvider` pushed.
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) groups: Vec<GroupSelector>,
}

/// One group, named by exactly one of displayName and externalId.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.displayName) != has(self.externalId)",
    "message": "name the group by exactly one of displayName and externalId"
}]))]
pub(crate) struct GroupSelector {
    /// The group's displayName. It is resolved once: if the name later means another group, that one gets nothing until
    /// it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub(crate) display_name: Option<String>,

    /// The group's externalId, which the IdP never reuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub(crate) external_id: Option<String>,
}

/// Roles on resources of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrantSpec {
    /// The `CloudRunTarget` that holds the resources.
    pub(crate) target: TargetRef,

    /// The resources: services/NAME, jobs/NAME or workerPools/NAME, where * in NAME matches any characters.
    #[schemars(schema_with = "schema::resources")]
    pub(crate) resources: Vec<String>,

    /// The roles: predefined (roles/run.invoker) or custom (projects/ID/roles/NAME, organizations/NUMBER/roles/NAME).
    /// Globs and basic roles are refused.
    #[schemars(schema_with = "schema::roles")]
    pub(crate) roles: Vec<String>,

    /// The IAM condition under which the roles are granted. Only the policies of services accept conditions; elsewhere
    /// this entry grants nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) condition: Option<ConditionSpec>,

    /// Time at which the grants of this entry end: rolecall removes them then. Where policies accept conditions, the
    /// end is part of the condition, too, so that Google honors it to the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<Time>,
}

/// An IAM condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConditionSpec {
    /// The title, which Google shows.
    #[schemars(schema_with = "schema::condition_title")]
    pub(crate) title: String,

    /// The purpose, as free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub(crate) description: Option<String>,

    /// The expression in Google's dialect of CEL, with at most 12 logical operators. Google checks it: one that it refuses
    /// is reported, and keeps nothing but the grants of this entry from being made.
    #[schemars(length(min = 1, max = 2048))]
    pub(crate) expression: String,
}

/// A target by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetRef {
    /// The name of the `CloudRunTarget`.
    #[schemars(schema_with = "schema::object_name")]
    pub(crate) name: String,
}

/// What is done with the plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "What is done with the plans.")]
pub(crate) enum MappingMode {
    /// Policies are written.
    #[default]
    Enforce,
    /// Plans are reported and nothing is written.
    Observe,
    /// Everything stays as it is.
    Suspend,
}

/// What happens when somebody else removes a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "What happens when somebody else removes a grant.")]
pub(crate) enum OnMissing {
    /// Granted again.
    #[default]
    Revert,
    /// Reported only.
    Report,
}

/// What happens to the grants when the mapping is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "What happens to the grants when the mapping is deleted.")]
pub(crate) enum DeletionPolicy {
    /// They are removed.
    #[default]
    Revoke,
    /// They stay and are forgotten.
    Orphan,
}

impl From<DeletionPolicy> for ClaimDisposal {
    fn from(policy: DeletionPolicy) -> Self {
        match policy {
            DeletionPolicy::Revoke => Self::Revoke,
            DeletionPolicy::Orphan => Self::Orphan,
        }
    }
}

/// Observed state of a mapping.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoleMappingStatus {
    /// The generation that this status describes; -1 until rolecall has reconciled the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub(crate) observed_generation: Option<i64>,

    /// Exact counts of grants. One grant is one role for one principal on one resource. They add up: desired is the sum
    /// of acknowledged, pending, held and failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grants: Option<GrantCounts>,

    /// The next time at which grants of the mapping end, as `notAfter` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_end: Option<Time>,

    /// Time since which the oldest revocation has been waiting for Google's acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oldest_revoking_since: Option<Time>,

    /// The resolved groups. The first 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) subjects: Vec<SubjectStatus>,

    /// The resources that the mapping touches. The first 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resource"]))]
    pub(crate) resources: Vec<ResourceStatus>,

    /// Parts of the mapping that grant nothing, mostly because the target does not delegate them to this namespace. The
    /// first 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) refused: Vec<RefusedPath>,

    /// Changes made by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drift: Option<DriftCounts>,

    /// Removals that the guard holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<HeldStatus>,

    /// Duration of the last change, from the directory event to the acknowledgement by Google, for example 1.8s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub(crate) lag: Option<String>,

    /// The last value of the annotation rolecall.dev/reconcile-requested-at that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub(crate) last_handled_reconcile_at: Option<String>,

    /// Accepted, Ready, Reconciling, Stalled, Held, Drifted, Frozen, `NearlyFull` and `NestedGroups`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub(crate) conditions: Vec<Condition>,
}

/// Exact counts of grants: desired = acknowledged + pending + held + failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GrantCounts {
    /// acknowledged/desired, for tables.
    #[schemars(length(max = 48))]
    pub(crate) summary: String,
    /// Wanted by this mapping, or kept: by the guard although it is no longer wanted, or because the ground of its
    /// claim is unknown. It is the sum of acknowledged, pending, held and failed.
    #[schemars(range(min = 0))]
    pub(crate) desired: i64,
    /// Wanted and in the policy: the call that granted it succeeded, or it was there before (unowned).
    #[schemars(range(min = 0))]
    pub(crate) acknowledged: i64,
    /// Of the acknowledged, those that a later read has found in the policy.
    #[schemars(range(min = 0))]
    pub(crate) verified: i64,
    /// Wanted and not granted yet: a call is due or waits, or the list of resources lacks the resource although its
    /// policy can be read. If that lasts, Ready is False.
    #[schemars(range(min = 0))]
    pub(crate) pending: i64,
    /// Kept as it is: removals that the guard holds, and wanted grants that are missing because they are only observed,
    /// were removed by somebody else with onMissing Report, or are frozen.
    #[schemars(range(min = 0))]
    pub(crate) held: i64,
    /// Wanted and refused by Google, or beyond what the policy may hold.
    #[schemars(range(min = 0))]
    pub(crate) failed: i64,
    /// Of the acknowledged, those that rolecall did not grant: never removed.
    #[schemars(range(min = 0))]
    pub(crate) unowned: i64,
    /// No longer wanted, and the removal is not acknowledged yet. Removals that the guard holds count in held.
    #[schemars(range(min = 0))]
    pub(crate) revoking: i64,
    /// Would be wanted if `notAfter` had not passed. They are not part of desired.
    #[schemars(range(min = 0))]
    pub(crate) ended: i64,
}

/// Resolution of one group of the mapping.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubjectStatus {
    /// The name of the `IdentityProvider`.
    #[schemars(length(max = 253))]
    pub(crate) identity_provider: String,

    /// The group's current displayName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub(crate) display_name: Option<String>,

    /// The group's externalId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub(crate) external_id: Option<String>,

    /// The group's id at rolecall, to which the name is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) id: Option<String>,

    /// Number of members who are users, including those of groups nested in it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub(crate) members: i64,

    /// Why the group gives nothing, as a reason word; omitted when it is resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) reason: Option<String>,

    /// The reason in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub(crate) message: Option<String>,
}

/// State of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResourceStatus {
    /// The resource, as projects/P/locations/L/services/S.
    #[schemars(length(max = 512))]
    pub(crate) resource: String,

    /// acknowledged/desired.
    #[schemars(length(max = 48))]
    pub(crate) grants: String,

    /// Why the resource is not converged, as a reason word; omitted when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) reason: Option<String>,

    /// The reason in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub(crate) message: Option<String>,
}

/// A part of the mapping that grants nothing: the target does not delegate it to the namespace of the mapping, or the
/// kind of resource does not take its condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RefusedPath {
    /// The path in the mapping, for example `spec.grants[0].roles[1]`.
    #[schemars(length(max = 256))]
    pub(crate) path: String,

    /// The resource or pattern it concerns.
    #[schemars(length(max = 512))]
    pub(crate) resource: String,

    /// The role it concerns.
    #[schemars(length(max = 256))]
    pub(crate) role: String,

    /// Why it grants nothing, as a reason word; omitted when the target does not delegate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) reason: Option<String>,
}

/// Changes made by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DriftCounts {
    /// Grants that somebody else removed and that were not made again.
    #[schemars(range(min = 0))]
    pub(crate) missing: i64,
    /// Grants that somebody else removed and that were made again since the start. A grant counts once, however often
    /// that happened.
    #[schemars(range(min = 0))]
    pub(crate) reverted: i64,
    /// Grants in the policies that rolecall neither made nor wants; they are kept. Those to everybody, and those of
    /// deleted accounts, are counted separately.
    #[schemars(range(min = 0))]
    pub(crate) foreign: i64,
    /// Grants that are no longer wanted but were not made by rolecall; they are kept.
    #[schemars(range(min = 0))]
    pub(crate) remaining: i64,
    /// Grants that people who left still have, because somebody else made them; they are kept.
    #[schemars(range(min = 0))]
    pub(crate) leavers: i64,
    /// Grants to allUsers or allAuthenticatedUsers that rolecall did not make; they are kept.
    #[schemars(range(min = 0))]
    pub(crate) public: i64,
    /// Grants of rolecall that somebody else put under another condition.
    #[schemars(range(min = 0))]
    pub(crate) condition_changed: i64,
    /// Grants of deleted accounts that rolecall did not make; they are kept.
    #[schemars(range(min = 0))]
    pub(crate) tombstones: i64,
    /// Resources that were deleted and created again within the last hour.
    #[schemars(range(min = 0))]
    pub(crate) recreated: i64,
    /// Services that do not check roles/run.invoker at all.
    #[schemars(range(min = 0))]
    pub(crate) invoker_check_disabled: i64,
    /// Samples of these changes. The first 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) samples: Vec<DriftSample>,
}

#[cfg(test)]
impl DriftCounts {
    /// True when nothing is counted.
    pub(crate) fn is_empty(&self) -> bool {
        Self { samples: Vec::new(), ..self.clone() } == Self::default()
    }
}

/// One change made by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DriftSample {
    /// The kind of difference between the policy and what is wanted.
    #[serde(rename = "type")]
    pub(crate) kind: DriftKind,

    /// The resource, as projects/P/locations/L/services/S.
    #[schemars(length(max = 512))]
    pub(crate) resource: String,

    /// The role.
    #[schemars(length(max = 256))]
    pub(crate) role: String,

    /// The member: people by their SCIM id, or by the domain and a keyed digest of the address; others as they are in
    /// the policy. rolecall status --show-principals has the names.
    #[schemars(length(max = 512))]
    pub(crate) principal: String,
}

/// Removals that the guard holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HeldStatus {
    /// Number of people concerned.
    #[schemars(range(min = 0))]
    pub(crate) people: i64,

    /// The hash that releases the removals: put it into the annotation rolecall.dev/release. Several are separated by
    /// commas.
    #[schemars(length(max = 4096))]
    pub(crate) plan_hash: String,

    /// Time since which something is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Time>,

    /// The held plans, one per policy. The first 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resource"]))]
    pub(crate) plans: Vec<HeldPlan>,
}

/// A held plan of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeldPlan {
    /// The resource, as projects/P/locations/L/services/S.
    #[schemars(length(max = 512))]
    pub(crate) resource: String,

    /// Number of people concerned.
    #[schemars(range(min = 0))]
    pub(crate) people: i64,

    /// The hash that releases it.
    #[schemars(length(max = 128))]
    pub(crate) plan_hash: String,

    /// Time since which it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Time>,
}
