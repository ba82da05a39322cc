//! The finalizer of mappings, which keeps a mapping until its claims have ended: adding and removing it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, CustomResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::{Controller, Holds, RETRY};
use crate::api::{FIELD_MANAGER, REVOKE_FINALIZER, RoleMapping};
use crate::model::MappingKey;
use crate::model::Reason;

/// Timeout of one call to the API server.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a call about finalizers failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FinalizerError {
    /// The object no longer exists.
    #[error("the object no longer exists")]
    NotFound,
    /// The object has a newer version, which the watch will deliver.
    #[error("the object has a newer version")]
    Conflict,
    /// The API server refused it, or did not answer.
    #[error("{0}")]
    Failed(String),
}

impl From<kube::Error> for FinalizerError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Self::NotFound,
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The implementation of changes of finalizers.
#[derive(Clone)]
pub(crate) enum Finalizers {
    /// The API server.
    Cluster(Client),
    /// A scripted test double.
    #[cfg(test)]
    Scripted(super::tests::ScriptedFinalizers),
}

impl Finalizers {
    /// Finalizers of which every change is accepted.
    #[cfg(test)]
    pub(crate) fn scripted() -> Self {
        Self::Scripted(super::tests::ScriptedFinalizers::default())
    }

    /// Replaces the finalizers of exactly the observed version.
    async fn set(&self, key: &MappingKey, metadata: &ObjectMeta, finalizers: &[String]) -> Result<(), FinalizerError> {
        match self {
            Self::Cluster(client) => {
                let api: Api<RoleMapping> = Api::namespaced(client.clone(), key.namespace());
                let patch = json!({"metadata": {
                    "uid": metadata.uid,
                    "resourceVersion": metadata.resource_version,
                    "finalizers": finalizers,
                }});
                let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                patient(api.patch_metadata(key.name(), &params, &Patch::Merge(patch))).await.map(drop)
            }
            #[cfg(test)]
            Self::Scripted(script) => script.set(key, metadata, finalizers),
        }
    }

    /// True when the CRD of the kind is being deleted. Then all its objects are deleted with it, without a decision
    /// about each of them. Read again each time, because the CRD is marked before its objects are.
    pub(super) async fn definition_is_deleted(&self) -> Result<bool, FinalizerError> {
        match self {
            Self::Cluster(client) => {
                let api: Api<CustomResourceDefinition> = Api::all(client.clone());
                let metadata = patient(api.get_metadata_opt(RoleMapping::crd_name())).await?;
                Ok(metadata.is_none_or(|definition| definition.metadata.deletion_timestamp.is_some()))
            }
            #[cfg(test)]
            Self::Scripted(script) => Ok(script.definition_is_deleted()),
        }
    }
}

/// Applies a timeout to a call to the API server.
async fn patient<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, FinalizerError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?),
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed)).into()),
    }
}

/// True when the object has our finalizer.
pub(super) fn has_finalizer(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == REVOKE_FINALIZER)
}

/// The part of an object that is needed to change its finalizers.
pub(super) fn version(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        finalizers: metadata.finalizers.clone(),
        deletion_timestamp: metadata.deletion_timestamp.clone(),
        ..ObjectMeta::default()
    }
}

/// A mapping that is not applied before it has the finalizer.
pub(super) struct Wanted {
    metadata: ObjectMeta,
    /// Time of the next attempt to add it, if one failed. None: an attempt is in progress, or the watch will deliver a
    /// newer version.
    retry_at: Option<Instant>,
}

impl Controller {
    /// True when the rolecall of another namespace works on the same resources, and this one is frozen because of that.
    /// Then the other one handles the finalizers.
    pub(super) fn stands_by(&self) -> bool {
        let other = match &self.holds {
            Holds::Finalizer(_, rules) => rules.other.load(Ordering::Acquire),
            Holds::Nothing(_) => false,
        };
        other && self.engine.frozen().is_some()
    }

