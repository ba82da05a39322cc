//! Groups: rows without their members, their events and audit rows.

use serde_json::Value;
use sqlx::query;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::audit::AuditDraft;
use super::committer::{Ticket, Touched, Transaction};
use super::lanes::cost;
use super::list;
use super::members::{self, Slice};
use super::membership::Plan;
use super::quota::Growth;
use super::sql::{Columns, fold, json, size};
use super::{
    ATTEMPTS, Counts, DeleteOutcome, GroupChanged, GroupRecord, GroupUpdate, ListQuery, MemberChange, MemberDelta,
    NewGroup, Origin, Page, Quota, Store, StoreError, UpdateOutcome, Usage, changes_too_often,
};
use crate::model::{DirectoryChange, GroupFacts, GroupId, ProviderName};
use crate::scim::ResourceType;

/// How many memberships one turn at the writer changes at most.
pub(super) const SLICE: usize = 2_000;

/// What [`group_row`] reads.
pub(super) const COLUMNS: &str =
    "id, display_name, external_id, resource, member_count, version, created_at, updated_at";

pub(super) const ONE: &str = "SELECT id, display_name, external_id, resource, member_count, version, created_at, updated_at \
    FROM groups WHERE provider = ? AND id = ?";

pub(super) const CREATE: &str = "\
    INSERT INTO groups (provider, id, display_name, display_name_fold, external_id, resource, member_count, version, \
        created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 0, 1, ?, ?); \
    UPDATE members INDEXED BY members_by_member SET kind = 'group' WHERE provider = ? AND member_id = ? AND kind = 'pending' RETURNING group_id";

pub(super) const SET_COUNT: &str = "UPDATE groups SET member_count = ? WHERE provider = ? AND id = ?";

// Without the indexed columns, so that a change of members touches no index.
pub(super) const UPDATE_MEMBERS: &str = "UPDATE groups SET member_count = ?, version = ?, updated_at = ? \
    WHERE provider = ? AND id = ?";

pub(super) const UPDATE: &str = "UPDATE groups SET display_name = ?, display_name_fold = ?, external_id = ?, resource = ?, \
    member_count = ?, version = ?, updated_at = ? WHERE provider = ? AND id = ?";

// The memberships of the group go with it by the foreign key.
pub(super) const DELETE: &str = "\
    DELETE FROM groups WHERE provider = ? AND id = ?; \
    INSERT INTO tombstones (provider, id, kind, deleted_at) VALUES (?, ?, 'group', ?) ON CONFLICT DO NOTHING";

/// Facts from the columns `id, display_name, external_id`.
pub(super) fn facts(columns: &mut Columns) -> Result<GroupFacts, StoreError> {
    Ok(GroupFacts { id: GroupId(columns.id()?), display_name: columns.text()?, external_id: columns.text_or_none()? })
}

fn group_row(row: &SqliteRow) -> Result<GroupRecord, StoreError> {
    let mut columns = Columns::of(row, "groups");
    Ok(GroupRecord {
        facts: facts(&mut columns)?,
        resource: columns.json()?,
        member_count: columns.count()?,
        version: columns.integer()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
    })
}

fn stored_count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What one turn at the writer does to a group, and what was read when it was worked out.
#[derive(Default)]
struct Step {
    /// The resource must still be this one.
    basis: Option<Value>,
    /// The group must still have this version.
    version: Option<i64>,
    /// This user or group must still be there.
    witness: Option<Uuid>,
    /// The resource as it will be, with its text.
    resource: Option<(Value, String)>,
    facts: Option<GroupFacts>,
    members: Slice,
}

impl Step {
    fn ticket(&self, p: &ProviderName, id: GroupId, rows: usize) -> Ticket {
        let bytes = self.resource.as_ref().map_or(0, |(_, text)| text.len());
        Ticket::provider(p, cost(rows, bytes)).on(id)
    }
}

/// How a turn at the writer ended.
#[expect(clippy::large_enum_variant, reason = "one for each turn, and taken apart at once")]
enum Stepped {
    Done {
        changed: bool,
        group: GroupChanged,
    },
    NotFound,
    /// What was read is not so any more; nothing was written.
    Moved,
}

/// The attributes of a group as they are to be.
struct Attributes {
    basis: Value,
    version: Option<i64>,
    resource: Option<(Value, String)>,
    facts: Option<GroupFacts>,
}

