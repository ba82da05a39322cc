//! An in-memory target for tests. It can be scripted to act late, wrongly, or not at all, and keeps a journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Discovery, Edit, ErrorKind, Resource, Snapshot, TargetError};
use crate::model::{Changes, DocumentKey, GrantKey, Live, Reason, Stored};

/// The fault of one call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The call returns this error and does nothing.
    Error(TargetError),
    /// The write is done, and its answer is lost.
    AnswerLost,
    /// The call takes this long.
    Slow(Duration),
    /// The read returns the version before the last one.
    Stale,
}

/// One write that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub document: DocumentKey,
    pub add: BTreeSet<GrantKey>,
    pub remove: BTreeSet<GrantKey>,
}

#[derive(Debug)]
struct Document {
    uid: String,
    /// All versions, oldest first; the last one is in force.
    versions: Vec<Live>,
}

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<DocumentKey, Document>,
    reads: BTreeMap<DocumentKey, VecDeque<Fault>>,
    writes: BTreeMap<DocumentKey, VecDeque<Fault>>,
    journal: Vec<Write>,
    made: u64,
    read: u64,
}

/// The target. All clones share its state.
#[derive(Debug, Clone, Default)]
pub struct Scripted(Arc<Mutex<State>>);

impl From<Scripted> for super::Target {
    fn from(target: Scripted) -> Self {
        Self::Scripted(target)
    }
}

impl Scripted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a resource with an empty document.
    pub(crate) fn create(&self, document: &DocumentKey) {
        let mut state = self.state();
        state.made += 1;
        let first = Live { revision: "never-set".to_owned(), never_set: true, ..Live::default() };
        let made = Document { uid: format!("uid-{}", state.made), versions: vec![first] };
        state.documents.insert(document.clone(), made);
    }

    /// Deletes a resource with its document.
    pub(crate) fn delete(&self, document: &DocumentKey) {
        self.state().documents.remove(document);
    }

    /// Simulates a foreign edit of the document.
    pub(crate) fn edit(&self, document: &DocumentKey, edit: impl FnOnce(&mut BTreeMap<GrantKey, Stored>)) {
        self.state().change(document, edit);
    }

    /// Sets the fault of the next read of the document that has none yet.
    pub(crate) fn on_read(&self, document: &DocumentKey, fault: Fault) {
        self.state().reads.entry(document.clone()).or_default().push_back(fault);
    }

    /// Sets the fault of the next write of the document that has none yet.
    pub(crate) fn on_write(&self, document: &DocumentKey, fault: Fault) {
        self.state().writes.entry(document.clone()).or_default().push_back(fault);
    }

    /// The grants that are in force.
    pub(crate) fn grants(&self, document: &DocumentKey) -> BTreeSet<GrantKey> {
        let state = self.state();
        let live = state.documents.get(document).and_then(|document| document.versions.last());
        live.map(|live| live.grants.keys().cloned().collect()).unwrap_or_default()
    }

    /// The writes that were done, oldest first.
    pub(crate) fn journal(&self) -> Vec<Write> {
        self.state().journal.clone()
    }

    /// Number of answered reads.
    pub(crate) fn reads(&self) -> u64 {
        self.state().read
    }

    pub(super) fn discover(&self, project: &str, location: &str) -> Discovery {
        let state = self.state();
        let here = |document: &DocumentKey| document.region() == crate::model::Region::new(project, location);
        let items = state.documents.iter().filter(|(document, _)| here(document)).map(|(document, made)| Resource {
            document: document.clone(),
            uid: made.uid.clone(),
            labels: BTreeMap::new(),
            invoker_iam_disabled: false,
        });
        Discovery { items: items.collect(), ..Discovery::default() }
    }

    pub(super) async fn read(&self, document: &DocumentKey) -> Result<Snapshot, TargetError> {
        let fault = self.state().reads.get_mut(document).and_then(VecDeque::pop_front);
        let mut age = 0;
        match fault {
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::Stale) => age = 1,
            Some(Fault::AnswerLost) => return Err(error(ErrorKind::Unavailable, Reason::GoogleUnavailable)),
            None => tokio::task::yield_now().await,
        }
        let mut state = self.state();
        state.read += 1;
        let versions = &state.documents.get(document).ok_or_else(absent)?.versions;
        let live = versions.iter().rev().nth(age).or(versions.first()).ok_or_else(absent)?;
        Ok(Snapshot { live: Arc::new(live.clone()), edit: Edit::Scripted })
    }

    pub(super) async fn apply(
        &self,
        document: &DocumentKey,
        read: &Live,
        changes: &Changes,
    ) -> Result<Snapshot, TargetError> {
        let fault = self.state().writes.get_mut(document).and_then(VecDeque::pop_front);
        match &fault {
            Some(Fault::Slow(time)) => tokio::time::sleep(*time).await,
            Some(Fault::Error(error)) => return Err(error.clone()),
            Some(Fault::Stale | Fault::AnswerLost) | None => tokio::task::yield_now().await,
        }
        let mut state = self.state();
        let now = state.documents.get(document).and_then(|document| document.versions.last()).ok_or_else(absent)?;
        if now.revision != read.revision {
            return Err(error(ErrorKind::Conflict, Reason::EtagConflict));
        }
        let after = now.after(changes).grants;
        let live = state.change(document, |grants| *grants = after).ok_or_else(absent)?;
        state.journal.push(Write {
            document: document.clone(),
            add: changes.add.iter().map(|addition| addition.grant.clone()).collect(),
            remove: changes.remove.clone(),
        });
        match fault {
            Some(Fault::AnswerLost) => Err(error(ErrorKind::Unknown, Reason::OutcomeUnknown)),
            _ => Ok(Snapshot { live: Arc::new(live), edit: Edit::Scripted }),
        }
    }

    pub(super) async fn resource_uid(&self, document: &DocumentKey) -> Result<String, TargetError> {
        tokio::task::yield_now().await;
        self.state().documents.get(document).map(|document| document.uid.clone()).ok_or_else(absent)
    }
}

impl State {
    fn change(&mut self, document: &DocumentKey, edit: impl FnOnce(&mut BTreeMap<GrantKey, Stored>)) -> Option<Live> {
        self.made += 1;
        let revision = format!("r{}", self.made);
        let versions = &mut self.documents.get_mut(document)?.versions;
        let mut next = Live { revision, never_set: false, ..versions.last()?.clone() };
        edit(&mut next.grants);
        versions.push(next.clone());
        Some(next)
    }
}

/// An error without a message.
pub(crate) fn error(kind: ErrorKind, reason: Reason) -> TargetError {
    TargetError { kind, reason, message: reason.to_string() }
}

fn absent() -> TargetError {
    error(ErrorKind::NotFound, Reason::ResourceNotFound)
}
