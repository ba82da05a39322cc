//! Resources of types from a file.

use serde_json::Value;
use uuid::Uuid;

use super::encoding::{json, size};
use super::lanes::{BATCH, Ticket, cost};
use super::sqlite::{list, resources};
use super::{
    ATTEMPTS, DeleteOutcome, NewResource, Origin, ScimResource, Store, StoreError, UpdateOutcome, changes_too_often,
};
use crate::model::ProviderName;
use crate::scim::{ResourceType, ResourceTypes, unique_values};

/// A resource in its stored form, encoded before the writer is called.
pub(super) struct EncodedResource {
    pub(super) text: String,
    pub(super) external_id: Option<String>,
    /// The values that no other resource of the type may have, with their attributes.
    pub(super) unique: Vec<(String, String)>,
    /// Size of the replaced resource.
    pub(super) replaced_size: i64,
}

impl EncodedResource {
    fn new(of: ResourceType, resource: &Value) -> Result<Self, StoreError> {
        let external_id = resource.get("externalId").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { text: json(resource)?, external_id, unique: unique_values(of, resource), replaced_size: 0 })
    }

    fn ticket(&self, p: &ProviderName) -> Ticket {
        Ticket::provider(p, cost(1 + self.unique.len(), self.text.len()))
    }
}

impl Store {
    /// Builds the unique values of stored resources again, where these types have other ones than when they were last built.
    /// Called before anything is served.
    ///
    /// # Errors
    /// [`StoreError::NotUnique`]: nothing is changed then.
    pub(crate) async fn hold_unique(&self, types: &ResourceTypes) -> Result<(), StoreError> {
        let types: Vec<ResourceType> = types.others.clone();
        self.commit(Ticket::engine(BATCH), move |tx| types.iter().try_for_each(|of| resources::hold_unique(tx, *of)))
            .await
    }

    /// Stores a resource.
    ///
    /// # Errors
    /// [`StoreError::Taken`], [`StoreError::QuotaExceeded`].
    pub(crate) async fn create_resource(
        &self,
        of: ResourceType,
        p: &ProviderName,
        o: &Origin,
        new: NewResource,
    ) -> Result<ScimResource, StoreError> {
        let encoded = EncodedResource::new(of, &new.resource)?;
        let (p, o, quota, ticket) = (p.clone(), o.clone(), self.quota(), encoded.ticket(p));
        self.commit(ticket, move |tx| resources::create(tx, of, (&p, &o), &quota, new, &encoded)).await
    }

    /// One resource of a type.
    pub(crate) async fn resource(
        &self,
        of: ResourceType,
        p: &ProviderName,
        id: Uuid,
    ) -> Result<Option<ScimResource>, StoreError> {
        let p = p.clone();
        self.read(move |db| resources::find(db, of, &p, id)).await
    }

    /// Reads, changes and writes a resource, as [`Store::update_user`] does.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; [`StoreError::Unavailable`], when the resource keeps changing.
    pub(crate) async fn update_resource<E: Send>(
        &self,
        of: ResourceType,
        p: &ProviderName,
        o: &Origin,
        id: Uuid,
        mut change: impl FnMut(&ScimResource) -> Result<Option<Value>, E> + Send,
    ) -> Result<UpdateOutcome<ScimResource, E>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.resource(of, p, id).await? else { return Ok(UpdateOutcome::NotFound) };
            let next = match change(&before) {
                Ok(next) => next.filter(|next| *next != before.resource),
                Err(refusal) => return Ok(UpdateOutcome::Refused(refusal)),
            };
            let Some(next) = next else { return Ok(UpdateOutcome::Unchanged(before)) };
            let mut encoded = EncodedResource::new(of, &next)?;
            encoded.replaced_size = size(&json(&before.resource)?);
            let (p, o, quota, ticket) = (p.clone(), o.clone(), self.quota(), encoded.ticket(p));
            let states = (before, next);
            let written =
                self.commit(ticket, move |tx| resources::update(tx, of, (&p, &o), &quota, states, &encoded)).await?;
            if let Some(record) = written {
                return Ok(UpdateOutcome::Changed(record));
            }
            self.note_retry();
        }
        Err(changes_too_often())
    }

    /// Deletes a resource. `if_version`: only in this version (`If-Match`).
    pub(crate) async fn delete_resource(
        &self,
        of: ResourceType,
        p: &ProviderName,
        o: &Origin,
        id: Uuid,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        let ticket = Ticket::provider(p, cost(1, 0));
        let (p, o) = (p.clone(), o.clone());
        self.commit(ticket, move |tx| resources::delete(tx, of.name(), (&p, &o), id, if_version)).await
    }

    /// The resources of a type at these positions that still exist.
    pub(crate) async fn resources_at(
        &self,
        of: ResourceType,
        p: &ProviderName,
        positions: &[i64],
    ) -> Result<Vec<ScimResource>, StoreError> {
        let (p, positions) = (p.clone(), positions.to_vec());
        self.read(move |db| list::resources_at(db, of, &p, &positions)).await
    }
}
