//! Attempts at documents: starts them, limits their number, and handles their results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::lanes::{After, Lane};
use super::{Inner, reconcile, sleep_until};
use crate::model::{DocumentKey, MappingKey};
use crate::target::ErrorClass;

/// Timeout of running attempts during shutdown: longer than one call to Google.
const GRACE: Duration = Duration::from_secs(35);

/// Time of waiting for an answer of Google after which an attempt gives up its slot.
const PROMPT: Duration = Duration::from_millis(150);

/// Time after which an attempt that fails without an answer counts as hanging.
const HUNG: Duration = Duration::from_secs(2);

pub(super) async fn dispatch(inner: Arc<Inner>, stop: CancellationToken) {
    let mut turns = JoinSet::new();
    loop {
        let (document, lane) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = turns.join_next(), if !turns.is_empty() => continue,
            taken = inner.next_due(&stop) => match taken {
                Some(taken) => taken,
                None => break,
            },
        };
        turns.spawn(turn(inner.clone(), document, lane));
    }
    let finished = tokio::time::timeout(GRACE, async { while turns.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        tracing::warn!("some reconciles did not finish in time; their intents are settled at the next start");
    }
}

async fn turn(inner: Arc<Inner>, document: DocumentKey, lane: Lane) {
    let begun = Instant::now();
    // In a task of its own: whatever goes wrong in a reconcile, the document gets its next attempt.
    let attempt = AbortOnDropHandle::new(tokio::spawn({
        let (inner, document) = (inner.clone(), document.clone());
        async move { reconcile::run(&inner, &document, lane).await }
    }));
    let outcome = attempt.await.unwrap_or_else(|error| reconcile::ReconcileOutcome::broken(&error.to_string()));
    inner.finish(&document, outcome, begun).await;
}

impl Inner {
    /// Waits for Google's answer to the attempt at `document`. If that takes long, other attempts run meanwhile.
    pub(super) async fn answer_to<T>(&self, document: &DocumentKey, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        if let Ok(answer) = tokio::time::timeout(PROMPT, &mut call).await {
            return answer;
        }
        if self.queue().hangs(document) {
            self.due.notify_one();
        }
        call.await
    }

    /// Takes the next document, as soon as there is one.
    async fn next_due(&self, stop: &CancellationToken) -> Option<(DocumentKey, Lane)> {
        loop {
            let (taken, next) = {
                let mut queue = self.queue();
                let taken = queue.pop(Instant::now());
                let next = if taken.is_none() { queue.next_due(Instant::now()) } else { None };
                (taken, next)
            };
            if taken.is_some() {
                return taken;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = self.due.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Records the result of a reconcile, and when to run the next one.
    async fn finish(&self, document: &DocumentKey, outcome: reconcile::ReconcileOutcome, begun: Instant) {
        // What follows from the result is enqueued after the queue is told that the attempt ended.
        let _at_work = self.at_work();
        let now = Instant::now();
        let jitter = self.random.jitter();
        let silent = outcome.class().is_some_and(|class| matches!(class, ErrorClass::Retry | ErrorClass::Unknown));
        {
            let mut queue = self.queue();
            let after = [Lane::Removal, Lane::Addition].map(|lane| {
                if let Some(delay) = outcome.retry[lane as usize] {
                    After { not_before: Some(now + delay), ask: Some(now + delay) }
                } else {
                    let bound = queue.not_before(document, lane).filter(|bound| *bound > now);
                    After { not_before: bound, ask: None }
                }
            });
            queue.complete(document, silent && now - begun > HUNG, after);
            for lane in outcome.again.iter().copied() {
                queue.enqueue(document, lane, now);
            }
            if let Some(delay) = outcome.recheck {
                queue.enqueue(document, Lane::Addition, now + delay);
            }
            if !outcome.idle {
                queue.enqueue(document, Lane::Addition, now + self.config.drift_interval.mul_f64(jitter));
            }
        }
        let (mappings, ending): (BTreeSet<MappingKey>, Vec<MappingKey>) = {
            let mut state = self.state();
            if outcome.idle {
                state.refusals.forget_document(document);
            } else {
                // When a foreign member blocks the policy, nothing can be probed, whether this attempt tried or not.
                let blocked = state.document(document).additions.foreign.is_some();
                state.refusals.note_failure(document, outcome.error.is_some() || blocked);
            }
            let (unclear, shared) = (state.is_unclear(document), state.shared(document));
            let mappings = state.settle_document(document, outcome, self.clock.now());
            if let Some(memory) = state.documents.get_mut(document) {
                memory.reconciled_from = Some(begun);
            }
            let ending = mappings.iter().filter(|key| state.is_terminating(key)).cloned().collect();
            state.changed_mappings.extend(mappings.iter().cloned());
            if unclear || state.is_unclear(document) || state.shared(document) != shared {
                // Including mappings without a part in its plan: their statuses count it.
                let reaching: Vec<MappingKey> = state.catalog.reaching(document).cloned().collect();
                state.changed_mappings.extend(reaching);
            }
            let target = state.target_of(document);
            state.changed_targets.extend(target);
            (mappings, ending)
        };
        if let Err(error) = self.release_named(&mappings).await {
            tracing::warn!(%error, "cannot store the release of held removals; retrying with the next reconcile");
        }
        for mapping in ending {
            if let Err(error) = self.forget_if_done(&mapping).await {
                tracing::warn!(%error, mapping.name = %mapping, "cannot forget the deleted mapping {mapping} yet");
            }
            if let Err(error) = self.orphan_if_settled(&mapping).await {
                tracing::warn!(%error, mapping.name = %mapping, "cannot check what is left of the deleted mapping {mapping}");
            }
        }
        self.flush_refusals().await;
        self.due.notify_one();
        self.changed.notify_one();
    }

    /// Stores changed refusals, and enqueues every document that an ended one concerns.
    pub(super) async fn flush_refusals(&self) {
        let (unstored, lifted) = {
            let mut state = self.state();
            (state.refusals.take_unstored(), state.refusals.take_lifted())
        };
        if !lifted.is_empty() {
            let now = Instant::now();
            {
                let mut queue = self.queue();
                for document in &lifted {
                    queue.enqueue(document, Lane::Addition, now);
                }
            }
            self.due.notify_one();
        }
        if unstored.put.is_empty() && unstored.remove.is_empty() {
            return;
        }
        let (put, remove) = (unstored.put.values().cloned().collect(), unstored.remove.iter().cloned().collect());
        if let Err(error) = self.store.change_refusals(put, remove).await {
            // They hold as long as this process runs, and are stored with the next one.
            tracing::warn!(%error, "cannot store what Google refused");
            self.state().refusals.put_back(unstored);
        }
    }
}
