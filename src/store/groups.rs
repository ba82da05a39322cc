//! Groups, and changes of their members. Large changes are written in slices.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::encoding::json;
use super::lanes::{Ticket, cost};
use super::membership::{Plan, Slice};
use super::sqlite::{groups, list, members, usage};
use super::{
    ATTEMPTS, Counts, DeleteOutcome, GroupChanged, GroupRecord, GroupUpdate, MemberChanges, MemberDelta, NewGroup,
    Origin, Store, StoreError, UpdateOutcome, changes_too_often,
};
use crate::model::{GroupFacts, GroupId, ProviderName};

/// Largest number of memberships that one request to the writer changes.
pub(super) const SLICE: usize = 1_000;

/// The changes of a group in one request to the writer, and the reads that they are based on.
#[derive(Default)]
pub(super) struct Step {
    /// The resource must still be equal to this one.
    pub(super) basis: Option<Value>,
    /// The group must still have this version.
    pub(super) version: Option<i64>,
    /// This user or group must still exist.
    pub(super) witness: Option<Uuid>,
    /// The new resource, with its text.
    pub(super) resource: Option<(Value, String)>,
    pub(super) facts: Option<GroupFacts>,
    pub(super) members: Slice,
}

impl Step {
    fn ticket(&self, p: &ProviderName, rows: usize) -> Ticket {
        let bytes = self.resource.as_ref().map_or(0, |(_, text)| text.len());
        Ticket::provider(p, cost(rows, bytes))
    }
}

/// Outcome of a request to the writer.
#[expect(clippy::large_enum_variant, reason = "one for each request, and taken apart at once")]
pub(super) enum Stepped {
    Done {
        changed: bool,
        group: GroupChanged,
    },
    NotFound,
    /// The group changed since it was read; nothing was written.
    Moved,
}

/// The new attributes of a group.
struct Attributes {
    basis: Value,
    version: Option<i64>,
    resource: Option<(Value, String)>,
    facts: Option<GroupFacts>,
}

/// The sum of two changes of one group.
fn sum(first: MemberDelta, then: MemberDelta) -> MemberDelta {
    MemberDelta {
        before: first.before,
        after: then.after,
        added: first.added + then.added,
        removed: first.removed + then.removed,
        nested: first.nested + then.nested,
        parked: first.parked + then.parked,
    }
}

/// Splits removals and additions into slices, each of which is a short request; at least one. A removal that may mean
/// somebody else stays in question: whom it means can change until its slice is written. Whoever moves between direct and
/// nested membership is in the group after each slice: groups are added first and removed last.
fn slices((remove, add): (Vec<Uuid>, Vec<Uuid>), groups: &BTreeSet<Uuid>, plan: &Plan) -> Vec<Slice> {
    let (ceases, remove): (Vec<Uuid>, Vec<Uuid>) = remove.into_iter().partition(|id| groups.contains(id));
    let (nests, add): (Vec<Uuid>, Vec<Uuid>) = add.into_iter().partition(|id| groups.contains(id));
    let removal = |ids: &[Uuid]| {
        let in_question = |id: &&Uuid| plan.unsure.contains(*id);
        let unsure = ids.iter().filter(in_question).copied().collect();
        Slice { remove: ids.to_vec(), unsure, texts: plan.texts.clone(), ..Slice::default() }
    };
    let addition = |ids: &[Uuid]| Slice { add: ids.to_vec(), texts: plan.texts.clone(), ..Slice::default() };
    let slices: Vec<Slice> = (nests.chunks(SLICE).map(addition))
        .chain(remove.chunks(SLICE).map(removal))
        .chain(add.chunks(SLICE).map(addition))
        .chain(ceases.chunks(SLICE).map(removal))
        .collect();
    if slices.is_empty() { vec![Slice::default()] } else { slices }
}

