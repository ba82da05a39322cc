//! Carries out the transitions of [`MappingPhase`]: the stored spec, the catalog, the documents.
//!
//! A mapping whose deletion was observed is remembered as terminating until nothing is claimed for it any more, over restarts
//! too. One that is gone and that nobody saw being deleted freezes its claims.

use tokio::time::Instant;

use super::apply::{DEFAULT_NAMESPACE, IntakeError, SOURCE_OF_ENDING, kind, stored_json};
use super::lanes::Lane;
use super::state::{State, Trigger};
use super::{Engine, Inner};
use crate::api::RoleMapping;
use crate::model::{
    ClaimDisposal, DocumentKey, FreezeReason, MappingKey, MappingPhase, PhaseEffect, PhaseEvent, Transition,
};
use crate::store::{SpecState, StoreError, StoredSpec, UninstallMode};

impl Engine {
    /// The deletion of a mapping was observed: its claims end as its `deletionPolicy` says.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be remembered.
    pub async fn delete_mapping(&self, key: &MappingKey) -> Result<(), StoreError> {
        self.0.advance(key, PhaseEvent::DeletionObserved).await.map(drop)
    }

    /// As [`Engine::delete_mapping`], by what the object said last, which may not have been in force yet.
    ///
    /// # Errors
    /// [`IntakeError`], when that cannot be remembered.
    pub async fn delete_mapping_as(&self, key: &MappingKey, object: RoleMapping) -> Result<(), IntakeError> {
        let claims = ClaimDisposal::from(object.spec.deletion_policy);
        {
            let _one_at_a_time = self.0.intake.lock().await;
            let memory = self.0.state().mappings.get(key).map(|memory| (memory.generation, memory.spec == object.spec));
            if let Some((generation, false)) = memory {
                let generation = object.metadata.generation.unwrap_or(generation);
                self.0.keep_ending(key, generation, stored_json(&object)?).await?;
                if let Some(memory) = self.0.state().mappings.get_mut(key) {
                    memory.spec = object.spec;
                    memory.generation = generation;
                }
            }
        }
        Ok(self.0.advance(key, |_| PhaseEvent::DeletionObserved(claims)).await.map(drop)?)
    }

    /// A person approved that a mapping that is missing is taken as deleted. Nothing happens to one that is there. Answers
    /// whether its claims end.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be remembered.
    pub async fn approve_removal(&self, key: &MappingKey) -> Result<bool, StoreError> {
        let transition = self.0.advance(key, PhaseEvent::RemovalApproved).await?;
        Ok(transition.effects.contains(&PhaseEffect::Persist))
    }

    /// The mapping is gone and nobody saw it being deleted: its claims freeze.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be remembered.
    pub async fn vanish_mapping(&self, key: &MappingKey, why: FreezeReason) -> Result<(), StoreError> {
        self.0.advance(key, |_| PhaseEvent::FoundMissing(why)).await.map(drop)
    }

