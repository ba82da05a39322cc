//! `rolecall run` in a cluster: the custom resources come from its API server, and statuses are written there.
//!
//! ```text
//! every process    IdentityProviders, their Secrets ─► tokens ─► SCIM
//! the leader       the same events, other resources, namespaces ─► controller ─► engine ─► cache ─► statuses, Events
//! ```
//!
//! A process that loses the leadership exits. It is then restarted without in-memory state that another leader has made
//! outdated meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::{Client, Config};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::process::{AppError, Process};
use super::tokens::{Credentials, SecretHashes};
use crate::api::manifest::{Object, ObjectRef};
use crate::controller::checkpoint::{self, Checkpoint};
use crate::controller::{
    ClusterCheckpoint, Compared, FinalizerRules, Finalizers, Holds, LeaderState, accept_store, campaign,
};
use crate::model::{FreezeReason, Kind, ProviderName, Reason, Seq};
use crate::source::cluster::{SecretAbsence, SecretChange, follow, follow_secrets};
use crate::source::{ResourceEvent, SharedWatch};
use crate::status::{StatusCache, WriteCount, write_statuses};
use crate::store::{Store, Trust};
use crate::sync::{Engine, owner_of};

/// Interval at which the checkpoint is written and a freeze is checked.
const TICK: Duration = Duration::from_secs(1);
/// Delay before a failed call to the API server is retried.
const AGAIN: Duration = Duration::from_secs(1);
/// Interval between "still waiting" log lines.
const SAY: Duration = Duration::from_secs(15);
/// Timeout of the last writes to the API server before the next step.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Time without a sign of life after which another rolecall is considered gone: longer than an upgrade takes.
const GONE: Duration = Duration::from_mins(5);
/// Interval between checks whether another rolecall is still active.
const LOOK: Duration = Duration::from_secs(10);
/// Idle time after which a connection is closed; longer than a watch call lasts.
const SILENCE: Duration = Duration::from_secs(45);
/// Timeout of the first read of the Secrets, after which SCIM is served anyway.
const FIRST_SECRETS: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT, or until the Lease is lost.
pub(super) async fn run(mut process: Process) -> Result<(), AppError> {
    let client = client().await?;
    let identity = identity(&process);
    let stop = process.stop.clone();

    // One watch for the tokens of every process, and for the controller of the leader.
    let (sender, events) = mpsc::channel(64);
    let watching = tokio::spawn(follow(client.clone(), Kind::IdentityProvider, sender, stop.clone()));
    let (providers, sharing) = SharedWatch::start(Kind::IdentityProvider, events, stop.clone());
    let credentials = {
        let (loaded, first) = oneshot::channel();
        let following = CredentialsFollower {
            store: process.store.clone(),
            credentials: Credentials::new(
                process.engine.clone(),
                process.tokens.clone(),
                process.resolved.clone(),
                process.captures.clone(),
            ),
            uids: BTreeMap::new(),
            answered: BTreeSet::new(),
            listed_at: None,
        };
        let namespace = process.config.namespace.clone();
        let task = tokio::spawn(following.follow(client.clone(), namespace, providers.clone(), loaded, stop.clone()));
        wait_for(first, &stop, || {
            tracing::warn!(
                "waiting for the IdentityProviders of the cluster; no token is accepted until they are read"
            );
        })
        .await;
        // Without this watch, a revoked token would stay accepted.
        let ended = stop.clone();
        tokio::spawn(async move {
            let result = task.await;
            ended.cancel();
            result
        })
    };
    process.serve_scim();
    let standing_by = tokio::time::Instant::now();
    // Outlives `stop`: the Lease is released only after all workers have finished.
    let candidacy = CancellationToken::new();
    let (mut leadership, election) =
        campaign(client.clone(), process.config.namespace.clone(), identity.clone(), candidacy.clone());
    let led = loop {
        if *leadership.borrow_and_update() == LeaderState::Leader {
            break true;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { break false },
            () = stop.cancelled() => break false,
        }
    };
    let result = if led && !stop.is_cancelled() {
        tracing::info!(
            holder = %identity, waited = ?standing_by.elapsed(),
            "leading since {:.1?} after the start: custom resources are followed and policies kept in step", standing_by.elapsed()
        );
        lead(&process, client, &providers, &identity, leadership).await
    } else {
        Ok(())
    };
    process.end().await;
    candidacy.cancel();
    if let Ok(Err(error)) | Err(error) = credentials.await {
        tracing::error!(%error, "the task that follows the credentials failed");
    }
    for task in [watching, sharing] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a watch task failed");
        }
    }
    if let Err(error) = election.await {
        tracing::error!(%error, "the task of the leader election failed");
    }
    match result {
        Ok(()) if !process.is_ending() => Err(process.why().await),
        result => result,
    }
}

