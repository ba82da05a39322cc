//! Erasure of a person: names and addresses are removed, ids stay, so that the history remains consistent and past
//! positions can be rebuilt.
//!
//! Names are in the events of the person, in the names of the audit, and in refusals of the address. Names in the
//! directory are removed when the identity provider deletes the person, and names in the ledger when the last grant is
//! revoked; until then nothing is erased.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::encoding::fold;
use super::lanes::{Ticket, cost};
use super::sqlite::erase;
use super::{Store, StoreError};
use crate::model::{DirectoryChange, DocumentKey, ProviderName, Seq, UserFacts, UserId};

/// A person whom the store knows under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownPerson {
    /// The SCIM id.
    pub(crate) id: UserId,
    /// The identity provider.
    pub(crate) provider: ProviderName,
    /// Time at which the identity provider deleted the person; none while it has not.
    pub(crate) deleted_at: Option<Timestamp>,
}

/// The result of erasing a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Erasure {
    /// There is and was no user with this id.
    Unknown,
    /// The identity provider has not deleted the person; nothing was erased.
    NotDeleted(ProviderName),
    /// The person has grants, or removals that are still pending; nothing was erased.
    Granted(BTreeSet<DocumentKey>),
    /// The names were removed from all rows.
    Erased(Erased),
}

/// Numbers of erased names of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Erased {
    /// Events that contained a name of the person.
    pub(crate) events: u64,
    /// Names in the audit.
    pub(crate) names: u64,
    /// Refusals of an address.
    pub(crate) refusals: u64,
    /// Users and other resources of the identity provider whose own attributes contain an address of the person.
    pub(crate) mentioned_by: u64,
}

/// All names of one user, folded.
pub(super) fn names_of(facts: &UserFacts) -> impl Iterator<Item = String> {
    let emails = facts.emails.iter().map(|email| &email.value);
    [&facts.user_name].into_iter().chain(&facts.external_id).chain(emails).map(|name| fold(name))
}

/// The same user without names; nothing can be derived from it.
pub(super) fn nameless(facts: &UserFacts) -> DirectoryChange {
    DirectoryChange::User(UserFacts {
        id: facts.id,
        active: facts.active,
        user_name: String::new(),
        external_id: None,
        emails: vec![],
    })
}

/// The traces of a person that are to be erased.
#[derive(Default)]
pub(super) struct Traces {
    pub(super) events: Vec<(Seq, String)>,
    /// Ids of rows in `people`.
    pub(super) names: Vec<i64>,
    /// Keys of members of policies.
    pub(super) members: BTreeSet<String>,
    pub(super) addresses: BTreeSet<String>,
    pub(super) refusals: u64,
}

impl Store {
    /// Everybody who is or was known under a SCIM id, `userName`, `externalId` or address, in any letter case.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub(crate) async fn find_people(&self, text: &str) -> Result<Vec<KnownPerson>, StoreError> {
        let text = text.to_owned();
        self.read(move |db| erase::find_people(db, &text)).await
    }

    /// Removes all names and addresses of a person from all rows, and records that in the audit under the id. The
    /// deleted bytes remain in the free space of the file until [`Store::rewrite_file`]. `name`: a name of the person,
    /// which is the only trace when the rows that connect it to the id were pruned. `dry`: only reports.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub(crate) async fn erase_person(
        &self,
        id: Option<UserId>,
        name: Option<&str>,
        dry: bool,
    ) -> Result<Erasure, StoreError> {
        let name = name.map(fold);
        let (traces, mentioned_by) = self.read(move |db| erase::traces(db, id, name)).await?;
        let bytes = traces.events.iter().map(|(_, change)| change.len()).sum();
        let ticket = Ticket::engine(cost(traces.events.len() + traces.names.len(), bytes));
        let erasure = self.commit(ticket, move |tx| erase::erase(tx, id, &traces, dry)).await?;
        Ok(match erasure {
            Erasure::Erased(erased) => Erasure::Erased(Erased { mentioned_by, ..erased }),
            other => other,
        })
    }

    /// True when something was erased since the last rewrite of the file.
    pub(crate) async fn is_rewrite_due(&self) -> Result<bool, StoreError> {
        self.read(erase::is_rewrite_due).await
    }
}
