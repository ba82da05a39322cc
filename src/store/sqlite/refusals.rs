//! Refusals of the target, and budgets of writes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Transaction;
use super::query::Query as _;
use crate::model::{ConditionHash, DocumentKey, MemberKey, Refusal, RefusalKey, Role, WriteBudget};
use crate::store::StoreError;
use crate::store::encoding::nanos;
use crate::store::refusals::Loss;

/// Largest number of stored refusals. Further ones are discovered again after a restart.
const MOST: i64 = 10_000;

/// The key columns: reach, member, role, condition.
fn key_columns(key: &RefusalKey) -> (String, String, String, String) {
    let member = key.member.as_ref().map(|member| member.as_str().to_owned());
    let role = key.role.as_ref().map(|role| role.as_str().to_owned());
    let condition = key.condition.as_ref().map(|condition| condition.as_str().to_owned());
    (key.reach.to_string(), member.unwrap_or_default(), role.unwrap_or_default(), condition.unwrap_or_default())
}

/// All refusals.
pub(crate) fn all(db: &Connection) -> Result<Vec<Refusal>, StoreError> {
    let sql = "SELECT reach, member_key, role, condition_hash, reason, since, probe_at, probes FROM refusals \
        ORDER BY reach, member_key, role, condition_hash LIMIT ?";
    db.all("refusals", sql, [MOST], |columns| {
        let reach = columns.parse()?;
        let member = Some(columns.text()?).filter(|key| !key.is_empty()).map(|key| MemberKey::of(&key));
        let role = Some(columns.text()?).filter(|role| !role.is_empty()).map(|role| Role::new(&role));
        let role =
            role.transpose().map_err(|error| StoreError::Damaged { what: "refusals", problem: error.to_string() })?;
        let condition = Some(columns.text()?).filter(|hash| !hash.is_empty());
        let condition = condition.map(|hash| ConditionHash::from_text(&hash));
        Ok(Refusal {
            key: RefusalKey { reach, member, role, condition },
            reason: columns.text()?,
            since: columns.time()?,
            probe_at: columns.time()?,
            probes: u32::try_from(columns.count()?).unwrap_or(u32::MAX),
        })
    })
}

/// Stores refusals and removes others.
pub(crate) fn change(tx: &mut Transaction<'_>, put: &[Refusal], remove: &[RefusalKey]) -> Result<(), StoreError> {
    for key in remove {
        let (reach, member, role, condition) = key_columns(key);
        let sql = "DELETE FROM refusals WHERE reach = ? AND member_key = ? AND role = ? AND condition_hash = ?";
        tx.db.run(sql, [reach, member, role, condition])?;
    }
    for refusal in put {
        let (reach, member, role, condition) = key_columns(&refusal.key);
        let (since, probe_at) = (nanos(refusal.since), nanos(refusal.probe_at));
        tx.db.run(
            "INSERT INTO refusals (reach, member_key, role, condition_hash, reason, since, probe_at, probes) \
             SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM refusals) < ? \
             ON CONFLICT DO UPDATE SET reason = excluded.reason, probe_at = excluded.probe_at, \
             probes = excluded.probes",
            params![reach, member, role, condition, refusal.reason, since, probe_at, refusal.probes, MOST],
        )?;
    }
    Ok(())
}

/// The grants that were found missing since this time. The trail is read from its end, since it has no index by time.
pub(crate) fn losses_since(db: &Connection, since: Timestamp) -> Result<Vec<Loss>, StoreError> {
    let sql = "SELECT document, role, subject, at FROM audit WHERE action = 'lost' \
        AND seq > coalesce((SELECT seq FROM audit WHERE at < ? ORDER BY seq DESC LIMIT 1), 0) ORDER BY seq";
    let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged { what: "audit", problem: error.to_string() };
    db.all("audit", sql, [nanos(since)], |columns| {
        let document = columns.parse()?;
        let role = Role::new(&columns.text()?).map_err(|error| damaged(&error))?;
        Ok(Loss { document, role, subject: columns.text()?, at: columns.time()? })
    })
}

/// The budgets that have been used in part.
pub(crate) fn budgets(db: &Connection) -> Result<BTreeMap<DocumentKey, WriteBudget>, StoreError> {
    let budgets = db.all("write_budgets", "SELECT document, since, writes FROM write_budgets", [], |columns| {
        let document = columns.parse()?;
        let (since, writes) = (columns.time()?, u32::try_from(columns.count()?).unwrap_or(u32::MAX));
        Ok((document, WriteBudget { since, writes }))
    })?;
    Ok(budgets.into_iter().collect())
}

/// Stores the budget of a document, and removes budgets of others from before their last hour.
pub(crate) fn put_budget(
    tx: &mut Transaction<'_>,
    document: &DocumentKey,
    budget: WriteBudget,
) -> Result<(), StoreError> {
    let before = budget.since.saturating_sub(WriteBudget::WINDOW).unwrap_or(budget.since);
    tx.db.run("DELETE FROM write_budgets WHERE since < ?", [nanos(before)])?;
    tx.db.run(
        "INSERT INTO write_budgets (document, since, writes) VALUES (?, ?, ?) \
         ON CONFLICT DO UPDATE SET since = excluded.since, writes = excluded.writes",
        params![document.to_string(), nanos(budget.since), budget.writes],
    )?;
    Ok(())
}
