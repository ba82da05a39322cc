//! The finalizer on a mapping: who has it, and how it is put and taken.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::api::{FIELD_MANAGER, REVOKE_FINALIZER, RoleMapping};
use crate::model::MappingKey;

/// How long one call to the API server may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Does the object have it?
pub(super) fn is_held(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == REVOKE_FINALIZER)
}

/// What is needed of an object to change its finalizers.
pub(super) fn version(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        finalizers: metadata.finalizers.clone(),
        deletion_timestamp: metadata.deletion_timestamp.clone(),
        ..ObjectMeta::default()
    }
}

/// Replaces the finalizers of the very version that was seen.
pub(super) async fn set_finalizers(
    client: &Client,
    key: &MappingKey,
    metadata: &ObjectMeta,
    finalizers: &[String],
) -> Result<(), kube::Error> {
    let api: Api<RoleMapping> = Api::namespaced(client.clone(), key.namespace());
    let patch = json!({"metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    patient(api.patch_metadata(key.name(), &params, &Patch::Merge(patch))).await.map(|_| ())
}

/// Waits for an answer of the API server, and not for ever.
pub(super) async fn patient<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}
