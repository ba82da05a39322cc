//! `rolecall run`: one process that serves SCIM, follows the resources of a folder or a cluster and keeps the policies in
//! step. Here: the folder.

use std::time::Duration;

use tokio::sync::oneshot;

use super::checkpoint::{self, Checkpoint, CheckpointError, Checkpoints, Comparison};
use super::cluster;
use super::folder::Folder;
use super::process::{AppError, Process};
use super::tokens::Credentials;
use crate::cli::{DatabaseUrl, RunConfig};
use crate::model::FreezeReason;
use crate::source::folder::PollOptions;
use crate::store::{Store, Trust};
use crate::sync::Engine;

/// How often the folder is looked at, the mirror written and a freeze looked at again.
const TICK: Duration = Duration::from_secs(1);
/// How long the first read of the folder may take before what was in force at the last end is worked with.
const FIRST_READ: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`AppError`], when it cannot start or go on.
pub async fn run(config: RunConfig) -> Result<(), AppError> {
    let process = Process::start(config).await?;
    match process.config.manifests.clone() {
        Some(manifests) => follow_folder(process, manifests).await,
        None => cluster::run(process).await,
    }
}

async fn follow_folder(mut process: Process, manifests: std::path::PathBuf) -> Result<(), AppError> {
    let (engine, store, stop) = (process.engine.clone(), process.store.clone(), process.stop.clone());
    // From here on a rolecall that was started before this one on the same database can write nothing any more.
    let epoch = store.begin_epoch(&format!("process {} at {}", std::process::id(), process.external_url)).await?;
    tracing::info!(%epoch, "this process took over the database");
    engine.record_mode().await?;
    let specs = engine.restore().await?;
    let seq = engine.load_directory().await?;
    if let Some(uninstall) = store.farewell().await? {
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
        // Nothing remembers a store: it is new, or its memory was lost with it.
        engine.begin_first_look().await?;
    }
    let (folder, known) = Folder::new(
        engine.clone(),
        store.clone(),
        process.clock.clone(),
        process.config.namespace.clone(),
        Credentials::new(engine.clone(), process.tokens.clone(), process.resolved.clone()),
        &specs,
    );
    let (first, read) = oneshot::channel();
    let options = PollOptions::new(manifests, process.config.namespace.clone());
    let following = tokio::spawn(folder.follow(options, known, first, stop.clone()));
    if tokio::time::timeout(FIRST_READ, read).await.is_err() {
        tracing::warn!("the manifest folder could not be read completely yet; what was in force before stays in force");
    }
    let mut memory = Memory::default();
    if frozen.is_none() {
        // Before the first write to Google: from here on another database would be noticed.
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
            // Told to end; or the engine stopped by itself and said why, and ending is what gets it started again.
            () = stop.cancelled() => break,
        }
        // So that who has nothing to write hears of it too. The engine ends when it is so.
        if let Err(error) = store.check_epoch().await {
            tracing::warn!(reason = error.reason(), "{error}");
        }
        if let Some(reason) = engine.frozen() {
            match unfreeze(&engine, &mirrors, (found, doubted), &store).await {
                Ok(true) => tracing::warn!(reason = reason.reason(), "the store was accepted; the freeze is lifted"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(reason = error.reason(), "cannot look whether the store was accepted: {error}");
                }
            }
        }
        if engine.frozen().is_none() {
            remember(&store, &mirrors, &mut memory).await;
        }
        process.count_events().await;
    }
    process.end().await;
    for task in [worker, following] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task ended badly");
        }
    }
    if engine.frozen().is_none() {
        remember(&store, &mirrors, &mut memory).await;
    }
    if process.is_ending() { Ok(()) } else { Err(process.why().await) }
}

/// Compares the store with what was seen of it, and with what it says of itself.
async fn compare(mirrors: &Checkpoints, store: &Store) -> Result<Option<FreezeReason>, AppError> {
    Ok(match mirrors.compare(&checkpoint::of(store).await?)? {
        Comparison::Match if store.trust().await? == Trust::Doubted => Some(FreezeReason::StoreMismatch),
        Comparison::Match => None,
        Comparison::Mismatch => Some(FreezeReason::StoreMismatch),
        Comparison::Rewound => Some(FreezeReason::StoreRewound),
    })
}

/// Lifts the freeze when somebody accepted the store. That it matches is not enough: a store that was behind what was
/// `found` at the start catches up with it when the IdP pushes, and still lacks what it lacks. Of a store that was
/// `doubted` then, the mirrors say nothing else once it is accepted.
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

/// What was written to the mirror, and why the last attempt failed, which is said once.
#[derive(Default)]
struct Memory {
    written: Option<Checkpoint>,
    trouble: Option<String>,
}

impl Memory {
    /// Takes in how an attempt went; answers what is new about it.
    fn note(&mut self, now: Checkpoint, outcome: Result<(), CheckpointError>) -> Option<Result<(), CheckpointError>> {
        match outcome {
            Ok(()) => {
                self.written = Some(now);
                self.trouble.take().map(|_| Ok(()))
            }
            Err(error) => {
                let text = error.to_string();
                (self.trouble.replace(text.clone()) != Some(text)).then_some(Err(error))
            }
        }
    }
}

/// Writes down how far the store is, so that an older copy of it is known as one.
async fn remember(store: &Store, mirrors: &Checkpoints, memory: &mut Memory) {
    let Ok(now) = checkpoint::of(store).await else { return };
    if memory.written == Some(now) {
        return;
    }
    match memory.note(now, mirrors.write(&now)) {
        None => {}
        Some(Ok(())) => {
            tracing::info!(path = %mirrors.manifests.display(), "how far the store is can be written down again");
        }
        Some(Err(error)) => tracing::warn!(
            reason = error.reason(),
            "{error}; as long as that is so, an older or a lost database may not be noticed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_cannot_be_written_is_said_once_and_again_when_it_can() {
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
