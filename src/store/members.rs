//! Memberships.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::sqlite::members;
use super::{MemberRecord, Store, StoreError};
use crate::model::{GroupId, ProviderName};

impl Store {
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
    pub(super) async fn everybody(
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
