//! Follows the event log. The notification is only a hint; the log is the truth.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Inner;
use super::state::Trigger;
use crate::model::{DirectoryChange, Seq, Subject, UserId};
use crate::store::StoreError;

/// Number of events per read. Bounds memory, and turns a burst into dirty documents in few steps.
const BATCH: u32 = 500;
/// Longest time to wait for a hint before reading the log anyway.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn follow(inner: Arc<Inner>, from: Seq, stop: CancellationToken) {
    let mut cursor = from;
    let mut hint = inner.store.subscribe();
    while !stop.is_cancelled() {
        hint.borrow_and_update();
        match inner.store.follow_events(cursor, BATCH).await {
            Ok((events, position)) if events.is_empty() => {
                cursor = position;
                inner.state().directory_seq = cursor;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = hint.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
            Ok((events, _)) => {
                for event in events {
                    let trigger = Trigger::event(event.seq, event.at);
                    let mut effects = {
                        let mut state = inner.state();
                        let effects = state.catalog.apply_directory(&event.provider, &event.change);
                        state.note(&effects, &trigger);
                        state.refusals.directory_changed(&event.change);
                        if let DirectoryChange::Nested { added, .. } = &event.change {
                            state.groups_added(&event.provider, added);
                        }
                        effects
                    };
                    let people = std::mem::take(&mut effects.people);
                    inner.apply_effects(effects, &trigger).await;
                    for person in people.into_iter().chain(leaver(&event.change)).collect::<BTreeSet<_>>() {
                        if let Err(error) = inner.ask_claimed_for(person, &trigger).await {
                            tracing::warn!(%error, "cannot look up the grants of a leaver; the next read of each policy will find them");
                        }
                    }
                    cursor = event.seq;
                }
                inner.state().directory_seq = cursor;
            }
            Err(error @ StoreError::HistoryNotKept { .. }) => {
                // The unread events may include removals: the next start reads the current directory.
                tracing::error!(%error, reason = error.reason(), "the event log was pruned beyond the last event that was read");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, reason = error.reason(), "cannot read the event log; retrying");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        }
    }
}

/// The person who left with this change, if any.
fn leaver(change: &DirectoryChange) -> Option<UserId> {
    match change {
        DirectoryChange::User(facts) => (!facts.active).then_some(facts.id),
        DirectoryChange::UserDeleted { id } => Some(*id),
        DirectoryChange::Group(_)
        | DirectoryChange::GroupDeleted { .. }
        | DirectoryChange::Members { .. }
        | DirectoryChange::Nested { .. } => None,
    }
}

impl Inner {
    /// Enqueues every document on which the ledger holds claims of a person who left, or may have left a group beyond the
    /// bounds of nesting: the catalog does not know documents that are frozen, that no mapping reaches any more, or on
    /// which such a group gave a claim.
    async fn ask_claimed_for(&self, person: UserId, trigger: &Trigger) -> Result<(), StoreError> {
        let documents = self.store.documents_of(Subject::User(person)).await?;
        if documents.is_empty() {
            return Ok(());
        }
        {
            let mut state = self.state();
            for document in &documents {
                state.document(document).note(trigger);
            }
        }
        self.enqueue_removals(&documents);
        Ok(())
    }
}
