//! Carries out the transitions of [`MappingPhase`]: in the stored spec, the catalog and the documents.
//!
//! A mapping whose deletion was observed is kept as terminating until no claim of it is left, also over restarts. A
//! mapping that is missing without an observed deletion freezes its claims.

use super::apply::{DEFAULT_NAMESPACE, IntakeError, SOURCE_OF_ENDING, stored_json};
use super::state::{State, Trigger};
use super::{Engine, Inner};
use crate::api::RoleMapping;
use crate::model::{
    ClaimDisposal, DocumentKey, FreezeReason, Kind, MappingKey, MappingPhase, PhaseEffect, PhaseEvent, Transition,
};
use crate::store::{StoreError, StoredSpec, UninstallMode};

impl Engine {
    /// Handles the observed deletion of a mapping: its claims end according to its `deletionPolicy`.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be stored.
    pub(crate) async fn delete_mapping(&self, key: &MappingKey) -> Result<(), StoreError> {
        self.0.advance(key, PhaseEvent::DeletionObserved).await.map(drop)
    }

    /// Like [`Engine::delete_mapping`], with the last version of the object, which may not have been in force yet.
    ///
    /// # Errors
    /// [`IntakeError`], when that cannot be stored.
    pub(crate) async fn delete_mapping_as(&self, key: &MappingKey, object: RoleMapping) -> Result<(), IntakeError> {
        let claims = ClaimDisposal::from(object.spec.deletion_policy);
        {
            let _one_at_a_time = self.0.intake.lock().await;
            let memory = self.0.state().mappings.get(key).map(|memory| (memory.generation, memory.spec == object.spec));
            if let Some((generation, false)) = memory {
                let generation = object.metadata.generation.unwrap_or(generation);
                self.0.persist_terminating(key, claims, generation, stored_json(&object)?).await?;
                if let Some(memory) = self.0.state().mappings.get_mut(key) {
                    memory.spec = object.spec;
                    memory.generation = generation;
                }
            }
        }
        Ok(self.0.advance(key, |_| PhaseEvent::DeletionObserved(claims)).await.map(drop)?)
    }

    /// Handles a person's approval to treat a missing mapping as deleted. Does nothing for one that exists. Returns
    /// whether its claims end.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be stored.
    pub(crate) async fn approve_removal(&self, key: &MappingKey) -> Result<bool, StoreError> {
        let transition = self.0.advance(key, PhaseEvent::RemovalApproved).await?;
        Ok(transition.effects.contains(&PhaseEffect::Persist))
    }

    /// Handles a mapping that is missing without an observed deletion: its claims freeze.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be stored.
    pub(crate) async fn mark_missing(&self, key: &MappingKey, why: FreezeReason) -> Result<(), StoreError> {
        self.0.advance(key, |_| PhaseEvent::FoundMissing(why)).await.map(drop)
    }

    /// Uninstalls rolecall: the claims of all mappings end according to `uninstall`, without the guard, and no mapping
    /// is applied any more. Returns the number of mappings that are not finished; to be called again until that is 0.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be stored.
    pub(crate) async fn begin_uninstall(&self, uninstall: UninstallMode) -> Result<usize, StoreError> {
        let keys = {
            let mut state = self.0.state();
            let again = state.uninstall.replace(uninstall) == Some(uninstall);
            let left: Vec<MappingKey> = state.mappings.keys().cloned().collect();
            let begun = |key: &MappingKey| again && state.is_terminating(key);
            left.into_iter().map(|key| (begun(&key), key)).collect::<Vec<_>>()
        };
        for (_, key) in keys.iter().filter(|(begun, _)| !begun) {
            self.0.advance(key, |_| PhaseEvent::UninstallRequested(uninstall.into())).await?;
        }
        Ok(self.0.state().mappings.len())
    }

    /// Handles a deleted mapping whose finalizer is removed before its claims could end: the claims are marked, and
    /// still end as soon as possible. Returns their number; none when they were marked before, or nothing is
    /// terminating.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be stored.
    pub(crate) async fn defer_revocation(&self, key: &MappingKey) -> Result<Option<u64>, StoreError> {
        let one_at_a_time = self.0.intake.lock().await;
        let deferred = self.mapping_phase(key).map(|phase| phase.on(PhaseEvent::DeadlineExceeded));
        if !deferred.is_some_and(|transition| transition.effects.contains(&PhaseEffect::MarkDeferred)) {
            return Ok(None);
        }
        let grants = self.0.store.orphan_claims(key).await?;
        let effects = self.0.state().catalog.advance(key, PhaseEvent::DeadlineExceeded);
        self.0.apply_effects(effects, &Trigger::none()).await;
        drop(one_at_a_time);
        Ok(Some(grants))
    }

    /// Phase of a mapping; none when it is not known (any more).
    #[must_use]
    pub(crate) fn mapping_phase(&self, key: &MappingKey) -> Option<MappingPhase> {
        self.0.state().phase(key)
    }

    /// True when the ledger holds claims of this mapping.
    ///
    /// # Errors
    /// [`StoreError`], when the ledger cannot be read.
    pub(crate) async fn has_claims(&self, key: &MappingKey) -> Result<bool, StoreError> {
        Ok(!self.0.store.claimed_documents(key).await?.is_empty())
    }
}

