//! What the folder says, told to the engine and to the token table. What cannot be stored is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::tokens::{Credentials, SecretHashes};
use crate::api::condition::reason;
use crate::api::manifest::{Object, ObjectRef, Problem, SecretData};
use crate::api::{CloudRunTarget, IdentityProvider, RoleMapping};
use crate::model::{Clock, FreezeReason, MappingKey, ProviderName, TargetName};
use crate::source::folder::{FolderChange, FolderCommand, Known, KnownObject, PollOptions, Suspicion, poll};
use crate::store::{Decision, SpecState, Store, StoreError, StoredSpec};
use crate::sync::{Engine, IntakeError, ObjectProblem, Provenance};

/// The kind under which hashes of tokens are stored.
const SECRET: &str = "Secret";
/// How long to wait before what the store did not take is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often somebody may have released what vanished.
const RELEASES: Duration = Duration::from_secs(1);

/// The folder's side of the process.
pub(super) struct Folder {
    engine: Engine,
    store: Store,
    clock: Arc<dyn Clock>,
    namespace: String,
    credentials: Credentials,
    /// Objects whose text has a problem, by file.
    kept: BTreeMap<String, BTreeSet<ObjectRef>>,
    missing: BTreeSet<ObjectRef>,
    /// Why absence is not taken for deletion now, if so.
    why: Option<Suspicion>,
    /// Was the folder judged since the start? Before that, what is missing is not known.
    loaded: bool,
}

impl Folder {
    /// What was in force when rolecall last ran, tokens included.
    pub(super) fn new(
        engine: Engine,
        store: Store,
        clock: Arc<dyn Clock>,
        namespace: String,
        credentials: Credentials,
        specs: &[StoredSpec],
    ) -> (Self, Known) {
        let mut folder = Self {
            engine,
            store,
            clock,
            namespace,
            credentials,
            kept: BTreeMap::new(),
            missing: BTreeSet::new(),
            why: None,
            loaded: false,
        };
        let mut known = BTreeMap::new();
        let mut vanished = false;
        for spec in specs.iter().filter(|spec| spec.state != SpecState::Ending) {
            let mut namespace = spec.namespace.clone();
            if spec.kind == SECRET && namespace.get_or_insert_with(|| folder.namespace.clone()) != &folder.namespace {
                // Read when the operator had another namespace.
                continue;
            }
            vanished |= spec.state == SpecState::Vanished;
            let object = ObjectRef { kind: spec.kind.clone(), namespace, name: spec.name.clone() };
            let hash = match folder.recall(spec) {
                Some(hash) if spec.state == SpecState::Active => Some(hash),
                _ => None,
            };
            if spec.state == SpecState::Vanished {
                folder.missing.insert(object.clone());
            }
            known.insert(object, KnownObject { file: spec.source.clone(), hash });
        }
        folder.credentials.publish();
        (folder, Known::new(known, vanished))
    }

    /// Takes tokens and providers over from a stored spec; answers the hash of what it says.
    fn recall(&mut self, spec: &StoredSpec) -> Option<[u8; 32]> {
        match spec.kind.as_str() {
            SECRET => {
                let hashes = serde_json::from_str(&spec.json).ok()?;
                self.credentials.secret(spec.name.clone(), Ok(hashes));
                None
            }
            "IdentityProvider" => {
                let object: IdentityProvider = serde_json::from_str(&spec.json).ok()?;
                let name = ProviderName::new(&spec.name).ok()?;
                self.credentials.hold(&name, self.engine.former_directories().contains(&name));
                self.credentials.provider(name, object.spec.clone());
                Some(Object::IdentityProvider(Box::new(object)).hash())
            }
            "CloudRunTarget" => {
                let object: CloudRunTarget = serde_json::from_str(&spec.json).ok()?;
                Some(Object::CloudRunTarget(Box::new(object)).hash())
            }
            "RoleMapping" => {
                let object: RoleMapping = serde_json::from_str(&spec.json).ok()?;
                Some(Object::RoleMapping(Box::new(object)).hash())
            }
            _ => None,
        }
    }

