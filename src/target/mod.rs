//! Targets, where access is granted: the port that the engine uses, and its implementations.
//!
//! ```text
//! engine ── discover, read, apply ──► Target ─┬─► google    Cloud Run's policies: etags, editing, credentials, error texts
//!                                             └─► scripted  in memory, for tests
//! ```
//!
//! The port exchanges data of `model`: a document is a set of grants with an opaque revision, and a write is a set of
//! changes. How a target preserves foreign content stays behind the port.

mod backoff;
mod error;
pub(crate) mod google;
mod preflight;
#[cfg(test)]
pub(crate) mod scripted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Changes, DocumentKey, Live, Reason, ResourceKind};

pub(crate) use backoff::Backoff;
pub(crate) use error::{ErrorClass, ErrorKind, RefusalCause, Refused, TargetError};
pub(crate) use preflight::{Places, Preflight, TargetPreflight, is_for_writing};

/// One resource in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Its document, with the project as requested (Google may answer with the project number).
    pub(crate) document: DocumentKey,
    /// The uid, which is stable until the resource is deleted; a re-created resource of the same name has another.
    pub(crate) uid: String,
    /// User labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Services only: anybody may invoke the service, whatever the policy says.
    pub(crate) invoker_iam_disabled: bool,
}

/// The resources of all kinds in one project and region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Discovery {
    /// The listed resources.
    pub(crate) items: Vec<Resource>,
    /// Regions that could not be reached: absences there prove nothing.
    pub(crate) unreachable: Vec<String>,
    /// Kinds whose list failed.
    pub(crate) failed: Vec<(ResourceKind, TargetError)>,
}

/// A document as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// The content of the document.
    pub(crate) live: Arc<Live>,
    edit: Edit,
}

/// What a target needs to write back a document that it read.
#[derive(Debug, Clone)]
enum Edit {
    /// The document does not exist.
    Absent,
    Google(Arc<google::Policy>),
    #[cfg(test)]
    Scripted,
}

impl Snapshot {
    /// The snapshot of a document that does not exist.
    #[must_use]
    pub(crate) fn absent() -> Self {
        Self { live: Arc::default(), edit: Edit::Absent }
    }
}

/// A system in which access is granted. Cheap to clone; all clones share connections and credentials.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Google Cloud Run.
    Google(google::CloudRun),
    /// An in-memory target for tests.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

impl Target {
    /// Lists the resources of one project and region. Failed parts are reported together with the rest.
    pub(crate) async fn discover(&self, project: &str, location: &str) -> Discovery {
        match self {
            Self::Google(client) => {
                let mut found: Discovery = client.resources(project, location).await.into();
                for (kind, error) in &mut found.failed {
                    error.lacks(*kind, "list");
                }
                found
            }
            #[cfg(test)]
            Self::Scripted(target) => target.discover(project, location).await,
        }
    }

    /// Reads the document. Reads may be delayed and return an older state.
    ///
    /// # Errors
    /// [`TargetError`]; also when the document could not be written back without losing content.
    pub(crate) async fn read(&self, document: &DocumentKey) -> Result<Snapshot, TargetError> {
        match self {
            Self::Google(client) => {
                let policy = client.policy(document).await;
                Ok(snapshot(policy.map_err(|error| denied(error, document, "getIamPolicy"))?))
            }
            #[cfg(test)]
            Self::Scripted(target) => target.read(document).await,
        }
    }

    /// Makes these changes if the document still has the revision of the snapshot. Without changes the document is
    /// written as it is, which moves its revision. Returns the document as the target now stores it.
    ///
    /// # Errors
    /// [`TargetError`]. With the kind [`ErrorKind::Unknown`], the changes may have been made; with any other, they
    /// certainly were not.
    pub(crate) async fn apply(
        &self,
        document: &DocumentKey,
        read: &Snapshot,
        changes: &Changes,
    ) -> Result<Snapshot, TargetError> {
        match (self, &read.edit) {
            (Self::Google(client), Edit::Google(policy)) => {
                let written = client.set_policy(document, &google::edited(policy, changes)).await;
                Ok(snapshot(written.map_err(|error| denied(error, document, "setIamPolicy"))?))
            }
            #[cfg(test)]
            (Self::Scripted(target), Edit::Scripted) => target.apply(document, &read.live, changes).await,
            // No plan writes a document that does not exist; a caller that does has to read again.
            _ => Err(TargetError {
                kind: ErrorKind::Unavailable,
                reason: Reason::EtagMissing,
                message: "a document that was not read from this target cannot be written".to_owned(),
            }),
        }
    }

    /// The uid of the resource that a document belongs to. It distinguishes a resource from one of the same name that
    /// was created after it was deleted.
    ///
    /// # Errors
    /// [`TargetError`].
    pub(crate) async fn resource_uid(&self, document: &DocumentKey) -> Result<String, TargetError> {
        match self {
            Self::Google(client) => client.resource_uid(document).await.map_err(|error| denied(error, document, "get")),
            #[cfg(test)]
            Self::Scripted(target) => target.resource_uid(document).await,
        }
    }

    /// Those of the asked permissions that are held on the project.
    async fn held_in_project(
        &self,
        project: &str,
        asked: &BTreeSet<&'static str>,
    ) -> Result<BTreeSet<&'static str>, TargetError> {
        match self {
            Self::Google(client) => Ok(client.held_in_project(project, asked).await?),
            #[cfg(test)]
            Self::Scripted(target) => Ok(target.held(None, asked)),
        }
    }

    /// Those of the asked permissions that are held on the resource of a document.
    async fn held_on(
        &self,
        document: &DocumentKey,
        asked: &BTreeSet<&'static str>,
    ) -> Result<BTreeSet<&'static str>, TargetError> {
        match self {
            Self::Google(client) => Ok(client.held_on(document, asked).await?),
            #[cfg(test)]
            Self::Scripted(target) => Ok(target.held(Some(document), asked)),
        }
    }
}

/// The error of a call on a document that needs the permission `run.KIND.VERB`.
fn denied(error: google::GoogleError, document: &DocumentKey, verb: &str) -> TargetError {
    let mut error = TargetError::from(error);
    error.lacks(document.kind(), verb);
    error
}

fn snapshot(policy: google::Policy) -> Snapshot {
    Snapshot { live: Arc::new(google::live(&policy)), edit: Edit::Google(Arc::new(policy)) }
}
