//! One process of a simulated installation: a store, an engine, and a controller that receives the events of a cluster.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::clock::SimulatedClock;
use super::facts::{Facts, Locked, NAMESPACE, Phase, TARGETS};
use crate::api::REVOKE_FINALIZER;
use crate::api::manifest::{Object, ObjectRef};
use crate::catalog::Ceiling;
use crate::controller::{Controller, FinalizerRules, Finalizers, Holds, Settings, accept_store};
use crate::model::{Clock as _, FreezeReason, Kind, MappingKey, MappingPhase};
use crate::source::{Absence, Observed, ResourceEvent};
use crate::status::StatusCache;
use crate::store::{Store, StoreError, StoreFaults, Trust};
use crate::sync::{Engine, EngineConfig, ProviderTraffic};
use crate::target::Target;
use crate::target::scripted::Scripted;
use crate::telemetry::Metrics;

/// Interval between the controller's checks of pending work. Longer than in a cluster, because each check costs a
/// query.
const TICK: Duration = Duration::from_secs(5);
/// Finalizer deadline.
const DEADLINE: Duration = Duration::from_mins(10);

/// The facts, as in the API server of the installation.
pub(super) type Shared = Arc<Mutex<Facts>>;

/// The changed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    Provider,
    /// The target of this index.
    Target(usize),
    /// The labels of the namespace.
    Labels,
    Mapping(MappingKey),
}

/// A process. Dropping it kills it at its current point.
pub(super) struct Process {
    pub(super) store: Store,
    pub(super) faults: StoreFaults,
    pub(super) engine: Engine,
    pub(super) cache: StatusCache,
    changes: mpsc::UnboundedSender<Changed>,
    /// Number of changes that were not handled yet.
    unhandled: Arc<AtomicU64>,
    work: AbortOnDropHandle<Result<(), Failed>>,
}

