//! Decisions made on the command line and stored in the store: release, acceptance, uninstall. Carried out by the
//! leader.
//!
//! Decisions in annotations (`release`, `accept-group`) arrive with the object and are carried out by the engine.

use std::collections::BTreeSet;
use std::time::Duration;

use super::deletion::Deletion;
use super::{Controller, Holds};
use crate::api::manifest::ObjectRef;
use crate::model::{FreezeReason, MappingKey, MappingPhase};
use crate::source::folder::{FolderCommand, Suspicion};
use crate::store::{Decision, Store, StoreError, UninstallMode};
use crate::sync::Engine;

/// Interval between log lines about what blocks an uninstall.
const SAY: Duration = Duration::from_secs(30);

/// Ends the freeze when a person accepted the store. `remember`: writes the checkpoint of this store, and returns
/// whether that worked, so that a process started after a crash at this point continues.
///
/// # Errors
/// [`StoreError`], when the decision cannot be read or removed.
pub(crate) async fn accept_store(
    engine: &Engine,
    store: &Store,
    mut remember: impl AsyncFnMut() -> bool,
) -> Result<(), StoreError> {
    for pending in store.decisions().await? {
        if pending.decision != Decision::AcceptStore {
            continue;
        }
        if let Some(why @ (FreezeReason::StoreMismatch | FreezeReason::StoreRewound)) = engine.frozen() {
            if !remember().await {
                continue;
            }
            engine.freeze(None).await?;
            tracing::warn!(reason = %why.reason(), "the store was accepted; the freeze is lifted");
        } else {
            tracing::warn!("the store does not wait to be accepted; dropping the decision");
        }
        store.remove_decision(pending.id).await?;
    }
    Ok(())
}

impl Controller {
    /// Carries out the pending decisions, and tells the folder once what it is to forget. A decision that failed because
    /// of an error is found again.
    pub(super) async fn follow_decisions(&mut self) -> Result<(), StoreError> {
        let result = self.carry_out().await;
        self.forget_released().await;
        result
    }

    /// Tells the folder which mappings were released, also those of a release that failed halfway.
    async fn forget_released(&mut self) {
        let released = std::mem::take(&mut self.released);
        if let (Holds::Nothing(forget), false) = (&self.holds, released.is_empty()) {
            // The receiver is gone when the process is shutting down.
            let _ = forget.send(FolderCommand::Forget(released.iter().map(ObjectRef::of_mapping).collect())).await;
        }
    }

    async fn carry_out(&mut self) -> Result<(), StoreError> {
        let decisions = self.store.decisions().await?;
        if !decisions.iter().any(|pending| matches!(pending.decision, Decision::Uninstall(_))) {
            // Canceled, or not started: the next one is reported again.
            (self.uninstall, self.settled) = (None, false);
        }
        let last = decisions.iter().map(|pending| pending.id).max();
        for pending in decisions {
            let done = match &pending.decision {
                Decision::AcceptStore => self.refuse_acceptance(),
                Decision::Uninstalled => false,
                Decision::Uninstall(uninstall) => {
                    self.uninstall(*uninstall).await?;
                    false
                }
                Decision::ReleasePlan(hash) => self.release_plan(hash).await?,
                Decision::ReleaseManifests if self.suspicion == Some(Suspicion::FolderMissing) => {
                    // If the decision was kept, it would apply to whatever the folder lacks when it is back, which
                    // nobody has checked.
                    tracing::warn!(
                        "a release of the manifests is refused: the folder cannot be read; release again when it can"
                    );
                    self.release(&pending.decision, |_| false).await?
                }
                Decision::ReleaseManifests => self.release(&pending.decision, |_| true).await?,
                Decision::ReleaseMapping(mapping) => self.release(&pending.decision, |key| key == mapping).await?,
            };
            if done {
                self.store.remove_decision(pending.id).await?;
            }
        }
        if let Some(last) = last {
            self.engine.decisions_considered(last);
        }
        Ok(())
    }

    /// Drops the acceptance of a folder; in a cluster the leader handles it. Returns whether the decision is dropped.
    fn refuse_acceptance(&self) -> bool {
        let folder = matches!(self.holds, Holds::Nothing(_));
        if folder {
            tracing::warn!("a folder is accepted with `rolecall store accept --manifests DIR`; dropping the decision");
        }
        folder
    }

    /// Releases the removals held under a hash. Returns whether the decision is finished.
    async fn release_plan(&self, hash: &str) -> Result<bool, StoreError> {
        if self.engine.frozen().is_some() {
            // The held removals are unknown.
            return Ok(false);
        }
        if self.engine.release_plan(hash).await? {
            tracing::info!(plan.hash = %hash, "released held removals");
        } else if self.engine.is_settling() {
            // The held removals are not known again yet.
            return Ok(false);
        } else {
            tracing::warn!(plan.hash = %hash, "nothing is held under this hash; dropping the release");
        }
        Ok(true)
    }

    /// Ends the claims of missing mappings. Existing mappings are not affected.
    async fn release(&mut self, decision: &Decision, meant: impl Fn(&MappingKey) -> bool) -> Result<bool, StoreError> {
        let missing = |key: &MappingKey| self.engine.mapping_phase(key).and_then(MappingPhase::missing).is_some();
        let mut keys: BTreeSet<MappingKey> = self.engine.mappings().into_iter().filter(|key| missing(key)).collect();
        // Including those whose last valid spec cannot be read.
        keys.extend(self.absent.iter().filter(|key| self.engine.mapping_phase(key).is_none()).cloned());
        keys.retain(|key| meant(key));
        if keys.is_empty() {
            tracing::warn!(?decision, "no missing mapping matches the release; dropping it");
        }
        for key in &keys {
            tracing::info!(mapping.name = %key, "{key} was released: its grants end");
            let approved = self.engine.approve_removal(key).await;
            // An error after the phase was stored does not make the mapping missing again.
            if approved.is_ok() || !missing(key) {
                self.absent.remove(key);
                self.released.insert(key.clone());
            }
            approved?;
        }
        Ok(true)
    }

    /// Uninstalls: all grants end, and every mapping loses the finalizer once its grants are settled.
    async fn uninstall(&mut self, uninstall: UninstallMode) -> Result<(), StoreError> {
        if self.engine.frozen().is_some() {
            // Grants that the ledger currently lacks would stay forever.
            return Ok(());
        }
        if self.uninstall.replace(uninstall) != Some(uninstall) {
            self.settled = false;
            let mappings = self.engine.mappings().len();
            tracing::warn!(?uninstall, mappings, "uninstall requested, no new grants will be made");
        }
        let left = self.engine.begin_uninstall(uninstall).await?;
        for (key, metadata) in self.finalized.clone() {
            if self.engine.mapping_phase(&key).is_none() {
                self.deletions.entry(key).or_insert_with(|| Deletion::finalizer_only(metadata));
            }
        }
        if !self.enforces
            && uninstall == UninstallMode::Revoke
            && left > 0
            && self.reported.is_none_or(|at| at.elapsed() > SAY)
        {
            self.reported = Some(tokio::time::Instant::now());
            tracing::error!(
                "nothing is revoked in --mode observe: start rolecall with --mode enforce, or uninstall with --orphan"
            );
        }
        if left == 0 && self.finalized.is_empty() && self.adding.is_empty() && !self.is_adding() && !self.settled {
            self.store.put_decision(Decision::Uninstalled, self.clock.now()).await?;
            self.settled = true;
        }
        Ok(())
    }
}
