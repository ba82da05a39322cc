//! Resources of types from a file. Access never depends on them.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::call::Call;
use super::render::{Content, Render};
use super::request::Versions;
use super::resource::{Change, Resource, updated};
use super::store_error;
use crate::scim::{MAX_WORK, Projection, ResourceChange, ResourceType, ScimError, bounds, new_resource};
use crate::store::{DeleteOutcome, NewResource, ScimResource, StoreError};

impl Resource for ScimResource {
    fn patch_is_silent(&self, _call: &Call) -> bool {
        false
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn version(&self) -> i64 {
        self.version
    }

    async fn read(call: &Call, of: ResourceType, id: Uuid) -> Result<Option<Self>, StoreError> {
        call.store().resource(of, call.provider(), id).await
    }

    async fn create(call: &Call, of: ResourceType, id: Uuid, body: Map<String, Value>) -> Result<Self, ScimError> {
        let resource = new_resource(of, body, &mut call.findings())?;
        bounds::check(of, None, &resource)?;
        let created =
            call.store().create_resource(of, call.provider(), &call.origin(), NewResource { id, resource }).await;
        created.map_err(|error| store_error(&error))
    }

    async fn change(
        call: &Call,
        of: ResourceType,
        id: Uuid,
        change: Change,
        if_match: Option<Versions>,
    ) -> Result<Option<Self>, ScimError> {
        let change = match change {
            Change::Replace(body) => ResourceChange::put(of, id, body, &mut call.findings()),
            Change::Modify(body) => ResourceChange::patch(of, id, body, &mut call.findings()),
        }?;
        let mut taken = 0_u64;
        let apply = move |current: &Self| {
            if if_match.as_ref().is_some_and(|versions| !versions.contain(current.version)) {
                return Err(ScimError::PreconditionFailed);
            }
            let (resource, work) = change.apply_counted(&current.resource, &mut call.findings());
            // Bounds the work of one request when many change one resource at once.
            taken = taken.saturating_add(work.spent());
            if taken > MAX_WORK * 2 && resource.is_ok() {
                return Err(ScimError::Unavailable { retry_after: 1 });
            }
            let resource = resource?;
            bounds::check(of, Some(&current.resource), &resource)?;
            Ok(Some(resource))
        };
        updated(call.store().update_resource(of, call.provider(), &call.origin(), id, apply).await)
    }

    async fn delete(
        call: &Call,
        of: ResourceType,
        id: Uuid,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        call.store().delete_resource(of, call.provider(), &call.origin(), id, if_version).await
    }

    async fn content(self, call: &Call, of: ResourceType, projection: Projection) -> Result<Content, ScimError> {
        Ok(Content::Value(Render::new(call).resource(of, &self, &projection)))
    }
}
