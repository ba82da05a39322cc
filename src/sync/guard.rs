//! The guard in the engine: consulted before a plan is executed, reported by mapping, and released by a person.

use std::collections::BTreeSet;

use super::state::State;
use super::{Engine, Inner};
use crate::model::{AuditEntry, AuditOutcome, DocumentKey, MappingKey, Removal};
use crate::plan::{HeldPart, Plan, held_hash};
use crate::store::StoreError;

/// A mapping, and whether the held removals are those of leavers.
type Kind = (MappingKey, bool);

/// Held removals, as shown to a person under their hash.
struct Held {
    kind: Kind,
    hash: String,
    removals: Vec<(DocumentKey, Vec<Removal>)>,
}

impl Inner {
    /// The removals of a plan that are held. Called once for each reconcile that has removals, or had some that were
    /// held.
    pub(super) async fn held(&self, document: &DocumentKey, plan: &Plan) -> Result<BTreeSet<Removal>, StoreError> {
        self.store.guard(document, plan.asks.clone(), self.config.limits).await
    }

    /// Releases the removals whose hash is in the mapping's annotation `rolecall.dev/release`.
    pub(super) async fn release_named(&self, mappings: &BTreeSet<MappingKey>) -> Result<(), StoreError> {
        let named: Vec<(Held, String)> = {
            let state = self.state();
            let wants = |key: &&MappingKey| state.mappings.get(*key).is_some_and(|memory| !memory.released.is_empty());
            mappings
                .iter()
                .filter(wants)
                .flat_map(|key| {
                    let memory = &state.mappings[key];
                    let hashes = state.held_hashes(key).into_iter();
                    hashes
                        .filter(|(_, hash)| memory.released.contains(hash))
                        .map(|named| (state.held(named), format!("mapping:{key}@{}", memory.generation)))
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        for (held, actor) in named {
            self.release(held, &actor).await?;
        }
        Ok(())
    }

    /// Releases these removals, and none that were held later.
    async fn release(&self, held: Held, actor: &str) -> Result<(), StoreError> {
        let Held { kind, hash, removals } = held;
        let audit = removals.iter().map(|(document, _)| self.released(document, &hash, actor)).collect();
        self.store.release_removals(removals.clone(), audit).await?;
        tracing::info!(
            plan.hash = %hash, mapping.name = %kind.0, policies = removals.len(), "released held removals"
        );
        self.enqueue_removals(removals.iter().map(|(document, _)| document));
        Ok(())
    }

    fn released(&self, document: &DocumentKey, hash: &str, actor: &str) -> AuditEntry {
        AuditEntry {
            claims: vec![],
            at: self.clock.now(),
            actor: actor.to_owned(),
            request_id: None,
            cause_seqs: Vec::new(),
            document: Some(document.clone()),
            resource_uid: None,
            action: "release".to_owned(),
            grant: None,
            subject: None,
            plan_hash: Some(hash.to_owned()),
            revision_before: None,
            revision_after: None,
            outcome: AuditOutcome::Acknowledged,
            reason: None,
        }
    }
}

impl Engine {
    /// Releases the removals that are held under this hash, once. Returns whether there are any.
    ///
    /// # Errors
    /// [`StoreError`], when the release cannot be stored; then nothing is released.
    pub(crate) async fn release_plan(&self, hash: &str) -> Result<bool, StoreError> {
        let Some(held) = self.0.state().held_under(hash) else { return Ok(false) };
        self.0.release(held, "approver:command-line").await?;
        Ok(true)
    }
}

impl State {
    /// The held parts of one kind, by document.
    fn held_parts<'a>(&'a self, kind: &'a Kind) -> impl Iterator<Item = (&'a DocumentKey, &'a HeldPart)> {
        let documents = self.by_mapping.get(&kind.0).into_iter().flatten();
        documents.filter_map(|document| {
            let found = self.documents.get(document)?.found.as_ref()?;
            let part = found.held.parts.iter().find(|part| part.mapping == kind.0 && part.leavers == kind.1)?;
            Some((document, part))
        })
    }

    /// The hashes that release the held removals of this mapping, by kind.
    pub(super) fn held_hashes(&self, key: &MappingKey) -> Vec<(Kind, String)> {
        let hash = |leavers: bool| {
            let kind = (key.clone(), leavers);
            let mut parts = self.held_parts(&kind).peekable();
            parts.peek()?;
            let hash = held_hash(key, leavers, parts);
            Some((kind, hash))
        };
        [hash(false), hash(true)].into_iter().flatten().collect()
    }

    /// The removals covered by the hash, which was computed under the same lock.
    fn held(&self, (kind, hash): (Kind, String)) -> Held {
        let removals =
            self.held_parts(&kind).map(|(document, part)| (document.clone(), part.removals.clone())).collect();
        Held { kind, hash, removals }
    }

    /// The removals that are held under this hash, if any.
    fn held_under(&self, hash: &str) -> Option<Held> {
        let found = self.documents.values().filter_map(|memory| memory.found.as_ref());
        let keys: BTreeSet<&MappingKey> = found.flat_map(|found| &found.held.parts).map(|part| &part.mapping).collect();
        let found = keys.into_iter().flat_map(|key| self.held_hashes(key)).find(|(_, found)| found == hash);
        found.map(|found| self.held(found))
    }
}
