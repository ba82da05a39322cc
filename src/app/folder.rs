//! The folder of manifests without a cluster: passes its events to the controller and to the token table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::progress::FolderProgress;
use super::tokens::{Credentials, SecretHashes};
use crate::api::manifest::{Object, ObjectRef, SecretData};
use crate::api::{CloudRunTarget, IdentityProvider, RoleMapping};
use crate::controller::{Controller, mapping_key};
use crate::model::{Kind, MappingKey, MappingPhase, ProviderName};
use crate::source::ResourceEvent;
use crate::source::folder::{FolderCommand, Known, KnownObject, PollOptions, poll};
use crate::store::{Store, StoreError, StoredSpec};
use crate::sync::Engine;

/// Delay before a failed write to the store is retried.
const AGAIN: Duration = Duration::from_secs(1);
/// Interval between checks whether a person released missing objects, or accepted a directory.
const TICK: Duration = Duration::from_secs(1);

/// State from when rolecall last ran.
pub(super) struct Restored {
    /// The objects with which the folder is compared.
    pub(super) known: Known,
    /// The objects that were missing.
    pub(super) missing: BTreeSet<ObjectRef>,
}

impl Restored {
    /// The mappings that were missing from the folder.
    pub(super) fn absent(&self) -> BTreeSet<MappingKey> {
        self.missing.iter().filter_map(mapping_key).collect()
    }
}

/// The tokens of a folder, from its providers and Secrets.
pub(super) struct FolderCredentials {
    engine: Engine,
    store: Store,
    namespace: String,
    credentials: Credentials,
}

