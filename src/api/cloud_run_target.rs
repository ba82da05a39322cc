//! `CloudRunTarget`: one Google project with its regions, and who may map what onto it.

#![expect(clippy::duplicated_attributes, reason = "printer columns of the derive repeat their keys")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::glob::ResourcePatterns;
use super::role_mapping::DriftCounts;
use super::schema;
use crate::model::DriftKind;

/// Where roles may be granted, and to which namespaces that is delegated.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "rolecall.dev",
    version = "v1alpha1",
    kind = "CloudRunTarget",
    plural = "cloudruntargets",
    shortname = "crt",
    category = "rolecall",
    status = "CloudRunTargetStatus",
    derive = "PartialEq",
    doc = "Services, jobs and worker pools of one Google Cloud project, and the namespaces that may map roles onto them. Nothing is delegated by default.",
    printcolumn(name = "Project", type_ = "string", json_path = ".spec.project"),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.resources.services"),
    printcolumn(name = "In-Sync", type_ = "integer", json_path = ".status.policies.inSync"),
    printcolumn(name = "Drifted", type_ = "integer", json_path = ".status.policies.drifted"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CloudRunTargetSpec {
    /// The project id (not the project number), for example shop-prod.
    #[schemars(schema_with = "schema::project")]
    pub(crate) project: String,

    /// The regions whose services, jobs and worker pools belong to this target, for example europe-west1.
    #[schemars(schema_with = "schema::locations")]
    pub(crate) locations: Vec<String>,

    /// Interval between lists of the services, jobs and worker pools of the project, for example 5m. New ones that
    /// match the globs of a mapping get their grants then.
    #[serde(default = "five_minutes")]
    #[schemars(schema_with = "schema::duration")]
    pub(crate) discovery_interval: String,

    /// Interval between reads of the policies of the target to detect drift, for example 5m. Omitted: that of
    /// --drift-interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub(crate) drift_interval: Option<String>,

    /// What holds for whole policies, whichever mappings grant something there. Of the entries that match a resource, the
    /// first counts. Omitted: every difference is reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) documents: Vec<DocumentsSpec>,

    /// Delegations. A mapping gets a role on a resource when one entry admits its namespace, its identity provider, the
    /// resource and the role together. Omitted: nothing is delegated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) allow: Vec<AllowSpec>,
}

impl CloudRunTargetSpec {
    /// The resources that some entry of `allow` admits.
    #[must_use]
    pub(crate) fn delegated(&self) -> ResourcePatterns {
        ResourcePatterns::parse(self.allow.iter().flat_map(|entry| &entry.resources))
    }
}

fn five_minutes() -> String {
    "5m".to_owned()
}

/// One delegation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AllowSpec {
    /// Mappings of these namespaces.
    pub(crate) namespaces: NamespacesSpec,

    /// Groups of these `IdentityProviders`.
    #[schemars(schema_with = "schema::provider_names")]
    pub(crate) identity_providers: Vec<String>,

    /// On these resources: services/NAME, jobs/NAME or workerPools/NAME, where * in NAME stands for any characters.
    #[schemars(schema_with = "schema::resources")]
    pub(crate) resources: Vec<String>,

    /// These roles: predefined (roles/run.invoker) or custom (projects/ID/roles/NAME, organizations/NUMBER/roles/NAME).
    /// Globs and basic roles are refused.
    #[schemars(schema_with = "schema::roles")]
    pub(crate) roles: Vec<String>,

    /// What these mappings may do beyond granting roles. To keep the access of leavers: Orphan (deletionPolicy: Orphan
    /// forgets the grants) and Suspend (mode Suspend or Observe freezes them); omitted, people who are deactivated or
    /// deleted at the identity provider lose access in any case. Adopt: the annotation rolecall.dev/adopt takes over
    /// grants that somebody else made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub(crate) permit: Vec<Permission>,
}

/// What holds for the policies of some resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DocumentsSpec {
    /// These resources: services/NAME, jobs/NAME or workerPools/NAME, where * in NAME stands for any characters.
    #[schemars(schema_with = "schema::resources")]
    pub(crate) resources: Vec<String>,

    /// What is done about grants that rolecall neither made nor wants: Report shows them as drift, Ignore does not. They
    /// are kept in either case. Grants to allUsers and allAuthenticatedUsers are always reported unless ignore names
    /// them.
    #[serde(default)]
    pub(crate) unexpected: Unexpected,

    /// Members whose grants are never reported as drift when rolecall did not make them, as they are in the policy:
    /// serviceAccount:*, allUsers. * stands for any characters; letter case does not matter in addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::members")]
    pub(crate) ignore: Vec<String>,
}

