//! Custom resources enter the engine here, whether they come from a folder of manifests or from watches of a cluster.
//!
//! Each is stored as the last valid spec before it takes effect, so that a restart at a bad moment removes nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::lanes::{Lane, Purpose};
use super::provenance::{Provenance, created, generation, stamp};
use super::rules::TargetRules;
use super::state::{MappingState, ProviderState, TargetState, Trigger};
use super::{Engine, Inner};
use crate::api::{
    ACCEPT_GROUP_ANNOTATION, ADOPT_ANNOTATION, CloudRunTarget, IdentityProvider, RECONCILE_ANNOTATION,
    RELEASE_ANNOTATION, RoleMapping, duration,
};
use crate::catalog::Effects;
use crate::model::{
    DocumentKey, FreezeReason, GroupId, Kind, MappingKey, MappingPhase, NameError, ProviderName, TargetName,
};
use crate::status::Failure;
use crate::store::{StoreError, StoredSpec};

/// Namespace of a mapping whose manifest has none, as with `kubectl apply`.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// The source that is stored for the spec of a mapping at its deletion.
pub(super) const SOURCE_OF_ENDING: &str = "deleted";

/// The problem of an object whose last valid version is in force.
pub(crate) type ObjectProblem = Failure;

/// Why an object was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntakeError {
    /// The store cannot record the object, so it does not take effect.
    #[error("cannot store the resource, so it does not take effect: {0}")]
    Store(#[from] StoreError),
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn released(metadata: &ObjectMeta) -> BTreeSet<String> {
    let text = annotation(metadata, RELEASE_ANNOTATION).unwrap_or_default();
    text.split(',').map(|hash| hash.trim().to_owned()).filter(|hash| !hash.is_empty()).collect()
}

/// True when the mapping asks to take over grants that somebody else made.
fn adopts(metadata: &ObjectMeta) -> bool {
    annotation(metadata, ADOPT_ANNOTATION) == Some("true")
}

impl ProviderState {
    /// Like [`MappingState::is_applied`].
    fn is_applied(&self, object: &IdentityProvider) -> bool {
        let asked = annotation(&object.metadata, RECONCILE_ANNOTATION);
        is_known(&object.metadata, self.uid.as_deref(), self.generation)
            && self.problem.is_none()
            && self.reconcile_requested_at.as_deref() == asked
            && self.spec == object.spec
    }
}

impl TargetState {
    /// Like [`MappingState::is_applied`].
    fn is_applied(&self, object: &CloudRunTarget) -> bool {
        let asked = annotation(&object.metadata, RECONCILE_ANNOTATION);
        is_known(&object.metadata, self.uid.as_deref(), self.generation)
            && self.problem.is_none()
            && self.reconcile_requested_at.as_deref() == asked
            && self.spec == object.spec
    }
}

/// True when the object and its generation are the known ones.
fn is_known(metadata: &ObjectMeta, uid: Option<&str>, generation: i64) -> bool {
    metadata.uid.is_some() && metadata.uid.as_deref() == uid && metadata.generation == Some(generation)
}

impl MappingState {
    /// True when this object equals the last applied one. Only for objects whose generation the API server counts.
    fn is_applied(&self, object: &RoleMapping) -> bool {
        let metadata = &object.metadata;
        is_known(metadata, self.uid.as_deref(), self.generation)
            && self.problem.is_none()
            && self.accepted == accepted_groups(metadata)
            && self.released == released(metadata)
            && self.adopts == adopts(metadata)
            && self.reconcile_requested_at.as_deref() == annotation(metadata, RECONCILE_ANNOTATION)
            && self.spec == object.spec
    }
}

pub(super) fn accepted_groups(metadata: &ObjectMeta) -> BTreeSet<GroupId> {
    let text = annotation(metadata, ACCEPT_GROUP_ANNOTATION).unwrap_or_default();
    text.split(',').filter_map(|id| id.trim().parse().ok().map(GroupId)).collect()
}

/// The part of an object that is stored, which is sufficient to apply it again.
pub(super) fn stored_json<T: Serialize>(object: &T) -> Result<String, StoreError> {
    serde_json::to_string(object).map_err(|error| StoreError::Internal { problem: error.to_string() })
}

fn parsed<T: DeserializeOwned>(spec: &StoredSpec) -> Option<T> {
    match serde_json::from_str(&spec.json) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(%error, kind = %spec.kind, name = %spec.name, "cannot read a stored spec; its claims stay frozen");
            None
        }
    }
}