    /// Adds the finalizer. The watch then delivers the mapping again, and only then it is applied.
    pub(super) fn add_finalizer(&mut self, key: MappingKey, metadata: ObjectMeta) {
        let Holds::Finalizer(finalizers, _) = &self.holds else { return };
        // During an uninstall nothing is added, because nobody would remove it; after its cancellation it is.
        let waits = self.stands_by() || self.uninstall.is_some();
        let retry_at = waits.then(|| Instant::now() + RETRY);
        self.wanted.insert(key.clone(), Wanted { metadata: metadata.clone(), retry_at });
        if waits {
            return;
        }
        let mut all = metadata.finalizers.clone().unwrap_or_default();
        all.push(REVOKE_FINALIZER.to_owned());
        let (finalizers, permits) = (finalizers.clone(), self.permits.clone());
        self.adding.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let result = finalizers.set(&key, &metadata, &all).await;
            (key, metadata, result)
        });
    }

    /// Adds the finalizer to a newer version of a mapping that waits for it, because only the newest version can be
    /// changed.
    pub(super) fn add_to_newer(&mut self, key: &MappingKey, metadata: &ObjectMeta) {
        if self.wanted.contains_key(key) && !has_finalizer(metadata) {
            self.add_finalizer(key.clone(), metadata.clone());
        }
    }

    /// True when an object may have been given the finalizer without the watch having delivered it yet.
    pub(super) fn is_adding(&self) -> bool {
        self.wanted.values().any(|wanted| wanted.retry_at.is_none())
    }

    pub(super) fn not_added(&mut self, key: &MappingKey, metadata: &ObjectMeta, error: &FinalizerError) {
        let FinalizerError::Failed(error) = error else {
            // It was changed or deleted meanwhile; the watch will deliver that.
            return;
        };
        tracing::warn!(
            mapping.name = %key, %error,
            "cannot add the finalizer {REVOKE_FINALIZER} to {key}, so nothing is granted for it yet; retrying"
        );
        // If a newer version is being changed, only that attempt counts; if the object is gone, none does.
        let counts = self.wanted.get(key).is_some_and(|wanted| {
            wanted.metadata.uid == metadata.uid && wanted.metadata.resource_version == metadata.resource_version
        });
        if !counts {
            return;
        }
        if self.engine.mapping_phase(key).is_none() {
            let message = format!("the finalizer {REVOKE_FINALIZER} cannot be put: {error}");
            self.report_not_in_force(key, metadata, Reason::FinalizerRefused, &message);
        }
        if let Some(wanted) = self.wanted.get_mut(key) {
            wanted.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// Ends all delays.
    #[cfg(test)]
    pub(super) fn end_pauses(&mut self) {
        for wanted in self.wanted.values_mut().filter(|wanted| wanted.retry_at.is_some()) {
            wanted.retry_at = Some(Instant::now());
        }
        for deletion in self.deletions.values_mut() {
            deletion.put_off(Instant::now());
        }
        self.quiet_until = None;
    }

    /// Retries to add the finalizers that could not be added.
    pub(super) fn add_wanted(&mut self) {
        let now = Instant::now();
        let due = |wanted: &Wanted| wanted.retry_at.is_some_and(|at| at <= now);
        let due: Vec<(MappingKey, ObjectMeta)> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| due(wanted))
            .map(|(key, wanted)| (key.clone(), wanted.metadata.clone()))
            .collect();
        for (key, metadata) in due {
            self.add_finalizer(key, metadata);
        }
    }

    /// Removes our finalizer.
    pub(super) async fn remove_finalizer(&mut self, key: &MappingKey) {
        let Holds::Finalizer(finalizers, _) = &self.holds else { return };
        let Some(deletion) = self.deletions.get_mut(key) else { return };
        deletion.put_off(Instant::now() + RETRY);
        let metadata = deletion.metadata.clone();
        let others = metadata.finalizers.clone().unwrap_or_default();
        let others: Vec<String> = others.into_iter().filter(|finalizer| finalizer != REVOKE_FINALIZER).collect();
        match finalizers.set(key, &metadata, &others).await {
            Ok(()) | Err(FinalizerError::NotFound) => {
                self.deletions.remove(key);
                self.finalized.remove(key);
            }
            // The watch will deliver the newer version.
            Err(FinalizerError::Conflict) => {}
            Err(FinalizerError::Failed(error)) => {
                tracing::warn!(%error, mapping.name = %key, "cannot remove the finalizer from {key}; retrying");
                self.quiet_until = Some(Instant::now() + RETRY);
            }
        }
    }
}
