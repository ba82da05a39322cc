//! Users as resources of the endpoint.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::call::Call;
use super::render::{Content, Render};
use super::request::Versions;
use super::resource::{Change, Resource, updated};
use super::store_error;
use crate::model::UserId;
use crate::scim::{
    FindingCode, MAX_WORK, Projection, ResourceChange, ResourceType, ScimError, bounds, new_resource, user_facts,
};
use crate::store::{DeleteOutcome, NewUser, StoreError, UserRecord, UserUpdate};

fn note_shared(call: &Call, user: &UserRecord) {
    if user.shares_external_id {
        call.findings().note(FindingCode::ExternalIdShared, "externalId");
    }
}

impl Resource for UserRecord {
    fn patch_is_silent(&self, _call: &Call) -> bool {
        false
    }

    fn id(&self) -> Uuid {
        self.facts.id.0
    }

    fn version(&self) -> i64 {
        self.version
    }

    async fn read(call: &Call, _of: ResourceType, id: Uuid) -> Result<Option<Self>, StoreError> {
        call.store().user(call.provider(), UserId(id)).await
    }

    async fn create(call: &Call, of: ResourceType, id: Uuid, body: Map<String, Value>) -> Result<Self, ScimError> {
        let resource = new_resource(of, body, &mut call.findings())?;
        bounds::check(of, None, &resource)?;
        let facts = user_facts(UserId(id), &resource, true);
        let created = call.store().create_user(call.provider(), &call.origin(), NewUser { resource, facts }).await;
        let created = created.map_err(|error| store_error(&error))?;
        note_shared(call, &created);
        Ok(created)
    }

    async fn change(
        call: &Call,
        of: ResourceType,
        id: Uuid,
        change: Change,
        if_match: Option<Versions>,
    ) -> Result<Option<Self>, ScimError> {
        let id = UserId(id);
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
            // Bounds the work of one request when many change one user at once.
            taken = taken.saturating_add(work.spent());
            if taken > MAX_WORK * 2 && resource.is_ok() {
                return Err(ScimError::Unavailable { retry_after: 1 });
            }
            let resource = resource?;
            if resource == current.resource {
                return Ok(None);
            }
            bounds::check(of, Some(&current.resource), &resource)?;
            let facts = user_facts(id, &resource, current.facts.active);
            Ok(Some(UserUpdate { resource, facts }))
        };
        let user = updated(call.store().update_user(call.provider(), &call.origin(), id, apply).await)?;
        if let Some(user) = &user {
            note_shared(call, user);
        }
        Ok(user)
    }

    async fn delete(
        call: &Call,
        _of: ResourceType,
        id: Uuid,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        call.store().delete_user(call.provider(), &call.origin(), UserId(id), if_version).await
    }

    async fn content(self, call: &Call, of: ResourceType, projection: Projection) -> Result<Content, ScimError> {
        let user = Render::new(call).user(of, &self, &projection).await;
        Ok(Content::Value(user.map_err(|error| store_error(&error))?))
    }
}