impl Engine {
    /// Puts an `IdentityProvider` in force.
    ///
    /// # Errors
    /// [`IntakeError`]; then the object is not in force.
    pub(crate) async fn apply_provider(
        &self,
        mut object: IdentityProvider,
        from: Provenance<'_>,
    ) -> Result<(), IntakeError> {
        let _one_at_a_time = self.0.intake.lock().await;
        let name = ProviderName::new(object.metadata.name.as_deref().unwrap_or_default())?;
        if self.0.state().providers.get(&name).is_some_and(|memory| memory.is_applied(&object)) {
            return Ok(());
        }
        let known = self.0.state().providers.get(&name).map(|memory| (memory.generation, memory.spec == object.spec));
        let generation = generation(&object.metadata, known);
        let created = self.0.state().providers.get(&name).map(|memory| memory.created);
        stamp(&mut object.metadata, created, self.0.clock.now());
        // Before it is stored: the object in force until now determines who owns the people of an older database.
        let former = !self.0.store.claim_directory(&name, owner_of(object.metadata.uid.as_deref())).await?;
        if former {
            tracing::error!(
                reason = %FreezeReason::IdentityProviderChanged.reason(),
                "IdentityProvider {name}: {}",
                FreezeReason::IdentityProviderChanged.message()
            );
        }
        let id = (Kind::IdentityProvider, None, name.as_str());
        self.0.persist_spec(id, generation, from, stored_json(&object)?).await?;
        let effects = self.0.install_provider(&name, object, generation, former);
        self.0.apply_effects(effects, &Trigger::at(self.0.clock.now())).await;
        Ok(self.0.ask_ledger().await?)
    }

    /// Puts a `CloudRunTarget` in force.
    ///
    /// # Errors
    /// [`IntakeError`]; then the object is not in force.
    pub(crate) async fn apply_target(
        &self,
        mut object: CloudRunTarget,
        from: Provenance<'_>,
    ) -> Result<(), IntakeError> {
        let _one_at_a_time = self.0.intake.lock().await;
        let name = TargetName::new(object.metadata.name.as_deref().unwrap_or_default())?;
        if self.0.state().targets.get(&name).is_some_and(|memory| memory.is_applied(&object)) {
            return Ok(());
        }
        let known = self.0.state().targets.get(&name).map(|memory| (memory.generation, memory.spec == object.spec));
        let generation = generation(&object.metadata, known);
        let created = self.0.state().targets.get(&name).map(|memory| memory.created);
        stamp(&mut object.metadata, created, self.0.clock.now());
        let id = (Kind::CloudRunTarget, None, name.as_str());
        self.0.persist_spec(id, generation, from, stored_json(&object)?).await?;
        let effects = self.0.install_target(&name, object, generation);
        self.0.apply_effects(effects, &Trigger::at(self.0.clock.now())).await;
        Ok(self.0.ask_ledger().await?)
    }

