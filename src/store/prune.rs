//! Retention: rows before a point in time are compacted, so that positions from there on can be rebuilt as before.
//!
//! `history_since` is moved first, so that no answer is built from a position that is only partly there, and so that
//! the highest position never falls. Then events, versions, history, audit rows and names are removed in small
//! transactions, oldest first. Each of them leaves a store from which every later position can be rebuilt as before; an
//! interrupted run is finished by the next one.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::audit::{Anchor, AuditDraft, COMMAND, PRUNE};
use super::compaction::{Compaction, Fate};
use super::encoding;
use super::lanes::{REQUEST, Ticket, cost};
use super::sqlite::prune::{self, Rows};
use super::sqlite::{Transaction, meta};
use super::{Store, StoreError};
use crate::model::Seq;

/// Largest number of events in one read.
const BATCH: u32 = 500;

/// Largest number of rows that one transaction changes.
const CHUNK: usize = 500;

/// Largest number of bytes that one transaction writes.
const CHUNK_BYTES: usize = 256 * 1024;

/// Shortest pause between two transactions, because other processes wait for the lock by polling.
const PAUSE: Duration = Duration::from_millis(25);

/// The result of a prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pruned {
    /// The oldest position whose catalog can be rebuilt afterwards.
    pub(crate) history_since: Seq,
    /// The first remaining row of the audit.
    pub(crate) audit_since: i64,
    /// Removed events.
    pub(crate) events: u64,
    /// Events of which only those members remain that still are members because of them.
    pub(crate) shortened_events: u64,
    /// Removed versions of custom resources.
    pub(crate) spec_versions: u64,
    /// Removed changes of pins, inventory, namespaces and directories.
    pub(crate) history: u64,
    /// Removed rows of the audit.
    pub(crate) audit_rows: u64,
    /// Removed names that no row of the audit refers to any more.
    pub(crate) names: u64,
    /// Removed refusals of members that the directory no longer knows.
    pub(crate) refusals: u64,
}

/// The point at which a prune cuts.
#[derive(Clone)]
struct Cut {
    /// The last position that is compacted; 0 for none.
    seq: Seq,
    audit: Anchor,
}

/// Changes of the event log that are written together.
#[derive(Default)]
struct Chunk {
    removed: Vec<Seq>,
    shortened: Vec<(Seq, String)>,
    bytes: usize,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.removed.len() + self.shortened.len() >= CHUNK || self.bytes >= CHUNK_BYTES
    }
}

/// A prune that removes rows, or only counts them.
struct Run<'s> {
    store: &'s Store,
    cut: Cut,
    dry: bool,
    /// End and duration of the last transaction.
    last: Option<(Instant, Duration)>,
}

impl Run<'_> {
    /// Runs a statement in a transaction, unless another prune started meanwhile.
    async fn write(
        &mut self,
        rows: usize,
        bytes: usize,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        if self.dry {
            return Ok(());
        }
        if let Some((ended, took)) = self.last {
            // At least as long as the lock was held.
            let pause = PAUSE.max(took).saturating_sub(ended.elapsed());
            tokio::time::sleep(pause).await;
        }
        let began = Instant::now();
        let cut = self.cut.seq;
        self.store
            .commit(Ticket::engine(cost(rows, bytes)), move |tx| {
                if prune::pruned_to(tx)? != cut {
                    let problem = "another prune of the same database started; run this one again".to_owned();
                    return Err(StoreError::Unavailable { problem });
                }
                work(tx)
            })
            .await?;
        self.last = Some((Instant::now(), began.elapsed()));
        Ok(())
    }

    /// Deletes rows that are no longer needed, oldest first.
    async fn delete(&mut self, rows: Rows) -> Result<u64, StoreError> {
        let cut = self.cut.seq;
        let keys = self.store.read(move |db| prune::find(db, rows, cut)).await?;
        let found = keys.len() as u64;
        for chunk in keys.chunks(CHUNK) {
            let keys = chunk.to_vec();
            self.write(chunk.len(), 0, move |tx| prune::delete(tx, rows, &keys)).await?;
        }
        Ok(found)
    }

    async fn events(&mut self, pruned: &mut Pruned) -> Result<(), StoreError> {
        let mut compaction = Compaction::default();
        let mut after = 0;
        while let Some(events) = self.store.events_up_to(after, self.cut.seq).await? {
            for event in &events {
                compaction.note(event.seq, &event.change);
                after = event.seq;
            }
        }
        let mut chunk = Chunk::default();
        after = 0;
        while let Some(events) = self.store.events_up_to(after, self.cut.seq).await? {
            for event in events {
                after = event.seq;
                match compaction.fate(event.seq, &event.change) {
                    Fate::Retain => continue,
                    Fate::Remove => {
                        pruned.events += 1;
                        chunk.removed.push(event.seq);
                    }
                    Fate::Shorten(change) => {
                        pruned.shortened_events += 1;
                        let change = encoding::json(&change)?;
                        chunk.bytes += change.len();
                        chunk.shortened.push((event.seq, change));
                    }
                }
                if chunk.is_full() {
                    self.write_events(std::mem::take(&mut chunk)).await?;
                }
            }
        }
        self.write_events(chunk).await
    }

    async fn write_events(&mut self, chunk: Chunk) -> Result<(), StoreError> {
        let (rows, bytes) = (chunk.removed.len() + chunk.shortened.len(), chunk.bytes);
        if rows == 0 {
            return Ok(());
        }
        let Chunk { removed, shortened, .. } = chunk;
        self.write(rows, bytes, move |tx| prune::change_events(tx, &removed, &shortened)).await
    }

    /// Removes the audit rows up to the cut. Each part moves the anchor from which the rest verifies.
    async fn audit(&mut self) -> Result<u64, StoreError> {
        let first = self.store.audit_anchor().await?.seq;
        let last = self.cut.audit.seq;
        let mut removed = first;
        while removed < last {
            let upto = last.min(removed.saturating_add(i64::try_from(CHUNK).unwrap_or(i64::MAX)));
            self.write(CHUNK, 0, move |tx| prune::delete_audit(tx, upto)).await?;
            removed = upto;
        }
        Ok(last.saturating_sub(first).unsigned_abs())
    }

    async fn refusals(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        let keys = self.store.read(move |db| prune::refusals(db, before)).await?;
        let found = keys.len() as u64;
        for chunk in keys.chunks(CHUNK) {
            let keys = chunk.to_vec();
            self.write(chunk.len(), 0, move |tx| prune::delete_refusals(tx, &keys)).await?;
        }
        Ok(found)
    }

    async fn names(&mut self) -> Result<u64, StoreError> {
        let seen = self.store.highest_audit_seq().await?;
        let last = self.cut.audit.seq;
        let ids = self.store.read(move |db| prune::names(db, last)).await?;
        for chunk in ids.chunks(CHUNK) {
            let ids = chunk.to_vec();
            self.write(chunk.len(), 0, move |tx| prune::delete_names(tx, &ids, seen)).await?;
        }
        Ok(ids.len() as u64)
    }
}

