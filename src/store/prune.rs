//! Retention: what lies before a point in time is compacted, so that positions from there on stay as they are.
//!
//! First `history_since` is moved, so that nobody is answered from a position that is only half there, and so that the
//! highest position never falls. Then events, versions, history, audit rows and names go in small transactions, oldest
//! first. Each of them leaves a store from which every later position is rebuilt as before; an interrupted run is
//! finished by the next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use sqlx::query;

use super::audit::{Anchor, AuditDraft, COMMAND, PRUNE};
use super::committer::{Ticket, Transaction};
use super::compaction::{Compaction, Fate};
use super::lanes::cost;
use super::sql::{self, Columns, nanos};
use super::{Store, StoreError};
use crate::model::Seq;

/// Most events in one read.
const BATCH: u32 = 500;

/// Most rows that one transaction changes.
const CHUNK: usize = 500;

/// Most bytes that one transaction writes.
const CHUNK_BYTES: usize = 256 * 1024;

/// Least time between two transactions: other processes wait for the lock by trying again.
const PAUSE: Duration = Duration::from_millis(25);

/// Everything before the first row that is not older than a point in time, over the three tables of the one sequence.
/// A clock that was set back leaves some rows until a later run.
const CUT: &str = "SELECT min(coalesce((SELECT min(seq) FROM events WHERE at >= ?1), ?2), \
    coalesce((SELECT min(seq) FROM spec_versions WHERE at >= ?1), ?2), \
    coalesce((SELECT min(seq) FROM history WHERE at >= ?1), ?2))";

/// The position up to which a prune began to compact; 0 when none ever did.
const PRUNED_TO: &str = "SELECT coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'pruned_to'), 0)";

const AUDIT_CUT: &str = "SELECT seq, hash FROM audit WHERE seq < coalesce((SELECT min(seq) FROM audit WHERE at >= ?), \
    (SELECT max(seq) + 1 FROM audit)) ORDER BY seq DESC LIMIT 1";

/// Versions that a later one up to the position replaces, but for those that a claim was made under.
const SPEC_VERSIONS: &str = "WITH claimed AS MATERIALIZED (SELECT DISTINCT mapping_uid AS uid, generation FROM claims) \
    SELECT seq FROM spec_versions v WHERE seq <= ?1 AND EXISTS (SELECT 1 FROM spec_versions l WHERE l.kind = v.kind \
        AND l.namespace = v.namespace AND l.name = v.name AND l.seq > v.seq AND l.seq <= ?1) \
    AND (v.uid, v.generation) NOT IN (SELECT uid, generation FROM claimed WHERE uid IS NOT NULL AND generation IS NOT NULL) \
    ORDER BY seq";

/// The last versions of what was removed, once no earlier one is left that they end.
const REMOVED_SPECS: &str = "WITH claimed AS MATERIALIZED (SELECT DISTINCT mapping_uid AS uid, generation FROM claims) \
    SELECT seq FROM spec_versions v WHERE seq <= ?1 AND phase = 'removed' \
    AND NOT EXISTS (SELECT 1 FROM spec_versions l WHERE l.kind = v.kind AND l.namespace = v.namespace \
        AND l.name = v.name AND l.seq > v.seq AND l.seq <= ?1) \
    AND NOT EXISTS (SELECT 1 FROM spec_versions o WHERE o.kind = v.kind AND o.namespace = v.namespace \
        AND o.name = v.name AND o.seq < v.seq AND (o.uid, o.generation) IN \
            (SELECT uid, generation FROM claimed WHERE uid IS NOT NULL AND generation IS NOT NULL)) ORDER BY seq";

/// Values that a later one up to the position replaces.
const HISTORY: &str = "SELECT seq FROM history h WHERE seq <= ?1 AND EXISTS (SELECT 1 FROM history l \
    WHERE l.kind = h.kind AND l.scope = h.scope AND l.name = h.name AND l.seq > h.seq AND l.seq <= ?1) ORDER BY seq";

/// Ends of values of which nothing earlier is left.
const ENDED: &str = "SELECT seq FROM history h WHERE seq <= ?1 AND value IS NULL AND NOT EXISTS (SELECT 1 FROM history l \
    WHERE l.kind = h.kind AND l.scope = h.scope AND l.name = h.name AND l.seq > h.seq AND l.seq <= ?1) ORDER BY seq";

const DELETE_SPEC_VERSIONS: &str = "DELETE FROM spec_versions WHERE seq IN (SELECT value FROM json_each(?))";
const DELETE_HISTORY: &str = "DELETE FROM history WHERE seq IN (SELECT value FROM json_each(?))";

/// Names that no audit row after a position refers to.
const NAMES: &str = "SELECT id FROM people WHERE id NOT IN \
    (SELECT person FROM audit WHERE seq > ? AND person IS NOT NULL) ORDER BY id";

