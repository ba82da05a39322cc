//! Handling of resources that exist, that cannot be read, and that are absent.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::deletion::Deletion;
use super::finalizer::{has_finalizer, version};
use super::{Controller, Holds};
use crate::api::manifest::{Object, ObjectRef, Problem};
use crate::api::{GROUP, RoleMapping, VERSION, is_initial};
use crate::model::{FreezeReason, Kind, MappingKey, MappingPhase, ProviderName, Reason, TargetName};
use crate::source::{Absence, Observed};
use crate::status::{Item, Metadata, Status, not_taken_in};
use crate::sync::{IntakeError, ObjectProblem, Provenance};

/// Namespace of a mapping whose manifest has none, as with `kubectl apply`.
const DEFAULT_NAMESPACE: &str = "default";

/// The key of a mapping; none when the object is of another kind, or its name is invalid.
pub(crate) fn mapping_key(object: &ObjectRef) -> Option<MappingKey> {
    if object.kind != Kind::RoleMapping {
        return None;
    }
    MappingKey::new(object.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), &object.name).ok()
}

fn provenance(observed: &Observed) -> Provenance<'_> {
    Provenance { source: &observed.origin, written_by: observed.written_by.as_deref() }
}

impl Controller {
    pub(super) async fn applied(&mut self, observed: &Observed, parsed: &Object) -> Result<(), IntakeError> {
        self.restore_status(observed);
        match parsed {
            Object::IdentityProvider(object) => {
                self.engine.apply_provider((**object).clone(), provenance(observed)).await
            }
            Object::CloudRunTarget(object) => self.engine.apply_target((**object).clone(), provenance(observed)).await,
            Object::RoleMapping(object) => self.mapping_applied(observed, object).await,
            Object::Secret(_) => Ok(()),
        }
    }