async fn client() -> Result<Client, AppError> {
    let mut config = Config::infer().await.map_err(|error| AppError::NoCluster(error.to_string()))?;
    config.read_timeout = Some(SILENCE);
    tracing::info!(cluster = %config.cluster_url, "the custom resources are those of the cluster at {}", config.cluster_url);
    Client::try_from(config).map_err(|error| AppError::NoCluster(error.to_string()))
}

/// The identity of this process. Also unique over restarts, so that a new process is not mistaken for a former leader.
fn identity(process: &Process) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    let pod = process.config.pod_name.clone().or_else(|| host().ok()).unwrap_or_else(|| "rolecall".to_owned());
    format!("{pod}_{}", uuid::Uuid::new_v4().simple())
}

/// Waits for a message, with log lines meanwhile. Returns whether it arrived.
async fn wait_for(mut message: oneshot::Receiver<()>, stop: &CancellationToken, say: impl Fn()) -> bool {
    loop {
        tokio::select! {
            came = &mut message => return came.is_ok(),
            () = tokio::time::sleep(SAY) => say(),
            () = stop.cancelled() => return false,
        }
    }
}

/// Follows the `IdentityProvider`s and their Secrets, and updates the accepted tokens.
struct CredentialsFollower {
    store: Store,
    credentials: Credentials,
    uids: BTreeMap<ProviderName, Option<String>>,
    /// The Secrets about which the API server has reported anything.
    answered: BTreeSet<String>,
    /// Time of the first list of the `IdentityProvider`s.
    listed_at: Option<tokio::time::Instant>,
}