    /// rolecall is to go: the claims of all mappings end as `uninstall` says, the guard aside, and no mapping is taken in any
    /// more. Answers how many mappings are not done with. To be called again until that is none.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be remembered.
    pub async fn begin_uninstall(&self, uninstall: UninstallMode) -> Result<usize, StoreError> {
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

    /// The object of a deleted mapping is let go before its claims could be ended: they are marked, and are ended all the
    /// same as soon as that is possible. Answers how many there are; none when that was so before, or nothing ends.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be remembered.
    pub async fn defer_revocation(&self, key: &MappingKey) -> Result<Option<u64>, StoreError> {
        let one_at_a_time = self.0.intake.lock().await;
        let deferred = self.mapping_phase(key).map(|phase| phase.on(PhaseEvent::DeadlineExceeded));
        if !deferred.is_some_and(|transition| transition.effects.contains(&PhaseEffect::MarkDeferred)) {
            return Ok(None);
        }
        let grants = self.0.store.abandon_claims(key).await?;
        let effects = self.0.state().catalog.advance(key, PhaseEvent::DeadlineExceeded);
        self.0.apply_effects(effects, &Trigger::none()).await;
        drop(one_at_a_time);
        Ok(Some(grants))
    }

    /// Phase of a mapping; none when nothing is known of it (any more).
    #[must_use]
    pub fn mapping_phase(&self, key: &MappingKey) -> Option<MappingPhase> {
        self.0.state().phase(key)
    }

    /// Does the ledger hold claims of this mapping?
    ///
    /// # Errors
    /// [`StoreError`], when it cannot be asked.
    pub async fn has_claims(&self, key: &MappingKey) -> Result<bool, StoreError> {
        Ok(!self.0.store.claimed_documents(key).await?.is_empty())
    }
}

impl Inner {
    /// Takes a mapping through what happens to it: the stored spec first, then the catalog, then the documents. `event` is
    /// told what becomes of the claims by the mapping's own word.
    async fn advance(
        &self,
        key: &MappingKey,
        event: impl FnOnce(ClaimDisposal) -> PhaseEvent,
    ) -> Result<Transition, StoreError> {
        let one_at_a_time = self.intake.lock().await;
        let (event, transition) = {
            let state = self.state();
            let event = match (event(state.catalog.disposal(key)), state.uninstall) {
                // While rolecall is to go, what was said about all of it counts, also for what is deleted meanwhile.
                (PhaseEvent::DeletionObserved(_) | PhaseEvent::RemovalApproved(_), Some(uninstall)) => {
                    PhaseEvent::UninstallRequested(uninstall.into())
                }
                (event, _) => event,
            };
            (event, MappingPhase::after(state.catalog.phase(key), event))
        };
        let ends = transition.next.is_some_and(MappingPhase::is_terminating);
        if let Some(phase) = transition.next.filter(|_| transition.effects.contains(&PhaseEffect::Persist)) {
            self.mark(key, phase.into()).await?;
        }
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
        if transition.effects.contains(&PhaseEffect::PlanClaimed) {
            self.enqueue_claimed(key).await?;
            drop(one_at_a_time);
            self.forget_if_done(key).await?;
        }
        Ok(transition)
    }

    async fn keep_ending(&self, key: &MappingKey, generation: i64, json: String) -> Result<(), StoreError> {
        let spec = StoredSpec {
            kind: kind::MAPPING.to_owned(),
            namespace: Some(key.namespace().to_owned()),
            name: key.name().to_owned(),
            generation,
            state: SpecState::Ending,
            source: SOURCE_OF_ENDING.to_owned(),
            json,
        };
        self.store.put_spec(spec).await
    }

    async fn mark(&self, key: &MappingKey, to: SpecState) -> Result<(), StoreError> {
        self.store.set_spec_state(kind::MAPPING, Some(key.namespace()), key.name(), to).await
    }

    /// Asks for a turn of every document on which the ledger holds claims of this mapping: the catalog only knows those
    /// that it reaches now.
    pub(super) async fn enqueue_claimed(&self, key: &MappingKey) -> Result<(), StoreError> {
        let documents = self.store.claimed_documents(key).await?;
        let at = super::revocation_due_at(Instant::now());
        {
            let mut queue = self.queue();
            for document in &documents {
                queue.enqueue(document, Lane::Removal, at);
            }
        }
        self.due.notify_one();
        Ok(())
    }

    /// Forgets a deleted mapping once nothing is claimed for it any more and no pass has it in its plan.
    pub(super) async fn forget_if_done(&self, key: &MappingKey) -> Result<(), StoreError> {
        let _one_at_a_time = self.intake.lock().await;
        let over = |state: &State| state.is_terminating(key) && !state.is_planned(key);
        if !over(&self.state()) || !self.store.claimed_documents(key).await?.is_empty() {
            return Ok(());
        }
        if !over(&self.state()) {
            // A pass began meanwhile; it looks again when it ends.
            return Ok(());
        }
        self.store.remove_pins(key).await?;
        for namespace in [Some(key.namespace()), None] {
            if namespace.is_some() || key.namespace() == DEFAULT_NAMESPACE {
                self.store.remove_spec(kind::MAPPING, namespace, key.name()).await?;
            }
        }
        let mut state = self.state();
        state.mappings.remove(key);
        state.changed_mappings.insert(key.clone());
        let _ = state.catalog.advance(key, PhaseEvent::ClaimsEnded);
        Ok(())
    }

    /// Waits no longer for a deleted mapping of which nothing is left but grants that stay until their people leave: its
    /// target does not let it leave them behind. It is remembered as deleted, over restarts too, until the last one is gone.
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

    /// Looks whether mappings that were deleted before the last end are done with.
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
