//! `rolecall run` with a folder of manifests: one process that serves SCIM, follows the folder and keeps the policies
//! in step.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::cluster;
use super::folder::{self, FolderCredentials};
use super::process::{AppError, Process};
use super::tokens::Credentials;
use crate::cli::{DatabaseUrl, RunConfig};
use crate::controller::Holds;
use crate::controller::checkpoint::{self, Checkpoint, CheckpointError, Checkpoints, Comparison};
use crate::model::FreezeReason;
use crate::source::folder::PollOptions;
use crate::store::{Store, Trust};
use crate::sync::Engine;

/// Interval at which the folder is scanned, the checkpoint is written and a freeze is checked.
const TICK: Duration = Duration::from_secs(1);
/// Timeout of the first read of the folder, after which the specs that were last in force are used.
const FIRST_READ: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`AppError`], when it cannot start or go on.
pub(crate) async fn run(config: RunConfig) -> Result<(), AppError> {
    let process = Process::start(config).await?;
    match process.config.manifests.clone() {
        Some(manifests) => follow_folder(process, manifests).await,
        None => cluster::run(process).await,
    }
}

async fn follow_folder(mut process: Process, manifests: std::path::PathBuf) -> Result<(), AppError> {
    let (engine, store, stop) = (process.engine.clone(), process.store.clone(), process.stop.clone());
    // From here on, a rolecall that was started earlier on the same database cannot write any more.
    let epoch = store.begin_epoch(&format!("process {} at {}", std::process::id(), process.external_url)).await?;
    tracing::info!(%epoch, "this process took over the database");
    engine.record_mode().await?;
    let specs = engine.restore().await?;
    let seq = engine.load_directory().await?;
    if let Some(uninstall) = store.uninstall_mode().await? {
        engine.begin_uninstall(uninstall).await?;
    }
    let DatabaseUrl::Sqlite(database) = &process.config.database;
    let mirrors = Checkpoints::of(&manifests, database)?;
    if let Err(error) = mirrors.make_private() {
        tracing::error!(reason = error.reason(), "{error}");
    }
    let frozen = compare(&mirrors, &store).await?;
    let (found, doubted) = (mirrors.found(), store.trust().await? == Trust::Doubted);
    if frozen.is_none() && found == [None, None] {
        // There is no checkpoint of a store: the store is new, or the checkpoint was lost with a former one.
        engine.begin_first_look().await?;
    }
    let (credentials, restored) = FolderCredentials::restore(
        engine.clone(),
        store.clone(),
        process.config.namespace.clone(),
        Credentials::new(engine.clone(), process.tokens.clone(), process.resolved.clone(), process.captures.clone()),
        &specs,
    );
    let (first, read) = oneshot::channel();
    let (forget, commands) = mpsc::channel(4);
    let controller = process.controller(Holds::Nothing(forget), restored.absent(), first);
    let options = PollOptions::new(manifests, process.config.namespace.clone());
    let options = PollOptions { missing: restored.missing, ..options };
    let following = tokio::spawn(folder::follow(
        controller,
        credentials,
        (options, restored.known),
        commands,
        (process.folder.clone(), stop.clone()),
    ));
    if tokio::time::timeout(FIRST_READ, read).await.is_err() {
        tracing::warn!("the manifest folder could not be read completely yet; what was in force before stays in force");
    }
    let mut memory = Memory::default();
    if frozen.is_none() {
        // Before the first write to Google: from here on, a replaced database is detected.
        remember(&store, &mirrors, &mut memory).await;
    }
    engine.freeze(frozen).await?;

    process.serve_scim();
    let worker = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.run(seq, stop).await }
    });

    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            // Canceled from outside, or by the engine, which has logged why; a restart gets it going again.
            () = stop.cancelled() => break,
        }
        // Detects a lost epoch even when there is nothing to write. The engine stops in that case.
        if let Err(error) = store.check_epoch().await {
            tracing::warn!(reason = error.reason(), "{error}");
        }
        if let Some(reason) = engine.frozen() {
            review_freeze(&engine, &mirrors, (found, doubted), &store, reason).await;
        }
        if engine.frozen().is_none() {
            remember(&store, &mirrors, &mut memory).await;
        }
        process.count_events().await;
    }
    process.end().await;
    for task in [worker, following] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task failed");
        }
    }
    if engine.frozen().is_none() {
        remember(&store, &mirrors, &mut memory).await;
    }
    if process.is_ending() { Ok(()) } else { Err(process.why().await) }
}

