//! The engine: reconciles policies with what the catalog wants, one worker per policy document.
//!
//! ```text
//! feed (event log) ──┐
//! apply (manifests)  ├─► catalog ─► dirty documents ─► queue ─► reconcile ─► store, target ─► report (status)
//! discovery (lists) ─┘
//! ```
//!
//! All in-memory state is in one `State` behind one lock that is never held across an await. State that has to
//! survive a restart is in the store. Documents are reconciled concurrently, with one reconcile at a time each.

mod additions;
mod advice;
mod answer;
mod apply;
mod bisect;
mod choice;
mod contests;
mod discovery;
mod drift;
mod error;
mod expiry;
mod failures;
mod fair;
mod feed;
mod first_look;
mod guard;
mod history;
#[cfg(test)]
mod history_tests;
mod lanes;
mod pacer;
mod preflight;
mod progress;
mod provenance;
mod queue;
mod reads;
mod reconcile;
mod refusals;
mod removals;
mod report;
#[cfg(test)]
mod rest;
mod rules;
#[cfg(test)]
mod scripted_tests;
mod state;
mod termination;
mod turns;

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Ceiling, Effects, NestingBounds, Urgency};
use crate::model::{Clock, DocumentKey, FreezeReason, Randomness, Reason, RemovalLimits, Seq, TargetName};
use crate::status::StatusCache;
use crate::store::{Store, StoreError, Trust};
use crate::target::Target;
use crate::telemetry::EngineMetrics;

#[cfg(test)]
pub(crate) use crate::target::scripted::Scripted;
pub(crate) use apply::owner_of;
pub(crate) use apply::{IntakeError, ObjectProblem};
pub(crate) use provenance::Provenance;
pub(crate) use queue::DueQueue;
pub(crate) use report::{DriftEntry, DriftOutcome, ProviderTraffic, TrafficSource};

use first_look::FirstLook;
use lanes::{Lane, Lanes, Purpose};
use state::{State, Trigger};

/// Configuration of the engine. Times that users may choose are flags; the rest are constants with reasons.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineConfig {
    /// Upper limit of what any mapping may do.
    pub(crate) ceiling: Ceiling,
    /// Interval between reads of every policy, before ± 10 % of jitter.
    pub(crate) drift_interval: Duration,
    /// Delay of an addition, so that a burst becomes one write. Revocations are not delayed.
    pub(crate) addition_window: Duration,
    /// Longest time until it is noticed that the clock was set to a time at which a grant has ended.
    pub(crate) clock_check: Duration,
    /// Outcomes within this time are folded together into a status.
    pub(crate) status_window: Duration,
    /// Number of people who may lose access within an hour before the guard holds further removals.
    pub(crate) limits: RemovalLimits,
    /// Seed of all jitter, for a reproducible run; none: no two runs are alike.
    pub(crate) seed: Option<u64>,
    /// How far groups that are members of groups are followed.
    pub(crate) nesting: NestingBounds,
}

impl EngineConfig {
    /// The defaults for a drift interval. The delay of a quarter of a second is below what a person notices and above
    /// the distance between the requests of an IdP's burst.
    #[must_use]
    pub(crate) fn new(ceiling: Ceiling, drift_interval: Duration) -> Self {
        Self {
            ceiling,
            drift_interval,
            addition_window: Duration::from_millis(250),
            clock_check: Duration::from_millis(500),
            status_window: Duration::from_millis(100),
            limits: RemovalLimits::default(),
            seed: None,
            nesting: NestingBounds::default(),
        }
    }
}

/// The engine. Cheap to clone; all clones share its state.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Inner>);

