//! Storage quota of a provider. Requests that remove access are never refused because of it.

use super::sqlite::usage;
use super::{Store, StoreError};
use crate::model::ProviderName;

/// Largest amount that one provider may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Users, groups, memberships and other resources.
    pub(crate) rows: u64,
    /// Bytes of their resources, as JSON.
    pub(crate) bytes: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { rows: 2_000_000, bytes: 1024 * 1024 * 1024 }
    }
}

/// The amount that one provider has stored, or a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Users.
    pub(crate) users: i64,
    /// Groups.
    pub(crate) groups: i64,
    /// Memberships, including those of unknown ids.
    pub(crate) members: i64,
    /// Resources of types from a file.
    pub(crate) resources: i64,
    /// Bytes of all of them, as JSON.
    pub(crate) bytes: i64,
}

impl Usage {
    /// Number of users, groups, memberships and other resources.
    #[must_use]
    pub(crate) fn rows(&self) -> i64 {
        let others = self.members.saturating_add(self.resources);
        self.users.saturating_add(self.groups).saturating_add(others)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            users: self.users.saturating_add(other.users),
            groups: self.groups.saturating_add(other.groups),
            members: self.members.saturating_add(other.members),
            resources: self.resources.saturating_add(other.resources),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// The effect of a change besides growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// No removal of access.
    Plain,
    /// The change also removes members: a tenth of the quota is reserved for such changes.
    TakesAway,
    /// The change deactivates a user: accepted beyond the quota, if the record does not grow by much.
    Deactivates,
}

/// Number of bytes by which a record may grow when its user is deactivated, whatever the quota.
const DEACTIVATION: i64 = 4 * 1024;

impl Quota {
    /// The part of the quota that a change would exceed, given the stored amount.
    pub(super) fn exceeded(&self, stored: Usage, change: Usage, growth: Growth) -> Option<(&'static str, u64)> {
        let over = |stored: i64, change: i64, limit: u64| {
            let reserve = if growth == Growth::Plain { 0 } else { limit / 10 };
            let limit = i64::try_from(limit.saturating_add(reserve)).unwrap_or(i64::MAX);
            change > 0 && stored.saturating_add(change) > limit
        };
        if over(stored.rows(), change.rows(), self.rows) {
            return Some(("rows", self.rows));
        }
        if growth == Growth::Deactivates && change.bytes <= DEACTIVATION {
            return None;
        }
        over(stored.bytes, change.bytes, self.bytes).then_some(("bytes", self.bytes))
    }
}

impl Store {
    /// The amount that a provider has stored.
    pub(crate) async fn usage(&self, p: &ProviderName) -> Result<Usage, StoreError> {
        let p = p.clone();
        self.read(move |db| usage::stored(db, &p)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { rows: 100, bytes: 1000 };

    fn rows(members: i64) -> Usage {
        Usage { members, ..Usage::default() }
    }

    fn bytes(bytes: i64) -> Usage {
        Usage { bytes, ..Usage::default() }
    }

    #[test]
    fn growth_beyond_the_quota_is_refused_and_up_to_it_is_not() {
        assert_eq!(QUOTA.exceeded(rows(99), rows(1), Growth::Plain), None);
        assert_eq!(QUOTA.exceeded(rows(100), rows(1), Growth::Plain), Some(("rows", 100)));
        assert_eq!(QUOTA.exceeded(bytes(990), bytes(10), Growth::Plain), None);
        assert_eq!(QUOTA.exceeded(bytes(990), bytes(11), Growth::Plain), Some(("bytes", 1000)));
    }

    #[test]
    fn what_does_not_grow_is_accepted_however_much_there_is() {
        for growth in [Growth::Plain, Growth::TakesAway, Growth::Deactivates] {
            assert_eq!(QUOTA.exceeded(rows(10_000), rows(-1), growth), None);
            assert_eq!(QUOTA.exceeded(bytes(10_000), bytes(0), growth), None);
        }
    }

    #[test]
    fn what_takes_members_away_and_adds_some_has_a_reserve() {
        assert_eq!(QUOTA.exceeded(rows(100), rows(10), Growth::TakesAway), None);
        assert_eq!(QUOTA.exceeded(rows(100), rows(11), Growth::TakesAway), Some(("rows", 100)));
    }

    #[test]
    fn a_deactivation_is_accepted_beyond_the_quota_and_no_way_around_it() {
        assert_eq!(QUOTA.exceeded(bytes(1_000_000), bytes(1), Growth::Deactivates), None);
        assert_eq!(QUOTA.exceeded(bytes(1_000_000), bytes(60_000), Growth::Deactivates), Some(("bytes", 1000)));
    }
}
