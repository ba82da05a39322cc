//! An open write transaction, shared by the requests of one batch.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::audit;
use super::events;
use super::query::Query as _;
use crate::model::{Clock, DirectoryChange, ProviderName, Seq};
use crate::store::audit::AuditDraft;
use crate::store::encoding::{json, nanos};
use crate::store::{Epoch, StoreError, Usage};

/// Inputs of transactions from outside the database.
#[derive(Clone)]
pub(super) struct Ports {
    pub(super) clock: std::sync::Arc<dyn Clock>,
    /// Generates ids for objects that have none of their own.
    pub(super) new_id: std::sync::Arc<dyn Fn() -> Uuid + Send + Sync>,
}

/// An open write transaction. Events, audit rows and counters are collected and written at its end.
pub(crate) struct Transaction<'c> {
    /// The connection of the transaction.
    pub(super) db: &'c mut Connection,
    /// Start of the batch: the time of everything in it.
    pub(crate) now: Timestamp,
    ports: &'c Ports,
    epoch: Epoch,
    seq: Seq,
    audit_seq: i64,
    audit_hash: String,
    events: Vec<(Seq, ProviderName, String)>,
    audit: Vec<AuditDraft>,
    counters: BTreeMap<ProviderName, Usage>,
}

/// The amount that was collected when a request started.
struct Mark {
    epoch: Epoch,
    seq: Seq,
    events: usize,
    audit: usize,
    counters: BTreeMap<ProviderName, Usage>,
}

/// The ends of the two logs and the leader: another process may have written.
const STATE: &str = concat!(
    "SELECT ",
    events::highest_seq!(),
    ", a.seq, a.hash, coalesce((SELECT epoch FROM leadership), 0) \
     FROM (SELECT 1) LEFT JOIN (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1) a"
);

pub(super) const EVENT: &str = "INSERT INTO events (seq, provider, at, change) VALUES (?, ?, ?, ?)";

pub(super) const COUNT: &str = "INSERT INTO counters (provider, users, groups, members, bytes, resources) VALUES (?, ?, ?, ?, ?, ?) \
    ON CONFLICT (provider) DO UPDATE SET users = users + excluded.users, groups = groups + excluded.groups, \
        members = members + excluded.members, bytes = bytes + excluded.bytes, resources = resources + excluded.resources";

impl<'c> Transaction<'c> {
    /// Begins a transaction and waits for the lock.
    pub(super) fn begin(db: &'c mut Connection, ports: &'c Ports) -> Result<Self, StoreError> {
        db.run("BEGIN IMMEDIATE", [])?;
        let (seq, audit_seq, audit_hash, epoch) = db.one("audit", STATE, [], |columns| {
            Ok((columns.integer()?, columns.integer_or_none()?, columns.text_or_none()?, columns.integer()?))
        })?;
        Ok(Self {
            db,
            now: ports.clock.now(),
            ports,
            epoch: Epoch::of(epoch),
            seq,
            audit_seq: audit_seq.unwrap_or(0),
            audit_hash: audit_hash.unwrap_or_default(),
            events: Vec::new(),
            audit: Vec::new(),
            counters: BTreeMap::new(),
        })
    }

    /// Runs one request in its own savepoint, so that a failed request leaves nothing behind. An error of this function
    /// means that the transaction is lost; errors of requests are returned by the requests themselves.
    pub(super) fn request(&mut self, run: impl FnOnce(&mut Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.db.run("SAVEPOINT request", [])?;
        let mark = self.mark();
        match run(self) {
            Ok(()) => {}
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Damaged { what: "database", .. })) => {
                return Err(error);
            }
            Err(_) => {
                self.db.run("ROLLBACK TO request", [])?;
                self.back_to(mark);
            }
        }
        self.db.run("RELEASE request", [])?;
        Ok(())
    }

    /// Writes both logs and the counters, and commits. Returns the last position of the log.
    pub(super) fn finish(mut self) -> Result<Seq, StoreError> {
        let at = nanos(self.now);
        for (seq, provider, change) in &self.events {
            self.db.run(EVENT, params![seq, provider.as_str(), at, change])?;
        }
        for (provider, all) in &self.counters {
            self.db
                .run(COUNT, params![provider.as_str(), all.users, all.groups, all.members, all.bytes, all.resources])?;
        }
        for draft in std::mem::take(&mut self.audit) {
            self.audit_seq += 1;
            let row = draft.chained(self.audit_seq, &self.audit_hash)?;
            audit::append(self.db, &row)?;
            self.audit_hash = row.hash;
        }
        self.db.run("COMMIT", [])?;
        Ok(self.seq)
    }

    fn mark(&self) -> Mark {
        Mark {
            epoch: self.epoch,
            seq: self.seq,
            events: self.events.len(),
            audit: self.audit.len(),
            counters: self.counters.clone(),
        }
    }

    fn back_to(&mut self, mark: Mark) {
        self.epoch = mark.epoch;
        self.seq = mark.seq;
        self.events.truncate(mark.events);
        self.audit.truncate(mark.audit);
        self.counters = mark.counters;
    }

    /// The time of this transaction in its stored form.
    pub(super) fn now_nanos(&self) -> i64 {
        nanos(self.now)
    }

    /// A new id for an object.
    pub(super) fn new_id(&self) -> Uuid {
        (self.ports.new_id)()
    }

    /// The epoch of the database, which cannot change before this transaction ends.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Records that a request of this transaction began this epoch.
    pub(super) fn led_under(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Appends to the event log; returns the position.
    pub(crate) fn event(&mut self, provider: &ProviderName, change: &DirectoryChange) -> Result<Seq, StoreError> {
        let change = json(change)?;
        let seq = self.next_seq();
        self.events.push((seq, provider.clone(), change));
        Ok(seq)
    }

    /// The last position that was taken.
    pub(super) fn seq(&self) -> Seq {
        self.seq
    }

    /// The next position of the sequence shared by events and history. The caller has to write a row with it.
    pub(super) fn next_seq(&mut self) -> Seq {
        self.seq += 1;
        self.seq
    }

    /// Appends to the audit log.
    pub(crate) fn audit(&mut self, draft: AuditDraft) {
        self.audit.push(draft);
    }

    /// Counts a change of the stored amount.
    pub(crate) fn count(&mut self, provider: &ProviderName, change: Usage) {
        let counter = self.counters.entry(provider.clone()).or_default();
        *counter = counter.plus(change);
    }

    /// The change of this provider's stored amount in this transaction.
    pub(super) fn counted(&self, provider: &ProviderName) -> Usage {
        self.counters.get(provider).copied().unwrap_or_default()
    }
}
