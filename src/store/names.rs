//! The names behind the pseudonyms, for who has access to the store.

use std::collections::HashMap;

use sqlx::query;

use super::sql::Columns;
use super::{Store, StoreError};
use crate::model::UserId;

/// Names of people by what stands for them elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// By SCIM id: the address that was granted something, or else the `userName`.
    pub by_id: HashMap<UserId, String>,
    /// By domain and digest: every address that the store has ever recorded and not erased.
    pub by_digest: HashMap<String, String>,
}

/// The address in a member of a policy: `deleted:user:ADDRESS?uid=N`. Another name is one by itself.
pub(super) fn address_of(name: &str) -> &str {
    let address = name.strip_prefix("deleted:").unwrap_or(name);
    let address = address.strip_prefix("user:").unwrap_or(address);
    address.split_once('?').map_or(address, |(address, _)| address)
}

impl Names {
    fn add(&mut self, store: &Store, id: Option<UserId>, name: &str) {
        let address = address_of(name);
        if let Some(id) = id {
            self.by_id.entry(id).or_insert_with(|| address.to_owned());
        }
        if address.contains('@') {
            self.by_digest.entry(store.pseudonyms().address(address)).or_insert_with(|| address.to_owned());
        }
    }
}

impl Store {
    /// The names of all people that this store knows. Costs the directory, the ledger and the names of the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn names(&self) -> Result<Names, StoreError> {
        let mut names = Names::default();
        let granted = "SELECT g.member, c.subject_id FROM grants g LEFT JOIN claims c ON c.document = g.document \
            AND c.role = g.role AND c.condition_hash = g.condition_hash AND c.member_key = g.member_key \
            AND c.subject_kind = 'user'";
        for row in query(granted).fetch_all(self.readers()).await? {
            let mut columns = Columns::of(&row, "grants");
            let member = columns.text()?;
            let id = columns.id_or_none()?.map(UserId);
            names.add(self, id, &member);
        }
        for row in query("SELECT id, user_name, external_id, emails FROM users").fetch_all(self.readers()).await? {
            let mut columns = Columns::of(&row, "users");
            let id = UserId(columns.id()?);
            let (user_name, external_id) = (columns.text()?, columns.text_or_none()?);
            let emails: Vec<crate::model::EmailFact> = columns.json()?;
            names.add(self, Some(id), &user_name);
            for name in external_id.into_iter().chain(emails.into_iter().map(|email| email.value)) {
                names.add(self, Some(id), &name);
            }
        }
        for row in query("SELECT name FROM people WHERE name IS NOT NULL").fetch_all(self.readers()).await? {
            let name = Columns::of(&row, "people").text()?;
            names.add(self, None, &name);
        }
        Ok(names)
    }
}