/// Why a process ended by itself.
enum Failed {
    /// The store could not be used.
    Store(StoreError),
    Other(String),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Process {
    pub(super) fn start(
        name: String,
        config: EngineConfig,
        (store, faults): (Store, StoreFaults),
        target: &Scripted,
        clock: SimulatedClock,
        facts: Shared,
    ) -> Self {
        let (cache, metrics) = (StatusCache::new(), Metrics::new());
        cache.hide_people(store.pseudonyms().clone());
        let engine = Engine::new(
            config,
            store.clone(),
            Target::Scripted(target.clone()),
            Arc::new(clock),
            metrics.engine.clone(),
            cache.clone(),
            Arc::new(|_| ProviderTraffic::default()),
        );
        let (changes, received) = mpsc::unbounded_channel();
        let unhandled = Arc::new(AtomicU64::new(0));
        let rules = FinalizerRules { deadline: DEADLINE, other: Arc::default(), believed: true };
        let controller = Controller::new(Settings {
            engine: engine.clone(),
            store: store.clone(),
            cache: cache.clone(),
            clock: Arc::new(clock),
            enforces: config.ceiling == Ceiling::Enforce,
            metrics: metrics.cluster.clone(),
            holds: Holds::Finalizer(Finalizers::scripted(), rules),
            absent: BTreeSet::new(),
            loaded: oneshot::channel().0,
        });
        let main = Main {
            name,
            engine: engine.clone(),
            store: store.clone(),
            controller,
            clock,
            facts,
            stop: CancellationToken::new(),
            deleted: BTreeSet::new(),
            unhandled: Arc::clone(&unhandled),
        };
        let work = AbortOnDropHandle::new(tokio::spawn(main.run(received)));
        Self { store, faults, engine, cache, changes, unhandled, work }
    }

    pub(super) fn tell(&self, changed: Changed) {
        self.unhandled.fetch_add(1, Ordering::Relaxed);
        // The receiver is gone when the process has ended.
        let _ = self.changes.send(changed);
    }

    /// Number of changes that the process was told of and has not handled yet.
    pub(super) fn unhandled(&self) -> u64 {
        self.unhandled.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.work.is_finished()
    }

    /// The reason for which it ended by itself, unless another process took over, or the store refused a call at the
    /// start: then its supervisor starts it again.
    pub(super) async fn failure(self) -> Option<String> {
        let deposed = self.store.is_deposed();
        match self.work.await {
            Ok(Err(_)) | Err(_) if deposed => None,
            Ok(Ok(())) => (!deposed).then(|| "the engine ended by itself".to_owned()),
            Ok(Err(Failed::Store(StoreError::Unavailable { .. }))) => None,
            Ok(Err(Failed::Store(error))) => Some(format!("start: {error}")),
            Ok(Err(Failed::Other(problem))) => Some(problem),
            Err(error) => Some(format!("the process broke off: {error}")),
        }
    }
}

struct Main {
    name: String,
    engine: Engine,
    store: Store,
    controller: Controller,
    clock: SimulatedClock,
    facts: Shared,
    stop: CancellationToken,
    /// Mappings whose deletion the controller has observed.
    deleted: BTreeSet<MappingKey>,
    unhandled: Arc<AtomicU64>,
}

impl Main {
    fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut Locked(self.facts.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    async fn run(mut self, mut told: mpsc::UnboundedReceiver<Changed>) -> Result<(), Failed> {
        self.store.begin_epoch(&self.name).await?;
        self.engine.record_mode().await?;
        self.engine.restore().await?;
        let seq = self.engine.load_directory().await?;
        let doubted = self.store.trust().await? == Trust::Doubted;
        if !doubted {
            self.engine.begin_first_look().await?;
        }
        self.list().await;
        self.engine.freeze(doubted.then_some(FreezeReason::StoreMismatch)).await?;
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        let mut work = AbortOnDropHandle::new(tokio::spawn(async move { engine.run(seq, stop).await }));
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                ended = &mut work => {
                    return ended.map_err(|error| Failed::Other(format!("the engine broke off: {error}")));
                }
                changed = told.recv() => match changed {
                    Some(changed) => {
                        self.take(&changed).await;
                        self.unhandled.fetch_sub(1, Ordering::Relaxed);
                    }
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    self.controller.tick().await;
                    if self.engine.frozen() == Some(FreezeReason::StoreMismatch) {
                        // After an error it is tried again with the next tick.
                        let _ = accept_store(&self.engine, &self.store, async || true).await;
                    }
                    self.settle();
                }
            }
        }
    }

    /// Lists everything that exists, and reports what is missing.
    async fn list(&mut self) {
        let facts = self.facts();
        let mut listed: Vec<(Kind, BTreeSet<ObjectRef>)> = Kind::WATCHED.map(|kind| (kind, BTreeSet::new())).into();
        let keys = facts.mappings.keys().cloned().map(Changed::Mapping);
        self.take(&Changed::Labels).await;
        let others = (0..TARGETS.len()).map(Changed::Target).chain([Changed::Provider]);
        for changed in others.chain(keys) {
            let event = self.event(&changed);
            if let ResourceEvent::Applied { observed, .. } | ResourceEvent::DeletionRequested { observed, .. } = &event
            {
                let of = |kind: Kind| kind == observed.object.kind;
                let objects = listed.iter_mut().find(|(kind, _)| of(*kind)).map(|(_, objects)| objects);
                if let Some(objects) = objects {
                    objects.insert(observed.object.clone());
                }
                self.take(&changed).await;
            }
        }
        for (kind, objects) in listed {
            self.controller.handle(&ResourceEvent::Listed { kind, objects }, &self.stop.clone()).await;
        }
        for key in facts.mappings.keys() {
            self.note_phase(key);
        }
    }

    async fn take(&mut self, changed: &Changed) {
        let event = self.event(changed);
        self.controller.handle(&event, &self.stop.clone()).await;
        if let Changed::Mapping(key) = changed {
            let _ = match event {
                ResourceEvent::DeletionRequested { .. } => self.deleted.insert(key.clone()),
                _ => self.deleted.remove(key),
            };
            self.note_phase(key);
        }
    }

