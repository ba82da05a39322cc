//! The custom resources: types, schema, defaults and rules, conditions and reasons.
//!
//! The schema that [`crds`] prints is the only validation: the API server, a folder of manifests and `rolecall lint`
//! all apply the same one.

mod cloud_run_target;
pub mod condition;
mod crd;
pub mod duration;
pub(crate) mod fit;
pub mod glob;
mod identity_provider;
mod role_mapping;
mod schema;

pub use cloud_run_target::{
    AllowSpec, CloudRunTarget, CloudRunTargetSpec, CloudRunTargetStatus, DriftKind, NamespacesSpec, Permission,
    PolicyCounts, ResourceCounts, TargetDrift,
};
pub mod manifest;
pub use crd::{CrdError, GROUP, VERSION, crds, crds_yaml};
pub use fit::{fit_status, initial_status, is_initial};
pub use identity_provider::{
    FindingStatus, GoogleAccountSpec, IdentityProvider, IdentityProviderSpec, IdentityProviderStatus, PrincipalsSpec,
    ProviderState, ScimSpec, SecretKey, SecretKeyRef, Strictness, TokenSpec, TokenStatus, UserAttribute,
    UserPrincipalsSpec,
};
pub use role_mapping::{
    DeletionPolicy, DriftCounts, DriftSample, GrantCounts, GrantSpec, GroupSelector, HeldPlan, HeldStatus, MappingMode,
    OnMissing, RefusedPath, ResourceStatus, RoleMapping, RoleMappingSpec, RoleMappingStatus, SubjectSpec,
    SubjectStatus, TargetRef,
};

/// Annotation of a `RoleMapping`: the hashes of held plans to release (comma-separated).
pub const RELEASE_ANNOTATION: &str = "rolecall.dev/release";
/// Annotation of a `RoleMapping`: ids of groups that a name may refer to from now on (comma-separated).
pub const ACCEPT_GROUP_ANNOTATION: &str = "rolecall.dev/accept-group";
/// Annotation of any resource: requests a reconcile now; `status.lastHandledReconcileAt` echoes the value.
pub const RECONCILE_ANNOTATION: &str = "rolecall.dev/reconcile-requested-at";
/// Finalizer of a `RoleMapping`: keeps the object until its grants are revoked.
pub const REVOKE_FINALIZER: &str = "rolecall.dev/revoke";
/// The field manager of rolecall's writes.
pub const FIELD_MANAGER: &str = "rolecall";