    /// Follows the folder until `stop` is cancelled. `loaded` is told when it was read for the first time.
    pub(super) async fn follow(
        mut self,
        options: PollOptions,
        known: Known,
        loaded: oneshot::Sender<()>,
        stop: CancellationToken,
    ) {
        let (changes, mut batches) = mpsc::channel(4);
        let (commands, orders) = mpsc::channel(4);
        let looking = tokio::spawn(poll(options, known, changes, orders, stop.clone()));
        let mut loaded = Some(loaded);
        let mut releases = tokio::time::interval(RELEASES);
        loop {
            tokio::select! {
                batch = batches.recv() => {
                    let Some(batch) = batch else { break };
                    for change in batch {
                        if change == FolderChange::Loaded
                            && let Some(loaded) = loaded.take()
                        {
                            // Nobody waits for it any more when the process is ending.
                            let _ = loaded.send(());
                        }
                        self.take_until_stored(change, &stop).await;
                    }
                }
                _ = releases.tick() => {
                    self.review_directories().await;
                    let forgotten = self.releases().await;
                    if !forgotten.is_empty() {
                        tokio::select! {
                            sent = commands.send(FolderCommand::Forget(forgotten)) => if sent.is_err() { break },
                            () = stop.cancelled() => break,
                        }
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        // The loop may be waiting to send what nobody will take any more.
        drop(batches);
        drop(commands);
        if let Err(error) = looking.await {
            tracing::error!(%error, "following the manifest folder ended badly");
        }
    }

    async fn take_until_stored(&mut self, change: FolderChange, stop: &CancellationToken) {
        while let Err(error) = self.take(&change).await {
            if !matches!(error, IntakeError::Store(_)) {
                tracing::error!(%error, "a manifest was not taken in");
                return;
            }
            tracing::warn!(%error, "a manifest is not in force yet");
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn take(&mut self, change: &FolderChange) -> Result<(), IntakeError> {
        match change {
            FolderChange::Apply { object, file, .. } => self.apply(object, file).await,
            FolderChange::Unreadable { file, problems, keeps } => {
                self.report(file, problems, keeps);
                Ok(())
            }
            FolderChange::Readable { file } => {
                for object in self.kept.remove(file).unwrap_or_default() {
                    self.tell(&object, None);
                }
                Ok(())
            }
            FolderChange::Deleted { object, .. } => self.delete(object).await,
            FolderChange::Suspicious { why, missing } => {
                self.why = Some(*why);
                for object in self.missing.difference(missing).cloned().collect::<Vec<_>>() {
                    self.revive(&object).await?;
                }
                for key in missing.iter().filter_map(mapping_key) {
                    self.engine.vanish_mapping(&key, FreezeReason::ManifestsMissing).await?;
                }
                self.missing.clone_from(missing);
                Ok(())
            }
            FolderChange::Healthy => {
                self.why = None;
                for object in std::mem::take(&mut self.missing) {
                    self.revive(&object).await?;
                }
                Ok(())
            }
            FolderChange::Loaded => {
                self.loaded = true;
                Ok(())
            }
        }
    }

    async fn revive(&self, object: &ObjectRef) -> Result<(), IntakeError> {
        match mapping_key(object) {
            Some(key) => self.engine.revive_mapping(&key).await,
            None => Ok(()),
        }
    }

    async fn apply(&mut self, object: &Object, file: &str) -> Result<(), IntakeError> {
        match object {
            Object::IdentityProvider(object) => {
                let name = ProviderName::new(object.metadata.name.as_deref().unwrap_or_default())?;
                self.engine.apply_provider((**object).clone(), Provenance::file(file)).await?;
                self.credentials.hold(&name, self.engine.former_directories().contains(&name));
                self.credentials.provider(name, object.spec.clone());
                self.credentials.publish();
                Ok(())
            }
            Object::CloudRunTarget(object) => {
                self.engine.apply_target((**object).clone(), Provenance::file(file)).await
            }
            Object::RoleMapping(object) => self.engine.apply_mapping((**object).clone(), Provenance::file(file)).await,
            Object::Secret(secret) => Ok(self.apply_secret(secret, file).await?),
        }
    }

    async fn apply_secret(&mut self, secret: &SecretData, file: &str) -> Result<(), StoreError> {
        if secret.namespace.as_ref() != Some(&self.namespace) {
            return Ok(());
        }
        let hashes = SecretHashes::of(secret);
        let json =
            serde_json::to_string(&hashes).map_err(|error| StoreError::Internal { problem: error.to_string() })?;
        let spec = StoredSpec {
            kind: SECRET.to_owned(),
            namespace: secret.namespace.clone(),
            name: secret.name.clone(),
            generation: 1,
            state: SpecState::Active,
            source: file.to_owned(),
            json,
        };
        self.store.put_spec(spec).await?;
        // Where one is kept that named no namespace, this replaces it.
        self.store.remove_spec(SECRET, None, &secret.name).await?;
        self.credentials.secret(secret.name.clone(), Ok(hashes));
        self.credentials.publish();
        Ok(())
    }

    async fn delete(&mut self, object: &ObjectRef) -> Result<(), IntakeError> {
        match object.kind.as_str() {
            "RoleMapping" => {
                if let Some(key) = mapping_key(object) {
                    self.engine.delete_mapping(&key).await?;
                }
            }
            "CloudRunTarget" => self.engine.remove_target(&TargetName::new(&object.name)?).await?,
            "IdentityProvider" => {
                let name = ProviderName::new(&object.name)?;
                // A manifest has no uid: one of the same name that comes later may be anybody's.
                self.store.leave_directory(&name).await?;
                self.engine.remove_provider(&name).await?;
                self.credentials.remove_provider(&name);
                self.credentials.publish();
            }
            _ if object.namespace.as_ref() != Some(&self.namespace) => {}
            _ => {
                self.store.remove_spec(SECRET, Some(&self.namespace), &object.name).await?;
                self.store.remove_spec(SECRET, None, &object.name).await?;
                self.credentials.remove_secret(&object.name);
                self.credentials.publish();
            }
        }
        Ok(())
    }

    fn report(&mut self, file: &str, problems: &[Problem], keeps: &BTreeSet<ObjectRef>) {
        for problem in problems.iter().take(20) {
            tracing::warn!("{problem}");
        }
        let before = self.kept.insert(file.to_owned(), keeps.clone()).unwrap_or_default();
        for object in before.difference(keeps) {
            self.tell(object, None);
        }
        let Some(first) = problems.first() else { return };
        let more = match problems.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let word =
            if first.reason == reason::DUPLICATE_OBJECT { reason::DUPLICATE_OBJECT } else { reason::INVALID_MANIFEST };
        for object in keeps {
            let problem = ObjectProblem { reason: word, message: format!("{first}{more}"), since: self.clock.now() };
            self.tell(object, Some(problem));
        }
    }

    fn tell(&self, object: &ObjectRef, problem: Option<ObjectProblem>) {
        match object.kind.as_str() {
            "RoleMapping" => {
                if let Some(key) = mapping_key(object) {
                    self.engine.report_mapping(&key, problem);
                }
            }
            "CloudRunTarget" => {
                if let Ok(name) = TargetName::new(&object.name) {
                    self.engine.report_target(&name, problem);
                }
            }
            "IdentityProvider" => {
                if let Ok(name) = ProviderName::new(&object.name) {
                    self.engine.report_provider(&name, problem);
                }
            }
            _ => {}
        }
    }

    /// Carries out what `rolecall release` left in the store; answers what the folder is to forget.
    async fn releases(&mut self) -> BTreeSet<ObjectRef> {
        let mut released = BTreeSet::new();
        // Until the folder was judged, nobody knows what it lacks.
        if self.loaded
            && let Err(error) = self.follow_decisions(&mut released).await
        {
            tracing::warn!(%error, "cannot follow releases");
        }
        released
    }

    /// A mapping whose manifest is there is left alone. What was not carried out because of an error is found again.
    async fn follow_decisions(&mut self, released: &mut BTreeSet<ObjectRef>) -> Result<(), IntakeError> {
        for pending in self.store.decisions().await? {
            let meant = match &pending.decision {
                Decision::ReleasePlan(hash) => {
                    if self.engine.release_plan(hash).await? {
                        tracing::info!(plan.hash = %hash, "removals that were held are released");
                    } else if self.engine.is_settling() {
                        // What is held is not known again yet.
                        continue;
                    } else {
                        tracing::warn!(plan.hash = %hash, "nothing is held under this hash; the release is dropped");
                    }
                    self.store.remove_decision(pending.id).await?;
                    continue;
                }
                Decision::Uninstall(uninstall) => {
                    if self.engine.begin_uninstall(*uninstall).await? == 0 {
                        self.store.put_decision(Decision::Uninstalled, self.clock.now()).await?;
                    }
                    continue;
                }
                Decision::Uninstalled => continue,
                Decision::AcceptStore => {
                    tracing::warn!(
                        "a folder is accepted with `rolecall store accept --manifests DIR`; that is dropped"
                    );
                    self.store.remove_decision(pending.id).await?;
                    continue;
                }
                // Kept, it would act on whatever the folder lacks when it is back, which nobody has looked at.
                Decision::ReleaseManifests if self.why == Some(Suspicion::FolderMissing) => {
                    tracing::warn!(
                        "a release of the manifests is refused: the folder cannot be read; release again when it can"
                    );
                    BTreeSet::new()
                }
                Decision::ReleaseManifests => self.vanished(|_| true),
                Decision::ReleaseMapping(mapping) => self.vanished(|key| key == mapping),
            };
            if meant.is_empty() {
                tracing::warn!(decision = ?pending.decision, "a release has nothing to end and is dropped");
            }
            for (object, key) in meant {
                tracing::info!(mapping.name = %key, "{key} was released: its grants end");
                self.engine.approve_removal(&key).await?;
                self.missing.remove(&object);
                released.insert(object);
            }
            self.store.remove_decision(pending.id).await?;
        }
        Ok(())
    }

    /// Serves providers whose directory was accepted or purged meanwhile.
    async fn review_directories(&mut self) {
        let held = self.engine.former_directories();
        if held.is_empty() {
            return;
        }
        if let Err(error) = self.engine.review_directories().await {
            tracing::warn!(%error, "cannot look whether the directory of a provider was accepted");
        }
        let still = self.engine.former_directories();
        for name in held.difference(&still) {
            self.credentials.hold(name, false);
        }
        if still != held {
            self.credentials.publish();
        }
    }

    fn vanished(&self, meant: impl Fn(&MappingKey) -> bool) -> BTreeSet<(ObjectRef, MappingKey)> {
        let mappings = self.missing.iter().filter_map(|object| Some((object.clone(), mapping_key(object)?)));
        mappings.filter(|(_, key)| meant(key)).collect()
    }
}

fn mapping_key(object: &ObjectRef) -> Option<MappingKey> {
    if object.kind != "RoleMapping" {
        return None;
    }
    MappingKey::new(object.namespace.as_deref().unwrap_or("default"), &object.name).ok()
}
