//! `/Users` (RFC 7644 §3).

use serde_json::{Map, Value, json};

use super::answer::{Answer, etag};
use super::render::{Content, Part};
use super::request::{Query, Versions};
use super::search::{list_query, start_index};
use super::{Call, store_error};
use crate::model::UserId;
use crate::scim::{MAX_WORK, ResourceType, ScimError, UserChange, bounds, new_user, user_facts};
use crate::store::{DeleteOutcome, NewUser, UpdateOutcome, UserRecord, UserUpdate};

const OF: ResourceType = ResourceType::User;

/// A stored resource with what the server itself says about it.
pub(super) fn completed(
    stored: &Value,
    id: &str,
    of: ResourceType,
    location: &str,
    version: i64,
    times: (jiff::Timestamp, jiff::Timestamp),
) -> Map<String, Value> {
    let mut resource = Map::new();
    let stored = stored.as_object();
    if let Some(schemas) = stored.and_then(|stored| stored.get("schemas")) {
        resource.insert("schemas".to_owned(), schemas.clone());
    }
    resource.insert("id".to_owned(), json!(id));
    for (name, value) in stored.into_iter().flatten().filter(|(name, _)| *name != "schemas") {
        resource.insert(name.clone(), value.clone());
    }
    let meta = json!({
        "resourceType": of.name(),
        "created": times.0,
        "lastModified": times.1,
        "location": location,
        "version": etag(version),
    });
    resource.insert("meta".to_owned(), meta);
    resource
}

fn not_found(id: &str) -> ScimError {
    let id: String = id.chars().take(60).collect();
    ScimError::NotFound(format!("there is no user with the id `{id}`"))
}

fn id_of(text: &str) -> Result<UserId, ScimError> {
    crate::scim::issued_id(text).map(UserId).ok_or_else(|| not_found(text))
}

pub(super) async fn list(call: &mut Call<'_>, query: &Query) -> Result<Answer, ScimError> {
    let (total, part) = planned(call, query).await?;
    call.list(total, start_index(query), vec![part]).await
}

/// `totalResults` and the page that was asked for.
pub(super) async fn planned(call: &mut Call<'_>, query: &Query) -> Result<(u64, Part), ScimError> {
    let projection = call.projection(OF, query);
    let wanted = list_query(OF, query, &mut call.findings)?;
    let plan = call.scim.store.plan_users(call.provider(), &wanted).await.map_err(|error| store_error(&error))?;
    Ok((plan.total, Part { of: OF, rows: plan.rows, projection }))
}

/// One user, whole.
fn shown(call: &Call<'_>, user: &UserRecord, query: &Query) -> Content {
    Content::Value(call.render().user(user, &call.projection(OF, query)))
}

pub(super) async fn create(call: &mut Call<'_>, body: Map<String, Value>, query: &Query) -> Result<Answer, ScimError> {
    let resource = new_user(body, &mut call.findings)?;
    bounds::check(OF, None, &resource)?;
    let id = UserId(uuid::Uuid::new_v4());
    let facts = user_facts(id, &resource, true);
    let origin = call.origin();
    let user = call
        .scim
        .store
        .create_user(call.provider(), &origin, NewUser { resource, facts })
        .await
        .map_err(|error| store_error(&error))?;
    let body = shown(call, &user, query);
    Ok(Answer::created(body, call.location(OF, &id.to_string())).with_version(user.version))
}

pub(super) async fn get(
    call: &mut Call<'_>,
    id: &str,
    query: &Query,
    if_none_match: Option<Versions>,
) -> Result<Answer, ScimError> {
    let user = call
        .scim
        .store
        .user(call.provider(), id_of(id)?)
        .await
        .map_err(|error| store_error(&error))?
        .ok_or_else(|| not_found(id))?;
    if if_none_match.is_some_and(|versions| versions.contain(user.version)) {
        return Ok(Answer::not_modified().with_version(user.version));
    }
    Ok(Answer::with(shown(call, &user, query)).with_version(user.version))
}

/// PUT or PATCH: the change is parsed before the store is asked, and worked out on what it has.
pub(super) async fn update(
    call: &mut Call<'_>,
    id: &str,
    parse: impl FnOnce(UserId, &mut crate::scim::Findings) -> Result<UserChange, ScimError>,
    query: &Query,
    if_match: Option<Versions>,
) -> Result<Answer, ScimError> {
    let user_id = id_of(id)?;
    let change = parse(user_id, &mut call.findings)?;
    let origin = call.origin();
    let mut taken = 0_u64;
    let outcome = call
        .scim
        .store
        .update_user(call.provider(), &origin, user_id, move |current: &UserRecord| {
            if if_match.as_ref().is_some_and(|versions| !versions.contain(current.version)) {
                return Err(ScimError::PreconditionFailed);
            }
            let (resource, work) = change.apply_counted(&current.resource);
            // Where many change one user at once, it is not worked out for ever.
            taken = taken.saturating_add(work.spent());
            if taken > MAX_WORK * 2 && resource.is_ok() {
                return Err(ScimError::Unavailable { retry_after: 1 });
            }
            let resource = resource?;
            if resource == current.resource {
                return Ok(None);
            }
            bounds::check(OF, Some(&current.resource), &resource)?;
            let facts = user_facts(user_id, &resource, current.facts.active);
            Ok(Some(UserUpdate { resource, facts }))
        })
        .await
        .map_err(|error| store_error(&error))?;
    let user = match outcome {
        UpdateOutcome::Changed(user) | UpdateOutcome::Unchanged(user) => user,
        UpdateOutcome::NotFound => return Err(not_found(id)),
        UpdateOutcome::Refused(error) => return Err(error),
    };
    Ok(Answer::with(shown(call, &user, query)).with_version(user.version))
}

pub(super) async fn delete(call: &mut Call<'_>, id: &str, if_match: Option<Versions>) -> Result<Answer, ScimError> {
    let user_id = id_of(id)?;
    let if_version = match if_match {
        None | Some(Versions::Any) => None,
        Some(versions) => {
            let user = call.scim.store.user(call.provider(), user_id).await.map_err(|error| store_error(&error))?;
            let user = user.ok_or_else(|| not_found(id))?;
            if !versions.contain(user.version) {
                return Err(ScimError::PreconditionFailed);
            }
            Some(user.version)
        }
    };
    let origin = call.origin();
    let outcome = call.scim.store.delete_user(call.provider(), &origin, user_id, if_version).await;
    match outcome.map_err(|error| store_error(&error))? {
        DeleteOutcome::Deleted => Ok(Answer::no_content()),
        DeleteOutcome::NotFound => Err(not_found(id)),
        DeleteOutcome::VersionDiffers => Err(ScimError::PreconditionFailed),
    }
}