impl Store {
    /// Removes rows that are older than a point in time and not needed to rebuild the catalog for later positions. Runs
    /// concurrently with other processes; called again after an interruption, it continues. The removed bytes remain in
    /// the free space of the file until that is reused, or until [`Store::rewrite_file`]. `dry`: only counts.
    ///
    /// # Errors
    /// [`StoreError::AuditBroken`], since removed rows cannot be examined any more; [`StoreError::Unavailable`], also
    /// when another prune starts meanwhile; [`StoreError::Damaged`].
    pub(crate) async fn prune(&self, before: Timestamp, dry: bool) -> Result<Pruned, StoreError> {
        self.verify_audit_chain().await?;
        let cut = self.cut(before).await?;
        let since = self.oldest_seq().await?.max(cut.seq);
        let mut pruned =
            Pruned { history_since: since, audit_since: cut.audit.seq.saturating_add(1), ..Pruned::default() };
        let mut run = Run { store: self, cut: cut.clone(), dry, last: None };
        if !dry {
            self.begin_prune(since, cut.clone()).await?;
        }
        if cut.seq > 0 {
            run.events(&mut pruned).await?;
            for rows in [Rows::SpecVersions, Rows::RemovedSpecs] {
                pruned.spec_versions += run.delete(rows).await?;
            }
            for rows in [Rows::History, Rows::EndedHistory] {
                pruned.history += run.delete(rows).await?;
            }
        }
        pruned.audit_rows = run.audit().await?;
        pruned.names = run.names().await?;
        pruned.refusals = run.refusals(before).await?;
        Ok(pruned)
    }

    async fn cut(&self, before: Timestamp) -> Result<Cut, StoreError> {
        let anchor = self.audit_anchor().await?;
        self.read(move |db| {
            let (seq, audit) = prune::cut(db, before)?;
            let audit = audit.map_or(anchor, |(seq, hash)| Anchor { seq, hash });
            Ok(Cut { seq, audit })
        })
        .await
    }

    /// Records what will no longer be known, before any of it is removed.
    async fn begin_prune(&self, since: Seq, cut: Cut) -> Result<(), StoreError> {
        self.commit(Ticket::engine(REQUEST), move |tx| {
            for (key, value) in [("history_since", since), ("pruned_to", cut.seq)] {
                meta::raise(tx, key, value)?;
            }
            let detail = json!({
                "historySince": since, "auditThrough": cut.audit.seq, "auditHash": cut.audit.hash,
            });
            let draft = AuditDraft::configuration(tx.now, COMMAND, PRUNE, "store", None);
            tx.audit(draft.with_detail(detail.to_string()));
            Ok(())
        })
        .await
    }

    /// Events after a position and up to another one; none when there are no more.
    async fn events_up_to(
        &self,
        after: Seq,
        last: Seq,
    ) -> Result<Option<Vec<crate::model::DirectoryEvent>>, StoreError> {
        let mut events = self.events_after(after, BATCH).await?;
        events.retain(|event| event.seq <= last);
        Ok(Some(events).filter(|events| !events.is_empty()))
    }
}
