//! Erasing a person: names and addresses go, ids stay, so that what happened can still be told and positions rebuilt.
//!
//! Names stand in the events of the person, in the names of the audit, and in refusals of the address. What stands in the
//! directory goes when the identity provider deletes the person, and what stands in the ledger when the last grant is revoked;
//! until then nothing is erased.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::encoding::fold;
use super::lanes::{Ticket, cost};
use super::sqlite::erase;
use super::{Store, StoreError};
use crate::model::{DirectoryChange, DocumentKey, ProviderName, Seq, UserFacts, UserId};

/// Somebody whom the store knows under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPerson {
    /// The SCIM id.
    pub id: UserId,
    /// The identity provider.
    pub provider: ProviderName,
    /// When the identity provider deleted the person; none while it has not.
    pub deleted_at: Option<Timestamp>,
}

/// What erasing a person came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// There is no user of this id, and there was none.
    Unknown,
    /// The identity provider has not deleted the person; nothing was erased.
    NotDeleted(ProviderName),
    /// There are grants of the person, or removals that are still to be done; nothing was erased.
    Granted(BTreeSet<DocumentKey>),
    /// The names are gone from all rows.
    Erased(Erased),
}

/// What was erased of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Events that named the person.
    pub events: u64,
    /// Names in the audit.
    pub names: u64,
    /// Refusals of an address.
    pub refusals: u64,
    /// Users of the identity provider whose own attributes hold an address of the person.
    pub mentioned_by: u64,
}

/// All that one user is called, folded.
pub(super) fn names_of(facts: &UserFacts) -> impl Iterator<Item = String> {
    let emails = facts.emails.iter().map(|email| &email.value);
    [&facts.user_name].into_iter().chain(&facts.external_id).chain(emails).map(|name| fold(name))
}

/// The same user without names: nothing can be derived from it.
pub(super) fn nameless(facts: &UserFacts) -> DirectoryChange {
    DirectoryChange::User(UserFacts {
        id: facts.id,
        active: facts.active,
        user_name: String::new(),
        external_id: None,
        emails: vec![],
    })
}

/// What is to be erased of a person.
#[derive(Default)]
pub(super) struct Traces {
    pub(super) events: Vec<(Seq, String)>,
    /// Ids of rows in `people`.
    pub(super) names: Vec<i64>,
    /// As members of a policy are keyed.
    pub(super) members: BTreeSet<String>,
    pub(super) addresses: BTreeSet<String>,
    pub(super) refusals: u64,
}

impl Store {
    /// Everybody who is or was known under a SCIM id, `userName`, `externalId` or address, in any letter case.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn find_people(&self, text: &str) -> Result<Vec<KnownPerson>, StoreError> {
        let text = text.to_owned();
        self.read(move |db| erase::find_people(db, &text)).await
    }

    /// Removes all names and addresses of a person from all rows, and says so in the audit by the id. What was deleted is still
    /// in the free space of the file until [`Store::rewrite_file`]. `name`: one that the person had, which is all there is
    /// when what connects it to the id was pruned. `dry`: only looks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn erase_person(&self, id: Option<UserId>, name: Option<&str>, dry: bool) -> Result<Erasure, StoreError> {
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

    /// Whether something was erased since the file was rewritten last.
    pub async fn is_rewrite_due(&self) -> Result<bool, StoreError> {
        self.read(erase::is_rewrite_due).await
    }
}
