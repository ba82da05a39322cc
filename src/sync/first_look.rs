//! Detects a lost database: a new database, without a checkpoint, checks whether rolecall already worked on its
//! policies.
//!
//! If so, the database is not new but lost. Its directory is still empty, so every grant made with the lost one would
//! count as foreign, and would stay after the person leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::Inner;
use super::state::{State, Trigger};
use crate::model::{Desired, DocumentKey, FreezeReason, Live, MemberKey};
use crate::store::{StoreError, Trust};

/// Number of people who must already have the grants of mappings before a new database is doubted. One or two were more
/// likely granted a role by hand before rolecall was installed.
const PEOPLE: usize = 3;

/// How long after its first start a database checks policies that it reads for the first time.
pub(super) const SPAN: Duration = Duration::from_hours(1);

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct FirstLook {
    documents: BTreeSet<DocumentKey>,
    /// At most [`PEOPLE`] entries.
    people: BTreeSet<MemberKey>,
}

/// True when the first start was long enough ago that everything has been checked.
pub(super) fn is_over(since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed > SPAN)
}

impl State {
    /// True when the policy of this document has to be read although nothing is wanted there.
    pub(super) fn is_first_look(&self, document: &DocumentKey) -> bool {
        let unseen = self.first_look.as_ref().is_some_and(|look| !look.documents.contains(document));
        unseen && !self.catalog.grantable(document).is_empty()
    }

    /// Checks the policy of a document that the ledger does not know. Returns whether the database has to be doubted.
    pub(super) fn look(&mut self, document: &DocumentKey, live: &Live, desired: &Desired) -> bool {
        let mut found = BTreeSet::new();
        for ((role, condition), domains) in self.catalog.grantable(document) {
            let here = live.grants().filter(|(grant, _)| grant.role == *role && grant.condition == *condition);
            for (grant, member) in here {
                let domain = member.strip_prefix("user:").and_then(|address| address.rsplit_once('@'));
                if !domain.is_some_and(|(_, domain)| domains.contains(domain.to_ascii_lowercase().as_str())) {
                    continue;
                }
                if !desired.grants.contains_key(grant) {
                    found.insert(grant.member.clone());
                }
            }
        }
        let Some(look) = &mut self.first_look else { return false };
        look.documents.insert(document.clone());
        let room = PEOPLE - look.people.len().min(PEOPLE);
        look.people.extend(found.into_iter().take(room));
        look.people.len() >= PEOPLE
    }
}

impl Inner {
    /// Freezes everything until a person accepts the database.
    pub(super) async fn doubt(&self, document: &DocumentKey) -> Result<(), StoreError> {
        self.store.set_trust(Trust::Doubted).await?;
        let effects = {
            let mut state = self.state();
            state.first_look = None;
            state.frozen = Some(FreezeReason::StoreMismatch);
            state.catalog.freeze_all(Some(FreezeReason::StoreMismatch))
        };
        tracing::error!(
            reason = %FreezeReason::StoreMismatch.reason(), target.document = %document,
            "this database is new, there is no checkpoint of another one, and {document} and policies read before it have people of \
             `allowedDomains` in roles that mappings give: they look like grants of a database that was lost. Nothing is \
             written until `rolecall store accept`. Restore the database, or accept this one when the grants were made by \
             hand or may count as foreign"
        );
        self.apply_effects(effects, &Trigger::none()).await;
        Ok(())
    }
}
