//! What the watches see, told to the engine; and the finalizer that keeps a mapping until its grants are revoked.
//!
//! A mapping gets the finalizer before the engine hears of it, so that it cannot vanish with grants of ours. One that
//! goes all the same (its finalizer was stripped, or its definition was deleted) freezes its claims.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::{Client, CustomResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::finalizer::{is_held, patient, set_finalizers, version};
use crate::api::condition::reason;
use crate::api::manifest::{Object, ObjectRef, Problem};
use crate::api::{GROUP, REVOKE_FINALIZER, RoleMapping, VERSION, is_initial};
use crate::model::{Clock, FreezeReason, MappingKey, MappingPhase, ProviderName, TargetName};
use crate::source::cluster::{ClusterChange, Seen, Watched};
use crate::status::{Item, Kind, Metadata, Status, StatusCache, not_taken_in};
use crate::store::{Store, UninstallMode};
use crate::sync::{Engine, IntakeError, ObjectProblem, Provenance};
use crate::telemetry::ClusterMetrics;

/// How often is looked after what waits: deleted mappings, releases, finalizers that could not be put.
const TICK: Duration = Duration::from_millis(250);
/// How long to wait before what the store did not take is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before a call to the API server that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Finalizers that are put at once.
const PARALLEL: usize = 8;
/// What is stored as the place a resource comes from.
const SOURCE: &str = "cluster";

/// How the cluster's side is set up.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) client: Client,
    pub(super) engine: Engine,
    pub(super) store: Store,
    pub(super) cache: StatusCache,
    pub(super) clock: Arc<dyn Clock>,
    /// May grants be made at all? If not, no mapping needs to be kept.
    pub(super) enforces: bool,
    pub(super) finalizer_deadline: Duration,
    /// The rolecall of another namespace was at work on the same resources when that was last looked at.
    pub(super) other: Arc<AtomicBool>,
    pub(super) metrics: ClusterMetrics,
    /// Was the store the one that the cluster remembers, when this leadership began?
    pub(super) believed: bool,
}

/// A mapping with a deletion timestamp.
pub(super) struct Terminating {
    metadata: ObjectMeta,
    /// What it said last, where that can be read.
    object: Option<Box<RoleMapping>>,
    /// The engine was told.
    told: bool,
    /// Its finalizer was taken away, or that was tried: not again before this.
    released: Option<tokio::time::Instant>,
}

/// The intake of one leadership.
pub(super) struct Resources {
    pub(super) parts: Parts,
    pub(super) leaving: BTreeMap<MappingKey, Terminating>,
    /// The mappings that have the finalizer, as last seen.
    pub(super) held: BTreeMap<MappingKey, ObjectMeta>,
    pub(super) uninstall: Option<UninstallMode>,
    /// It was said that all is settled.
    pub(super) settled: bool,
    /// When it was last said that nothing can be settled.
    pub(super) said: Option<tokio::time::Instant>,
    /// Mappings whose finalizer could not be put, and when that is tried again.
    unheld: BTreeMap<MappingKey, (ObjectMeta, tokio::time::Instant)>,
    pub(super) holding: JoinSet<(MappingKey, ObjectMeta, Result<(), kube::Error>)>,
    permits: Arc<Semaphore>,
    listed: BTreeSet<Watched>,
    loaded: Option<oneshot::Sender<()>>,
    /// The API server did not answer: nothing is asked before this.
    quiet_until: Option<tokio::time::Instant>,
    /// Since when deletions are seen: before, nobody could have carried them out.
    began: Timestamp,
}

impl Terminating {
    /// One that nobody deleted: only the finalizer is to go.
    pub(super) fn finalizer_only(metadata: ObjectMeta) -> Self {
        Self { metadata, object: None, told: true, released: None }
    }
}

