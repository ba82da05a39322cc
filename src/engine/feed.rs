//! Follows the event log. The notification is only a hint; the log is the truth.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Inner;
use super::state::Trigger;
use crate::model::Seq;

/// Events a read: bounds memory, and lets a burst become dirty documents in few steps.
const BATCH: u32 = 500;
/// How long to wait for a hint before looking anyway.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn follow(inner: Arc<Inner>, from: Seq, stop: CancellationToken) {
    let mut cursor = from;
    let mut hint = inner.store.subscribe();
    while !stop.is_cancelled() {
        hint.borrow_and_update();
        match inner.store.events_after(cursor, BATCH).await {
            Ok(events) if events.is_empty() => {
                tokio::select! {
                    _ = hint.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    () = stop.cancelled() => return,
                }
            }
            Ok(events) => {
                for event in events {
                    let trigger = Trigger::event(event.seq, event.at);
                    let effects = {
                        let mut state = inner.state();
                        let effects = state.index.apply_directory(&event.provider, &event.change);
                        state.note(&effects, &trigger);
                        effects
                    };
                    inner.absorb(effects, &trigger).await;
                    cursor = event.seq;
                }
                inner.state().directory_seq = cursor;
            }
            Err(error) => {
                tracing::warn!(%error, reason = error.reason(), "cannot read the event log, trying again");
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}
