//! Decides what a change of a resource means: applied, deleted, absent, released. The same for a cluster and a folder.
//!
//! ```text
//! source ─► ResourceEvent ─► Controller ─► MappingPhase, stored spec, catalog (sync)
//! command line ─► store ──────┘    └─► finalizers, statuses of what is not in force
//! ```
//!
//! Parts that only a cluster has (finalizers, deletion timestamps, another rolecall beside this one) are behind
//! [`Holds`].

pub(crate) mod checkpoint;
mod commands;
mod deletion;
mod election;
mod finalizer;
mod resources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::model::{Clock, FreezeReason, Kind, MappingKey};
use crate::source::ResourceEvent;
use crate::source::folder::{FolderCommand, Suspicion};
use crate::status::StatusCache;
use crate::store::{Store, UninstallMode};
use crate::sync::{Engine, IntakeError};
use crate::telemetry::ClusterMetrics;

pub(crate) use commands::accept_store;
pub(crate) use election::{ClusterCheckpoint, Compared, LeaderState, campaign};
pub(crate) use finalizer::Finalizers;
pub(crate) use resources::mapping_key;

use deletion::Deletion;
use finalizer::{FinalizerError, Wanted};

/// Interval between checks of pending work: in a cluster, deleted mappings, decisions, and finalizers that could not be
/// added.
const TICK: Duration = Duration::from_millis(250);
/// Delay before a failed write to the store is retried.
const AGAIN: Duration = Duration::from_secs(1);
/// Delay before a failed call to the API server is retried.
const RETRY: Duration = Duration::from_secs(2);
/// Number of finalizers that are added concurrently.
const PARALLEL: usize = 8;

/// The mechanism that keeps the object of a mapping until its claims have ended.
pub(crate) enum Holds {
    /// A finalizer, which is added before the first grant.
    Finalizer(Finalizers, FinalizerRules),
    /// None: a folder needs no finalizer, since the last content of its files is stored. The sender tells the folder
    /// which objects to forget.
    Nothing(mpsc::Sender<FolderCommand>),
}

/// Rules for finalizers.
pub(crate) struct FinalizerRules {
    /// How long a deleted mapping waits for the end of its claims.
    pub(crate) deadline: Duration,
    /// True when the rolecall of another namespace is known to work on the same resources.
    pub(crate) other: Arc<std::sync::atomic::AtomicBool>,
    /// True when the store matched the checkpoint in the cluster at the beginning of this leadership.
    pub(crate) believed: bool,
}

/// Parts that a controller works with.
pub(crate) struct Settings {
    /// The engine.
    pub(crate) engine: Engine,
    /// The store, for decisions made on the command line.
    pub(crate) store: Store,
    /// The statuses.
    pub(crate) cache: StatusCache,
    /// Source of the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// True when grants may be made at all. If not, no mapping needs a finalizer.
    pub(crate) enforces: bool,
    /// Counters.
    pub(crate) metrics: ClusterMetrics,
    /// The mechanism that keeps objects.
    pub(crate) holds: Holds,
    /// The mappings that were absent when rolecall last ran.
    pub(crate) absent: BTreeSet<MappingKey>,
    /// Notified when the source was read completely.
    pub(crate) loaded: oneshot::Sender<()>,
}

/// Carries out the events of the source and the decisions of the command line.
pub(crate) struct Controller {
    engine: Engine,
    store: Store,
    cache: StatusCache,
    clock: Arc<dyn Clock>,
    enforces: bool,
    metrics: ClusterMetrics,
    holds: Holds,
    /// Mappings with a deletion timestamp and our finalizer.
    deletions: BTreeMap<MappingKey, Deletion>,
    /// The mappings with the finalizer, as last observed.
    finalized: BTreeMap<MappingKey, ObjectMeta>,
    /// Mappings that are not applied before they have the finalizer.
    wanted: BTreeMap<MappingKey, Wanted>,
    adding: JoinSet<(MappingKey, ObjectMeta, Result<(), FinalizerError>)>,
    permits: Arc<Semaphore>,
    /// The API server did not answer: no calls are made before this time.
    quiet_until: Option<tokio::time::Instant>,
    /// Mappings that are missing from a suspicious folder.
    absent: BTreeSet<MappingKey>,
    /// Released mappings of which the folder has not been told yet.
    released: BTreeSet<MappingKey>,
    /// Why an absence is currently not treated as a deletion, if so.
    suspicion: Option<Suspicion>,
    listed: BTreeSet<Kind>,
    loaded: Option<oneshot::Sender<()>>,
    uninstall: Option<UninstallMode>,
    /// True when the end of the uninstall was recorded.
    settled: bool,
    /// Time of the last log line that nothing can be settled.
    reported: Option<tokio::time::Instant>,
    /// Since when deletions are observed: before that, nobody could have carried them out.
    began: Timestamp,
}