impl Resources {
    pub(super) fn new(parts: Parts, loaded: oneshot::Sender<()>) -> Self {
        let began = parts.clock.now();
        Self {
            parts,
            leaving: BTreeMap::new(),
            held: BTreeMap::new(),
            uninstall: None,
            settled: false,
            said: None,
            unheld: BTreeMap::new(),
            holding: JoinSet::new(),
            permits: Arc::new(Semaphore::new(PARALLEL)),
            listed: BTreeSet::new(),
            loaded: Some(loaded),
            quiet_until: None,
            began,
        }
    }

    /// Follows the watches until `stop` is cancelled.
    pub(super) async fn follow(mut self, mut changes: mpsc::Receiver<ClusterChange>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take_until_stored(change, &stop).await,
                    None => return,
                },
                Some(held) = self.holding.join_next() => {
                    if let Ok((key, metadata, Err(error))) = held {
                        self.not_held(key, metadata, &error);
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

    async fn take_until_stored(&mut self, change: ClusterChange, stop: &CancellationToken) {
        while let Err(error) = self.take(&change).await {
            if !matches!(error, IntakeError::Store(_)) {
                tracing::error!(%error, "a resource was not taken in");
                return;
            }
            tracing::warn!(%error, "a resource is not in force yet");
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn take(&mut self, change: &ClusterChange) -> Result<(), IntakeError> {
        match change {
            ClusterChange::Object(seen) => self.object(seen).await,
            ClusterChange::Restated(restated) => {
                self.show(&restated.object, &restated.metadata, &restated.status);
                if let Some(key) = mapping_key(&restated.object) {
                    self.note(&key, &restated.metadata);
                }
                Ok(())
            }
            ClusterChange::Gone(object) => self.gone(object).await,
            ClusterChange::Namespace { name, labels } => {
                Ok(self.parts.engine.apply_namespace(name, labels.clone()).await?)
            }
            ClusterChange::Listed { what, objects } => {
                for object in self.missing(*what, objects) {
                    self.gone(&object).await?;
                }
                self.listed.insert(*what);
                if Watched::ALL.iter().all(|what| self.listed.contains(what))
                    && let Some(loaded) = self.loaded.take()
                {
                    // Nobody waits for it any more when the process is ending.
                    let _ = loaded.send(());
                }
                Ok(())
            }
            ClusterChange::Trouble { what, problem } => {
                self.parts.metrics.watch_failures.inc([what.as_str()]);
                tracing::warn!(
                    %what, %problem,
                    "cannot watch {what}; what is known of them stays in force, and it is tried again"
                );
                Ok(())
            }
        }
    }

    /// What is in force and not among the objects of a list.
    fn missing(&self, what: Watched, objects: &BTreeSet<ObjectRef>) -> Vec<ObjectRef> {
        let object = |kind: &str, namespace: Option<&str>, name: &str| ObjectRef {
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        };
        let engine = &self.parts.engine;
        let known: Vec<ObjectRef> = match what {
            Watched::IdentityProviders => {
                engine.providers().iter().map(|name| object("IdentityProvider", None, name.as_str())).collect()
            }
            Watched::CloudRunTargets => {
                engine.targets().iter().map(|name| object("CloudRunTarget", None, name.as_str())).collect()
            }
            Watched::RoleMappings => {
                let keys = engine.mappings();
                keys.iter().map(|key| object("RoleMapping", Some(key.namespace()), key.name())).collect()
            }
            Watched::Namespaces => Vec::new(),
        };
        known.into_iter().filter(|object| !objects.contains(object)).collect()
    }

    async fn object(&mut self, seen: &Seen) -> Result<(), IntakeError> {
        self.show(&seen.object, &seen.metadata, &seen.status);
        let from = Provenance { source: SOURCE, written_by: seen.written_by.as_deref() };
        let engine = &self.parts.engine;
        match &seen.said {
            Ok(Object::IdentityProvider(object)) => engine.apply_provider((**object).clone(), from).await,
            Ok(Object::CloudRunTarget(object)) => engine.apply_target((**object).clone(), from).await,
            Ok(Object::RoleMapping(object)) => self.mapping(object, from).await,
            Ok(Object::Secret(_)) => Ok(()),
            Err(problems) => {
                self.report(seen, problems);
                // Also one that cannot be read may go.
                let Some(key) = mapping_key(&seen.object) else { return Ok(()) };
                self.note(&key, &seen.metadata);
                if seen.metadata.deletion_timestamp.is_some() {
                    return self.leaves(key, seen.metadata.clone(), None).await;
                }
                Ok(())
            }
        }
    }

    /// What the cluster shows of an object is where its status goes on from; what it lacks is written again.
    fn show(&self, object: &ObjectRef, metadata: &ObjectMeta, status: &Value) {
        let kind = match object.kind.as_str() {
            "IdentityProvider" => Kind::IdentityProvider,
            "CloudRunTarget" => Kind::CloudRunTarget,
            _ => Kind::RoleMapping,
        };
        let (namespace, name) = (object.namespace.as_deref(), object.name.as_str());
        let cache = &self.parts.cache;
        if let Some(known) = cache.item(kind, namespace, name) {
            if is_initial(status) || known.metadata.uid != metadata.uid {
                cache.tell_again(kind, namespace, name);
            }
        } else if !is_initial(status) && (metadata.deletion_timestamp.is_none() || self.is_known(object)) {
            let item = json!({
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": kind,
                "metadata": metadata,
                "status": status,
            });
            match serde_json::from_value::<Item>(item) {
                Ok(item) => cache.seed(item),
                // It will be written anew.
                Err(error) => {
                    tracing::debug!(%error, %object, "the status in the cluster cannot be read");
                }
            }
        }
    }

    /// Is the object in force? If it is not and is being deleted, it has no status any more.
    fn is_known(&self, object: &ObjectRef) -> bool {
        mapping_key(object).is_none_or(|key| self.parts.engine.mapping_phase(&key).is_some())
    }

    fn report(&self, seen: &Seen, problems: &[Problem]) {
        let object = &seen.object;
        for problem in problems.iter().take(20) {
            tracing::warn!("{problem}");
        }
        let Some(first) = problems.first() else { return };
        let more = match problems.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let message = format!("{first}{more}");
        if let Some(key) = mapping_key(object)
            && self.parts.engine.mapping_phase(&key).is_none()
        {
            self.say(&key, &seen.metadata, reason::INVALID_MANIFEST, &message);
            return;
        }
        let since = self.parts.clock.now();
        let problem = Some(ObjectProblem { reason: reason::INVALID_MANIFEST, message, since });
        let engine = &self.parts.engine;
        match object.kind.as_str() {
            "IdentityProvider" => {
                if let Ok(name) = ProviderName::new(&object.name) {
                    engine.report_provider(&name, problem);
                }
            }
            "CloudRunTarget" => {
                if let Ok(name) = TargetName::new(&object.name) {
                    engine.report_target(&name, problem);
                }
            }
            _ => {
                if let Some(key) = mapping_key(object) {
                    engine.report_mapping(&key, problem);
                }
            }
        }
    }

    /// Says of a mapping that is not in force why it is not.
    fn say(&self, key: &MappingKey, metadata: &ObjectMeta, word: &'static str, message: &str) {
        let now = self.parts.clock.now();
        let previous = self.parts.cache.mapping(key);
        let status = not_taken_in(metadata.generation, word, message, previous.as_ref(), now);
        let metadata = Metadata {
            name: key.name().to_owned(),
            namespace: Some(key.namespace().to_owned()),
            generation: metadata.generation,
            uid: metadata.uid.clone(),
            creation_timestamp: metadata.creation_timestamp.clone(),
        };
        self.parts.cache.publish(Item::new(metadata, None, Status::RoleMapping(Box::new(status))));
    }

    /// Remembers whether the mapping has the finalizer, and in which version: it is taken off that one, and no older one.
    fn note(&mut self, key: &MappingKey, metadata: &ObjectMeta) {
        if is_held(metadata) {
            self.held.insert(key.clone(), version(metadata));
        } else {
            self.held.remove(key);
        }
        let Some(leaving) = self.leaving.get_mut(key) else { return };
        if !is_held(metadata) || leaving.metadata.uid != metadata.uid {
            self.leaving.remove(key);
            return;
        }
        if leaving.metadata.resource_version != metadata.resource_version {
            // What was refused because of the older one may be tried at once.
            leaving.released = None;
        }
        leaving.metadata = metadata.clone();
    }

    async fn mapping(&mut self, object: &RoleMapping, from: Provenance<'_>) -> Result<(), IntakeError> {
        let metadata = &object.metadata;
        let key = MappingKey::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )?;
        self.unheld.remove(&key);
        self.note(&key, metadata);
        if metadata.deletion_timestamp.is_some() {
            let known = self.parts.engine.mapping_phase(&key).is_some();
            if is_held(metadata) && !known && self.parts.engine.has_claims(&key).await? {
                // Its last good spec could not be read, or it was never stored: without it nothing would end.
                self.parts.engine.apply_mapping(object.clone(), from).await?;
            }
            return self.leaves(key, metadata.clone(), Some(Box::new(object.clone()))).await;
        }
        if self.parts.store.farewell().await?.is_some() {
            // Nothing begins any more; those that have the finalizer are let go one after the other.
            return Ok(());
        }
        // Whatever was of that name and left is another object.
        self.leaving.remove(&key);
        if is_held(metadata) || !(self.parts.enforces || self.parts.engine.has_claims(&key).await?) {
            return self.parts.engine.apply_mapping(object.clone(), from).await;
        }
        if self.parts.engine.mapping_phase(&key) == Some(MappingPhase::Live)
            && !self.parts.engine.has_claims(&key).await?
        {
            // From a time when nothing was granted: what it says now is taken in with the finalizer, and not before.
            self.parts.engine.delete_mapping(&key).await?;
        }
        self.hold(key, metadata.clone());
        Ok(())
    }

    /// Puts the finalizer. The watch brings the mapping again with it, and only then the engine hears of it.
    fn hold(&mut self, key: MappingKey, metadata: ObjectMeta) {
        if self.stands_by() {
            self.unheld.insert(key, (metadata, tokio::time::Instant::now() + RETRY));
            return;
        }
        let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
        finalizers.push(REVOKE_FINALIZER.to_owned());
        let (client, permits) = (self.parts.client.clone(), self.permits.clone());
        self.holding.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let result = set_finalizers(&client, &key, &metadata, &finalizers).await;
            (key, metadata, result)
        });
    }

    fn not_held(&mut self, key: MappingKey, metadata: ObjectMeta, error: &kube::Error) {
        if let kube::Error::Api(status) = error
            && matches!(status.code, 404 | 409)
        {
            // It changed or went meanwhile; the watch brings that.
            return;
        }
        tracing::warn!(
            mapping.name = %key, %error,
            "cannot put the finalizer {REVOKE_FINALIZER} on {key}, so nothing is granted for it yet; it is tried again"
        );
        if self.parts.engine.mapping_phase(&key).is_none() {
            let message = format!("the finalizer {REVOKE_FINALIZER} cannot be put: {error}");
            self.say(&key, &metadata, reason::FINALIZER_REFUSED, &message);
        }
        self.unheld.insert(key, (metadata, tokio::time::Instant::now() + RETRY));
    }

    async fn gone(&mut self, object: &ObjectRef) -> Result<(), IntakeError> {
        let engine = &self.parts.engine;
        match object.kind.as_str() {
            "IdentityProvider" => Ok(engine.remove_provider(&ProviderName::new(&object.name)?).await?),
            "CloudRunTarget" => Ok(engine.remove_target(&TargetName::new(&object.name)?).await?),
            _ => match mapping_key(object) {
                Some(key) => {
                    self.unheld.remove(&key);
                    self.leaving.remove(&key);
                    self.held.remove(&key);
                    self.mapping_gone(&key).await?;
                    if self.parts.engine.mapping_phase(&key).is_none() {
                        self.parts.cache.remove(Kind::RoleMapping, Some(key.namespace()), key.name());
                    }
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }

    /// The object is not there any more. Its claims are being ended, or there are none, or nobody saw it go.
    async fn mapping_gone(&self, key: &MappingKey) -> Result<(), IntakeError> {
        let engine = &self.parts.engine;
        match engine.mapping_phase(key) {
            None => {}
            Some(phase) if phase != MappingPhase::Live => {}
            Some(_) if engine.has_claims(key).await? || !self.is_believed() => {
                tracing::warn!(
                    mapping.name = %key, reason = FreezeReason::MappingVanished.reason(),
                    "{key} is gone and its deletion was not seen: its grants stay as they are"
                );
                engine.vanish_mapping(key, FreezeReason::MappingVanished).await?;
            }
            Some(_) => engine.delete_mapping(key).await?,
        }
        Ok(())
    }

    /// Is the ledger the right one, as far as is known?
    fn is_believed(&self) -> bool {
        match self.parts.engine.frozen() {
            None => true,
            Some(FreezeReason::StoreMismatch | FreezeReason::StoreRewound) => false,
            Some(_) => self.parts.believed,
        }
    }

    async fn leaves(
        &mut self,
        key: MappingKey,
        metadata: ObjectMeta,
        object: Option<Box<RoleMapping>>,
    ) -> Result<(), IntakeError> {
        if !is_held(&metadata) {
            // Kept by somebody else's finalizer, or ours was stripped.
            return self.mapping_gone(&key).await;
        }
        if let Some(leaving) = self.leaving.get_mut(&key) {
            let policy = |object: &Option<Box<RoleMapping>>| object.as_ref().map(|said| said.spec.deletion_policy);
            if policy(&leaving.object) != policy(&object) {
                // Somebody thought better of it, which is still in time.
                leaving.told = false;
            }
            leaving.object = object;
        } else {
            let leaving = Terminating { metadata, object, told: false, released: None };
            self.leaving.insert(key.clone(), leaving);
        }
        self.settle(&key).await
    }

    /// Is the rolecall of another namespace at work on the same resources, and this one frozen because of it? Then the
    /// finalizers are the other's.
    fn stands_by(&self) -> bool {
        self.parts.other.load(Ordering::Acquire) && self.parts.engine.frozen().is_some()
    }

    /// Takes a deleted mapping one step further, if one can be taken now.
    async fn settle(&mut self, key: &MappingKey) -> Result<(), IntakeError> {
        if self.stands_by() {
            return Ok(());
        }
        let engine = self.parts.engine.clone();
        let Some(leaving) = self.leaving.get(key) else { return Ok(()) };
        if leaving.released.is_some_and(|again| tokio::time::Instant::now() < again) {
            return Ok(());
        }
        let frozen = engine.frozen();
        if frozen == Some(FreezeReason::NotLoaded) {
            return Ok(());
        }
        let overdue = self.overdue(leaving);
        // While everything is frozen nobody knows what the mapping has: an empty ledger may be the wrong one.
        if !leaving.told && (frozen.is_none() || overdue.is_some()) {
            let object = leaving.object.clone();
            match (self.definition_goes().await, object) {
                (Ok(false), Some(object)) => engine.delete_mapping_as(key, *object).await?,
                (Ok(false), None) => engine.delete_mapping(key).await?,
                (Ok(true), _) => {
                    tracing::warn!(
                        mapping.name = %key,
                        "{key} goes because the definition of RoleMapping is being deleted: its grants stay as they are"
                    );
                    self.mapping_gone(key).await?;
                }
                (Err(error), _) => {
                    tracing::warn!(%error, mapping.name = %key, "cannot look whether the definition of RoleMapping goes");
                    self.quiet_until = Some(tokio::time::Instant::now() + RETRY);
                    return Ok(());
                }
            }
            if let Some(leaving) = self.leaving.get_mut(key) {
                leaving.told = true;
            }
        }
        let told = self.leaving.get(key).is_some_and(|leaving| leaving.told);
        let waits =
            engine.mapping_phase(key).is_some_and(|phase| phase.is_terminating() && phase != MappingPhase::Orphaned);
        if told && !waits {
            self.release(key).await;
        } else if let (true, Some(waited)) = (told, overdue) {
            self.defer(key, waited).await?;
            self.release(key).await;
        }
        Ok(())
    }

    /// For how long its claims could not be ended, when that is too long.
    fn overdue(&self, leaving: &Terminating) -> Option<Duration> {
        let since = leaving.metadata.deletion_timestamp.as_ref()?.0.max(self.began);
        let waited = Duration::try_from(self.parts.clock.now().duration_since(since)).unwrap_or_default();
        (waited >= self.parts.finalizer_deadline).then_some(waited)
    }

    /// A mapping that could not be ended in time goes, so that nothing blocks its namespace; its claims do not.
    async fn defer(&self, key: &MappingKey, waited: Duration) -> Result<(), IntakeError> {
        let Some(grants) = self.parts.engine.defer_revocation(key).await? else { return Ok(()) };
        tracing::warn!(
            mapping.name = %key, grants, reason = reason::REVOCATION_ABANDONED,
            "{key} was deleted and for {waited:.0?} {grants} of its grants could not be revoked; the object is let go, and \
             they are revoked as soon as Google lets rolecall"
        );
        Ok(())
    }

    fn put_off(&mut self, key: &MappingKey) {
        if let Some(leaving) = self.leaving.get_mut(key) {
            leaving.released = Some(tokio::time::Instant::now() + RETRY);
        }
    }

    /// Takes our finalizer away.
    async fn release(&mut self, key: &MappingKey) {
        self.put_off(key);
        let Some(leaving) = self.leaving.get(key) else { return };
        let metadata = leaving.metadata.clone();
        let others: Vec<String> = metadata.finalizers.clone().unwrap_or_default();
        let others: Vec<String> = others.into_iter().filter(|finalizer| finalizer != REVOKE_FINALIZER).collect();
        match set_finalizers(&self.parts.client, key, &metadata, &others).await {
            Ok(()) => {
                self.leaving.remove(key);
                self.held.remove(key);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.leaving.remove(key);
                self.held.remove(key);
            }
            // The watch brings the newer version.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                tracing::warn!(%error, mapping.name = %key, "cannot take the finalizer off {key}; it is tried again");
                self.quiet_until = Some(tokio::time::Instant::now() + RETRY);
            }
        }
    }

    /// Is the definition of the kind being deleted? Then all its objects are deleted with it, which nobody decided for
    /// each of them. Asked anew each time: the definition is marked before its objects are.
    async fn definition_goes(&self) -> Result<bool, kube::Error> {
        let api: Api<CustomResourceDefinition> = Api::all(self.parts.client.clone());
        let metadata = patient(api.get_metadata_opt(RoleMapping::crd_name())).await?;
        Ok(metadata.is_none_or(|definition| definition.metadata.deletion_timestamp.is_some()))
    }

    async fn tick(&mut self) {
        let now = tokio::time::Instant::now();
        let due: Vec<MappingKey> =
            self.unheld.iter().filter(|(_, (_, at))| *at <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            if let Some((metadata, _)) = self.unheld.remove(&key) {
                self.hold(key, metadata);
            }
        }
        for key in self.leaving.keys().cloned().collect::<Vec<_>>() {
            if self.quiet_until.is_some_and(|until| tokio::time::Instant::now() < until) {
                break;
            }
            if let Err(error) = self.settle(&key).await {
                tracing::warn!(%error, mapping.name = %key, "the deletion of {key} waits");
            }
        }
        if self.loaded.is_none()
            && let Err(error) = self.follow_decisions().await
        {
            tracing::warn!(%error, "cannot follow what was decided on the command line");
        }
    }
}

fn mapping_key(object: &ObjectRef) -> Option<MappingKey> {
    MappingKey::new(object.namespace.as_deref().unwrap_or_default(), &object.name).ok()
}
