//! The amount that each provider has stored.

use rusqlite::Connection;

use super::Transaction;
use super::query::Query as _;
use crate::model::ProviderName;
use crate::store::quota::Growth;
use crate::store::{Counts, Quota, StoreError, Usage};

pub(super) const USAGE: &str = "SELECT users, groups, members, resources, bytes FROM counters WHERE provider = ?";

/// The amount that a provider has stored, without an open transaction.
pub(crate) fn stored(db: &Connection, p: &ProviderName) -> Result<Usage, StoreError> {
    let usage = db.first("counters", USAGE, [p.as_str()], |columns| {
        Ok(Usage {
            users: columns.integer()?,
            groups: columns.integer()?,
            members: columns.integer()?,
            resources: columns.integer()?,
            bytes: columns.integer()?,
        })
    })?;
    Ok(usage.unwrap_or_default())
}

/// Size of the directory of one provider.
pub(crate) fn counts(db: &Connection, p: &ProviderName) -> Result<Counts, StoreError> {
    let sql = "SELECT coalesce((SELECT users FROM counters WHERE provider = ?1), 0), \
            coalesce((SELECT groups FROM counters WHERE provider = ?1), 0), \
            (SELECT count(*) FROM members WHERE provider = ?1 AND kind = 'pending')";
    db.one("counters", sql, [p.as_str()], |columns| {
        Ok(Counts { users: columns.count()?, groups: columns.count()?, pending: columns.count()? })
    })
}

impl Transaction<'_> {
    /// Records a change of the provider's rows and bytes. Refuses a growth beyond the quota.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`].
    pub(super) fn grow(
        &mut self,
        p: &ProviderName,
        quota: &Quota,
        change: Usage,
        growth: Growth,
    ) -> Result<(), StoreError> {
        if change.rows() > 0 || change.bytes > 0 {
            let stored = stored(self.db, p)?.plus(self.counted(p));
            if let Some((what, limit)) = quota.exceeded(stored, change, growth) {
                return Err(StoreError::QuotaExceeded { what, limit });
            }
        }
        self.count(p, change);
        Ok(())
    }
}