impl CredentialsFollower {
    async fn follow(
        mut self,
        client: Client,
        namespace: String,
        shared: SharedWatch,
        loaded: oneshot::Sender<()>,
        stop: CancellationToken,
    ) {
        let (sender, mut providers) = mpsc::channel(64);
        shared.subscribe(sender).await;
        let (tell_secret, mut secrets) = mpsc::channel(64);
        let (want, wanted) = watch::channel(BTreeSet::new());
        let reading = tokio::spawn(follow_secrets(client, namespace, wanted, tell_secret, stop.clone()));
        let mut loaded = Some(loaded);
        // An interval, since a sleep would start again with each change and might never end.
        let mut look = tokio::time::interval(TICK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = providers.recv() => match event {
                    Some(event) => self.provider(event).await,
                    // The watch ended.
                    None => break,
                },
                Some(change) = secrets.recv() => self.secret(change),
                () = tokio::time::sleep(Duration::from_millis(200)), if loaded.is_some() => {}
                _ = look.tick(), if !self.credentials.held().is_empty() => self.review_held().await,
                () = stop.cancelled() => break,
            }
            let named = self.credentials.named_secrets();
            let read = named.is_subset(&self.answered);
            want.send_if_modified(|wanted| {
                let changed = *wanted != named;
                *wanted = named;
                changed
            });
            self.credentials.publish();
            if self.listed_at.is_some_and(|at| read || at.elapsed() > FIRST_SECRETS)
                && let Some(loaded) = loaded.take()
            {
                // The receiver is gone when the process is shutting down.
                let _ = loaded.send(());
            }
        }
        reading.abort();
        if let Err(error) = reading.await
            && !error.is_cancelled()
        {
            tracing::error!(%error, "a watch task failed");
        }
    }

    async fn provider(&mut self, event: ResourceEvent) {
        match event {
            ResourceEvent::Applied { observed, parsed } => {
                if let (Object::IdentityProvider(object), Ok(name)) =
                    (&*parsed, ProviderName::new(&observed.object.name))
                {
                    let uid = object.metadata.uid.clone();
                    self.credentials.hold(&name, !owns_directory(&self.store, &name, uid.as_deref()).await);
                    self.credentials.provider(name.clone(), object.spec.clone());
                    self.uids.insert(name, uid);
                }
            }
            ResourceEvent::Absent { object, .. } => {
                if let Ok(name) = ProviderName::new(&object.name) {
                    self.credentials.remove_provider(&name);
                }
            }
            ResourceEvent::Listed { objects, .. } => {
                let name = |object: &ObjectRef| ProviderName::new(&object.name).ok();
                self.credentials.only_providers(&objects.iter().filter_map(name).collect());
                self.listed_at.get_or_insert_with(tokio::time::Instant::now);
            }
            ResourceEvent::Failing { kind, problem } => {
                let what = kind.plural();
                tracing::warn!(%what, %problem, "cannot watch {what}; retrying");
            }
            // A provider that cannot be read keeps its last valid version.
            ResourceEvent::Rejected { .. }
            | ResourceEvent::DeletionRequested { .. }
            | ResourceEvent::Restated(_)
            | ResourceEvent::Recovered(_)
            | ResourceEvent::ProblemCleared(_)
            | ResourceEvent::NamespaceLabels { .. }
            | ResourceEvent::Suspicious(_)
            | ResourceEvent::Loaded => {}
        }
    }

    fn secret(&mut self, change: SecretChange) {
        match change {
            SecretChange::Data(secret) => {
                self.answered.insert(secret.name.clone());
                self.credentials.secret(secret.name.clone(), Ok(SecretHashes::of(&secret)));
            }
            SecretChange::Absent { name, why } => {
                self.answered.insert(name.clone());
                match why {
                    SecretAbsence::NotFound => self.credentials.remove_secret(&name),
                    SecretAbsence::Forbidden => self.credentials.secret(name, Err(Reason::TokenSecretForbidden)),
                }
            }
        }
    }

    /// Checks whether the directories of former providers were accepted or purged meanwhile.
    async fn review_held(&mut self) {
        for name in self.credentials.held().clone() {
            let uid = self.uids.get(&name).cloned().flatten();
            self.credentials.hold(&name, !owns_directory(&self.store, &name, uid.as_deref()).await);
        }
    }
}

/// True when the people stored under this name belong to this object. False when the store cannot be read.
async fn owns_directory(store: &Store, name: &ProviderName, uid: Option<&str>) -> bool {
    match store.claim_directory(name, owner_of(uid)).await {
        Ok(ours) => ours,
        Err(error) => {
            tracing::warn!(%error, provider = %name, "cannot read the owner of the directory of {name}; no request is served until that succeeds");
            false
        }
    }
}

/// Takes over the store, restores what is stored, and compares the store with its checkpoint in the cluster. None: the
/// process is shutting down.
async fn take_over(
    process: &Process,
    memory: &ClusterCheckpoint,
    identity: &str,
    over: &CancellationToken,
) -> Result<Option<(Compared, Seq)>, AppError> {
    let (engine, store) = (&process.engine, &process.store);
    store.begin_epoch(identity).await?;
    process.metrics.cluster.leader.set([], 1);
    engine.record_mode().await?;
    engine.restore().await?;
    let seq = engine.load_directory().await?;
    if let Some(uninstall) = store.uninstall_mode().await? {
        engine.begin_uninstall(uninstall).await?;
    }
    let Some(mut found) = compare(memory, store, over).await? else { return Ok(None) };
    if found.freeze.is_none() && store.trust().await? == Trust::Doubted {
        found.freeze = Some(FreezeReason::StoreMismatch);
    } else if found.first {
        // There is no checkpoint of a store: the store is new, or the checkpoint was lost with a former one.
        engine.begin_first_look().await?;
    }
    if let Some(why) = found.freeze {
        tracing::error!(
            reason = %why.reason(),
            other = found.other.as_deref().unwrap_or("none"),
            "{}; {}",
            why.message(),
            match &found.other {
                Some(other) => format!("the IdentityProviders are served by a rolecall in the namespace {other}"),
                None => "`rolecall store accept` says that this store is right".to_owned(),
            }
        );
    }
    Ok(Some((found, seq)))
}