/// Compares the store with its checkpoints and with its own record of trust.
async fn compare(mirrors: &Checkpoints, store: &Store) -> Result<Option<FreezeReason>, AppError> {
    Ok(match mirrors.compare(&checkpoint::of(store).await?)? {
        Comparison::Match if store.trust().await? == Trust::Doubted => Some(FreezeReason::StoreMismatch),
        Comparison::Match => None,
        Comparison::Mismatch => Some(FreezeReason::StoreMismatch),
        Comparison::Rewound => Some(FreezeReason::StoreRewound),
    })
}

/// Ends the freeze, as [`unfreeze`] does, and reports it.
async fn review_freeze(
    engine: &Engine,
    mirrors: &Checkpoints,
    at_start: ([Option<Checkpoint>; 2], bool),
    store: &Store,
    reason: FreezeReason,
) {
    match unfreeze(engine, mirrors, at_start, store).await {
        Ok(true) => tracing::warn!(reason = %reason.reason(), "the store was accepted; the freeze is lifted"),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(reason = error.reason(), "cannot read whether the store was accepted: {error}");
        }
    }
}

/// Ends the freeze when a person has accepted the store. A matching checkpoint is not sufficient: a store that was
/// behind the checkpoints `found` at the start catches up when the IdP pushes, but still lacks what it lost. For a
/// store that was `doubted` at the start, the checkpoints do not change when it is accepted.
async fn unfreeze(
    engine: &Engine,
    mirrors: &Checkpoints,
    (found, doubted): ([Option<Checkpoint>; 2], bool),
    store: &Store,
) -> Result<bool, AppError> {
    let said = mirrors.found() != found || (doubted && store.trust().await? == Trust::Accepted);
    let accepted = said && compare(mirrors, store).await?.is_none();
    if accepted {
        engine.freeze(None).await?;
    }
    Ok(accepted)
}

/// The last written checkpoint, and the last error, which is logged once.
#[derive(Default)]
struct Memory {
    written: Option<Checkpoint>,
    failure: Option<String>,
}

impl Memory {
    /// Records the outcome of an attempt and returns what is new about it.
    fn note(&mut self, now: Checkpoint, outcome: Result<(), CheckpointError>) -> Option<Result<(), CheckpointError>> {
        match outcome {
            Ok(()) => {
                self.written = Some(now);
                self.failure.take().map(|_| Ok(()))
            }
            Err(error) => {
                let text = error.to_string();
                (self.failure.replace(text.clone()) != Some(text)).then_some(Err(error))
            }
        }
    }
}

/// Writes the position of the store to the checkpoints, so that an older copy of the store is detected.
async fn remember(store: &Store, mirrors: &Checkpoints, memory: &mut Memory) {
    let Ok(now) = checkpoint::of(store).await else { return };
    if memory.written == Some(now) {
        return;
    }
    match memory.note(now, mirrors.write(&now)) {
        None => {}
        Some(Ok(())) => {
            tracing::info!(path = %mirrors.manifests.display(), "the checkpoint of the store can be written again");
        }
        Some(Err(error)) => tracing::warn!(
            reason = error.reason(),
            "{error}; until that is fixed, an older or a lost database may not be detected"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_cannot_be_written_is_logged_once_and_again_when_it_can() {
        let now = Checkpoint { store_id: uuid::Uuid::from_u128(1), highest_seq: 1, highest_audit_seq: 1 };
        let refused = || checkpoint::write(std::path::Path::new("/nonexistent/.a.rolecall-store.json"), &now);
        let mut memory = Memory::default();
        assert!(memory.note(now, Ok(())).is_none());
        assert!(matches!(memory.note(now, refused()), Some(Err(_))));
        assert!(memory.note(now, refused()).is_none());
        assert!(matches!(memory.note(now, Ok(())), Some(Ok(()))));
        assert!(memory.note(now, Ok(())).is_none());
    }
}