/// Parameters: ids, and the last audit row when they were found.
const DELETE_NAMES: &str = "DELETE FROM people WHERE id IN (SELECT value FROM json_each(?)) \
    AND id NOT IN (SELECT person FROM audit WHERE seq > ? AND person IS NOT NULL)";

/// Refusals that are older than a point in time, of members whom no user is. Nobody else would ever forget them.
const REFUSALS: &str = "SELECT reach, member_key, role FROM refusals r WHERE since < ? AND member_key LIKE 'user:%' \
    AND NOT EXISTS (SELECT 1 FROM counters c CROSS JOIN users u ON u.provider = c.provider \
        AND u.user_name_fold = substr(r.member_key, 6)) \
    AND NOT EXISTS (SELECT 1 FROM counters c CROSS JOIN users u ON u.provider = c.provider \
        AND u.external_id = substr(r.member_key, 6)) \
    AND NOT EXISTS (SELECT 1 FROM counters c CROSS JOIN user_emails e ON e.provider = c.provider \
        AND e.value_fold = substr(r.member_key, 6))";

/// What a prune removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// The oldest position whose catalog can be rebuilt afterwards.
    pub history_since: Seq,
    /// The first row of the audit that stays.
    pub audit_since: i64,
    /// Events that are removed.
    pub events: u64,
    /// Events of which only the members stay that are members by them.
    pub shortened_events: u64,
    /// Versions of custom resources.
    pub spec_versions: u64,
    /// Changes of pins, inventory, namespaces and directories.
    pub history: u64,
    /// Rows of the audit.
    pub audit_rows: u64,
    /// Names that no row of the audit refers to any more.
    pub names: u64,
    /// Refusals of members whom the directory does not know any more.
    pub refusals: u64,
}

/// Where a prune cuts.
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

/// Carries out, or only counts.
struct Run<'s> {
    store: &'s Store,
    cut: Cut,
    dry: bool,
    /// When the last transaction ended, and how long it took.
    last: Option<(Instant, Duration)>,
}