    async fn mapping_applied(&mut self, observed: &Observed, object: &RoleMapping) -> Result<(), IntakeError> {
        if matches!(self.holds, Holds::Nothing(_)) {
            let key = mapping_key(&observed.object);
            self.engine.apply_mapping(object.clone(), provenance(observed)).await?;
            if let Some(key) = key {
                self.absent.remove(&key);
            }
            return Ok(());
        }
        let metadata = &observed.metadata;
        let key = MappingKey::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )?;
        self.wanted.remove(&key);
        self.note(&key, metadata);
        if self.store.uninstall_mode().await?.is_some() {
            // Nothing new starts during an uninstall; the finalizers are removed one after the other.
            return Ok(());
        }
        // A deleted object of that name was another object.
        self.deletions.remove(&key);
        if has_finalizer(metadata) || !(self.enforces || self.engine.has_claims(&key).await?) {
            return self.engine.apply_mapping(object.clone(), provenance(observed)).await;
        }
        if self.engine.mapping_phase(&key) == Some(MappingPhase::Live) && !self.engine.has_claims(&key).await? {
            // From a time without grants: its current version is applied with the finalizer, and not before.
            self.engine.delete_mapping(&key).await?;
        }
        self.add_finalizer(key, metadata.clone());
        Ok(())
    }

    pub(super) async fn deletion_requested(
        &mut self,
        observed: &Observed,
        parsed: Option<&Object>,
        problems: &[Problem],
    ) -> Result<(), IntakeError> {
        self.restore_status(observed);
        if !problems.is_empty() {
            self.report(observed, problems);
        }
        let object = &observed.object;
        match object.kind {
            Kind::CloudRunTarget => return Ok(self.engine.remove_target(&TargetName::new(&object.name)?).await?),
            Kind::IdentityProvider => {
                let name = ProviderName::new(&object.name)?;
                // A manifest has no uid: a later one of the same name may belong to anybody.
                self.store.leave_directory(&name).await?;
                return Ok(self.engine.remove_provider(&name).await?);
            }
            Kind::Secret | Kind::Namespace => return Ok(()),
            Kind::RoleMapping => {}
        }
        let Some(key) = mapping_key(object) else { return Ok(()) };
        let parsed = match parsed {
            Some(Object::RoleMapping(object)) => Some(&**object),
            _ => None,
        };
        let metadata = &observed.metadata;
        if matches!(self.holds, Holds::Finalizer(..)) {
            // An object that is being deleted cannot get a finalizer any more.
            self.wanted.remove(&key);
            self.note(&key, metadata);
            if let Some(object) = parsed
                && has_finalizer(metadata)
                && self.engine.mapping_phase(&key).is_none()
                && self.engine.has_claims(&key).await?
            {
                // Its last valid spec could not be read, or was never stored: without it nothing would end.
                self.engine.apply_mapping(object.clone(), provenance(observed)).await?;
            }
        }
        self.delete(key, metadata, parsed).await
    }

    pub(super) fn rejected(&mut self, observed: &Observed, problems: &[Problem]) {
        self.restore_status(observed);
        self.report(observed, problems);
        if let (Some(key), Holds::Finalizer(..)) = (mapping_key(&observed.object), &self.holds) {
            // It is not applied, so it needs no finalizer either.
            self.wanted.remove(&key);
            self.note(&key, &observed.metadata);
        }
    }

    pub(super) fn restated(&mut self, observed: &Observed) {
        self.restore_status(observed);
        if let (Some(key), Holds::Finalizer(..)) = (mapping_key(&observed.object), &self.holds) {
            self.note(&key, &observed.metadata);
            self.add_to_newer(&key, &observed.metadata);
        }
    }

    pub(super) async fn recovered(&mut self, object: &ObjectRef) -> Result<(), IntakeError> {
        self.set_problem(object, None);
        if let Some(key) = mapping_key(object) {
            self.engine.restore_mapping(&key).await?;
            self.absent.remove(&key);
        }
        Ok(())
    }

    pub(super) async fn absent(&mut self, object: &ObjectRef, why: Absence) -> Result<(), IntakeError> {
        match (object.kind, why) {
            // Other objects than mappings stay in force as well when the folder is suspicious.
            (Kind::IdentityProvider | Kind::CloudRunTarget, Absence::Doubted)
            | (Kind::Secret | Kind::Namespace, Absence::Doubted | Absence::NotObserved) => return Ok(()),
            (Kind::IdentityProvider, Absence::NotObserved) => {
                return Ok(self.engine.remove_provider(&ProviderName::new(&object.name)?).await?);
            }
            (Kind::CloudRunTarget, Absence::NotObserved) => {
                return Ok(self.engine.remove_target(&TargetName::new(&object.name)?).await?);
            }
            (Kind::RoleMapping, Absence::Doubted | Absence::NotObserved) => {}
        }
        let Some(key) = mapping_key(object) else { return Ok(()) };
        if why == Absence::Doubted {
            self.engine.mark_missing(&key, FreezeReason::ManifestsMissing).await?;
            self.absent.insert(key);
            return Ok(());
        }
        self.wanted.remove(&key);
        self.deletions.remove(&key);
        self.finalized.remove(&key);
        self.mapping_gone(&key).await?;
        if self.engine.mapping_phase(&key).is_none() {
            self.cache.remove(Kind::RoleMapping, Some(key.namespace()), key.name());
        }
        Ok(())
    }

    /// Handles a mapping whose object is gone, or is no longer kept. Its claims are ending, or there are none, or its
    /// deletion was not observed.
    pub(super) async fn mapping_gone(&self, key: &MappingKey) -> Result<(), IntakeError> {
        if self.engine.mapping_phase(key) != Some(MappingPhase::Live) {
            return Ok(());
        }
        if self.engine.has_claims(key).await? || !self.is_believed() {
            tracing::warn!(
                mapping.name = %key, reason = %FreezeReason::MappingMissing.reason(),
                "{key} is missing, but no deletion was observed: its grants stay as they are"
            );
            self.engine.mark_missing(key, FreezeReason::MappingMissing).await?;
        } else {
            self.engine.delete_mapping(key).await?;
        }
        Ok(())
    }

    /// The objects in force that are not in a list.
    pub(super) fn missing(&self, kind: Kind, objects: &BTreeSet<ObjectRef>) -> Vec<ObjectRef> {
        let engine = &self.engine;
        let known: Vec<ObjectRef> = match kind {
            Kind::IdentityProvider => {
                engine.providers().iter().map(|name| ObjectRef::new(kind, None, name.as_str())).collect()
            }
            Kind::CloudRunTarget => {
                engine.targets().iter().map(|name| ObjectRef::new(kind, None, name.as_str())).collect()
            }
            Kind::RoleMapping => engine.mappings().iter().map(ObjectRef::of_mapping).collect(),
            Kind::Secret | Kind::Namespace => Vec::new(),
        };
        known.into_iter().filter(|object| !objects.contains(object)).collect()
    }

    /// Records whether the mapping has the finalizer, and in which version: it is removed from that version, and no
    /// older one.
    fn note(&mut self, key: &MappingKey, metadata: &ObjectMeta) {
        if has_finalizer(metadata) {
            self.wanted.remove(key);
            self.finalized.insert(key.clone(), version(metadata));
        } else {
            self.finalized.remove(key);
        }
        let Some(deletion) = self.deletions.get_mut(key) else { return };
        if !has_finalizer(metadata) || deletion.metadata.uid != metadata.uid {
            self.deletions.remove(key);
        } else {
            Deletion::renew(deletion, metadata);
        }
    }

    /// Restores the status shown by the source, from which the status continues. What is missing there is written
    /// again.
    fn restore_status(&self, observed: &Observed) {
        let Some(status) = &observed.status else { return };
        let (object, metadata) = (&observed.object, &observed.metadata);
        let (kind, namespace, name) = (object.kind, object.namespace.as_deref(), object.name.as_str());
        if let Some(known) = self.cache.item(kind, namespace, name) {
            if is_initial(status) || known.metadata.uid != metadata.uid {
                self.cache.write_again(kind, namespace, name);
            }
        } else if !is_initial(status) && (metadata.deletion_timestamp.is_none() || self.is_in_force(object)) {
            self.seed_status(kind, observed, status);
        }
    }

    fn seed_status(&self, kind: Kind, observed: &Observed, status: &Value) {
        let item = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": kind,
            "metadata": observed.metadata,
            "status": status,
        });
        match serde_json::from_value::<Item>(item) {
            Ok(item) => self.cache.seed(item),
            // It will be written again.
            Err(error) => {
                tracing::debug!(%error, object = %observed.object, "the status in the cluster cannot be read");
            }
        }
    }

    /// True when the object is in force. If it is not, and is being deleted, it no longer has a status.
    fn is_in_force(&self, object: &ObjectRef) -> bool {
        mapping_key(object).is_none_or(|key| self.engine.mapping_phase(&key).is_some())
    }

    /// Reports the problems of an object: its last valid version stays in force.
    fn report(&self, observed: &Observed, problems: &[Problem]) {
        let object = &observed.object;
        let Some(first) = problems.first() else { return };
        let more = match problems.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let message = format!("{first}{more}");
        let word = if first.reason == Reason::DuplicateObject.word() {
            Reason::DuplicateObject
        } else {
            Reason::InvalidManifest
        };
        if let (Some(key), Holds::Finalizer(..)) = (mapping_key(object), &self.holds)
            && self.engine.mapping_phase(&key).is_none()
        {
            self.report_not_in_force(&key, &observed.metadata, word, &message);
            return;
        }
        self.set_problem(object, Some(ObjectProblem { reason: word, message, since: self.clock.now() }));
    }

    pub(super) fn set_problem(&self, object: &ObjectRef, problem: Option<ObjectProblem>) {
        match object.kind {
            Kind::IdentityProvider => {
                if let Ok(name) = ProviderName::new(&object.name) {
                    self.engine.report_provider(&name, problem);
                }
            }
            Kind::CloudRunTarget => {
                if let Ok(name) = TargetName::new(&object.name) {
                    self.engine.report_target(&name, problem);
                }
            }
            Kind::RoleMapping => {
                if let Some(key) = mapping_key(object) {
                    self.engine.report_mapping(&key, problem);
                }
            }
            Kind::Secret | Kind::Namespace => {}
        }
    }

    /// Reports why a mapping is not in force.
    pub(super) fn report_not_in_force(&self, key: &MappingKey, metadata: &ObjectMeta, word: Reason, message: &str) {
        let now = self.clock.now();
        let previous = self.cache.mapping(key);
        let status = not_taken_in(metadata.generation, word, message, previous.as_ref(), now);
        let metadata = Metadata {
            name: key.name().to_owned(),
            namespace: Some(key.namespace().to_owned()),
            generation: metadata.generation,
            uid: metadata.uid.clone(),
            creation_timestamp: metadata.creation_timestamp.clone(),
        };
        self.cache.publish(Item::new(metadata, None, Status::RoleMapping(Box::new(status))));
    }
}
