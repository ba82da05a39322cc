//! Routes and handlers that Users and Groups share (RFC 7644 §3).

use axum::Router;
use axum::http::Uri;
use axum::routing::any;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::answer::Answer;
use super::call::{Call, Id, Object};
use super::render::Content;
use super::request::{IfMatch, IfNoneMatch, Query, Versions};
use super::{search, store_error};
use crate::scim::{Projection, ResourceType, ScimError, issued_id};
use crate::store::{DeleteOutcome, StoreError, UpdateOutcome};

/// Body of a request that changes a stored resource.
pub(super) enum Change {
    /// PUT.
    Replace(Map<String, Value>),
    /// PATCH.
    Modify(Map<String, Value>),
}

/// A record of the store as a resource of the endpoint: how its type is stored and rendered.
pub(super) trait Resource: Sized + Send + Sync + 'static {
    /// Whether a PATCH is answered without a body unless attributes are asked for (RFC 7644 §3.5.2).
    fn patch_is_silent(&self, call: &Call) -> bool;

    fn id(&self) -> Uuid;

    fn version(&self) -> i64;

    fn read(call: &Call, of: ResourceType, id: Uuid) -> impl Future<Output = Result<Option<Self>, StoreError>> + Send;

    /// Stores a new resource under this id, which was never used.
    fn create(
        call: &Call,
        of: ResourceType,
        id: Uuid,
        body: Map<String, Value>,
    ) -> impl Future<Output = Result<Self, ScimError>> + Send;

    /// Parses the change before the store is asked, and applies it to the stored resource. None: there is no such resource.
    fn change(
        call: &Call,
        of: ResourceType,
        id: Uuid,
        change: Change,
        if_match: Option<Versions>,
    ) -> impl Future<Output = Result<Option<Self>, ScimError>> + Send;

    fn delete(
        call: &Call,
        of: ResourceType,
        id: Uuid,
        if_version: Option<i64>,
    ) -> impl Future<Output = Result<DeleteOutcome, StoreError>> + Send;

    /// The body of an answer with this resource.
    fn content(
        self,
        call: &Call,
        of: ResourceType,
        projection: Projection,
    ) -> impl Future<Output = Result<Content, ScimError>> + Send;
}

/// The routes of one type. `any` takes all other methods, so that refusals can list the permitted ones.
pub(super) fn routes<R: Resource>(of: ResourceType) -> Router {
    let endpoint = of.endpoint();
    let all = any(|| async { ScimError::MethodNotAllowed("GET, HEAD, POST") });
    let search = any(|| async { ScimError::MethodNotAllowed("POST") });
    let one = any(|_: Query| async { ScimError::MethodNotAllowed("GET, HEAD, PUT, PATCH, DELETE") });
    Router::new()
        .route(
            endpoint,
            all.get(async move |call: Call, query: Query| search::one_type(&call, of, &query).await)
                .post(async move |call: Call, uri: Uri, body: Object| create::<R>(of, call, uri, body).await),
        )
        .route(
            &format!("{endpoint}/.search"),
            search.post(async move |call: Call, body: Object| {
                search::one_type(&call, of, &Query::from_search(body.members)?).await
            }),
        )
        .route(
            &format!("{endpoint}/{{id}}"),
            one.get(async move |call: Call, id: Id, query: Query, versions: IfNoneMatch| {
                read::<R>(of, call, id, query, versions).await
            })
            .put(async move |call: Call, id: Id, query: Query, versions: IfMatch, body: Object| {
                replace::<R>(of, call, id, query, versions, body).await
            })
            .patch(async move |call: Call, id: Id, query: Query, versions: IfMatch, body: Object| {
                modify::<R>(of, call, id, query, versions, body).await
            })
            .delete(async move |call: Call, id: Id, _query: Query, versions: IfMatch| {
                delete::<R>(of, call, id, versions).await
            }),
        )
}

/// The record after an update. None: there is no such resource.
pub(super) fn updated<T>(outcome: Result<UpdateOutcome<T, ScimError>, StoreError>) -> Result<Option<T>, ScimError> {
    match outcome.map_err(|error| store_error(&error))? {
        UpdateOutcome::Changed(record) | UpdateOutcome::Unchanged(record) => Ok(Some(record)),
        UpdateOutcome::NotFound => Ok(None),
        UpdateOutcome::Refused(error) => Err(error),
    }
}