/// Starts the watches of everything but the providers, and returns the events of all of them.
async fn watch_resources(
    tasks: &mut tokio::task::JoinSet<()>,
    client: &Client,
    providers: &SharedWatch,
    over: &CancellationToken,
) -> mpsc::Receiver<ResourceEvent> {
    let (sender, events) = mpsc::channel(256);
    for what in [Kind::CloudRunTarget, Kind::RoleMapping, Kind::Namespace] {
        tasks.spawn(follow(client.clone(), what, sender.clone(), over.clone()));
    }
    // When that watch ends, the task of the credentials ends, and the process with it.
    // They pass through a queue of their own: a full queue would let the other watches send first every time.
    let (tell_provider, mut of_providers) = mpsc::channel(64);
    providers.subscribe(tell_provider).await;
    tasks.spawn(async move {
        while let Some(event) = of_providers.recv().await {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    events
}

/// Leads until the process is asked to shut down or the Lease is lost.
async fn lead(
    process: &Process,
    client: Client,
    providers: &SharedWatch,
    identity: &str,
    mut leadership: watch::Receiver<LeaderState>,
) -> Result<(), AppError> {
    let (engine, store, stop) = (&process.engine, &process.store, &process.stop);
    let began = tokio::time::Instant::now();
    // Canceled with `stop` or by the loss of the Lease; all tasks of this leadership end with it.
    let over = stop.child_token();
    let memory = ClusterCheckpoint::new(client.clone(), &process.config.namespace);
    let Some((found, seq)) = take_over(process, &memory, identity, &over).await? else { return Ok(()) };
    let other = Arc::new(AtomicBool::new(found.other.is_some()));
    let mut tasks = tokio::task::JoinSet::new();
    let events = watch_resources(&mut tasks, &client, providers, &over).await;
    let (loaded, first) = oneshot::channel();
    let rules = FinalizerRules {
        deadline: process.config.finalizer_deadline,
        other: other.clone(),
        believed: found.freeze.is_none(),
    };
    let holds = Holds::Finalizer(Finalizers::Cluster(client.clone()), rules);
    let controller = process.controller(holds, BTreeSet::new(), loaded);
    tasks.spawn(controller.follow(events, over.clone()));
    let read = tokio::select! {
        read = wait_for(first, &over, || {
            tracing::warn!("waiting for all resources of the cluster; nothing is written to Google until they are read");
        }) => read,
        () = lost(&mut leadership) => {
            over.cancel();
            return Err(AppError::LeaseLost);
        }
    };
    if !read {
        // A part of the resources would look like withdrawn delegations.
        over.cancel();
        return if process.is_ending() { Ok(()) } else { Err(process.why().await) };
    }
    // Before the first write to Google: from here on, a replaced database is detected.
    let mut written = if found.freeze.is_none() { remember(&memory, store, None).await } else { None };
    engine.freeze(found.freeze).await?;
    let parts = (process.cache.clone(), engine.clone());
    let writes = process.metrics.cluster.status_writes.clone();
    let count: WriteCount = Arc::new(move |outcome| writes.inc([outcome]));
    tasks.spawn(show(client, memory.clone(), parts, (found, other), (identity.to_owned(), count), over.clone()));
    let worker = tokio::spawn({
        let (engine, over, stop) = (engine.clone(), over.clone(), stop.clone());
        async move {
            engine.run(seq, over.clone()).await;
            // The engine stopped by itself and logged why, or the leadership is over, which was logged too.
            stop.cancel();
        }
    });
    tracing::info!(took = ?began.elapsed(), "all resources are read; at work {:.1?} after the Lease", began.elapsed());

    let result = loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = lost(&mut leadership) => break Err(AppError::LeaseLost),
            // A leader that receives no changes must not lead.
            Some(ended) = tasks.join_next() => if !over.is_cancelled() {
                let error = ended.err().map(tracing::field::display);
                tracing::error!(error, "a task that follows the cluster stopped unexpectedly");
                break Err(AppError::EngineEnded);
            },
            () = over.cancelled() => break if process.is_ending() { Ok(()) } else { Err(process.why().await) },
        }
        // Detects a lost epoch even when there is nothing to write. The engine stops in that case.
        if let Err(error) = store.check_epoch().await {
            tracing::warn!(reason = error.reason(), "{error}");
        }
        // The checkpoint in the cluster is written before anything else.
        if let Err(error) = accept_store(engine, store, async || remember(&memory, store, None).await.is_some()).await {
            tracing::warn!(%error, "cannot read whether the store was accepted");
        }
        if engine.frozen().is_none() {
            written = remember(&memory, store, written).await;
        }
        process.count_events().await;
    };
    over.cancel();
    if let Err(error) = worker.await {
        tracing::error!(%error, "the engine failed");
    }
    // Tasks that wait for an unresponsive API server are not waited for any longer.
    let _ = tokio::time::timeout(LAST_WORDS, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
    if result.is_ok() && engine.frozen().is_none() {
        remember(&memory, store, written).await;
    }
    result
}

async fn lost(leadership: &mut watch::Receiver<LeaderState>) {
    loop {
        if *leadership.borrow_and_update() == LeaderState::Lost || leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Compares the store with the cluster's checkpoint, as soon as the cluster answers. None: the process is shutting
/// down.
async fn compare(
    memory: &ClusterCheckpoint,
    store: &Store,
    over: &CancellationToken,
) -> Result<Option<Compared>, AppError> {
    loop {
        match memory.compare(&checkpoint::of(store).await?, store.is_new().await?).await {
            Ok(compared) => return Ok(Some(compared)),
            Err(error) => {
                tracing::warn!(%error, "cannot read the checkpoint of the store in the cluster; nothing is written until that succeeds");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = over.cancelled() => return Ok(None),
        }
    }
}

/// Writes the position of the store, so that an older copy of it is detected. Returns the written checkpoint.
async fn remember(memory: &ClusterCheckpoint, store: &Store, written: Option<Checkpoint>) -> Option<Checkpoint> {
    let Ok(now) = checkpoint::of(store).await else { return written };
    if written == Some(now) {
        return written;
    }
    let answer = tokio::time::timeout(LAST_WORDS, memory.write(&now)).await;
    match answer.unwrap_or_else(|elapsed| Err(kube::Error::Service(Box::new(elapsed)))) {
        Ok(()) => Some(now),
        Err(error) => {
            tracing::warn!(%error, "cannot write the checkpoint of the store; until that succeeds, an older store would not be detected");
            written
        }
    }
}

/// Writes statuses to the cluster. While the rolecall of another namespace works on the same resources and this one is
/// frozen because of that, the other one writes the statuses.
async fn show(
    client: Client,
    memory: ClusterCheckpoint,
    (cache, engine): (StatusCache, Engine),
    (found, alive): (Compared, Arc<AtomicBool>),
    (identity, count): (String, WriteCount),
    over: CancellationToken,
) {
    if let Some(other) = found.other {
        let mut reported = false;
        let (mut sign, mut seen) = (None, tokio::time::Instant::now());
        while engine.frozen().is_some() && seen.elapsed() < GONE {
            match memory.sign_of_life(&other).await {
                Ok(now) if now.is_none() || now == sign => {}
                Ok(now) => (sign, seen) = (now, tokio::time::Instant::now()),
                // If its Lease cannot be read, the other rolecall is assumed to be active.
                Err(_) => seen = tokio::time::Instant::now(),
            }
            if !reported {
                reported = true;
                tracing::error!(
                    reason = %FreezeReason::StoreMismatch.reason(), namespace = %other,
                    "another rolecall in the namespace {other} is at work on the same resources: this one grants and \
                     removes nothing, and writes no status; uninstall one of the two"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = over.cancelled() => return,
            }
        }
        alive.store(false, Ordering::Release);
    }
    write_statuses(client, identity, cache, count, over).await;
}
