//! Groups as resources of the endpoint. Nothing here but an answer that lists members reads the members of a group.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::call::Call;
use super::render::{Content, Document, Render};
use super::request::Versions;
use super::resource::{Change, Resource, updated};
use super::store_error;
use crate::model::{GroupId, MemberChange};
use crate::scim::{
    Dialect, FindingCode, GroupChange, Projection, ResourceType, ScimError, bounds, group_facts, new_group,
};
use crate::store::{DeleteOutcome, GroupChanged, GroupRecord, GroupUpdate, NewGroup, StoreError};

/// Largest number of members of a group that is the answer to a PATCH.
const MAX_ANSWERED: u64 = 1_000;

fn note(call: &Call, changed: &GroupChanged, replaced: bool) {
    let mut findings = call.findings();
    if changed.group.shares_external_id {
        findings.note(FindingCode::ExternalIdShared, "externalId");
    }
    let delta = changed.members;
    if delta.parked > 0 {
        findings.note(FindingCode::MemberUnknown, "members");
    }
    if delta.nested > 0 {
        findings.note(FindingCode::NestedGroup, "members");
    }
    if replaced && delta.after < delta.before {
        findings.note(FindingCode::MembersShrunk, &format!("members ({} → {})", delta.before, delta.after));
    }
}

impl Resource for GroupRecord {
    fn patch_is_silent(&self, call: &Call) -> bool {
        self.member_count > MAX_ANSWERED || call.dialect() == Dialect::Entra
    }

    fn id(&self) -> Uuid {
        self.facts.id.0
    }

    fn version(&self) -> i64 {
        self.version
    }

    async fn read(call: &Call, _of: ResourceType, id: Uuid) -> Result<Option<Self>, StoreError> {
        call.store().group(call.provider(), GroupId(id)).await
    }

    async fn create(call: &Call, of: ResourceType, id: Uuid, body: Map<String, Value>) -> Result<Self, ScimError> {
        let request = new_group(of, body, &mut call.findings())?;
        bounds::check(of, None, &request.resource)?;
        let facts = group_facts(GroupId(id), &request.resource);
        let new = NewGroup { resource: request.resource, facts, members: request.members };
        let created = call.store().create_group(call.provider(), &call.origin(), new).await;
        let created = created.map_err(|error| store_error(&error))?;
        note(call, &created, false);
        Ok(created.group)
    }

    async fn change(
        call: &Call,
        of: ResourceType,
        id: Uuid,
        change: Change,
        if_match: Option<Versions>,
    ) -> Result<Option<Self>, ScimError> {
        let id = GroupId(id);
        let mut change = match change {
            Change::Replace(body) => GroupChange::put(of, id, body, &mut call.findings()),
            Change::Modify(body) => GroupChange::patch(of, id, body, &mut call.findings()),
        }?;
        let members = std::mem::take(&mut change.members);
        let replaced = members.list.iter().any(|change| matches!(change, MemberChange::Replace(_)));
        let (store, origin) = (call.store(), call.origin());
        let outcome = if if_match.is_none() && !change.has_attributes() {
            store.change_members(call.provider(), &origin, id, members).await
        } else {
            let same_version = if_match.is_some();
            let apply = move |current: &Self| {
                if if_match.as_ref().is_some_and(|versions| !versions.contain(current.version)) {
                    return Err(ScimError::PreconditionFailed);
                }
                let resource = change.apply_to(&current.resource, &members, &mut call.findings())?;
                let resource = resource.filter(|resource| *resource != current.resource);
                if let Some(resource) = &resource {
                    bounds::check(of, Some(&current.resource), resource)?;
                }
                let facts = resource.as_ref().map(|resource| group_facts(id, resource));
                Ok(GroupUpdate { resource, facts, members: members.clone(), same_version })
            };
            store.update_group(call.provider(), &origin, id, apply).await
        };
        let Some(changed) = updated(outcome)? else { return Ok(None) };
        note(call, &changed, replaced);
        Ok(Some(changed.group))
    }

    async fn delete(
        call: &Call,
        _of: ResourceType,
        id: Uuid,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        call.store().delete_group(call.provider(), &call.origin(), GroupId(id), if_version).await
    }

    async fn content(self, call: &Call, of: ResourceType, projection: Projection) -> Result<Content, ScimError> {
        Render::new(call).content(Document::Group(of, Box::new(self), projection)).await
    }
}