struct Inner {
    config: EngineConfig,
    traffic: TrafficSource,
    store: Store,
    target: Target,
    clock: Arc<dyn Clock>,
    random: Randomness,
    metrics: EngineMetrics,
    cache: StatusCache,
    state: Mutex<State>,
    /// Serializes changes of custom resources, from the stored spec to the catalog, and the forgetting of mappings.
    intake: tokio::sync::Mutex<()>,
    queue: Mutex<Lanes>,
    discovery: Mutex<DueQueue<TargetName, Instant>>,
    /// Notified when a document may have become due.
    due: Notify,
    /// Notified when another write may be sent.
    writes: Notify,
    /// Notified when a target may have become due for listing.
    list: Notify,
    /// Notified when some status may have changed.
    changed: Notify,
    /// Notified when a mapping may have grants that end.
    ends: Notify,
    /// Amount of work that left a queue and is not finished.
    at_work: AtomicUsize,
    /// Counts the moves of work out of a queue.
    steps: AtomicU64,
    /// Id of the last decision of a person that was carried out, or that has to wait.
    considered: AtomicI64,
}

impl Engine {
    /// Creates an engine without any state, which writes nothing until [`Engine::freeze`] ends the initial freeze.
    #[must_use]
    pub(crate) fn new(
        config: EngineConfig,
        store: Store,
        target: Target,
        clock: Arc<dyn Clock>,
        metrics: EngineMetrics,
        cache: StatusCache,
        traffic: TrafficSource,
    ) -> Self {
        let mut catalog = Catalog::new(config.ceiling);
        catalog.set_bounds(config.nesting);
        let _ = catalog.freeze_all(Some(FreezeReason::NotLoaded));
        Self(Arc::new(Inner {
            config,
            traffic,
            store,
            target,
            clock,
            random: Randomness::new(config.seed),
            metrics,
            cache,
            state: Mutex::new(State::new(catalog)),
            intake: tokio::sync::Mutex::new(()),
            queue: Mutex::default(),
            discovery: Mutex::default(),
            due: Notify::new(),
            writes: Notify::new(),
            list: Notify::new(),
            changed: Notify::new(),
            ends: Notify::new(),
            at_work: AtomicUsize::new(0),
            steps: AtomicU64::new(0),
            considered: AtomicI64::new(0),
        }))
    }

    /// Loads pins and the directory. Returns the position of the event log up to which it is loaded.
    ///
    /// # Errors
    /// [`StoreError`], when the store cannot be read.
    pub(crate) async fn load_directory(&self) -> Result<Seq, StoreError> {
        let inner = &self.0;
        let pins = inner.store.pins().await?;
        let (refusals, budgets) = (inner.store.refusals().await?, inner.store.write_budgets().await?);
        inner.state().refusals.load(refusals, budgets);
        let drift = inner.store.drift().await?;
        inner.state().restore_drift(drift);
        let since = inner.clock.now().saturating_sub(contests::WINDOW).unwrap_or(jiff::Timestamp::MIN);
        for loss in inner.store.losses_since(since).await? {
            let mut state = inner.state();
            state.document(&loss.document).contests.restore((loss.role, loss.subject), loss.at);
        }
        let before_nesting = inner.store.before_nesting().await?;
        let ended_at = inner.store.ended_at().await?;
        {
            let mut state = inner.state();
            state.ended_at = ended_at;
            let as_of = state.as_of(inner.clock.now());
            // Everything is frozen still.
            let _ = state.catalog.advance_to(as_of);
            for provider in before_nesting {
                let _ = state.catalog.set_before_nesting(&provider);
            }
            for pin in pins {
                state.catalog.apply_pin(pin);
            }
        }
        let mut pins = Vec::new();
        let seq = {
            let mut sink = |provider, change| {
                let effects = inner.state().catalog.apply_directory(&provider, &change);
                pins.extend(effects.pins);
            };
            inner.store.snapshot(&mut sink).await?
        };
        if !pins.is_empty() {
            inner.store.put_pins(pins.clone()).await?;
            let effects = inner.state().catalog.pins_stored(&pins);
            inner.apply_effects(effects, &Trigger::none()).await;
        }
        inner.state().directory_seq = seq;
        Ok(seq)
    }

