//! `/Groups` (RFC 7644 §3). Nothing here but an answer that lists members reads the members of a group.

use serde_json::{Map, Value};

use super::answer::Answer;
use super::render::{Content, Document, Part};
use super::request::{Query, Versions};
use super::search::{list_query, start_index};
use super::{Call, store_error};
use crate::model::GroupId;
use crate::scim::{
    FindingCode, GroupChange, MemberChange, Projection, ResourceType, ScimError, bounds, group_facts, new_group,
};
use crate::store::{self, DeleteOutcome, GroupRecord, GroupUpdate, MemberDelta, NewGroup, UpdateOutcome};

const OF: ResourceType = ResourceType::Group;

/// How the answer to a change says what the group is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// With the group: PUT.
    Group,
    /// Without a body, unless attributes are asked for: PATCH (RFC 7644 §3.5.2).
    Nothing,
}

/// One group with its members.
async fn shown(call: &mut Call<'_>, group: GroupRecord, projection: Projection) -> Result<Content, ScimError> {
    call.content(Document::Group(Box::new(group), projection)).await
}

fn not_found(id: &str) -> ScimError {
    let id: String = id.chars().take(60).collect();
    ScimError::NotFound(format!("there is no group with the id `{id}`"))
}

fn id_of(text: &str) -> Result<GroupId, ScimError> {
    crate::scim::issued_id(text).map(GroupId).ok_or_else(|| not_found(text))
}

pub(super) async fn list(call: &mut Call<'_>, query: &Query) -> Result<Answer, ScimError> {
    let (total, part) = planned(call, query).await?;
    call.list(total, start_index(query), vec![part]).await
}

/// `totalResults` and the page that was asked for.
pub(super) async fn planned(call: &mut Call<'_>, query: &Query) -> Result<(u64, Part), ScimError> {
    let projection = call.projection(OF, query);
    let wanted = list_query(OF, query, &mut call.findings)?;
    let plan = call.scim.store.plan_groups(call.provider(), &wanted).await.map_err(|error| store_error(&error))?;
    Ok((plan.total, Part { of: OF, rows: plan.rows, projection }))
}

fn note_members(call: &mut Call<'_>, delta: MemberDelta, replaced: bool) {
    if delta.parked > 0 {
        call.findings.note(FindingCode::MemberUnknown, "members");
    }
    if delta.nested > 0 {
        call.findings.note(FindingCode::NestedGroup, "members");
    }
    if replaced && delta.after < delta.before {
        call.findings.note(FindingCode::MembersShrunk, &format!("members ({} → {})", delta.before, delta.after));
    }
}

pub(super) async fn create(call: &mut Call<'_>, body: Map<String, Value>, query: &Query) -> Result<Answer, ScimError> {
    let request = new_group(body, &mut call.findings)?;
    bounds::check(OF, None, &request.resource)?;
    let id = GroupId(uuid::Uuid::new_v4());
    let facts = group_facts(id, &request.resource);
    let origin = call.origin();
    let new = NewGroup { resource: request.resource, facts, members: request.members };
    let created =
        call.scim.store.create_group(call.provider(), &origin, new).await.map_err(|error| store_error(&error))?;
    note_members(call, created.members, false);
    let (version, projection) = (created.group.version, call.projection(OF, query));
    let body = shown(call, created.group, projection).await?;
    Ok(Answer::created(body, call.location(OF, &id.to_string())).with_version(version))
}

pub(super) async fn get(
    call: &mut Call<'_>,
    id: &str,
    query: &Query,
    if_none_match: Option<Versions>,
) -> Result<Answer, ScimError> {
    let group = call
        .scim
        .store
        .group(call.provider(), id_of(id)?)
        .await
        .map_err(|error| store_error(&error))?
        .ok_or_else(|| not_found(id))?;
    if if_none_match.is_some_and(|versions| versions.contain(group.version)) {
        return Ok(Answer::not_modified().with_version(group.version));
    }
    let (version, projection) = (group.version, call.projection(OF, query));
    Ok(Answer::with(shown(call, group, projection).await?).with_version(version))
}

fn stored_change(change: MemberChange) -> store::MemberChange {
    match change {
        MemberChange::Add(ids) => store::MemberChange::Add(ids),
        MemberChange::Remove(ids) => store::MemberChange::Remove(ids),
        MemberChange::Replace(ids) => store::MemberChange::Replace(ids),
        MemberChange::Clear => store::MemberChange::Clear,
    }
}

/// PUT or PATCH: parsed before the store is asked, worked out on what it has, members as changes.
pub(super) async fn update(
    call: &mut Call<'_>,
    id: &str,
    parse: impl FnOnce(GroupId, &mut crate::scim::Findings) -> Result<GroupChange, ScimError>,
    reply: Reply,
    query: &Query,
    if_match: Option<Versions>,
) -> Result<Answer, ScimError> {
    let group_id = id_of(id)?;
    let mut change = parse(group_id, &mut call.findings)?;
    let members: Vec<store::MemberChange> =
        std::mem::take(&mut change.members).into_iter().map(stored_change).collect();
    let replaced = members.iter().any(|change| matches!(change, store::MemberChange::Replace(_)));
    let origin = call.origin();
    let store = &call.scim.store;
    let outcome = if if_match.is_none() && !change.has_attributes() {
        store.change_members(call.provider(), &origin, group_id, members).await
    } else {
        let same_version = if_match.is_some();
        let work_out = move |current: &GroupRecord| {
            if if_match.as_ref().is_some_and(|versions| !versions.contain(current.version)) {
                return Err(ScimError::PreconditionFailed);
            }
            let resource = change.apply(&current.resource)?.filter(|resource| *resource != current.resource);
            if let Some(resource) = &resource {
                bounds::check(OF, Some(&current.resource), resource)?;
            }
            let facts = resource.as_ref().map(|resource| group_facts(group_id, resource));
            Ok(GroupUpdate { resource, facts, members: members.clone(), same_version })
        };
        store.update_group(call.provider(), &origin, group_id, work_out).await
    }
    .map_err(|error| store_error(&error))?;
    let changed = match outcome {
        UpdateOutcome::Changed(changed) | UpdateOutcome::Unchanged(changed) => changed,
        UpdateOutcome::NotFound => return Err(not_found(id)),
        UpdateOutcome::Refused(error) => return Err(error),
    };
    note_members(call, changed.members, replaced);
    let projection = call.projection(OF, query);
    if reply == Reply::Nothing && !projection.is_explicit() {
        return Ok(Answer::no_content().with_version(changed.group.version));
    }
    let version = changed.group.version;
    Ok(Answer::with(shown(call, changed.group, projection).await?).with_version(version))
}

pub(super) async fn delete(call: &mut Call<'_>, id: &str, if_match: Option<Versions>) -> Result<Answer, ScimError> {
    let group_id = id_of(id)?;
    let if_version = match if_match {
        None | Some(Versions::Any) => None,
        Some(versions) => {
            let group = call.scim.store.group(call.provider(), group_id).await.map_err(|error| store_error(&error))?;
            let group = group.ok_or_else(|| not_found(id))?;
            if !versions.contain(group.version) {
                return Err(ScimError::PreconditionFailed);
            }
            Some(group.version)
        }
    };
    let origin = call.origin();
    let outcome = call.scim.store.delete_group(call.provider(), &origin, group_id, if_version).await;
    match outcome.map_err(|error| store_error(&error))? {
        DeleteOutcome::Deleted => Ok(Answer::no_content()),
        DeleteOutcome::NotFound => Err(not_found(id)),
        DeleteOutcome::VersionDiffers => Err(ScimError::PreconditionFailed),
    }
}