async fn create(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    quota: &Quota,
    group: NewGroup,
    text: String,
) -> Result<GroupChanged, StoreError> {
    let NewGroup { resource, facts, members } = group;
    tx.grow(p, quota, Usage { groups: 1, bytes: size(&text), ..Usage::default() }, Growth::Plain).await?;
    let id = facts.id;
    let bytes = id.0.as_bytes().as_slice();
    let now = tx.now_nanos();
    let promoted = query(CREATE)
        .bind(p.as_str())
        .bind(bytes)
        .bind(&facts.display_name)
        .bind(fold(&facts.display_name))
        .bind(&facts.external_id)
        .bind(text)
        .bind(now)
        .bind(now)
        .bind(p.as_str())
        .bind(bytes)
        .fetch_all(&mut tx.connection)
        .await?;
    if !promoted.is_empty() {
        members::promoted(tx, p, &promoted, None).await?;
    }
    let cause = tx.event(p, &DirectoryChange::Group(facts.clone()))?;
    tx.audit(
        AuditDraft::directory(tx.now, p, o, "group.create", &id.to_string(), vec![cause]).named(&facts.display_name),
    );
    let mut delta = MemberDelta::default();
    if !members.is_empty() {
        let net = members::apply(tx, p, id, &Slice { add: members, ..Slice::default() }).await?;
        tx.grow(p, quota, net.usage(), Growth::Plain).await?;
        delta = net.delta(0);
        net.log(tx, p, o, id, delta)?;
        let count = stored_count(delta.after);
        query(SET_COUNT).bind(count).bind(p.as_str()).bind(bytes).execute(&mut tx.connection).await?;
    }
    let group =
        GroupRecord { resource, facts, member_count: delta.after, version: 1, created_at: tx.now, updated_at: tx.now };
    Ok(GroupChanged { group, members: delta })
}

async fn read(tx: &mut Transaction, p: &ProviderName, id: GroupId) -> Result<Option<GroupRecord>, StoreError> {
    let row = tx.group(p, id).await?;
    row.as_ref().map(group_row).transpose()
}

async fn step(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    id: GroupId,
    quota: &Quota,
    step: Step,
) -> Result<Stepped, StoreError> {
    let Some(before) = read(tx, p, id).await? else { return Ok(Stepped::NotFound) };
    if step.version.is_some_and(|version| version != before.version)
        || step.basis.is_some_and(|basis| basis != before.resource)
    {
        return Ok(Stepped::Moved);
    }
    if let Some(witness) = step.witness
        && !members::is_known(tx, p, witness).await?
    {
        return Ok(Stepped::Moved);
    }
    let Step { resource, facts, members, .. } = step;
    let net = members::apply(tx, p, id, &members).await?;
    let delta = net.delta(before.member_count);
    let renamed = resource.is_some() || facts.is_some();
    if !renamed && net.is_nothing() {
        return Ok(Stepped::Done { changed: false, group: GroupChanged { group: before, members: delta } });
    }
    let bytes = match &resource {
        Some((_, text)) => size(text) - size(&json(&before.resource)?),
        None => 0,
    };
    let growth = if net.takes_away() { Growth::TakesAway } else { Growth::Plain };
    tx.grow(p, quota, Usage { bytes, ..net.usage() }, growth).await?;

    let (resource, text) = match resource {
        Some((resource, text)) => (resource, Some(text)),
        None => (before.resource, None),
    };
    let group = GroupRecord {
        member_count: delta.after,
        version: before.version + 1,
        updated_at: tx.now,
        created_at: before.created_at,
        resource,
        facts: facts.clone().unwrap_or(before.facts),
    };
    if renamed {
        query(UPDATE)
            .bind(&group.facts.display_name)
            .bind(fold(&group.facts.display_name))
            .bind(&group.facts.external_id)
            .bind(text.map_or_else(|| json(&group.resource), Ok)?)
            .bind(stored_count(group.member_count))
            .bind(group.version)
            .bind(tx.now_nanos())
            .bind(p.as_str())
            .bind(id.0.as_bytes().as_slice())
            .execute(&mut tx.connection)
            .await?;
        let causes = match facts {
            Some(facts) => vec![tx.event(p, &DirectoryChange::Group(facts))?],
            None => vec![],
        };
        let draft = AuditDraft::directory(tx.now, p, o, "group.update", &id.to_string(), causes);
        tx.audit(draft.named(&group.facts.display_name));
    }
    net.log(tx, p, o, id, delta)?;
    if !renamed {
        let (member_count, version) = (stored_count(group.member_count), group.version);
        tx.touch(Touched { provider: p.clone(), group: id, member_count, version });
    }
    Ok(Stepped::Done { changed: true, group: GroupChanged { group, members: delta } })
}

