//! The polling loop around [`FolderScan`] and [`step`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{FolderChange, FolderScan, Known, Translation, step};
use crate::api::manifest::ObjectRef;
use crate::source::ResourceEvent;

/// Options of polling.
#[derive(Debug, Clone)]
pub(crate) struct PollOptions {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The namespace from which Secrets are read.
    pub(crate) namespace: String,
    /// Time between two scans when nothing changes.
    pub(crate) every: Duration,
    /// Time between two scans while something changes: new and missing objects must be the same in both.
    pub(crate) settle: Duration,
    /// The objects that were missing when rolecall last ran.
    pub(crate) missing: BTreeSet<ObjectRef>,
}

impl PollOptions {
    /// Options for about one scan per second.
    #[must_use]
    pub(crate) fn new(folder: PathBuf, namespace: String) -> Self {
        Self {
            folder,
            namespace,
            every: Duration::from_secs(1),
            settle: Duration::from_millis(200),
            missing: BTreeSet::new(),
        }
    }
}

/// What one scan found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scanned {
    /// Time at which the scan began.
    pub(crate) begun: Instant,
    /// True when nothing in the folder changed and nothing waits for another scan.
    pub(crate) quiet: bool,
    /// The changes.
    pub(crate) events: Vec<ResourceEvent>,
}

/// A command of the engine to the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FolderCommand {
    /// A person confirmed the removal of these objects.
    Forget(BTreeSet<ObjectRef>),
}

/// Scans the folder until it is canceled or the receiver is dropped. The events of one scan are sent together. A quiet
/// scan is sent if the receiver has handled the others.
pub(crate) async fn poll(
    options: PollOptions,
    mut known: Known,
    scans: mpsc::Sender<Scanned>,
    mut commands: mpsc::Receiver<FolderCommand>,
    cancel: CancellationToken,
) {
    let mut folder = FolderScan::new(options.folder.clone(), &options.namespace);
    let mut translation = Translation::new(options.missing.clone());
    let mut listening = true;
    loop {
        let begun = Instant::now();
        // Reading files blocks, and the folder may be on a network.
        let looked = tokio::task::spawn_blocking(move || {
            let scan = folder.scan();
            (folder, scan)
        });
        let scan = match looked.await {
            Ok((returned, scan)) => {
                folder = returned;
                scan
            }
            Err(error) => {
                warn!(%error, "a scan of the manifest folder failed; starting again");
                folder = FolderScan::new(options.folder.clone(), &options.namespace);
                continue_after(options.every, &cancel).await;
                if cancel.is_cancelled() {
                    return;
                }
                continue;
            }
        };
        let before = known.observed.clone();
        let batch = step(&mut known, &scan);
        let quiet = batch.is_empty() && scan.settled && known.observed == before;
        let seen = batch.is_empty() && (scan.settled || scan.missing.is_some()) && known.observed == before;
        if !batch.is_empty() {
            log(&batch);
            let events = batch.into_iter().flat_map(|change| translation.events(change)).collect();
            // During shutdown, the receiver may stop reading long before it is dropped.
            tokio::select! {
                sent = scans.send(Scanned { begun, quiet: false, events }) => if sent.is_err() { return },
                () = cancel.cancelled() => return,
            }
        } else if seen {
            // If the receiver is busy, a later scan says the same.
            let _ = scans.try_send(Scanned { begun, quiet: true, events: Vec::new() });
        }
        let pause = tokio::time::sleep(if quiet { options.every } else { options.settle });
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = &mut pause => break,
                command = commands.recv(), if listening => match command {
                    Some(FolderCommand::Forget(objects)) => known.forget(&objects),
                    None => listening = false,
                },
            }
        }
    }
}

async fn continue_after(pause: Duration, cancel: &CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

fn log(batch: &[FolderChange]) {
    for change in batch {
        match change {
            FolderChange::Apply { object, file, .. } => info!(object = %object.object_ref(), file, "manifest applied"),
            FolderChange::Unreadable { file, problems, keeps } => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                warn!(file, problems = problems.len(), kept = keeps.len(), first, "manifest has problems");
            }
            FolderChange::Readable { file } => info!(file, "manifest no longer has problems"),
            FolderChange::Deleted { object, file } => info!(%object, file, "manifest removed"),
            FolderChange::Suspicious { why, missing } => {
                warn!(missing = missing.len(), "{}: nothing is removed, everything freezes", why.message());
            }
            FolderChange::Healthy => info!("manifest folder is complete again"),
            FolderChange::Loaded => info!("manifest folder loaded"),
        }
    }
}