impl FolderCredentials {
    /// Restores the state from when rolecall last ran, including tokens.
    pub(super) fn restore(
        engine: Engine,
        store: Store,
        namespace: String,
        credentials: Credentials,
        specs: &[StoredSpec],
    ) -> (Self, Restored) {
        let mut tokens = Self { engine, store, namespace, credentials };
        let (mut known, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for spec in specs.iter().filter(|spec| !spec.phase.is_terminating()) {
            let mut namespace = spec.namespace.clone();
            if spec.kind == Kind::Secret
                && namespace.get_or_insert_with(|| tokens.namespace.clone()) != &tokens.namespace
            {
                // Read when the operator had another namespace.
                continue;
            }
            let object = ObjectRef { kind: spec.kind, namespace, name: spec.name.clone() };
            let hash = tokens.recall(spec).filter(|_| spec.phase == MappingPhase::Live);
            if spec.phase.missing().is_some() {
                missing.insert(object.clone());
            }
            known.insert(object, KnownObject { file: spec.source.clone(), hash });
        }
        tokens.credentials.publish();
        let known = Known::new(known, !missing.is_empty());
        (tokens, Restored { known, missing })
    }

    /// Restores tokens and providers from a stored spec; returns the hash of its content.
    fn recall(&mut self, spec: &StoredSpec) -> Option<[u8; 32]> {
        match spec.kind {
            Kind::Secret => {
                let hashes = serde_json::from_str(&spec.json).ok()?;
                self.credentials.secret(spec.name.clone(), Ok(hashes));
                None
            }
            Kind::IdentityProvider => {
                let object: IdentityProvider = serde_json::from_str(&spec.json).ok()?;
                let name = ProviderName::new(&spec.name).ok()?;
                self.provider(name, &object);
                Some(Object::IdentityProvider(Box::new(object)).hash())
            }
            Kind::CloudRunTarget => {
                let object: CloudRunTarget = serde_json::from_str(&spec.json).ok()?;
                Some(Object::CloudRunTarget(Box::new(object)).hash())
            }
            Kind::RoleMapping => {
                let object: RoleMapping = serde_json::from_str(&spec.json).ok()?;
                Some(Object::RoleMapping(Box::new(object)).hash())
            }
            Kind::Namespace => None,
        }
    }

    fn provider(&mut self, name: ProviderName, object: &IdentityProvider) {
        self.credentials.hold(&name, self.engine.former_directories().contains(&name));
        self.credentials.provider(name, object.spec.clone());
    }

    /// Applies the token changes of an event, after the controller has handled it.
    async fn take(&mut self, event: &ResourceEvent) -> Result<(), StoreError> {
        match event {
            ResourceEvent::Applied { observed, parsed } => match &**parsed {
                Object::IdentityProvider(object) => {
                    let Ok(name) = ProviderName::new(&observed.object.name) else { return Ok(()) };
                    self.provider(name, object);
                }
                Object::Secret(secret) if secret.namespace.as_ref() == Some(&self.namespace) => {
                    self.apply_secret(secret, &observed.origin).await?;
                }
                _ => return Ok(()),
            },
            ResourceEvent::DeletionRequested { observed, .. } => {
                let object = &observed.object;
                match object.kind {
                    Kind::IdentityProvider => {
                        let Ok(name) = ProviderName::new(&object.name) else { return Ok(()) };
                        self.credentials.remove_provider(&name);
                    }
                    Kind::Secret if object.namespace.as_ref() == Some(&self.namespace) => {
                        self.store.remove_spec(Kind::Secret, Some(&self.namespace), &object.name).await?;
                        self.store.remove_spec(Kind::Secret, None, &object.name).await?;
                        self.credentials.remove_secret(&object.name);
                    }
                    Kind::Secret | Kind::CloudRunTarget | Kind::RoleMapping | Kind::Namespace => return Ok(()),
                }
            }
            _ => return Ok(()),
        }
        self.credentials.publish();
        Ok(())
    }

    async fn apply_secret(&mut self, secret: &SecretData, file: &str) -> Result<(), StoreError> {
        let hashes = SecretHashes::of(secret);
        let json =
            serde_json::to_string(&hashes).map_err(|error| StoreError::Internal { problem: error.to_string() })?;
        let spec = StoredSpec {
            kind: Kind::Secret,
            namespace: secret.namespace.clone(),
            name: secret.name.clone(),
            generation: 1,
            phase: MappingPhase::Live,
            source: file.to_owned(),
            json,
        };
        self.store.put_spec(spec).await?;
        // A stored Secret without a namespace is replaced by this one.
        self.store.remove_spec(Kind::Secret, None, &secret.name).await?;
        self.credentials.secret(secret.name.clone(), Ok(hashes));
        Ok(())
    }

    async fn take_until_stored(&mut self, event: &ResourceEvent, stop: &CancellationToken) {
        while let Err(error) = self.take(event).await {
            tracing::warn!(%error, "a manifest is not in force yet");
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Serves providers whose directory was accepted or purged meanwhile.
    fn review_directories(&mut self) {
        let still = self.engine.former_directories();
        let accepted: Vec<ProviderName> =
            self.credentials.held().iter().filter(|name| !still.contains(*name)).cloned().collect();
        for name in &accepted {
            self.credentials.hold(name, false);
        }
        if !accepted.is_empty() {
            self.credentials.publish();
        }
    }
}

/// Follows the folder until `stop` is canceled.
pub(super) async fn follow(
    mut controller: Controller,
    mut credentials: FolderCredentials,
    (options, known): (PollOptions, Known),
    commands: mpsc::Receiver<FolderCommand>,
    (progress, stop): (FolderProgress, CancellationToken),
) {
    let (sender, mut scans) = mpsc::channel(4);
    let polling = tokio::spawn(poll(options, known, sender, commands, stop.clone()));
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            scan = scans.recv() => {
                let Some(scan) = scan else { break };
                for event in &scan.events {
                    if controller.handle(event, &stop).await {
                        credentials.take_until_stored(event, &stop).await;
                    }
                }
                if scan.quiet {
                    progress.in_force(scan.begun);
                }
            }
            _ = tick.tick() => tokio::select! {
                () = controller.tick() => credentials.review_directories(),
                () = stop.cancelled() => break,
            },
            () = stop.cancelled() => break,
        }
    }
    // The loop may be blocked on sending to a receiver that is gone.
    drop(scans);
    drop(controller);
    if let Err(error) = polling.await {
        tracing::error!(%error, "a task that follows the manifest folder failed");
    }
}