    /// Freezes everything for `reason`, or ends the freeze, and enqueues every document.
    pub(crate) async fn freeze(&self, reason: Option<FreezeReason>) -> Result<(), StoreError> {
        let inner = &self.0;
        let effects = {
            let mut state = inner.state();
            if matches!(state.frozen, Some(FreezeReason::StoreMismatch | FreezeReason::StoreRewound)) {
                // The end of the freeze means acceptance, so the database is no longer doubted.
                state.first_look = None;
            }
            state.frozen = reason;
            if reason.is_none() {
                state.unfrozen_at.get_or_insert_with(Instant::now);
            }
            state.catalog.freeze_all(reason)
        };
        inner.apply_effects(effects, &Trigger::none()).await;
        inner.ask_all().await?;
        inner.ask_ended();
        inner.forget_what_is_done().await
    }

    /// Starts to check policies for grants of a lost database, if this database is new and there is no checkpoint of
    /// another one.
    ///
    /// # Errors
    /// [`StoreError`], when the first start cannot be recorded.
    pub(crate) async fn begin_first_look(&self) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let looks = match self.0.store.trust().await? {
            Trust::Unsaid if self.0.store.is_new().await? => {
                self.0.store.set_trust(Trust::FirstStart(now)).await?;
                true
            }
            Trust::FirstStart(since) => !first_look::is_over(since, now),
            Trust::Unsaid | Trust::Doubted | Trust::Accepted => false,
        };
        self.0.state().first_look = looks.then(FirstLook::default);
        Ok(())
    }

    /// Records the mode of this process in the store, so that a change of it is in the audit.
    ///
    /// # Errors
    /// [`StoreError`], when it cannot be stored.
    pub(crate) async fn record_mode(&self) -> Result<(), StoreError> {
        let mode = match self.0.config.ceiling {
            Ceiling::Observe => "observe",
            Ceiling::Enforce => "enforce",
        };
        self.0.store.record_mode(mode).await
    }

    /// True while the state from before the start is still being determined, so that absences prove nothing.
    #[must_use]
    pub(crate) fn is_settling(&self) -> bool {
        self.0.state().is_settling()
    }

    /// The reason for which everything is frozen, if it is.
    #[must_use]
    pub(crate) fn frozen(&self) -> Option<FreezeReason> {
        self.0.state().frozen
    }

    /// The position of the event log up to which the engine has read.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn directory_seq(&self) -> Seq {
        self.0.state().directory_seq
    }

    /// Runs until `stop` is canceled; running reconciles are then finished, for a bounded time. The engine cancels
    /// `stop` itself when a part of it ends, or when another process took over the store. All tasks belong to this
    /// future: when it is dropped, they are aborted.
    pub(crate) async fn run(&self, from: Seq, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(feed::follow(self.0.clone(), from, stop.clone()));
        tasks.spawn(discovery::follow(self.0.clone(), stop.clone()));
        tasks.spawn(expiry::follow(self.0.clone(), stop.clone()));
        tasks.spawn(report::follow(self.0.clone(), stop.clone()));
        tasks.spawn(turns::dispatch(self.0.clone(), stop.clone()));
        tasks.spawn(stop_on_leadership_loss(self.0.clone(), stop.clone()));
        while let Some(ended) = tasks.join_next().await {
            if !stop.is_cancelled() {
                // A partial engine is worse than none: the process exits, and is restarted.
                tracing::error!(
                    error = ended.err().map(tracing::field::display),
                    "a part of the engine stopped unexpectedly"
                );
                stop.cancel();
            }
        }
    }
}