/// What is done about grants that rolecall neither made nor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "What is done about grants that rolecall neither made nor wants.")]
pub(crate) enum Unexpected {
    /// They are not reported.
    Ignore,
    /// They are reported as drift.
    #[default]
    Report,
}

/// What a mapping may do beyond granting roles to groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "What a mapping may do beyond granting roles to groups.")]
pub(crate) enum Permission {
    /// `deletionPolicy: Orphan` leaves the grants in the policies and forgets them.
    Orphan,
    /// `mode: Suspend` and `mode: Observe` freeze the grants of everybody.
    Suspend,
    /// A mapping with the annotation `rolecall.dev/adopt: "true"` takes over grants that somebody else made, as far as it
    /// wants them; from then on it removes them too.
    Adopt,
}

/// Selects namespaces: those with one of the names, and those with all of the labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.names) || has(self.matchLabels)",
    "message": "name the namespaces in names, or choose them by their labels in matchLabels",
}]))]
pub(crate) struct NamespacesSpec {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::namespace_names")]
    pub(crate) names: Vec<String>,

    /// Namespaces that have all of these labels. Anybody who may label namespaces decides which of them are admitted.
    /// Without a cluster there are no labels, and this selects nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub(crate) match_labels: BTreeMap<String, String>,
}

/// Observed state of a target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CloudRunTargetStatus {
    /// The generation that this status describes; -1 until rolecall has reconciled the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub(crate) observed_generation: Option<i64>,

    /// The number of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) project_number: Option<String>,

    /// Number of resources in the last list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<ResourceCounts>,

    /// Regions that could not be listed. Absences there are not treated as deletions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) unreachable: Vec<String>,

    /// IAM permissions that rolecall lacks in this project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 128)), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) missing_permissions: Vec<String>,

    /// Number of policies in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policies: Option<PolicyCounts>,

    /// Differences between policies and what is wanted, starting with what matters most. The first 50; rolecall drift
    /// has all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) drift: Vec<TargetDrift>,

    /// Exact numbers of these differences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drift_counts: Option<DriftCounts>,

    /// Time of the last complete list of resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_discovery_time: Option<Time>,

    /// The last value of the annotation rolecall.dev/reconcile-requested-at that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub(crate) last_handled_reconcile_at: Option<String>,

    /// Ready, Accepted, Reconciling, Stalled, Reachable, `PermissionsValid`, Drifted and `NearlyFull`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub(crate) conditions: Vec<Condition>,
}

/// Number of resources by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ResourceCounts {
    /// Services.
    #[schemars(range(min = 0))]
    pub(crate) services: i64,
    /// Jobs.
    #[schemars(range(min = 0))]
    pub(crate) jobs: i64,
    /// Worker pools.
    #[schemars(range(min = 0))]
    pub(crate) worker_pools: i64,
}

/// Number of policies in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyCounts {
    /// Policies that are as wanted.
    #[schemars(range(min = 0))]
    pub(crate) in_sync: i64,
    /// Policies that differ from what is wanted because of somebody else; see drift.
    #[schemars(range(min = 0))]
    pub(crate) drifted: i64,
    /// Policies with removals that the guard holds.
    #[schemars(range(min = 0))]
    pub(crate) held: i64,
    /// Policies that could not be read or written.
    #[schemars(range(min = 0))]
    pub(crate) failed: i64,
    /// Policies that stay as they are for at least one mapping: because it is suspended, or because the ground of its
    /// claims is unknown.
    #[schemars(range(min = 0))]
    pub(crate) frozen: i64,
}

/// One difference between a policy and what is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetDrift {
    /// The kind of difference.
    #[serde(rename = "type")]
    pub(crate) kind: DriftKind,

    /// The resource, as projects/P/locations/L/services/S.
    #[schemars(length(max = 512))]
    pub(crate) resource: String,

    /// The role; empty for a difference of the whole resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub(crate) role: String,

    /// The member: people by their SCIM id, or by the domain and a keyed digest of the address; others as they are in
    /// the policy. rolecall status --show-principals has the names. Empty for a difference of the whole resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub(crate) principal: String,

    /// Time of the first observation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_seen: Option<Time>,
}