impl Inner {
    /// Applies an event to a mapping: to the stored spec first, then to the catalog, then to the documents. `event`
    /// receives the disposal of the claims according to the mapping.
    async fn advance(
        &self,
        key: &MappingKey,
        event: impl FnOnce(ClaimDisposal) -> PhaseEvent,
    ) -> Result<Transition, StoreError> {
        let one_at_a_time = self.intake.lock().await;
        let (event, transition) = {
            let state = self.state();
            let event = match (event(state.catalog.disposal(key)), state.uninstall) {
                // During an uninstall its mode applies to all mappings, also to those that are deleted meanwhile.
                (PhaseEvent::DeletionObserved(_) | PhaseEvent::RemovalApproved(_), Some(uninstall)) => {
                    PhaseEvent::UninstallRequested(uninstall.into())
                }
                (event, _) => event,
            };
            (event, MappingPhase::after(state.catalog.phase(key), event))
        };
        let ends = transition.next.is_some_and(MappingPhase::is_terminating);
        if let Some(phase) = transition.next.filter(|_| transition.effects.contains(&PhaseEffect::Persist)) {
            self.mark(key, phase).await?;
        }
        // Read before the phase changes: the event has no effect when it is repeated after an error.
        let claimed = if transition.effects.contains(&PhaseEffect::PlanClaimed) {
            Some(self.store.claimed_documents(key).await?)
        } else {
            None
        };
        let effects = {
            let mut state = self.state();
            if let Some(memory) = state.mappings.get_mut(key).filter(|_| ends) {
                memory.problem = None;
            }
            if event == PhaseEvent::UninstallRequested(ClaimDisposal::Orphan) {
                state.catalog.leave_all();
            }
            state.catalog.advance(key, event)
        };
        let trigger = if ends { Trigger::at(self.clock.now()) } else { Trigger::none() };
        self.apply_effects(effects, &trigger).await;
        if let Some(documents) = claimed {
            self.enqueue_removals(&documents);
            drop(one_at_a_time);
            self.forget_if_done(key).await?;
        }
        Ok(transition)
    }

    async fn persist_terminating(
        &self,
        key: &MappingKey,
        claims: ClaimDisposal,
        generation: i64,
        json: String,
    ) -> Result<(), StoreError> {
        let spec = StoredSpec {
            kind: Kind::RoleMapping,
            namespace: Some(key.namespace().to_owned()),
            name: key.name().to_owned(),
            generation,
            phase: MappingPhase::Terminating(claims),
            source: SOURCE_OF_ENDING.to_owned(),
            json,
        };
        self.store.put_spec(spec).await
    }

    async fn mark(&self, key: &MappingKey, to: MappingPhase) -> Result<(), StoreError> {
        self.store.set_spec_phase(Kind::RoleMapping, Some(key.namespace()), key.name(), to).await
    }

    /// Enqueues every document on which the ledger holds claims of this mapping, because the catalog only knows those
    /// that the mapping currently reaches.
    pub(super) async fn enqueue_claimed(&self, key: &MappingKey) -> Result<(), StoreError> {
        let documents = self.store.claimed_documents(key).await?;
        self.enqueue_removals(&documents);
        Ok(())
    }

    /// Forgets a deleted mapping once it has no claims left and no running reconcile has it in its plan.
    pub(super) async fn forget_if_done(&self, key: &MappingKey) -> Result<(), StoreError> {
        let _one_at_a_time = self.intake.lock().await;
        let over = |state: &State| state.is_terminating(key) && !state.is_planned(key);
        if !over(&self.state()) || !self.store.claimed_documents(key).await?.is_empty() {
            return Ok(());
        }
        if !over(&self.state()) {
            // A reconcile started meanwhile; it checks again when it ends.
            return Ok(());
        }
        self.store.remove_pins(key).await?;
        for namespace in [Some(key.namespace()), None] {
            if namespace.is_some() || key.namespace() == DEFAULT_NAMESPACE {
                self.store.remove_spec(Kind::RoleMapping, namespace, key.name()).await?;
            }
        }
        let mut state = self.state();
        state.mappings.remove(key);
        state.changed_mappings.insert(key.clone());
        // Nothing is planned for it any more; which kinds of resources are mapped may be fewer.
        let effects = state.catalog.advance(key, PhaseEvent::ClaimsEnded);
        state.changed_targets.extend(effects.targets);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Finishes a deleted mapping that only has grants left that stay until their people leave, because its target does
    /// not permit it to leave them behind. It is kept as deleted, also over restarts, until the last one is gone.
    pub(super) async fn orphan_if_settled(&self, key: &MappingKey) -> Result<(), StoreError> {
        let _one_at_a_time = self.intake.lock().await;
        let over = |state: &State| {
            let phase = state.phase(key);
            let next = MappingPhase::after(phase, PhaseEvent::OnlyOrphansLeft).next;
            state.uninstall.is_none() && !state.is_planned(key) && next != phase
        };
        if !over(&self.state()) {
            return Ok(());
        }
        let documents = self.store.claimed_documents(key).await?;
        let mut state = self.state();
        let quiet = |document: &DocumentKey| {
            state.documents.get(document).filter(|memory| memory.error.is_none()).is_some_and(|memory| {
                memory.claim_counts.get(key).is_some_and(|counts| counts.revoking == 0 && counts.held == 0)
            })
        };
        if documents.is_empty() || !over(&state) || !documents.iter().all(quiet) {
            return Ok(());
        }
        tracing::info!(
            mapping.name = %key, policies = documents.len(),
            "{key} was deleted with deletionPolicy: Orphan, which its target does not permit: its grants stay in the ledger \
             and go when their people leave"
        );
        let _ = state.catalog.advance(key, PhaseEvent::OnlyOrphansLeft);
        state.changed_mappings.insert(key.clone());
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Checks whether mappings that were deleted before the last shutdown are finished.
    pub(super) async fn forget_what_is_done(&self) -> Result<(), StoreError> {
        let ending: Vec<MappingKey> = {
            let state = self.state();
            state.mappings.keys().filter(|key| state.is_terminating(key)).cloned().collect()
        };
        for key in ending {
            self.forget_if_done(&key).await?;
        }
        Ok(())
    }
}