impl Store {
    /// Stores a group. `displayName` (without regard to case) and id must be unused at this provider.
    /// Unknown member ids are parked, and become members when they exist.
    ///
    /// # Errors
    /// [`StoreError::Taken`].
    pub(crate) async fn create_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        mut group: NewGroup,
    ) -> Result<GroupChanged, StoreError> {
        let id = group.facts.id;
        let changes = self.resolved(p, None, std::mem::take(&mut group.members)).await?;
        let plan = Plan::new(changes);
        let mut members = plan.add.into_iter();
        let first: Vec<Uuid> = members.by_ref().take(SLICE).collect();
        let text = json(&group.resource)?;
        let ticket = Ticket::provider(p, cost(first.len(), text.len()));
        let first = Slice { add: first, texts: plan.texts.clone(), ..Slice::default() };
        let (name, origin, quota) = (p.clone(), o.clone(), self.quota());
        let created =
            self.commit(ticket, move |tx| groups::create(tx, &name, &origin, &quota, (group, &first), &text)).await?;
        let rest = Plan { add: members.collect(), texts: plan.texts, ..Plan::default() };
        if rest.is_nothing() {
            return Ok(created);
        }
        match self.write_group(p, o, id, None, &rest).await? {
            Stepped::Done { group, .. } => {
                let members = sum(created.members, group.members);
                Ok(GroupChanged { group: group.group, members })
            }
            Stepped::NotFound | Stepped::Moved => Ok(created),
        }
    }

    /// One group, without its members.
    pub(crate) async fn group(&self, p: &ProviderName, id: GroupId) -> Result<Option<GroupRecord>, StoreError> {
        let p = p.clone();
        self.read(move |db| groups::find(db, &p, id)).await
    }

    /// Reads, changes and writes a group; the whole update takes effect or nothing. `change` runs in the caller's task,
    /// so that it delays nobody else, and again for each time that somebody else changed the group meanwhile.
    /// [`Store::change_members`] changes members alone, without reading the group.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; [`StoreError::NoKnownMember`]; [`StoreError::NotAMember`]; [`StoreError::Unavailable`],
    /// when the group keeps changing.
    pub(crate) async fn update_group<E: Send>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        mut change: impl FnMut(&GroupRecord) -> Result<GroupUpdate, E> + Send,
    ) -> Result<UpdateOutcome<GroupChanged, E>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.group(p, id).await? else { return Ok(UpdateOutcome::NotFound) };
            let GroupUpdate { resource, facts, members, same_version } = match change(&before) {
                Ok(update) => update,
                Err(refusal) => return Ok(UpdateOutcome::Refused(refusal)),
            };
            let facts = facts.filter(|facts| *facts != before.facts);
            if facts.as_ref().is_some_and(|facts| facts.id != id) {
                return Err(StoreError::Internal { problem: "an update tried to change the id of a group".to_owned() });
            }
            let resource = match resource.filter(|resource| *resource != before.resource) {
                Some(resource) => {
                    let text = json(&resource)?;
                    Some((resource, text))
                }
                None => None,
            };
            let members = self.resolved(p, Some(id), members).await?;
            let version = same_version.then_some(before.version);
            let attributes = Attributes { basis: before.resource, version, resource, facts };
            match self.write_group(p, o, id, Some(attributes), &Plan::new(members)).await? {
                Stepped::Done { changed: true, group } => return Ok(UpdateOutcome::Changed(group)),
                Stepped::Done { changed: false, group } => return Ok(UpdateOutcome::Unchanged(group)),
                Stepped::NotFound => return Ok(UpdateOutcome::NotFound),
                Stepped::Moved => self.note_retry(),
            }
        }
        Err(changes_too_often())
    }

    /// Changes only the members of a group. Members that are not mentioned are never loaded, unless the whole list is
    /// given: adding one to a group of 100,000 costs the same as to a group of 100, and concurrent additions do not
    /// conflict.
    ///
    /// # Errors
    /// [`StoreError::NoKnownMember`]; [`StoreError::NotAMember`]; [`StoreError::Unavailable`], when a large group keeps
    /// changing while it is to be replaced.
    pub(crate) async fn change_members<E>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        members: impl Into<MemberChanges>,
    ) -> Result<UpdateOutcome<GroupChanged, E>, StoreError> {
        let plan = Plan::new(self.resolved(p, Some(id), members.into()).await?);
        for _ in 0..ATTEMPTS {
            if !plan.asserted.is_empty() && self.group(p, id).await?.is_none() {
                return Ok(UpdateOutcome::NotFound);
            }
            match self.write_group(p, o, id, None, &plan).await? {
                Stepped::Done { changed: true, group } => return Ok(UpdateOutcome::Changed(group)),
                Stepped::Done { changed: false, group } => return Ok(UpdateOutcome::Unchanged(group)),
                Stepped::NotFound => return Ok(UpdateOutcome::NotFound),
                Stepped::Moved => self.note_retry(),
            }
        }
        Err(changes_too_often())
    }

    async fn step_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        next: Step,
        rows: usize,
    ) -> Result<Stepped, StoreError> {
        let ticket = next.ticket(p, rows);
        let (p, o, quota) = (p.clone(), o.clone(), self.quota());
        self.commit(ticket, move |tx| groups::step(tx, &p, &o, id, &quota, next)).await
    }

    /// Writes the new state of a group: at once, or in slices where that would block the writer for too long.
    async fn write_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        attributes: Option<Attributes>,
        plan: &Plan,
    ) -> Result<Stepped, StoreError> {
        let witness = self.witnesses(p, &plan.asserted).await?.pop().filter(|_| plan.exact);
        let there = if plan.exact { self.everybody(p, id, SLICE + 1).await?.len() } else { 0 };
        let unsure: Vec<Uuid> = plan.unsure.iter().copied().collect();
        let rows = plan.len() + unsure.len() + there;
        if there > SLICE || plan.len() > SLICE {
            return self.write_in_slices(p, o, id, attributes, plan, witness).await;
        }
        let members = Slice {
            only: plan.exact,
            remove: plan.remove.iter().copied().collect(),
            unsure,
            add: plan.add.iter().copied().collect(),
            texts: plan.texts.clone(),
        };
        let next = match attributes {
            Some(Attributes { basis, version, resource, facts }) => {
                Step { basis: Some(basis), version, witness, resource, facts, members }
            }
            None => Step { witness, members, ..Step::default() },
        };
        self.step_group(p, o, id, next, rows).await
    }

    /// Everything that can be refused is refused with the first slice, which includes the attributes; the answer is
    /// sent after the last. A replacement of the members writes every slice on the version that the plan was based on,
    /// so that two of them run one after the other and their members never mix.
    async fn write_in_slices(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        mut attributes: Option<Attributes>,
        plan: &Plan,
        witness: Option<Uuid>,
    ) -> Result<Stepped, StoreError> {
        let mut done: Option<(bool, GroupChanged)> = None;
        for _ in 0..ATTEMPTS {
            let Some(record) = self.group(p, id).await? else { return Ok(Stepped::NotFound) };
            // The other members matter only when none of them may stay.
            let limit = if plan.exact { usize::MAX } else { 0 };
            let current = self.everybody(p, id, limit).await?;
            if done.is_none() && !plan.unsure.is_empty() {
                let unsure: Vec<Uuid> = plan.unsure.iter().copied().collect();
                let present = self.present(p, id, &unsure).await?;
                let absent: Vec<Uuid> = unsure.into_iter().filter(|id| !present.contains(id)).collect();
                let p = p.clone();
                self.read(move |db| members::nobody_else_is_meant(db, &p, &absent)).await?;
            }
            let mut version = record.version;
            let (remove, add) = if plan.exact { plan.against(&current) } else { plan.lists() };
            let groups = self.groups_among(p, &[&remove[..], &add[..]].concat()).await?;
            let mut slices = slices((remove, add), &groups, plan).into_iter();
            loop {
                let Some(members) = slices.next() else {
                    return Ok(match done {
                        Some((changed, group)) => Stepped::Done { changed, group },
                        None => Stepped::Moved,
                    });
                };
                let rows = members.len();
                let first = attributes.is_some();
                let guarded = plan.exact.then_some(version);
                let next = match attributes.take() {
                    Some(Attributes { basis, version, resource, facts }) => {
                        Step { basis: Some(basis), version: version.or(guarded), witness, resource, facts, members }
                    }
                    None => Step { version: guarded, witness, members, ..Step::default() },
                };
                match self.step_group(p, o, id, next, rows).await? {
                    Stepped::Done { changed, group } => {
                        version = group.group.version;
                        done = Some(match done {
                            None => (changed, group),
                            Some((before, so_far)) => {
                                let members = sum(so_far.members, group.members);
                                (before || changed, GroupChanged { group: group.group, members })
                            }
                        });
                    }
                    Stepped::NotFound => return Ok(Stepped::NotFound),
                    // The attributes have to be computed again.
                    Stepped::Moved if first => return Ok(Stepped::Moved),
                    Stepped::Moved => break,
                }
            }
            self.note_retry();
        }
        Err(changes_too_often())
    }

    /// Deletes a group with its memberships; the id is never used again. `if_version`: only in this version
    /// (`If-Match`).
    pub(crate) async fn delete_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        let mut if_version = if_version;
        // The memberships of a large group are deleted before the group, so that other requests can be written in
        // between.
        let rows = loop {
            let everybody = self.everybody(p, id, SLICE + 1).await?;
            if everybody.len() <= SLICE {
                break everybody.len();
            }
            let members = Slice { remove: everybody.into_iter().take(SLICE).collect(), ..Slice::default() };
            let next = Step { version: if_version.take(), members, ..Step::default() };
            match self.step_group(p, o, id, next, SLICE).await? {
                Stepped::Done { .. } => {}
                Stepped::NotFound => return Ok(DeleteOutcome::NotFound),
                Stepped::Moved => return Ok(DeleteOutcome::VersionDiffers),
            }
        };
        let ticket = Ticket::provider(p, cost(rows, 0));
        let (p, o) = (p.clone(), o.clone());
        self.commit(ticket, move |tx| groups::delete(tx, &p, &o, id, if_version)).await
    }

    /// Groups that match, without their members, in their order.
    #[cfg(test)]
    pub(crate) async fn groups(
        &self,
        p: &ProviderName,
        q: &super::ListQuery,
    ) -> Result<super::record::Page<GroupRecord>, StoreError> {
        let plan = self.plan_list(crate::scim::ResourceType::Group, p, q).await?;
        let positions: Vec<i64> = plan.rows.iter().map(|row| row.position).collect();
        Ok(super::record::Page { items: self.groups_at(p, &positions).await?, total: plan.total })
    }

    /// The groups at these positions that still exist, without their members.
    pub(crate) async fn groups_at(&self, p: &ProviderName, positions: &[i64]) -> Result<Vec<GroupRecord>, StoreError> {
        let (p, positions) = (p.clone(), positions.to_vec());
        self.read(move |db| list::groups_at(db, &p, &positions)).await
    }

    /// Size of the directory of one provider.
    pub(crate) async fn counts(&self, p: &ProviderName) -> Result<Counts, StoreError> {
        let p = p.clone();
        self.read(move |db| usage::counts(db, &p)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MemberChange;

    #[test]
    fn a_removal_that_may_mean_somebody_else_stays_in_question_in_its_slice() {
        let ids: Vec<Uuid> = (0..=SLICE as u128).map(Uuid::from_u128).collect();
        let plan = Plan::new(vec![MemberChange::Remove(ids.clone())].into());
        let slices = slices(plan.lists(), &BTreeSet::new(), &plan);
        assert_eq!(slices.len(), 2);
        assert!(slices.iter().all(|slice| slice.unsure == slice.remove), "each is asked about when it is written");

        let plan = Plan::new(vec![MemberChange::Replace(ids.clone())].into());
        let current = (5_000..5_003).map(Uuid::from_u128).collect();
        let slices = super::slices(plan.against(&current), &BTreeSet::new(), &plan);
        assert!(slices.iter().all(|slice| slice.unsure.is_empty()), "these were found in the group");
    }
}
