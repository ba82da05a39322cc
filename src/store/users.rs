//! Users.

use serde_json::Value;

use super::encoding::{employee_number_fold, fold, fold_name, json, size};
use super::lanes::{Ticket, cost};
use super::sqlite::{list, users};
use super::{
    ATTEMPTS, DeleteOutcome, NewUser, Origin, Store, StoreError, UpdateOutcome, UserRecord, UserUpdate,
    changes_too_often,
};
use crate::model::{EmailFact, ProviderName, UserFacts, UserId};

/// A user in its stored form, encoded before the writer is called.
pub(super) struct EncodedUser {
    pub(super) resource: String,
    pub(super) emails: String,
    /// The look-up rows of e-mail addresses: folded value, folded kind.
    pub(super) email_keys: Vec<(String, String)>,
    pub(super) user_name_fold: String,
    pub(super) employee_number_fold: Option<String>,
    /// Size of the replaced resource.
    pub(super) replaced_size: i64,
}

fn email_key(email: &EmailFact) -> (String, String) {
    (fold(&email.value), fold(email.kind.as_deref().unwrap_or_default()))
}

impl EncodedUser {
    fn new(resource: &Value, facts: &UserFacts) -> Result<Self, StoreError> {
        Ok(Self {
            resource: json(resource)?,
            emails: json(&facts.emails)?,
            email_keys: facts.emails.iter().map(email_key).collect(),
            user_name_fold: fold_name(&facts.user_name),
            employee_number_fold: employee_number_fold(resource),
            replaced_size: 0,
        })
    }

    /// The writer's ticket for this user.
    fn ticket(&self, p: &ProviderName, facts: &UserFacts) -> Ticket {
        let bytes = self.resource.len() + self.emails.len() * 3;
        Ticket::provider(p, cost(facts.emails.len(), bytes))
    }
}

impl Store {
    /// Stores a user. `userName` (without regard to case) and id must be unused at this provider. Groups
    /// that listed the id before have it as a member from now on.
    ///
    /// # Errors
    /// [`StoreError::Taken`], [`StoreError::QuotaExceeded`].
    pub(crate) async fn create_user(
        &self,
        p: &ProviderName,
        o: &Origin,
        user: NewUser,
    ) -> Result<UserRecord, StoreError> {
        let encoded = EncodedUser::new(&user.resource, &user.facts)?;
        let ticket = encoded.ticket(p, &user.facts);
        let (p, o, quota) = (p.clone(), o.clone(), self.quota());
        self.commit(ticket, move |tx| users::create(tx, &p, &o, &quota, user, &encoded)).await
    }

    /// One user.
    pub(crate) async fn user(&self, p: &ProviderName, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        let p = p.clone();
        self.read(move |db| users::find(db, &p, id)).await
    }

    /// Reads, changes and writes a user. `change` returns the new state, or none for "no change". It runs in the
    /// caller's task, so that it delays nobody else, and again for each time that somebody else changed the user
    /// meanwhile. An equal resource with equal facts is no change either.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; [`StoreError::Unavailable`], when the user keeps changing.
    pub(crate) async fn update_user<E: Send>(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: UserId,
        mut change: impl FnMut(&UserRecord) -> Result<Option<UserUpdate>, E> + Send,
    ) -> Result<UpdateOutcome<UserRecord, E>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.user(p, id).await? else { return Ok(UpdateOutcome::NotFound) };
            let next = match change(&before) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(UpdateOutcome::Unchanged(before)),
                Err(refusal) => return Ok(UpdateOutcome::Refused(refusal)),
            };
            if next.facts.id != id {
                return Err(StoreError::Internal { problem: "an update tried to change the id of a user".to_owned() });
            }
            if next.facts == before.facts && next.resource == before.resource {
                return Ok(UpdateOutcome::Unchanged(before));
            }
            let mut encoded = EncodedUser::new(&next.resource, &next.facts)?;
            encoded.replaced_size = size(&json(&before.resource)?);
            let ticket = encoded.ticket(p, &next.facts);
            let (p, o, quota) = (p.clone(), o.clone(), self.quota());
            let written =
                self.commit(ticket, move |tx| users::update(tx, &p, &o, &quota, &before, next, &encoded)).await?;
            if let Some(user) = written {
                return Ok(UpdateOutcome::Changed(user));
            }
            self.note_retry();
        }
        Err(changes_too_often())
    }

    /// Deletes a user with all memberships; the id is never used again. `if_version`: only in this version
    /// (`If-Match`).
    pub(crate) async fn delete_user(
        &self,
        p: &ProviderName,
        o: &Origin,
        id: UserId,
        if_version: Option<i64>,
    ) -> Result<DeleteOutcome, StoreError> {
        let (p, o) = (p.clone(), o.clone());
        let ticket = Ticket::provider(&p, cost(0, 0));
        self.commit(ticket, move |tx| users::delete(tx, &p, &o, id, if_version)).await
    }

    /// Users that match, in their order.
    #[cfg(test)]
    pub(crate) async fn users(
        &self,
        p: &ProviderName,
        q: &super::ListQuery,
    ) -> Result<super::record::Page<UserRecord>, StoreError> {
        let plan = self.plan_list(crate::scim::ResourceType::User, p, q).await?;
        let positions: Vec<i64> = plan.rows.iter().map(|row| row.position).collect();
        Ok(super::record::Page { items: self.users_at(p, &positions).await?, total: plan.total })
    }

    /// The users at these positions that still exist.
    pub(crate) async fn users_at(&self, p: &ProviderName, positions: &[i64]) -> Result<Vec<UserRecord>, StoreError> {
        let (p, positions) = (p.clone(), positions.to_vec());
        self.read(move |db| list::users_at(db, &p, &positions)).await
    }
}
