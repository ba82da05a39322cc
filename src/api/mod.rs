//! The custom resources: types, schema, defaults and rules, conditions and reasons.
//!
//! The schema that [`crds`] prints is the only validation: the API server, a folder of manifests and `rolecall lint`
//! all apply the same one.

mod cloud_run_target;
pub(crate) mod condition;
mod crd;
pub(crate) mod duration;
pub(crate) mod fit;
pub(crate) mod glob;
mod identity_provider;
mod role_mapping;
mod schema;

pub(crate) use cloud_run_target::{
    AllowSpec, CloudRunTarget, CloudRunTargetSpec, CloudRunTargetStatus, DocumentsSpec, Permission, PolicyCounts,
    ResourceCounts, TargetDrift, Unexpected,
};
pub(crate) mod manifest;
#[cfg(test)]
pub(crate) use cloud_run_target::NamespacesSpec;
pub(crate) use crd::{CrdError, GROUP, VERSION, crds, crds_yaml};
pub(crate) use fit::{fit_status, initial_status, is_initial};
pub(crate) use identity_provider::Strictness;
pub(crate) use identity_provider::{
    DialectChoice, FindingStatus, IdentityProvider, IdentityProviderSpec, IdentityProviderStatus, NestedGroups,
    ProviderState, SecretKey, TokenStatus, UserAttribute,
};
pub(crate) use role_mapping::{
    DeletionPolicy, DriftCounts, DriftSample, GrantCounts, GrantSpec, GroupSelector, HeldPlan, HeldStatus, MappingMode,
    OnMissing, RefusedPath, ResourceStatus, RoleMapping, RoleMappingSpec, RoleMappingStatus, SubjectStatus,
};

/// Annotation of a `RoleMapping`: `true` takes over grants that somebody else made, where the target permits that.
pub(crate) const ADOPT_ANNOTATION: &str = "rolecall.dev/adopt";
/// Annotation of a `RoleMapping`: the hashes of held plans to release (comma-separated).
pub(crate) const RELEASE_ANNOTATION: &str = "rolecall.dev/release";
/// Annotation of a `RoleMapping`: ids of groups that a name may refer to from now on (comma-separated).
pub(crate) const ACCEPT_GROUP_ANNOTATION: &str = "rolecall.dev/accept-group";
/// Annotation of any resource: requests a reconcile now; `status.lastHandledReconcileAt` echoes the value.
pub(crate) const RECONCILE_ANNOTATION: &str = "rolecall.dev/reconcile-requested-at";
/// Finalizer of a `RoleMapping`: keeps the object until its grants are revoked.
pub(crate) const REVOKE_FINALIZER: &str = "rolecall.dev/revoke";
/// The field manager of rolecall's writes.
pub(crate) const FIELD_MANAGER: &str = "rolecall";