    /// Puts a `RoleMapping` in force.
    ///
    /// # Errors
    /// [`IntakeError`]; then the object is not in force.
    pub(crate) async fn apply_mapping(&self, mut object: RoleMapping, from: Provenance<'_>) -> Result<(), IntakeError> {
        let _one_at_a_time = self.0.intake.lock().await;
        if self.0.state().uninstall.is_some() {
            // Nothing new starts during an uninstall.
            return Ok(());
        }
        let metadata = &object.metadata;
        let key = MappingKey::new(
            metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
            metadata.name.as_deref().unwrap_or_default(),
        )?;
        let is_live = self.mapping_phase(&key) == Some(MappingPhase::Live);
        if is_live && self.0.state().mappings.get(&key).is_some_and(|memory| memory.is_applied(&object)) {
            // For example our own write of its status, which the watch returns.
            return Ok(());
        }
        let known = self.0.state().mappings.get(&key).map(|memory| (memory.generation, memory.spec == object.spec));
        let generation = generation(&object.metadata, known);
        let created = self.0.state().mappings.get(&key).map(|memory| memory.created);
        stamp(&mut object.metadata, created, self.0.clock.now());
        let json = stored_json(&object)?;
        let id = (Kind::RoleMapping, Some(key.namespace()), key.name());
        let version = self.0.persist_spec(id, generation, from, json).await?;
        let uid = version.as_ref().map(|version| version.uid.as_str());
        let effects = self.0.install_mapping(&key, object, generation, uid);
        self.0.apply_effects(effects, &Trigger::at(self.0.clock.now())).await;
        if known.is_some() {
            self.0.enqueue_claimed(&key).await?;
        }
        Ok(())
    }

    /// Reports that the object's text is invalid; its last valid version stays in force. None: the text is valid again.
    pub(crate) fn report_provider(&self, name: &ProviderName, problem: Option<ObjectProblem>) {
        let mut state = self.0.state();
        if let Some(memory) = state.providers.get_mut(name) {
            memory.problem = problem;
        }
        state.changed_providers.insert(name.clone());
        drop(state);
        self.0.changed.notify_one();
    }

    /// Like [`Engine::report_provider`], for a target.
    pub(crate) fn report_target(&self, name: &TargetName, problem: Option<ObjectProblem>) {
        let mut state = self.0.state();
        if let Some(memory) = state.targets.get_mut(name) {
            memory.problem = problem;
        }
        state.changed_targets.insert(name.clone());
        drop(state);
        self.0.changed.notify_one();
    }

    /// Like [`Engine::report_provider`], for a mapping.
    pub(crate) fn report_mapping(&self, key: &MappingKey, problem: Option<ObjectProblem>) {
        let mut state = self.0.state();
        if let Some(memory) = state.mappings.get_mut(key) {
            memory.problem = problem;
        }
        state.changed_mappings.insert(key.clone());
        drop(state);
        self.0.changed.notify_one();
    }

    /// The providers under whose name people of a former one are stored.
    #[must_use]
    pub(crate) fn former_directories(&self) -> BTreeSet<ProviderName> {
        let state = self.0.state();
        state.providers.iter().filter(|(_, memory)| memory.former).map(|(name, _)| name.clone()).collect()
    }

    /// Checks whether directories of former providers were accepted or purged meanwhile.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be read.
    pub(crate) async fn review_directories(&self) -> Result<(), StoreError> {
        for name in self.former_directories() {
            let one_at_a_time = self.0.intake.lock().await;
            let Some(uid) = self.0.state().providers.get(&name).map(|memory| memory.uid.clone()) else { continue };
            if !self.0.store.claim_directory(&name, owner_of(uid.as_deref())).await? {
                continue;
            }
            tracing::warn!("the directory of {name} was accepted or purged: IdentityProvider {name} is in force");
            let effects = {
                let mut state = self.0.state();
                if let Some(memory) = state.providers.get_mut(&name) {
                    memory.former = false;
                }
                state.changed_providers.insert(name.clone());
                state.catalog.set_former(&name, false)
            };
            self.0.apply_effects(effects, &Trigger::at(self.0.clock.now())).await;
            drop(one_at_a_time);
            self.0.ask_ledger().await?;
        }
        Ok(())
    }

    /// Reports that information about the providers' tokens changed.
    pub(crate) fn providers_changed(&self) {
        let mut state = self.0.state();
        let names: Vec<ProviderName> = state.providers.keys().cloned().collect();
        state.changed_providers.extend(names);
        drop(state);
        self.0.changed.notify_one();
    }