async fn stored<R: Resource>(call: &Call, of: ResourceType, id: Uuid) -> Result<Option<R>, ScimError> {
    R::read(call, of, id).await.map_err(|error| store_error(&error))
}

/// The UUID of an id, if the id has the form of those that this server issues.
fn issued(of: ResourceType, id: &Id) -> Result<Uuid, ScimError> {
    issued_id(&id.0).ok_or_else(|| id.not_found(of))
}

/// A 200 with the resource.
async fn answer<R: Resource>(
    call: &Call,
    of: ResourceType,
    resource: R,
    projection: Projection,
) -> Result<Answer, ScimError> {
    let version = resource.version();
    Ok(Answer::with(resource.content(call, of, projection).await?).with_version(version))
}

async fn create<R: Resource>(of: ResourceType, call: Call, uri: Uri, body: Object) -> Result<Answer, ScimError> {
    let projection = Query::from_url(uri.query())?.projection(of).with_written(&body.members);
    let resource = R::create(&call, of, Uuid::new_v4(), body.members).await?;
    let (version, location) = (resource.version(), format!("{}{}/{}", call.base(), of.endpoint(), resource.id()));
    let content = resource.content(&call, of, projection).await?;
    Ok(Answer::created(content, location).with_version(version))
}

async fn read<R: Resource>(
    of: ResourceType,
    call: Call,
    id: Id,
    query: Query,
    IfNoneMatch(if_none_match): IfNoneMatch,
) -> Result<Answer, ScimError> {
    let resource: R = stored(&call, of, issued(of, &id)?).await?.ok_or_else(|| id.not_found(of))?;
    let projection = query.projection(of);
    if if_none_match.is_some_and(|versions| versions.contain(resource.version())) && !projection.requests_computed() {
        return Ok(Answer::not_modified().with_version(resource.version()));
    }
    answer(&call, of, resource, projection).await
}

async fn replace<R: Resource>(
    of: ResourceType,
    call: Call,
    id: Id,
    query: Query,
    IfMatch(if_match): IfMatch,
    body: Object,
) -> Result<Answer, ScimError> {
    let projection = query.projection(of).with_written(&body.members);
    let resource = R::change(&call, of, issued(of, &id)?, Change::Replace(body.members), if_match).await?;
    answer(&call, of, resource.ok_or_else(|| id.not_found(of))?, projection).await
}

async fn modify<R: Resource>(
    of: ResourceType,
    call: Call,
    id: Id,
    query: Query,
    IfMatch(if_match): IfMatch,
    body: Object,
) -> Result<Answer, ScimError> {
    let projection = query.projection(of).with_written(&body.members);
    let resource = R::change(&call, of, issued(of, &id)?, Change::Modify(body.members), if_match).await?;
    let resource = resource.ok_or_else(|| id.not_found(of))?;
    if !projection.is_explicit() && resource.patch_is_silent(&call) {
        return Ok(Answer::no_content().with_version(resource.version()));
    }
    answer(&call, of, resource, projection).await
}

async fn delete<R: Resource>(
    of: ResourceType,
    call: Call,
    id: Id,
    IfMatch(if_match): IfMatch,
) -> Result<Answer, ScimError> {
    remove::<R>(&call, of, issued(of, &id)?, if_match).await?.ok_or_else(|| id.not_found(of))?;
    Ok(Answer::no_content())
}

/// Deletes a resource. None: there is no such resource.
pub(super) async fn remove<R: Resource>(
    call: &Call,
    of: ResourceType,
    id: Uuid,
    if_match: Option<Versions>,
) -> Result<Option<()>, ScimError> {
    let if_version = match if_match {
        None | Some(Versions::Any) => None,
        Some(versions) => {
            let Some(resource) = stored::<R>(call, of, id).await? else { return Ok(None) };
            if !versions.contain(resource.version()) {
                return Err(ScimError::PreconditionFailed);
            }
            Some(resource.version())
        }
    };
    match R::delete(call, of, id, if_version).await.map_err(|error| store_error(&error))? {
        DeleteOutcome::Deleted => Ok(Some(())),
        DeleteOutcome::NotFound => Ok(None),
        DeleteOutcome::VersionDiffers => Err(ScimError::PreconditionFailed),
    }
}
