//! What was decided on the command line and left in the store, carried out by the leader.

use std::time::Duration;

use super::resources::{Resources, Terminating};
use crate::model::{MappingKey, MappingPhase};
use crate::store::{Decision, StoreError, UninstallMode};

/// How often is said what is in the way.
const SAY: Duration = Duration::from_secs(30);

impl Resources {
    /// rolecall is to go: all that was granted ends, and every mapping loses the finalizer once that is so for it.
    async fn begin_uninstall(&mut self, uninstall: UninstallMode) -> Result<(), StoreError> {
        let engine = self.parts.engine.clone();
        if engine.frozen().is_some() {
            // What the ledger lacks now would stay for ever.
            return Ok(());
        }
        if self.uninstall.replace(uninstall) != Some(uninstall) {
            self.settled = false;
            tracing::warn!(
                ?uninstall,
                mappings = engine.mappings().len(),
                "rolecall is to go: nothing is granted any more"
            );
        }
        let engine_may_revoke = self.parts.enforces;
        let left = engine.begin_uninstall(uninstall).await?;
        for (key, metadata) in self.held.clone() {
            if engine.mapping_phase(&key).is_none() && !self.leaving.contains_key(&key) {
                self.leaving.insert(key, Terminating::finalizer_only(metadata));
            }
        }
        if !engine_may_revoke
            && uninstall == UninstallMode::Revoke
            && left > 0
            && self.said.is_none_or(|at| at.elapsed() > SAY)
        {
            self.said = Some(tokio::time::Instant::now());
            tracing::error!(
                "nothing is revoked in --mode observe: start rolecall with --mode enforce, or uninstall with --orphan"
            );
        }
        if left == 0 && self.held.is_empty() && self.holding.is_empty() && !self.settled {
            self.settled = true;
            self.parts.store.put_decision(Decision::Uninstalled, self.parts.clock.now()).await?;
        }
        Ok(())
    }

    /// Carries out what `rolecall release` left in the store.
    pub(super) async fn follow_decisions(&mut self) -> Result<(), StoreError> {
        let (engine, store) = (self.parts.engine.clone(), self.parts.store.clone());
        for pending in store.decisions().await? {
            match pending.decision {
                // Whoever leads looks for it.
                Decision::AcceptStore | Decision::Uninstalled => continue,
                Decision::Uninstall(uninstall) => {
                    self.begin_uninstall(uninstall).await?;
                    continue;
                }
                _ => {}
            }
            let meant = |key: &MappingKey| match &pending.decision {
                Decision::ReleaseMapping(mapping) => key == mapping,
                Decision::ReleaseManifests => true,
                _ => false,
            };
            if let Decision::ReleasePlan(hash) = &pending.decision {
                if engine.is_settling() || engine.frozen().is_some() {
                    // What is held is not known again yet.
                    continue;
                }
                if engine.release_plan(hash).await? {
                    tracing::info!(plan.hash = %hash, "removals that were held are released");
                } else {
                    tracing::warn!(plan.hash = %hash, "nothing is held under this hash; the release is dropped");
                }
            } else {
                let vanished = |key: &MappingKey| engine.mapping_phase(key).and_then(MappingPhase::missing).is_some();
                let keys: Vec<MappingKey> =
                    engine.mappings().into_iter().filter(|key| meant(key) && vanished(key)).collect();
                if keys.is_empty() {
                    tracing::warn!(decision = ?pending.decision, "a release has nothing to end and is dropped");
                }
                for key in keys {
                    tracing::info!(mapping.name = %key, "{key} was released: its grants end");
                    engine.approve_removal(&key).await?;
                }
            }
            store.remove_decision(pending.id).await?;
        }
        Ok(())
    }
}