    /// Removes a provider: the claims of its people freeze.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be stored.
    pub(crate) async fn remove_provider(&self, name: &ProviderName) -> Result<(), StoreError> {
        let one_at_a_time = self.0.intake.lock().await;
        self.0.store.remove_spec(Kind::IdentityProvider, None, name.as_str()).await?;
        let effects = {
            let mut state = self.0.state();
            state.providers.remove(name);
            state.changed_providers.insert(name.clone());
            state.catalog.remove_provider(name)
        };
        self.0.apply_effects(effects, &Trigger::none()).await;
        drop(one_at_a_time);
        self.0.ask_ledger().await
    }

    /// Removes a target: the claims on its documents freeze.
    ///
    /// # Errors
    /// [`StoreError`], when that cannot be stored.
    pub(crate) async fn remove_target(&self, name: &TargetName) -> Result<(), StoreError> {
        let one_at_a_time = self.0.intake.lock().await;
        self.0.store.remove_spec(Kind::CloudRunTarget, None, name.as_str()).await?;
        let effects = {
            let mut state = self.0.state();
            state.targets.remove(name);
            state.changed_targets.insert(name.clone());
            state.catalog.remove_target(name)
        };
        self.0.apply_effects(effects, &Trigger::none()).await;
        drop(one_at_a_time);
        self.0.ask_ledger().await
    }

    /// Puts a mapping that was missing and is back in force with its last valid spec.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub(crate) async fn restore_mapping(&self, key: &MappingKey) -> Result<(), IntakeError> {
        if self.mapping_phase(key).and_then(MappingPhase::missing).is_none() {
            return Ok(());
        }
        let Some(spec) = self.0.stored_mapping(key).await? else { return Ok(()) };
        let Some(object) = parsed::<RoleMapping>(&spec) else { return Ok(()) };
        self.apply_mapping(object, Provenance { source: &spec.source, written_by: None }).await
    }

    /// Applies the labels of a namespace, which may delegate something to its mappings or withdraw it.
    ///
    /// # Errors
    /// [`StoreError`], when the affected documents cannot be read from the ledger.
    pub(crate) async fn apply_namespace(&self, name: &str, labels: BTreeMap<String, String>) -> Result<(), StoreError> {
        let one_at_a_time = self.0.intake.lock().await;
        self.0.store.record_namespace(name, &labels).await?;
        let effects = self.0.state().catalog.apply_namespace(name, labels);
        let mappings = effects.mappings.clone();
        self.0.apply_effects(effects, &Trigger::at(self.0.clock.now())).await;
        for key in &mappings {
            self.0.enqueue_claimed(key).await?;
        }
        drop(one_at_a_time);
        Ok(())
    }

    /// The mappings in force, including terminating and missing ones.
    #[must_use]
    pub(crate) fn mappings(&self) -> Vec<MappingKey> {
        self.0.state().mappings.keys().cloned().collect()
    }

    /// The targets in force.
    #[must_use]
    pub(crate) fn targets(&self) -> Vec<TargetName> {
        self.0.state().targets.keys().cloned().collect()
    }

    /// The providers in force.
    #[must_use]
    pub(crate) fn providers(&self) -> Vec<ProviderName> {
        self.0.state().providers.keys().cloned().collect()
    }

    /// Puts the last valid specs in force again, at the start. Returns them.
    ///
    /// # Errors
    /// [`StoreError`], when they cannot be read.
    pub(crate) async fn restore(&self) -> Result<Vec<StoredSpec>, StoreError> {
        let specs = self.0.store.specs().await?;
        let uids = self.0.store.spec_uids(Kind::RoleMapping).await?;
        for spec in &specs {
            let effects = match spec.kind {
                Kind::IdentityProvider => match (parsed::<IdentityProvider>(spec), ProviderName::new(&spec.name)) {
                    (Some(object), Ok(name)) => {
                        let owner = owner_of(object.metadata.uid.as_deref());
                        let former = !self.0.store.claim_directory(&name, owner).await?;
                        Some(self.0.install_provider(&name, object, spec.generation, former))
                    }
                    _ => None,
                },
                Kind::CloudRunTarget => parsed::<CloudRunTarget>(spec).and_then(|object| {
                    let name = TargetName::new(&spec.name).ok()?;
                    Some(self.0.install_target(&name, object, spec.generation))
                }),
                Kind::RoleMapping => parsed::<RoleMapping>(spec).and_then(|object| {
                    let key =
                        MappingKey::new(spec.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), &spec.name).ok()?;
                    let uid = uids.get(&(spec.namespace.clone(), spec.name.clone())).map(String::as_str);
                    let mut effects = self.0.install_mapping(&key, object, spec.generation, uid);
                    let mut state = self.0.state();
                    if spec.phase != MappingPhase::Live {
                        effects.merge(state.catalog.set_phase(&key, spec.phase));
                    }
                    drop(state);
                    Some(effects)
                }),
                Kind::Secret | Kind::Namespace => None,
            };
            if let Some(effects) = effects {
                self.0.apply_effects(effects, &Trigger::none()).await;
            }
        }
        // The process may have ended between the last claim and the mapping itself.
        self.0.forget_what_is_done().await?;
        Ok(specs)
    }
}