impl Controller {
    /// Creates a controller without any state.
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        let began = settings.clock.now();
        Self {
            engine: settings.engine,
            store: settings.store,
            cache: settings.cache,
            clock: settings.clock,
            enforces: settings.enforces,
            metrics: settings.metrics,
            holds: settings.holds,
            deletions: BTreeMap::new(),
            finalized: BTreeMap::new(),
            wanted: BTreeMap::new(),
            adding: JoinSet::new(),
            permits: Arc::new(Semaphore::new(PARALLEL)),
            quiet_until: None,
            absent: settings.absent,
            released: BTreeSet::new(),
            suspicion: None,
            listed: BTreeSet::new(),
            loaded: Some(settings.loaded),
            uninstall: None,
            settled: false,
            reported: None,
            began,
        }
    }

    /// Handles events until `stop` is canceled or the sender is dropped.
    pub(crate) async fn follow(mut self, mut events: mpsc::Receiver<ResourceEvent>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => drop(self.handle(&event, &stop).await),
                    None => return,
                },
                Some(added) = self.adding.join_next() => {
                    if let Ok((key, metadata, Err(error))) = added {
                        self.not_added(&key, &metadata, &error);
                    }
                }
                _ = tick.tick() => tokio::select! {
                    () = self.tick() => {}
                    () = stop.cancelled() => return,
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Handles one event, with retries until the store accepts it. Returns whether it is in force.
    pub(crate) async fn handle(&mut self, event: &ResourceEvent, stop: &CancellationToken) -> bool {
        while let Err(error) = self.on(event).await {
            if !matches!(error, IntakeError::Store(_)) {
                tracing::error!(%error, "a resource was not applied");
                return false;
            }
            tracing::warn!(%error, "a resource is not in force yet");
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return false,
            }
        }
        true
    }

    async fn on(&mut self, event: &ResourceEvent) -> Result<(), IntakeError> {
        match event {
            ResourceEvent::Applied { observed, parsed } => self.applied(observed, parsed).await,
            ResourceEvent::Rejected { observed, problems } => {
                self.rejected(observed, problems);
                Ok(())
            }
            ResourceEvent::DeletionRequested { observed, parsed, problems } => {
                self.deletion_requested(observed, parsed.as_deref(), problems).await
            }
            ResourceEvent::Restated(observed) => {
                self.restated(observed);
                Ok(())
            }
            ResourceEvent::Recovered(object) => self.recovered(object).await,
            ResourceEvent::ProblemCleared(object) => {
                self.set_problem(object, None);
                Ok(())
            }
            ResourceEvent::Absent { object, why } => self.absent(object, *why).await,
            ResourceEvent::Listed { kind, objects } => {
                for object in self.missing(*kind, objects) {
                    self.absent(&object, crate::source::Absence::NotObserved).await?;
                }
                self.listed.insert(*kind);
                if Kind::WATCHED.iter().all(|kind| self.listed.contains(kind)) {
                    self.load();
                }
                Ok(())
            }
            ResourceEvent::NamespaceLabels { name, labels } => {
                Ok(self.engine.apply_namespace(name, labels.clone()).await?)
            }
            ResourceEvent::Failing { kind, problem } => {
                let what = kind.plural();
                self.metrics.watch_failures.inc([what]);
                tracing::warn!(
                    %what, %problem,
                    "cannot watch {what}; their last state stays in force, retrying"
                );
                Ok(())
            }
            ResourceEvent::Suspicious(why) => {
                self.suspicion = *why;
                Ok(())
            }
            ResourceEvent::Loaded => {
                self.load();
                Ok(())
            }
        }
    }

    fn load(&mut self) {
        if let Some(loaded) = self.loaded.take() {
            // The receiver is gone when the process is shutting down.
            let _ = loaded.send(());
        }
    }

    /// Advances all pending work by one step.
    pub(crate) async fn tick(&mut self) {
        if let Err(error) = self.engine.review_directories().await {
            tracing::warn!(%error, "cannot read whether the directory of a provider was accepted");
        }
        self.add_wanted();
        for key in self.deletions.keys().cloned().collect::<Vec<_>>() {
            if self.quiet_until.is_some_and(|until| tokio::time::Instant::now() < until) {
                break;
            }
            if let Err(error) = self.settle(&key).await {
                tracing::warn!(%error, mapping.name = %key, "the deletion of {key} waits");
            }
        }
        // Before everything was read, it is unknown what the source lacks.
        if self.loaded.is_none()
            && let Err(error) = self.follow_decisions().await
        {
            tracing::warn!(%error, "cannot carry out the decisions of the command line");
        }
    }

    /// True when the ledger is the right one, as far as is known.
    fn is_believed(&self) -> bool {
        match (self.engine.frozen(), &self.holds) {
            (Some(FreezeReason::StoreMismatch | FreezeReason::StoreRewound), _) => false,
            (Some(_), Holds::Finalizer(_, rules)) => rules.believed,
            (None, _) | (Some(_), Holds::Nothing(_)) => true,
        }
    }
}