impl Run<'_> {
    /// Runs a statement in a transaction, unless another prune began since.
    async fn write(
        &mut self,
        rows: usize,
        bytes: usize,
        work: impl for<'t> FnOnce(&'t mut Transaction) -> futures::future::BoxFuture<'t, Result<(), StoreError>>
        + Send
        + 'static,
    ) -> Result<(), StoreError> {
        if self.dry {
            return Ok(());
        }
        if let Some((ended, took)) = self.last {
            // As long as the lock was held, at least.
            let pause = PAUSE.max(took).saturating_sub(ended.elapsed());
            tokio::time::sleep(pause).await;
        }
        let began = Instant::now();
        let cut = self.cut.seq;
        self.store
            .committer()
            .commit_as(Ticket::engine(cost(rows, bytes)), move |tx| {
                Box::pin(async move {
                    let row = query(PRUNED_TO).fetch_one(&mut tx.connection).await?;
                    if Columns::of(&row, "meta").integer()? != cut {
                        let problem = "another prune of the same database began; run this one again".to_owned();
                        return Err(StoreError::Unavailable { problem });
                    }
                    work(tx).await
                })
            })
            .await?;
        self.last = Some((Instant::now(), began.elapsed()));
        Ok(())
    }

    /// Deletes rows by their positions or ids, oldest first.
    async fn delete(&mut self, sql: &'static str, keys: &[i64]) -> Result<u64, StoreError> {
        for chunk in keys.chunks(CHUNK) {
            let keys = sql::json(&chunk)?;
            self.write(chunk.len(), 0, move |tx| {
                Box::pin(async move {
                    query(sql).bind(keys).execute(&mut tx.connection).await?;
                    Ok(())
                })
            })
            .await?;
        }
        Ok(keys.len() as u64)
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
                        let change = sql::json(&change)?;
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
        let (removed, shortened) = (sql::json(&chunk.removed)?, sql::json(&chunk.shortened)?);
        self.write(rows, bytes, move |tx| {
            Box::pin(async move {
                query(
                    "DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?)); \
                     UPDATE events SET change = given.value ->> 1 FROM json_each(?) given \
                     WHERE events.seq = given.value ->> 0",
                )
                .bind(removed)
                .bind(shortened)
                .execute(&mut tx.connection)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Removes the rows of the audit up to the cut. With each part goes the anchor from which the rest verifies.
    async fn audit(&mut self) -> Result<u64, StoreError> {
        let first = self.store.audit_anchor().await?.seq;
        let last = self.cut.audit.seq;
        let mut removed = first;
        while removed < last {
            let upto = last.min(removed.saturating_add(i64::try_from(CHUNK).unwrap_or(i64::MAX)));
            self.write(CHUNK, 0, move |tx| {
                Box::pin(async move {
                    query(
                        "INSERT INTO meta (key, value) SELECT 'audit_anchor', json_array(seq, hash) FROM audit \
                             WHERE seq = ?1 ON CONFLICT DO UPDATE SET value = excluded.value; \
                         DELETE FROM audit WHERE seq <= ?1",
                    )
                    .bind(upto)
                    .execute(&mut tx.connection)
                    .await?;
                    Ok(())
                })
            })
            .await?;
            removed = upto;
        }
        Ok(last.saturating_sub(first).unsigned_abs())
    }

    async fn refusals(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        let rows = query(REFUSALS).bind(nanos(before)).fetch_all(self.store.readers()).await?;
        let keys = rows.iter().map(|row| {
            let mut columns = Columns::of(row, "refusals");
            Ok((columns.text()?, columns.text()?, columns.text()?))
        });
        let keys = keys.collect::<Result<Vec<_>, StoreError>>()?;
        for chunk in keys.chunks(CHUNK) {
            let keys = sql::json(&chunk)?;
            self.write(chunk.len(), 0, move |tx| {
                Box::pin(async move {
                    query(
                        "DELETE FROM refusals WHERE (reach, member_key, role) IN \
                         (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))",
                    )
                    .bind(keys)
                    .execute(&mut tx.connection)
                    .await?;
                    Ok(())
                })
            })
            .await?;
        }
        Ok(keys.len() as u64)
    }

    async fn names(&mut self) -> Result<u64, StoreError> {
        let seen = self.store.highest_audit_seq().await?;
        let ids = self.store.integers(NAMES, self.cut.audit.seq).await?;
        for chunk in ids.chunks(CHUNK) {
            let ids = sql::json(&chunk)?;
            self.write(chunk.len(), 0, move |tx| {
                Box::pin(async move {
                    query(DELETE_NAMES).bind(ids).bind(seen).execute(&mut tx.connection).await?;
                    Ok(())
                })
            })
            .await?;
        }
        Ok(ids.len() as u64)
    }
}

impl Store {
    /// Removes what is older than a point in time and not needed to rebuild the catalog for later positions. Runs beside
    /// other processes; done again after an interruption, it goes on. What was removed stays in the free space of the file
    /// until that is used again, or until [`Store::rewrite_file`]. `dry`: only counts.
    ///
    /// # Errors
    /// [`StoreError::AuditBroken`], since what goes could not be examined any more; [`StoreError::Unavailable`], also when
    /// another prune begins meanwhile; [`StoreError::Damaged`].
    pub async fn prune(&self, before: Timestamp, dry: bool) -> Result<Pruned, StoreError> {
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
            for (found, delete) in [(SPEC_VERSIONS, DELETE_SPEC_VERSIONS), (REMOVED_SPECS, DELETE_SPEC_VERSIONS)] {
                pruned.spec_versions += run.delete(delete, &self.integers(found, cut.seq).await?).await?;
            }
            for (found, delete) in [(HISTORY, DELETE_HISTORY), (ENDED, DELETE_HISTORY)] {
                pruned.history += run.delete(delete, &self.integers(found, cut.seq).await?).await?;
            }
        }
        pruned.audit_rows = run.audit().await?;
        pruned.names = run.names().await?;
        pruned.refusals = run.refusals(before).await?;
        Ok(pruned)
    }

    async fn cut(&self, before: Timestamp) -> Result<Cut, StoreError> {
        let next = self.highest_seq().await?.saturating_add(1);
        let row = query(CUT).bind(nanos(before)).bind(next).fetch_one(self.readers()).await?;
        let first = Columns::of(&row, "events").integer()?;
        let done = Columns::of(&query(PRUNED_TO).fetch_one(self.readers()).await?, "meta").integer()?;
        let seq = done.max(first.saturating_sub(1));
        let anchor = self.audit_anchor().await?;
        let audit = match query(AUDIT_CUT).bind(nanos(before)).fetch_optional(self.readers()).await? {
            None => anchor,
            Some(row) => {
                let mut columns = Columns::of(&row, "audit");
                Anchor { seq: columns.integer()?, hash: columns.text()? }
            }
        };
        Ok(Cut { seq, audit })
    }

    /// Says what is not known any more, before any of it goes.
    async fn begin_prune(&self, since: Seq, cut: Cut) -> Result<(), StoreError> {
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    for (key, value) in [("history_since", since), ("pruned_to", cut.seq)] {
                        query(
                            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE \
                             SET value = excluded.value WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
                        )
                        .bind(key)
                        .bind(value.to_string())
                        .execute(&mut tx.connection)
                        .await?;
                    }
                    let detail = json!({
                        "historySince": since, "auditThrough": cut.audit.seq, "auditHash": cut.audit.hash,
                    });
                    let draft = AuditDraft::configuration(tx.now, COMMAND, PRUNE, "store", None);
                    tx.audit(draft.with_detail(detail.to_string()));
                    Ok(())
                })
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

    /// The first column of all rows.
    async fn integers(&self, sql: &'static str, parameter: i64) -> Result<Vec<i64>, StoreError> {
        let rows = query(sql).bind(parameter).fetch_all(self.readers()).await?;
        let found = rows.iter().map(|row| Columns::of(row, "rows").integer()).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(found.into_iter().collect())
    }
}