/// The owner of an object's directory: the uid of the object. Where objects have no uid, the same value stands for
/// every object until the next deletion.
pub(crate) fn owner_of(uid: Option<&str>) -> &str {
    uid.unwrap_or("manifest")
}

impl Inner {
    async fn stored_mapping(&self, key: &MappingKey) -> Result<Option<StoredSpec>, StoreError> {
        // A manifest without a namespace is stored without one.
        match self.store.spec(Kind::RoleMapping, Some(key.namespace()), key.name()).await? {
            None if key.namespace() == DEFAULT_NAMESPACE => self.store.spec(Kind::RoleMapping, None, key.name()).await,
            found => Ok(found),
        }
    }

    /// Installs a provider in the catalog. `former`: its people belong to a former one.
    fn install_provider(
        &self,
        name: &ProviderName,
        object: IdentityProvider,
        generation: i64,
        former: bool,
    ) -> Effects {
        let now = self.clock.now();
        let mut state = self.state();
        let created = created(&object.metadata, now);
        let uid = object.metadata.uid.clone();
        let reconcile_requested_at = annotation(&object.metadata, RECONCILE_ANNOTATION).map(str::to_owned);
        let spec = object.spec;
        let memory = ProviderState {
            uid,
            spec: spec.clone(),
            former,
            generation,
            created,
            reconcile_requested_at,
            problem: None,
        };
        let asked = memory.reconcile_requested_at.clone();
        let before = state.providers.insert(name.clone(), memory);
        if before.is_some_and(|old| old.spec != spec || old.reconcile_requested_at != asked) {
            let with = |memory: &MappingState| {
                memory.spec.subjects.iter().any(|subject| subject.identity_provider == name.as_str())
            };
            let mappings =
                state.mappings.iter().filter(|(_, memory)| with(memory)).map(|(key, _)| key.clone()).collect();
            state.retry_additions(&mappings);
        }
        state.changed_providers.insert(name.clone());
        let mut effects = state.catalog.set_former(name, former);
        effects.merge(state.catalog.apply_provider(name.clone(), spec));
        effects
    }

