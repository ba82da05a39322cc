//! Direct access to the database for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rusqlite::{Connection, params_from_iter};

use super::Transaction;
use super::query::Query as _;
use super::{audit, filter, groups, ledger, list, meant, members, resources, schema, transaction, users};
use crate::model::ProviderName;
use crate::scim::{Filter, ResourceType};
use crate::store::StoreError;

/// Runs SQL.
pub(crate) fn tamper(tx: &mut Transaction<'_>, sql: &str) -> Result<(), StoreError> {
    Ok(tx.db.execute_batch(sql)?)
}

/// Limits the size of the file to this many pages, which simulates a full disk.
pub(crate) fn limit_pages(tx: &mut Transaction<'_>, pages: u32) -> Result<(), StoreError> {
    tx.db.one("pages", &format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
}

/// The settings of the connection.
pub(crate) fn settings(tx: &mut Transaction<'_>) -> Result<[(&'static str, String); 3], StoreError> {
    let sql = "SELECT CAST(f.foreign_keys AS TEXT), j.journal_mode, CAST(s.synchronous AS TEXT) \
        FROM pragma_foreign_keys f, pragma_journal_mode j, pragma_synchronous s";
    tx.db.one("settings", sql, [], |columns| {
        let mut text = || columns.text();
        Ok([("foreign_keys", text()?), ("journal_mode", text()?), ("synchronous", text()?)])
    })
}

/// The audit table as text, without the names.
pub(crate) fn dump_audit(db: &Connection) -> Result<String, StoreError> {
    let sql = "SELECT group_concat(json_array(actor, cause_seqs, document, role, condition_hash, subject, detail)) FROM audit";
    db.one("audit", sql, [], |columns| columns.text())
}

/// The steps of the plan for a statement.
pub(crate) fn plan(db: &Connection, statement: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?;
    let nothing = vec![rusqlite::types::Null; statement.parameter_count()];
    let rows = statement.query_map(params_from_iter(nothing), |row| row.get(3))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The look-up of a list with a filter.
pub(crate) fn select(of: ResourceType, p: &ProviderName, filter: &Filter) -> String {
    let condition = filter::condition(of, p, filter).unwrap();
    format!("{} ORDER BY position LIMIT 9", list::select(of, "*", p, Some(&condition)).sql)
}

/// A list of all resources of a type.
pub(crate) fn select_all(of: ResourceType, p: &ProviderName) -> String {
    format!("{} ORDER BY position LIMIT 9", list::select(of, "*", p, None).sql)
}

/// The statements of write requests. Deleting a group is not included, because it also deletes all of the group's
/// memberships.
pub(crate) const WRITES: [&str; 47] = [
    users::ONE,
    users::CREATE,
    users::ADD_EMAIL,
    users::UPDATE,
    users::RENAME,
    users::REMOVE_EMAILS,
    users::DELETE,
    users::BURY,
    users::TAKEN,
    users::SHARES,
    groups::ONE,
    groups::CREATE,
    groups::SET_COUNT,
    groups::UPDATE_MEMBERS,
    groups::UPDATE,
    groups::BURY,
    groups::TAKEN,
    groups::SHARES,
    resources::ONE,
    resources::CREATE,
    resources::UPDATE,
    resources::DELETE,
    resources::ADD_VALUE,
    resources::REMOVE_VALUES,
    members::ADD,
    members::REMOVE,
    members::KNOWN,
    members::NAMES_SOMEBODY,
    members::PRESENT,
    members::LEAVE,
    members::REMOVE_EVERYWHERE,
    members::JOIN_WAITING,
    members::JOINED,
    members::WAITS,
    meant::MEANT,
    meant::WAITS_IN,
    meant::CEASE,
    members::MEMBERSHIPS,
    ledger::FORGET,
    ledger::PUT,
    ledger::CLAIMS_OF,
    ledger::REMOVE_CLAIM,
    ledger::PUT_CLAIM,
    transaction::EVENT,
    transaction::COUNT,
    audit::NAME,
    audit::APPEND,
];

/// Creates a database file with the first step of the schema only, and runs SQL on it.
pub(crate) fn first_version(path: &str, run: impl FnOnce(&Connection) -> rusqlite::Result<()>) {
    let db = Connection::open(path).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = on").unwrap();
    schema::migrate_by(&db, path, &schema::STEPS[..1]).unwrap();
    run(&db).unwrap();
}

/// Number of instructions that the writer ran, in total and in the longest transaction.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    since: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    pub(crate) transactions: Arc<AtomicU64>,
}

impl Meter {
    const GRAIN: i32 = 100;

    /// Starts to count on the connection of a transaction.
    pub(crate) fn attach(&self, tx: &mut Transaction<'_>) -> Result<(), StoreError> {
        let (progress, commit) = (self.clone(), self.clone());
        let grain = Self::GRAIN.unsigned_abs().into();
        let count = move || {
            progress.since.fetch_add(grain, Relaxed);
            false
        };
        tx.db.progress_handler(Self::GRAIN, Some(count))?;
        let committed = move || {
            commit.most.fetch_max(commit.since.swap(0, Relaxed), Relaxed);
            commit.transactions.fetch_add(1, Relaxed);
            false
        };
        Ok(tx.db.commit_hook(Some(committed))?)
    }

    pub(crate) fn reset(&self) {
        for counter in [&self.since, &self.most, &self.transactions] {
            counter.store(0, Relaxed);
        }
    }

    /// The longest transaction since the last call. Rolled back ones count as well.
    pub(crate) fn most(&self) -> u64 {
        let most = self.most.load(Relaxed).max(self.since.load(Relaxed));
        self.reset();
        most
    }
}

/// The first four bytes of the checksum of each step of the schema.
pub(crate) fn checksums() -> Vec<u32> {
    let first = |bytes: Vec<u8>| bytes.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    schema::STEPS.iter().map(|step| first(step.checksum())).collect()
}
