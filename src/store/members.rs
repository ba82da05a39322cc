//! Memberships.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::groups::SLICE;
use super::sqlite::{meant, members};
use super::{MemberChange, MemberChanges, MemberRecord, PlannedRow, Store, StoreError, UserGroup};
use crate::model::{GroupId, ProviderName, UserId};

/// Largest number of groups of one user in an answer.
pub(crate) const MAX_GROUPS: usize = 10_000;

/// Number of users whose groups are counted at a time.
const COUNTED: usize = 100;

impl Store {
    /// The groups that a user is in, itself or through other groups, in the order of their creation.
    ///
    /// # Errors
    /// [`StoreError::TooManyGroups`], when there are more than [`MAX_GROUPS`].
    pub(crate) async fn groups_of(&self, p: &ProviderName, id: UserId) -> Result<Vec<UserGroup>, StoreError> {
        let p = p.clone();
        let groups = self.read(move |db| members::groups_of(db, &p, id, Some(MAX_GROUPS + 1))).await?;
        if groups.len() > MAX_GROUPS { Err(StoreError::TooManyGroups { limit: MAX_GROUPS }) } else { Ok(groups) }
    }

    /// Sets the number of groups of planned users, of as many of the first as `enough` groups have. The others count as
    /// if they were in too many.
    ///
    /// # Errors
    /// As [`Store::groups_of`].
    pub(crate) async fn count_groups(
        &self,
        p: &ProviderName,
        rows: &mut [PlannedRow],
        enough: u64,
    ) -> Result<(), StoreError> {
        let mut total = 0_u64;
        for part in rows.chunks_mut(COUNTED) {
            if total > enough {
                for row in part {
                    row.members = u64::MAX;
                }
                continue;
            }
            let (p, positions): (_, Vec<i64>) = (p.clone(), part.iter().map(|row| row.position).collect());
            let counts = self.read(move |db| members::count_groups(db, &p, &positions, MAX_GROUPS + 1)).await?;
            for (row, count) in part.iter_mut().zip(counts) {
                if count > MAX_GROUPS as u64 {
                    return Err(StoreError::TooManyGroups { limit: MAX_GROUPS });
                }
                row.members = count;
                total = total.saturating_add(count);
            }
        }
        Ok(())
    }

    /// The names of those of these users and groups that exist.
    pub(crate) async fn display_names(
        &self,
        p: &ProviderName,
        ids: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, String>, StoreError> {
        let p = p.clone();
        self.read(move |db| members::display_names(db, &p, &ids)).await
    }

    /// One id of each list that is known at this provider, for the writer to check that it still exists.
    ///
    /// # Errors
    /// [`StoreError::NoKnownMember`], when a list has no known id.
    pub(super) async fn witnesses(&self, p: &ProviderName, lists: &[Vec<Uuid>]) -> Result<Vec<Uuid>, StoreError> {
        if lists.is_empty() {
            return Ok(vec![]);
        }
        let (p, wanted) = (p.clone(), lists.to_vec());
        let witnesses = self.read(move |db| members::witnesses(db, &p, &wanted)).await?;
        let witnesses = witnesses.into_iter().zip(lists);
        witnesses.map(|(witness, list)| witness.ok_or(StoreError::NoKnownMember { given: list.len() })).collect()
    }

    /// The changes, in which the only one with an `externalId` takes the place of an id that is nobody's. Left out where
    /// the order of the changes does not matter and nobody else leaves the group: the writer looks again.
    ///
    /// # Errors
    /// [`StoreError::TooManyPending`].
    pub(super) async fn resolved(
        &self,
        p: &ProviderName,
        group: Option<GroupId>,
        changes: MemberChanges,
    ) -> Result<MemberChanges, StoreError> {
        let (mut adds, mut removes, mut replaces, mut ids) = (false, false, false, 0);
        for change in &changes.list {
            let (kind, list) = match change {
                MemberChange::Add(list) => (&mut adds, list),
                MemberChange::Remove(list) => (&mut removes, list),
                MemberChange::Replace(list) => (&mut replaces, list),
                MemberChange::Clear => {
                    replaces = true;
                    continue;
                }
            };
            *kind = true;
            ids += list.len();
        }
        if changes.texts.is_empty() && !replaces && !(adds && removes) && ids <= SLICE {
            return Ok(changes);
        }
        let p = p.clone();
        let resolve = move |db: &_| Ok((meant::resolve(db, &p, group, &changes)?, changes));
        let (resolved, mut changes) = self.read(resolve).await?;
        let lists = changes.list.iter_mut().filter_map(|change| match change {
            MemberChange::Add(list) | MemberChange::Remove(list) | MemberChange::Replace(list) => Some(list),
            MemberChange::Clear => None,
        });
        for id in lists.flatten() {
            *id = resolved.get(id).copied().unwrap_or(*id);
        }
        Ok(changes)
    }

    /// Those of `ids` that are groups.
    pub(super) async fn groups_among(&self, p: &ProviderName, ids: &[Uuid]) -> Result<BTreeSet<Uuid>, StoreError> {
        let (p, ids) = (p.clone(), ids.to_vec());
        self.read(move |db| members::groups_among(db, &p, &ids)).await
    }

    /// Those of `ids` that are in a group, including parked ones.
    pub(super) async fn present(
        &self,
        p: &ProviderName,
        id: GroupId,
        ids: &[Uuid],
    ) -> Result<BTreeSet<Uuid>, StoreError> {
        let (p, ids) = (p.clone(), ids.to_vec());
        self.read(move |db| members::present(db, &p, id, &ids)).await
    }

    /// The ids of everybody in a group, including parked ones; at most `limit`.
    pub(crate) async fn everybody(
        &self,
        p: &ProviderName,
        id: GroupId,
        limit: usize,
    ) -> Result<BTreeSet<Uuid>, StoreError> {
        let p = p.clone();
        self.read(move |db| members::everybody(db, &p, id, limit)).await
    }

    /// The members of a group: users and groups, without unknown ids. Empty when there is no such group. The caller has
    /// to read the group's version before, so that it is never newer than the members.
    #[cfg(test)]
    pub(crate) async fn members(&self, p: &ProviderName, id: GroupId) -> Result<Vec<MemberRecord>, StoreError> {
        let p = p.clone();
        self.read(move |db| members::members_after(db, &p, id, None, i64::MAX)).await
    }

    /// Like [`Store::members`], at most `limit` of them, in the order of their ids after `after`.
    pub(crate) async fn members_after(
        &self,
        p: &ProviderName,
        id: GroupId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<MemberRecord>, StoreError> {
        let p = p.clone();
        self.read(move |db| members::members_after(db, &p, id, after, limit.into())).await
    }

    /// The groups that a user or group is a direct member of, in the order of their creation.
    #[cfg(test)]
    pub(crate) async fn memberships(
        &self,
        p: &ProviderName,
        id: Uuid,
    ) -> Result<Vec<super::record::Membership>, StoreError> {
        let p = p.clone();
        self.read(move |db| members::memberships(db, &p, id)).await
    }
}