    fn install_target(&self, name: &TargetName, object: CloudRunTarget, generation: i64) -> Effects {
        let now = self.clock.now();
        let drift_interval = object.spec.drift_interval.as_deref().and_then(|text| duration::parse(text).ok());
        let (effects, sooner) = {
            let mut state = self.state();
            let old = state.targets.remove(name);
            let created = created(&object.metadata, now);
            let asked = annotation(&object.metadata, RECONCILE_ANNOTATION);
            let changed = |old: &TargetState| old.spec != object.spec || old.reconcile_requested_at.as_deref() != asked;
            if old.as_ref().is_some_and(changed) {
                state.refusals.project_changed(&object.spec.project);
            }
            let discovery_interval = duration::parse(&object.spec.discovery_interval).unwrap_or(DISCOVERY);
            let known = old.as_ref().map(|old| old.drift_interval);
            let memory = TargetState {
                drift_interval,
                rules: TargetRules::of(&object.spec),
                uid: object.metadata.uid.clone(),
                spec: object.spec.clone(),
                generation,
                created,
                discovery_interval,
                failures: 0,
                preflights: old.as_ref().map(|old| old.preflights.clone()).unwrap_or_default(),
                listing: old.and_then(|old| old.listing),
                // A list is requested below.
                listed_from: None,
                recorded: None,
                reconcile_requested_at: annotation(&object.metadata, RECONCILE_ANNOTATION).map(str::to_owned),
                problem: None,
            };
            state.targets.insert(name.clone(), memory);
            state.changed_targets.insert(name.clone());
            let effects = state.catalog.apply_target(name.clone(), object.spec, created);
            let changed = known.is_some_and(|known| known != drift_interval);
            let sooner: Vec<DocumentKey> = if changed {
                state.documents_of(name).map(|(document, _)| document.clone()).collect()
            } else {
                Vec::new()
            };
            (effects, sooner)
        };
        self.read_within(&sooner, drift_interval.unwrap_or(self.config.drift_interval));
        self.discovery().enqueue(name, Instant::now());
        self.list.notify_one();
        effects
    }

    /// Makes documents due within an interval, each at a time of its own.
    fn read_within(&self, documents: &[DocumentKey], interval: std::time::Duration) {
        let now = Instant::now();
        let mut queue = self.queue();
        for document in documents {
            queue.enqueue(document, Lane::Addition, Purpose::Look, now + interval.mul_f64(self.random.fraction()));
        }
        drop(queue);
        self.due.notify_one();
    }

    /// Installs a mapping in the catalog. `uid`: identity of the object in the history.
    fn install_mapping(&self, key: &MappingKey, object: RoleMapping, generation: i64, uid: Option<&str>) -> Effects {
        let now = self.clock.now();
        let accepted = accepted_groups(&object.metadata);
        let (effects, targets) = {
            let mut state = self.state();
            let created = created(&object.metadata, now);
            let targets: Vec<TargetName> =
                object.spec.grants.iter().filter_map(|grant| TargetName::new(&grant.target.name).ok()).collect();
            let memory = MappingState {
                uid: object.metadata.uid.clone(),
                spec: object.spec.clone(),
                generation,
                created,
                accepted: accepted.clone(),
                released: released(&object.metadata),
                adopts: adopts(&object.metadata),
                reconcile_requested_at: annotation(&object.metadata, RECONCILE_ANNOTATION).map(str::to_owned),
                problem: None,
            };
            let before = state.mappings.insert(key.clone(), memory);
            state.changed_mappings.insert(key.clone());
            let mut effects = state.catalog.apply_mapping(key.clone(), generation, object.spec, accepted);
            effects.merge(state.catalog.set_adopts(key, adopts(&object.metadata)));
            if let Some(uid) = uid {
                state.catalog.identify_mapping(key, uid);
            }
            let now = &state.mappings[key];
            let changed = before
                .as_ref()
                .is_some_and(|old| old.spec != now.spec || old.reconcile_requested_at != now.reconcile_requested_at);
            let asked = before.is_none_or(|old| {
                old.released != now.released || old.reconcile_requested_at != now.reconcile_requested_at
            });
            if asked {
                effects.merge(state.look_again(key));
            }
            if changed {
                state.retry_additions(&BTreeSet::from([key.clone()]));
            }
            (effects, targets)
        };
        for target in targets {
            self.discovery().enqueue(&target, Instant::now());
        }
        self.list.notify_one();
        self.ends.notify_one();
        effects
    }

    /// Requests a new list, because the last one may be outdated for this document.
    pub(super) fn list_again(&self, document: &DocumentKey) {
        let target = self.state().target_of(document);
        if let Some(target) = target {
            self.discovery().enqueue(&target, Instant::now());
        }
        self.list.notify_one();
    }
}

/// Fallback for a `discoveryInterval` that cannot be parsed, which the schema prevents.
const DISCOVERY: std::time::Duration = std::time::Duration::from_mins(5);
