//! Mappings whose deletion was observed: their claims end, and then their finalizer is removed.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::Instant;

use super::finalizer::has_finalizer;
use super::{Controller, Holds, RETRY};
use crate::api::{DeletionPolicy, RoleMapping};
use crate::model::{FreezeReason, MappingKey, MappingPhase, Reason};
use crate::sync::IntakeError;

/// Whether a deletion was carried out.
#[derive(PartialEq, Eq)]
enum Begun {
    /// Not yet.
    No,
    /// Carried out, with the deletion policy of the object at that time, where it could be read.
    By(Option<DeletionPolicy>),
}

/// The deletion of an object that has our finalizer.
pub(super) struct Deletion {
    pub(super) metadata: ObjectMeta,
    /// Its last version, where that can be read.
    object: Option<Box<RoleMapping>>,
    begun: Begun,
    /// Earliest time of the next attempt to remove the finalizer.
    retry_at: Option<Instant>,
}

impl Deletion {
    fn new(metadata: ObjectMeta) -> Self {
        Self { metadata, object: None, begun: Begun::No, retry_at: None }
    }

    /// A mapping that is not deleted and only loses its finalizer.
    pub(super) fn finalizer_only(metadata: ObjectMeta) -> Self {
        Self { begun: Begun::By(None), ..Self::new(metadata) }
    }

    /// Sets the earliest time of the next attempt to remove the finalizer.
    pub(super) fn put_off(&mut self, until: Instant) {
        self.retry_at = Some(until);
    }

    /// Updates to a newer version.
    pub(super) fn renew(&mut self, metadata: &ObjectMeta) {
        if self.metadata.resource_version != metadata.resource_version {
            // A removal that was refused because of the older version is retried at once.
            self.retry_at = None;
        }
        self.metadata = metadata.clone();
    }

    fn policy(&self) -> Option<DeletionPolicy> {
        self.object.as_ref().map(|object| object.spec.deletion_policy)
    }

    /// True when the deletion was carried out according to the current version: the policy can be changed as long as
    /// the finalizer is there.
    fn is_begun(&self) -> bool {
        self.begun == Begun::By(self.policy())
    }
}

impl Controller {
    /// Handles the observed deletion of a mapping.
    pub(super) async fn delete(
        &mut self,
        key: MappingKey,
        metadata: &ObjectMeta,
        object: Option<&RoleMapping>,
    ) -> Result<(), IntakeError> {
        if matches!(self.holds, Holds::Nothing(_)) {
            return Ok(self.engine.delete_mapping(&key).await?);
        }
        if !has_finalizer(metadata) {
            // Kept by somebody else's finalizer, or ours was removed by hand: our grants do not end because of that.
            return self.mapping_gone(&key).await;
        }
        let deletion = self.deletions.entry(key.clone()).or_insert_with(|| Deletion::new(metadata.clone()));
        deletion.object = object.cloned().map(Box::new);
        self.settle(&key).await
    }

    /// Advances a deleted mapping by one step, if possible.
    pub(super) async fn settle(&mut self, key: &MappingKey) -> Result<(), IntakeError> {
        if self.stands_by() {
            return Ok(());
        }
        let Some(deletion) = self.deletions.get(key) else { return Ok(()) };
        if deletion.retry_at.is_some_and(|again| Instant::now() < again) {
            return Ok(());
        }
        let frozen = self.engine.frozen();
        if frozen == Some(FreezeReason::NotLoaded) {
            return Ok(());
        }
        let overdue = self.overdue(deletion);
        // While everything is frozen, the claims of the mapping are unknown: an empty ledger may be the wrong one.
        if !deletion.is_begun() && (frozen.is_none() || overdue.is_some()) && !self.begin(key).await? {
            return Ok(());
        }
        if !self.deletions.get(key).is_some_and(Deletion::is_begun) {
            return Ok(());
        }
        let waits = |phase: MappingPhase| phase.is_terminating() && phase != MappingPhase::Orphaned;
        if !self.engine.mapping_phase(key).is_some_and(waits) {
            self.remove_finalizer(key).await;
        } else if let Some(waited) = overdue {
            self.defer(key, waited).await?;
            self.remove_finalizer(key).await;
        }
        Ok(())
    }

    /// Ends the claims according to the object. Returns whether that was done.
    async fn begin(&mut self, key: &MappingKey) -> Result<bool, IntakeError> {
        let Holds::Finalizer(finalizers, _) = &self.holds else { return Ok(false) };
        let Some(deletion) = self.deletions.get(key) else { return Ok(false) };
        let (object, policy) = (deletion.object.clone(), deletion.policy());
        match (finalizers.definition_is_deleted().await, object) {
            (Ok(false), Some(object)) => self.engine.delete_mapping_as(key, *object).await?,
            (Ok(false), None) => self.engine.delete_mapping(key).await?,
            (Ok(true), _) => {
                tracing::warn!(
                    mapping.name = %key,
                    "{key} is deleted because the CRD of RoleMapping is being deleted: its grants stay as they are"
                );
                self.mapping_gone(key).await?;
            }
            (Err(error), _) => {
                tracing::warn!(%error, mapping.name = %key, "cannot read whether the CRD of RoleMapping is being deleted");
                self.quiet_until = Some(Instant::now() + RETRY);
                return Ok(false);
            }
        }
        if let Some(deletion) = self.deletions.get_mut(key) {
            deletion.begun = Begun::By(policy);
        }
        Ok(true)
    }

    /// Time for which the claims of the mapping could not be ended, if that exceeds the deadline.
    fn overdue(&self, deletion: &Deletion) -> Option<Duration> {
        let Holds::Finalizer(_, rules) = &self.holds else { return None };
        let since = deletion.metadata.deletion_timestamp.as_ref()?.0.max(self.began);
        let waited = Duration::try_from(self.clock.now().duration_since(since)).unwrap_or_default();
        (waited >= rules.deadline).then_some(waited)
    }

    /// Removes the finalizer of a mapping that could not be ended in time, so that nothing blocks its namespace. Its
    /// claims stay.
    async fn defer(&self, key: &MappingKey, waited: Duration) -> Result<(), IntakeError> {
        let Some(grants) = self.engine.defer_revocation(key).await? else { return Ok(()) };
        tracing::warn!(
            mapping.name = %key, grants, reason = %Reason::RevocationDeferred,
            "{key} was deleted and for {waited:.0?} {grants} of its grants could not be revoked; the object is let go, and \
             they are revoked as soon as Google lets rolecall"
        );
        Ok(())
    }
}