async fn delete(
    tx: &mut Transaction,
    p: &ProviderName,
    o: &Origin,
    id: GroupId,
    if_version: Option<i64>,
) -> Result<DeleteOutcome, StoreError> {
    let Some(before) = read(tx, p, id).await? else { return Ok(DeleteOutcome::NotFound) };
    if if_version.is_some_and(|version| version != before.version) {
        return Ok(DeleteOutcome::VersionDiffers);
    }
    let members = members::leave_all(tx, p, id.0).await? + members::count(tx, p, id).await?;
    let change = Usage { groups: -1, members: -members, bytes: -size(&json(&before.resource)?), ..Usage::default() };
    tx.count(p, change);
    let bytes = id.0.as_bytes().as_slice();
    query(DELETE)
        .bind(p.as_str())
        .bind(bytes)
        .bind(p.as_str())
        .bind(bytes)
        .bind(tx.now_nanos())
        .execute(&mut tx.connection)
        .await?;
    let cause = tx.event(p, &DirectoryChange::GroupDeleted { id })?;
    let detail = json(&serde_json::json!({"count": before.member_count}))?;
    tx.audit(
        AuditDraft::directory(tx.now, p, o, "group.delete", &id.to_string(), vec![cause])
            .named(&before.facts.display_name)
            .with_detail(detail),
    );
    Ok(DeleteOutcome::Deleted)
}

/// What two turns on one group did together.
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

/// What is to be removed and added, in parts of which each is a short turn; at least one.
fn slices((remove, add): (Vec<Uuid>, Vec<Uuid>)) -> Vec<Slice> {
    let removed = remove.chunks(SLICE).map(|ids| Slice { remove: ids.to_vec(), ..Slice::default() });
    let added = add.chunks(SLICE).map(|ids| Slice { add: ids.to_vec(), ..Slice::default() });
    let slices: Vec<Slice> = removed.chain(added).collect();
    if slices.is_empty() { vec![Slice::default()] } else { slices }
}

