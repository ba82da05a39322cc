//! Attempts at documents: starts them, limits their number, and handles their results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::lanes::{Admission, After, Lane, Purpose};
use super::pacer::{Call, Throttled};
use super::{Inner, reconcile, sleep_until};
use crate::model::{DocumentKey, MappingKey, Reason, Region};
use crate::target::{ErrorClass, ErrorKind, TargetError};

/// Timeout of running attempts during shutdown: longer than one call to Google.
const GRACE: Duration = Duration::from_secs(35);

/// Time of waiting for an answer of Google after which an attempt gives up its slot.
const PROMPT: Duration = Duration::from_millis(150);

/// Time after which a call without an answer no longer keeps others of its region from being sent.
const OVERDUE: Duration = Duration::from_secs(1);

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

/// A call that counts as under way until this is dropped.
struct UnderWay<'i> {
    inner: &'i Inner,
    region: Region,
    call: Call,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.inner.queue().end_call(&self.region, self.call);
        self.inner.writes.notify_waiters();
        self.inner.due.notify_one();
    }
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

    /// Waits until the attempt at `document` may send a write. Returns false where another attempt has to send it, because
    /// the quota of the region is spent.
    pub(super) async fn admit_write(&self, document: &DocumentKey, lane: Lane) -> bool {
        loop {
            let answered = self.writes.notified();
            match self.queue().admit_write(document, lane, Instant::now()) {
                Admission::Now => return true,
                Admission::Later => return false,
                Admission::Soon => {}
            }
            answered.await;
        }
    }

    /// Sends a read or write for the attempt at `document`, and records what its answer says about the quota.
    pub(super) async fn call<T>(
        &self,
        document: &DocumentKey,
        call: Call,
        sent: impl Future<Output = Result<T, TargetError>>,
    ) -> Result<T, TargetError> {
        let begun = Instant::now();
        {
            let mut queue = self.queue();
            match call {
                Call::Read => queue.begin_read(document, begun),
                Call::Write => queue.begin_write(document, begun),
            }
        }
        let under_way = UnderWay { inner: self, region: document.region(), call };
        let mut answer = std::pin::pin!(self.answer_to(document, sent));
        let answer = if let Ok(answer) = tokio::time::timeout(OVERDUE, &mut answer).await {
            answer
        } else {
            drop(under_way);
            answer.await
        };
        self.note_quota(&document.region(), call, begun, answer.as_ref().err());
        answer
    }

    /// Updates the pace of the region with the answer of a call.
    pub(super) fn note_quota(&self, region: &Region, call: Call, begun: Instant, error: Option<&TargetError>) {
        let now = Instant::now();
        let mut queue = self.queue();
        match error.map(|error| &error.kind) {
            Some(ErrorKind::Throttled { retry_after, per_minute }) => {
                let answer = Throttled { begun, now, retry_after: *retry_after, per_minute: *per_minute };
                if let Some(per_minute) = queue.throttled(region, call, &answer) {
                    tracing::warn!(
                        reason = %Reason::Throttled, per_minute = per_minute.round(),
                        "Google's quota of {} in {region} is spent, they are paced from here on", call.word()
                    );
                }
            }
            // Google counts what it refuses for another reason, too.
            None
            | Some(
                ErrorKind::Conflict
                | ErrorKind::Denied { .. }
                | ErrorKind::NotFound
                | ErrorKind::Refused(_)
                | ErrorKind::Rejected,
            ) => queue.answered(region, call, begun, now),
            Some(ErrorKind::Unavailable | ErrorKind::Unknown) => {}
        }
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
        let namespaces = self.state().shares(document);
        let (drift_interval, remains) = {
            let state = self.state();
            let remains = state.documents.get(document).is_some_and(|memory| memory.drift.has_remains());
            (state.drift_interval(document).unwrap_or(self.config.drift_interval), remains)
        };
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
            queue.complete(document, silent && now - begun > HUNG, after, now);
            for lane in outcome.again.iter().copied() {
                queue.enqueue(document, lane, Purpose::Write, now);
            }
            if let Some(delay) = outcome.recheck {
                queue.enqueue(document, Lane::Addition, Purpose::Look, now + delay);
            }
            if !outcome.idle || remains {
                let drift = drift_interval.mul_f64(jitter);
                queue.enqueue(document, Lane::Addition, Purpose::Look, now + drift);
            }
            queue.share(document, namespaces);
        }
        // A write that was reserved and not sent is free again.
        self.writes.notify_waiters();
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
        self.flush_drift().await;
        self.flush_refusals().await;
        self.due.notify_one();
        self.changed.notify_one();
    }

    /// Stores changed differences, so that the time of their first observation survives a restart.
    async fn flush_drift(&self) {
        let changes = std::mem::take(&mut self.state().unstored_drift);
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.store.change_drift(changes.clone()).await {
            // They hold as long as this process runs, and are stored with the next ones.
            tracing::warn!(%error, "cannot store since when policies differ from what is wanted");
            let mut state = self.state();
            for (document, earlier) in changes {
                let later = state.unstored_drift.remove(&document).unwrap_or_default();
                state.unstored_drift.insert(document, earlier.followed_by(later));
            }
        }
    }

    /// Stores changed refusals, and enqueues every document that an ended one concerns.
    pub(super) async fn flush_refusals(&self) {
        let (unstored, lifted) = {
            let mut state = self.state();
            (state.refusals.take_unstored(), state.refusals.take_lifted())
        };
        if !lifted.is_empty() {
            let now = Instant::now();
            self.enqueue_writes(lifted.iter().map(|document| (document, Lane::Addition, now)));
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