/// Stops everything once the store reports that another process took over. Nothing is lost: the next steps of this
/// process are recorded, or were never started.
async fn stop_on_leadership_loss(inner: Arc<Inner>, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = inner.store.deposed() => {
            tracing::error!(reason = %Reason::LeadershipLost, "lost the database to another rolecall; only one may use it at a time, exiting");
            stop.cancel();
        }
        () = stop.cancelled() => {}
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Lanes> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn discovery(&self) -> MutexGuard<'_, DueQueue<TargetName, Instant>> {
        self.discovery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the effects of a catalog change that must be durable, and enqueues the affected documents. Additions wait
    /// for more of the same burst.
    async fn apply_effects(&self, effects: Effects, trigger: &Trigger) {
        self.apply_effects_after(self.config.addition_window, effects, trigger).await;
    }

    /// Like [`Inner::apply_effects`], with this delay of additions.
    async fn apply_effects_after(&self, window: Duration, mut effects: Effects, trigger: &Trigger) {
        if !effects.pins.is_empty() {
            // A pin must be durable before anything is granted because of it.
            let mut delay = Duration::from_millis(100);
            while let Err(error) = self.store.put_pins(effects.pins.clone()).await {
                if self.store.is_deposed() {
                    // It never will, and the process exits.
                    return;
                }
                tracing::warn!(%error, "cannot store the pins of groups; nothing is granted until that succeeds");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(10));
            }
            let stored = {
                let mut state = self.state();
                let stored = state.catalog.pins_stored(&effects.pins);
                state.note(&stored, trigger);
                stored
            };
            effects.merge(stored);
        }
        let now = Instant::now();
        {
            let mut state = self.state();
            state.note(&effects, trigger);
            state.changed_mappings.extend(effects.mappings);
            state.changed_targets.extend(effects.targets);
            state.changed_providers.extend(effects.providers);
        }
        self.enqueue_writes(effects.dirty.iter().map(|(document, urgency)| match urgency {
            Urgency::Revocation => (document, Lane::Removal, revocation_due_at(now)),
            Urgency::Addition => (document, Lane::Addition, now + window),
        }));
        self.flush_refusals().await;
        self.changed.notify_one();
    }

    /// Enqueues documents that are likely to be written, and counts them for the namespaces of their mappings.
    fn enqueue_writes<'d>(&self, documents: impl Iterator<Item = (&'d DocumentKey, Lane, Instant)>) {
        let shared: Vec<_> = {
            let state = self.state();
            documents.map(|(document, lane, at)| (document, lane, at, state.shares(document))).collect()
        };
        {
            let mut queue = self.queue();
            for (document, lane, at, shares) in shared {
                queue.enqueue(document, lane, Purpose::Write, at);
                queue.share(document, shares);
            }
        }
        self.due.notify_one();
    }

    /// Enqueues documents on which somebody may have to lose access.
    fn enqueue_removals<'d>(&self, documents: impl IntoIterator<Item = &'d DocumentKey>) {
        let at = revocation_due_at(Instant::now());
        self.enqueue_writes(documents.into_iter().map(|document| (document, Lane::Removal, at)));
    }

    /// Enqueues every document in the ledger, unless nothing is loaded yet: then all of them are enqueued later.
    async fn ask_ledger(&self) -> Result<(), StoreError> {
        if self.state().frozen == Some(FreezeReason::NotLoaded) {
            return Ok(());
        }
        self.ask_all().await
    }

    /// Enqueues every document in the catalog or the ledger, and those of which a status says that grants remain.
    async fn ask_all(&self) -> Result<(), StoreError> {
        let ledger = self.store.ledger_documents().await?;
        let (documents, remaining) = {
            let state = self.state();
            (state.catalog.documents(), state.with_remains())
        };
        let now = Instant::now();
        {
            let mut queue = self.queue();
            for document in ledger.iter().map(|(document, _)| document).chain(&documents).chain(&remaining) {
                queue.enqueue(document, Lane::Removal, Purpose::Look, now);
            }
        }
        self.due.notify_one();
        Ok(())
    }
}

/// The due time of a revocation: now, and before everything that became due within the last minute. Documents that have
/// waited longer still come first.
fn revocation_due_at(now: Instant) -> Instant {
    now.checked_sub(Duration::from_mins(1)).unwrap_or(now)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
