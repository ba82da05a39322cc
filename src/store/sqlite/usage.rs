//! What each provider has stored.

use rusqlite::Connection;

use super::Transaction;
use super::query::Query as _;
use crate::model::ProviderName;
use crate::store::quota::Growth;
use crate::store::{Counts, Quota, StoreError, Usage};

pub(super) const USAGE: &str = "SELECT users, groups, members, bytes FROM counters WHERE provider = ?";

/// What a provider has stored, without an open transaction.
pub(crate) fn stored(db: &Connection, p: &ProviderName) -> Result<Usage, StoreError> {
    let usage = db.first("counters", USAGE, [p.as_str()], |columns| {
        Ok(Usage {
            users: columns.integer()?,
            groups: columns.integer()?,
            members: columns.integer()?,
            bytes: columns.integer()?,
        })
    })?;
    Ok(usage.unwrap_or_default())
}

/// How large the directory of one provider is.
pub(crate) fn counts(db: &Connection, p: &ProviderName) -> Result<Counts, StoreError> {
    let sql = "SELECT coalesce((SELECT users FROM counters WHERE provider = ?1), 0), \
            coalesce((SELECT groups FROM counters WHERE provider = ?1), 0), \
            (SELECT count(*) FROM members WHERE provider = ?1 AND kind = 'pending')";
    db.one("counters", sql, [p.as_str()], |columns| {
        Ok(Counts { users: columns.count()?, groups: columns.count()?, pending: columns.count()? })
    })
}

impl Transaction<'_> {
    /// Notes that the provider's rows and bytes change. Refuses a growth that the quota does not allow.
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
