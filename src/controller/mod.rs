//! What a change of a resource means: applied, deleted, absent, released. Decided once, for a cluster and for a folder.
//!
//! ```text
//! source ─► ResourceEvent ─► Controller ─► MappingPhase, stored spec, catalog (sync)
//! command line ─► store ──────┘    └─► finalizers, statuses of what is not in force
//! ```
//!
//! What only a cluster has (finalizers, deletion timestamps, another rolecall beside this one) stands behind [`Holds`].

pub mod checkpoint;
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

use crate::model::{Clock, FreezeReason, MappingKey};
use crate::source::folder::{FolderCommand, Suspicion};
use crate::source::{ResourceEvent, Watched};
use crate::status::StatusCache;
use crate::store::{Store, UninstallMode};
use crate::sync::{Engine, IntakeError};
use crate::telemetry::ClusterMetrics;

pub use commands::accept_store;
pub use election::{ClusterCheckpoint, Compared, LeaderState, campaign};
pub use finalizer::Finalizers;
pub(crate) use resources::mapping_key;

use deletion::Deletion;
use finalizer::{FinalizerError, Wanted};

/// How often is looked after what waits in a cluster: deleted mappings, decisions, finalizers that could not be added.
const TICK: Duration = Duration::from_millis(250);
/// How long to wait before what the store did not take is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before a call to the API server that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Finalizers that are added at once.
const PARALLEL: usize = 8;

/// What keeps the object of a mapping until its claims have ended.
pub enum Holds {
    /// A finalizer, which is there before the first grant.
    Finalizer(Finalizers, FinalizerRules),
    /// Nothing: a folder needs none, since what its files said last is stored. Told is what the folder is to forget.
    Nothing(mpsc::Sender<FolderCommand>),
}

/// How finalizers are handled.
pub struct FinalizerRules {
    /// How long a deleted mapping waits for the end of its claims.
    pub deadline: Duration,
    /// The rolecall of another namespace is at work on the same resources, as far as known.
    pub other: Arc<std::sync::atomic::AtomicBool>,
    /// The store was the one that the cluster remembers, when this leadership began.
    pub believed: bool,
}

/// What a controller works with.
pub struct Settings {
    /// The engine.
    pub engine: Engine,
    /// The store, for what was decided on the command line.
    pub store: Store,
    /// Where statuses stand.
    pub cache: StatusCache,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// True when grants may be made at all. If not, no mapping needs to be kept.
    pub enforces: bool,
    /// What is counted.
    pub metrics: ClusterMetrics,
    /// What keeps objects.
    pub holds: Holds,
    /// The mappings that were absent when rolecall last ran.
    pub absent: BTreeSet<MappingKey>,
    /// Told when the source was read as a whole.
    pub loaded: oneshot::Sender<()>,
}

/// Carries out what the source of the resources and the command line say.
pub struct Controller {
    engine: Engine,
    store: Store,
    cache: StatusCache,
    clock: Arc<dyn Clock>,
    enforces: bool,
    metrics: ClusterMetrics,
    holds: Holds,
    /// Mappings with a deletion timestamp and our finalizer.
    deletions: BTreeMap<MappingKey, Deletion>,
    /// The mappings that have the finalizer, as last observed.
    finalized: BTreeMap<MappingKey, ObjectMeta>,
    /// Mappings that are not taken in before they have the finalizer.
    wanted: BTreeMap<MappingKey, Wanted>,
    adding: JoinSet<(MappingKey, ObjectMeta, Result<(), FinalizerError>)>,
    permits: Arc<Semaphore>,
    /// The API server did not answer: nothing is asked before this.
    quiet_until: Option<tokio::time::Instant>,
    /// Mappings that a doubtful folder lacks.
    absent: BTreeSet<MappingKey>,
    /// Why absence is not taken for deletion now, if so.
    suspicion: Option<Suspicion>,
    listed: BTreeSet<Watched>,
    loaded: Option<oneshot::Sender<()>>,
    uninstall: Option<UninstallMode>,
    /// It was said that all is settled.
    settled: bool,
    /// When it was last said that nothing can be settled.
    reported: Option<tokio::time::Instant>,
    /// Since when deletions are observed: before, nobody could have carried them out.
    began: Timestamp,
}

impl Controller {
    /// A controller that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
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
            suspicion: None,
            listed: BTreeSet::new(),
            loaded: Some(settings.loaded),
            uninstall: None,
            settled: false,
            reported: None,
            began,
        }
    }

    /// Follows events until `stop` is cancelled or nothing sends any more.
    pub async fn follow(mut self, mut events: mpsc::Receiver<ResourceEvent>, stop: CancellationToken) {
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

    /// Carries one event out, as soon as the store takes it. Answers whether it is in force.
    pub async fn handle(&mut self, event: &ResourceEvent, stop: &CancellationToken) -> bool {
        while let Err(error) = self.on(event).await {
            if !matches!(error, IntakeError::Store(_)) {
                tracing::error!(%error, "a resource was not taken in");
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
            ResourceEvent::Applied { observed, said } => self.applied(observed, said).await,
            ResourceEvent::Rejected { observed, problems } => {
                self.rejected(observed, problems);
                Ok(())
            }
            ResourceEvent::DeletionRequested { observed, said, problems } => {
                self.deletion_requested(observed, said.as_deref(), problems).await
            }
            ResourceEvent::Restated(observed) => {
                self.restated(observed);
                Ok(())
            }
            ResourceEvent::Recovered(object) => self.recovered(object).await,
            ResourceEvent::Absent { object, why } => self.absent(object, *why).await,
            ResourceEvent::Listed { what, objects } => {
                for object in self.missing(*what, objects) {
                    self.absent(&object, crate::source::Absence::NotObserved).await?;
                }
                self.listed.insert(*what);
                if Watched::ALL.iter().all(|what| self.listed.contains(what)) {
                    self.load();
                }
                Ok(())
            }
            ResourceEvent::NamespaceLabels { name, labels } => {
                Ok(self.engine.apply_namespace(name, labels.clone()).await?)
            }
            ResourceEvent::Failing { what, problem } => {
                self.metrics.watch_failures.inc([what.as_str()]);
                tracing::warn!(
                    %what, %problem,
                    "cannot watch {what}; what is known of them stays in force, and it is tried again"
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
            // Nobody waits for it any more when the process is ending.
            let _ = loaded.send(());
        }
    }

    /// Takes what waits one step further.
    pub async fn tick(&mut self) {
        if let Err(error) = self.engine.review_directories().await {
            tracing::warn!(%error, "cannot look whether the directory of a provider was accepted");
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
        // Until everything was read, nobody knows what the source lacks.
        if self.loaded.is_none()
            && let Err(error) = self.follow_decisions().await
        {
            tracing::warn!(%error, "cannot follow what was decided on the command line");
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
