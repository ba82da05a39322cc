//! The names behind the pseudonyms, for people with access to the store.

use std::collections::HashMap;

use super::sqlite::names;
use super::{Store, StoreError};
use crate::model::{Pseudonyms, UserId};

/// Names of people by their pseudonyms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Names {
    /// By SCIM id: the address of a grant, or else the `userName`.
    pub(crate) by_id: HashMap<UserId, String>,
    /// By domain and digest: every address that the store has recorded and not erased.
    pub(crate) by_digest: HashMap<String, String>,
}

/// The address in a member of a policy such as `deleted:user:ADDRESS?uid=N`. A text of any other form is returned
/// unchanged.
pub(super) fn address_of(name: &str) -> &str {
    let address = name.strip_prefix("deleted:").unwrap_or(name);
    let address = address.strip_prefix("user:").unwrap_or(address);
    address.split_once('?').map_or(address, |(address, _)| address)
}

impl Names {
    fn add(&mut self, pseudonyms: &Pseudonyms, id: Option<UserId>, name: &str) {
        let address = address_of(name);
        if let Some(id) = id {
            self.by_id.entry(id).or_insert_with(|| address.to_owned());
        }
        if address.contains('@') {
            self.by_digest.entry(pseudonyms.address(address)).or_insert_with(|| address.to_owned());
        }
    }
}

impl Store {
    /// The names of all people known to this store. The cost covers the directory, the ledger and the names of the
    /// audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub(crate) async fn names(&self) -> Result<Names, StoreError> {
        let mut names = Names::default();
        let mut add = |(id, name): (Option<UserId>, String)| names.add(self.pseudonyms(), id, &name);
        self.0.sqlite.stream(names::all, &mut add).await?;
        Ok(names)
    }
}