impl Store {
    /// Stores a group. `displayName` (without regard to case), `externalId` and id must be free with this provider.
    /// Unknown member ids are parked, and become members when they exist.
    ///
    /// # Errors
    /// [`StoreError::Taken`].
    pub async fn create_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        mut group: NewGroup,
    ) -> Result<GroupChanged, StoreError> {
        let id = group.facts.id;
        let mut members = Plan::new(vec![MemberChange::Add(std::mem::take(&mut group.members))]).add.into_iter();
        group.members = members.by_ref().take(SLICE).collect();
        let text = json(&group.resource)?;
        let ticket = Ticket::provider(p, cost(group.members.len(), text.len()));
        let (name, origin, quota) = (p.clone(), o.clone(), self.quota());
        let created = self
            .committer()
            .commit_as(ticket, move |tx| Box::pin(async move { create(tx, &name, &origin, &quota, group, text).await }))
            .await?;
        let rest = Plan { add: members.collect(), ..Plan::default() };
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
    pub async fn group(&self, p: &ProviderName, id: GroupId) -> Result<Option<GroupRecord>, StoreError> {
        let id = id.0.as_bytes().as_slice();
        let row = query(ONE).bind(p.as_str()).bind(id).fetch_optional(self.readers()).await?;
        row.as_ref().map(group_row).transpose()
    }

    /// Reads, changes and writes a group, all of the update or nothing. `change` runs in the caller's task, so that it keeps
    /// nobody else waiting, and once more for each time that somebody else changed what it read in between. Members alone
    /// are changed by [`Store::change_members`], which reads nothing.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; [`StoreError::NoKnownMember`]; [`StoreError::NotAMember`]; [`StoreError::Unavailable`], when
    /// the group never stays the same for long enough.
    pub async fn update_group<E: Send>(
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

    /// Changes the members of a group and nothing else. Those who are not mentioned are never loaded, unless the whole list
    /// is given: adding one to a group of 100,000 costs what it costs for a group of 100, and many who do so at once do not
    /// disturb each other.
    ///
    /// # Errors
    /// [`StoreError::NoKnownMember`]; [`StoreError::NotAMember`]; [`StoreError::Unavailable`], when a large group never
    /// stays the same for long enough to be replaced.
    pub async fn change_members<E>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        members: Vec<MemberChange>,
    ) -> Result<UpdateOutcome<GroupChanged, E>, StoreError> {
        let plan = Plan::new(members);
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

    async fn turn_on_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        next: Step,
        rows: usize,
    ) -> Result<Stepped, StoreError> {
        let ticket = next.ticket(p, id, rows);
        let (p, o, quota) = (p.clone(), o.clone(), self.quota());
        self.committer()
            .commit_as(ticket, move |tx| Box::pin(async move { step(tx, &p, &o, id, &quota, next).await }))
            .await
    }

    /// Writes what a group is to be: at once, or, where that would keep the writer for too long, in slices.
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
        };
        let next = match attributes {
            Some(Attributes { basis, version, resource, facts }) => {
                Step { basis: Some(basis), version, witness, resource, facts, members }
            }
            None => Step { witness, members, ..Step::default() },
        };
        self.turn_on_group(p, o, id, next, rows).await
    }

    /// All that can be refused is refused with the first slice, which has the attributes too; the answer is given after the
    /// last. Where the members are to be exactly some, every slice is written on the version that it was worked out on, so
    /// that of two such requests one comes after the other and their members never mix.
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
            // Who else is in the group matters only where nobody else is to be.
            let limit = if plan.exact { usize::MAX } else { 0 };
            let current = self.everybody(p, id, limit).await?;
            if done.is_none() && !plan.unsure.is_empty() {
                let unsure: Vec<Uuid> = plan.unsure.iter().copied().collect();
                let present = self.present(p, id, &unsure).await?;
                let absent: Vec<Uuid> = unsure.into_iter().filter(|id| !present.contains(id)).collect();
                let mut reader = self.readers().acquire().await?;
                members::nobody_else_is_meant(&mut reader, p, &absent).await?;
            }
            let mut version = record.version;
            let mut slices = slices(if plan.exact { plan.against(&current) } else { plan.lists() }).into_iter();
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
                match self.turn_on_group(p, o, id, next, rows).await? {
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
                    // The attributes have to be worked out anew.
                    Stepped::Moved if first => return Ok(Stepped::Moved),
                    Stepped::Moved => break,
                }
            }
            self.note_retry();
        }
        Err(changes_too_often())
    }

    /// Deletes a group with its memberships; the id is never known again. `if_version`: only in this version
    /// (`If-Match`).
    pub async fn delete_group(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: GroupId,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        let mut if_version = if_version;
        // What goes with a large group goes before it, so that the writer is free for others in between.
        let rows = loop {
            let everybody = self.everybody(p, id, SLICE + 1).await?;
            if everybody.len() <= SLICE {
                break everybody.len();
            }
            let members = Slice { remove: everybody.into_iter().take(SLICE).collect(), ..Slice::default() };
            let next = Step { version: if_version.take(), members, ..Step::default() };
            match self.turn_on_group(p, o, id, next, SLICE).await? {
                Stepped::Done { .. } => {}
                Stepped::NotFound => return Ok(DeleteOutcome::NotFound),
                Stepped::Moved => return Ok(DeleteOutcome::VersionDiffers),
            }
        };
        let ticket = Ticket::provider(p, cost(rows, 0)).on(id);
        let (p, o) = (p.clone(), o.clone());
        self.committer()
            .commit_as(ticket, move |tx| Box::pin(async move { delete(tx, &p, &o, id, if_version).await }))
            .await
    }

    /// Groups that match, without their members, in the order of their creation.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedFilter`] when no index answers the filter.
    pub async fn groups(&self, p: &ProviderName, q: &ListQuery) -> Result<Page<GroupRecord>, StoreError> {
        list::page(self.readers(), ResourceType::Group, p, q, group_row).await
    }

    /// The groups at these positions that are still there, without their members.
    pub async fn groups_at(&self, p: &ProviderName, positions: &[i64]) -> Result<Vec<GroupRecord>, StoreError> {
        list::at(self.readers(), ResourceType::Group, p, positions, group_row).await
    }

    /// How large the directory of one provider is.
    pub async fn counts(&self, p: &ProviderName) -> Result<Counts, StoreError> {
        let row = query(
            "SELECT coalesce((SELECT users FROM counters WHERE provider = ?1), 0), \
                    coalesce((SELECT groups FROM counters WHERE provider = ?1), 0), \
                    (SELECT count(*) FROM members WHERE provider = ?1 AND kind = 'pending')",
        )
        .bind(p.as_str())
        .fetch_one(self.readers())
        .await?;
        let mut columns = Columns::of(&row, "counters");
        Ok(Counts { users: columns.count()?, groups: columns.count()?, pending: columns.count()? })
    }
}