    /// Records the phase of a mapping whose object disappeared without its finalizer.
    fn note_phase(&self, key: &MappingKey) {
        let phase = self.engine.mapping_phase(key);
        if self.facts().mappings.get(key).is_none_or(|mapping| mapping.phase != Phase::Missing) {
            return;
        }
        self.change(|facts| {
            match phase {
                Some(MappingPhase::Missing(_)) => {
                    facts.vanished.insert(key.clone());
                }
                // There were no claims, so there was nothing to freeze.
                Some(phase) if !phase.is_terminating() => {}
                _ => drop(facts.mappings.remove(key)),
            }
        });
    }

    fn event(&self, changed: &Changed) -> ResourceEvent {
        let (facts, absent) = (self.facts(), |kind: Kind, namespace: Option<&str>, name: &str| ResourceEvent::Absent {
            object: ObjectRef::new(kind, namespace, name),
            why: Absence::NotObserved,
        });
        match changed {
            Changed::Provider => match facts.provider_object() {
                Some(object) => {
                    let observed = observed(Kind::IdentityProvider, object.metadata.clone());
                    ResourceEvent::Applied { observed, parsed: Box::new(Object::IdentityProvider(Box::new(object))) }
                }
                None => absent(Kind::IdentityProvider, None, "okta"),
            },
            Changed::Target(index) => match facts.target_object(*index) {
                Some(object) => {
                    let observed = observed(Kind::CloudRunTarget, object.metadata.clone());
                    ResourceEvent::Applied { observed, parsed: Box::new(Object::CloudRunTarget(Box::new(object))) }
                }
                None => absent(Kind::CloudRunTarget, None, TARGETS[*index]),
            },
            Changed::Labels => ResourceEvent::NamespaceLabels { name: NAMESPACE.to_owned(), labels: facts.labels() },
            Changed::Mapping(key) => match facts.mappings.get(key).filter(|mapping| mapping.phase != Phase::Missing) {
                Some(mapping) => {
                    let mut object = mapping.object(key);
                    object.metadata.finalizers = Some(vec![REVOKE_FINALIZER.to_owned()]);
                    let is_deleted = mapping.phase == Phase::Terminating;
                    object.metadata.deletion_timestamp = is_deleted.then(|| Time(self.clock.now()));
                    let observed = observed(Kind::RoleMapping, object.metadata.clone());
                    let parsed = Box::new(Object::RoleMapping(Box::new(object)));
                    if is_deleted {
                        ResourceEvent::DeletionRequested { observed, parsed: Some(parsed), problems: Vec::new() }
                    } else {
                        ResourceEvent::Applied { observed, parsed }
                    }
                }
                None => absent(Kind::RoleMapping, Some(key.namespace()), key.name()),
            },
        }
    }

    /// Removes the finalizer of a deleted mapping once its claims have ended, or their revocation is deferred.
    fn settle(&mut self) {
        let engine = &self.engine;
        let waits = |phase: MappingPhase| matches!(phase, MappingPhase::Terminating(_) | MappingPhase::Live);
        let done = |key: &&MappingKey| !engine.mapping_phase(key).is_some_and(waits);
        for key in self.deleted.iter().filter(done).cloned().collect::<Vec<_>>() {
            self.deleted.remove(&key);
            self.change(|facts| {
                if facts.mappings.get(&key).is_some_and(|mapping| mapping.phase == Phase::Terminating) {
                    facts.mappings.remove(&key);
                }
            });
        }
    }
}

fn observed(kind: Kind, metadata: ObjectMeta) -> Box<Observed> {
    let name = metadata.name.clone().unwrap_or_default();
    let object = ObjectRef { kind, namespace: metadata.namespace.clone(), name };
    Box::new(Observed { object, metadata, status: Some(Value::Null), origin: "cluster".to_owned(), written_by: None })
}
