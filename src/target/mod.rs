//! Where access is granted: one port that the engine speaks to, and what stands behind it.
//!
//! ```text
//! engine ── discover, read, apply ──► Target ─┬─► google    Cloud Run's policies: etags, editing, credentials, error texts
//!                                             └─► scripted  in memory, for tests
//! ```
//!
//! What comes out is data of `model`: a document is a set of grants with an opaque revision, a write is a set of changes.
//! How a target keeps what is somebody else's stays behind the port.

mod backoff;
mod error;
pub mod google;
#[cfg(test)]
pub mod scripted;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Changes, DocumentKey, Live, ResourceKind};

pub use backoff::Backoff;
pub use error::{ErrorClass, ErrorKind, RefusalCause, Refused, TargetError};

/// One resource as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its document, with the project as it was asked for (Google may answer with the number).
    pub document: DocumentKey,
    /// Stable until the resource is deleted; a re-created namesake has another.
    pub uid: String,
    /// User labels.
    pub labels: BTreeMap<String, String>,
    /// Services only: invocation is open to everybody, whatever the policy says.
    pub invoker_iam_disabled: bool,
}

/// The resources of all kinds in one project and region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// What is there.
    pub items: Vec<Resource>,
    /// Regions that could not be asked: nothing follows from what is absent there.
    pub unreachable: Vec<String>,
    /// Kinds whose list failed.
    pub failed: Vec<(ResourceKind, TargetError)>,
}

/// A document as it was read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What stands in it.
    pub live: Arc<Live>,
    edit: Edit,
}

/// What a target needs to write a document that it read.
#[derive(Debug, Clone)]
enum Edit {
    /// There is no document.
    Absent,
    Google(Arc<google::Policy>),
    #[cfg(test)]
    Scripted,
}

impl Snapshot {
    /// The target says that there is no such document.
    #[must_use]
    pub fn absent() -> Self {
        Self { live: Arc::default(), edit: Edit::Absent }
    }
}

/// A place where access is granted. Cheap to clone; all clones share connections and credentials.
#[derive(Debug, Clone)]
pub enum Target {
    /// Google Cloud Run.
    Google(google::CloudRun),
    /// In memory.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

impl Target {
    /// The resources of one project and region. What could not be listed is said beside the rest.
    pub async fn discover(&self, project: &str, location: &str) -> Discovery {
        match self {
            Self::Google(client) => client.resources(project, location).await.into(),
            #[cfg(test)]
            Self::Scripted(target) => target.discover(project, location),
        }
    }

    /// The document as it is, or was a moment ago: reads may lag behind.
    ///
    /// # Errors
    /// [`TargetError`]; also when the document could not be written back without losing what it says.
    pub async fn read(&self, document: &DocumentKey) -> Result<Snapshot, TargetError> {
        match self {
            Self::Google(client) => Ok(snapshot(client.policy(document).await?)),
            #[cfg(test)]
            Self::Scripted(target) => target.read(document).await,
        }
    }

    /// Makes these changes, if the document still has the revision of the snapshot. Without changes the document is written as
    /// it is, which moves its revision. The result is the document as the target keeps it now.
    ///
    /// # Errors
    /// [`TargetError`]; one of the kind [`ErrorKind::Unknown`] when the changes may have been made; any other: they surely
    /// were not.
    pub async fn apply(
        &self,
        document: &DocumentKey,
        read: &Snapshot,
        changes: &Changes,
    ) -> Result<Snapshot, TargetError> {
        match (self, &read.edit) {
            (Self::Google(client), Edit::Google(policy)) => {
                Ok(snapshot(client.set_policy(document, &google::edited(policy, changes)).await?))
            }
            #[cfg(test)]
            (Self::Scripted(target), Edit::Scripted) => target.apply(document, &read.live, changes).await,
            // Nobody plans a write of what is not there; whoever does reads again.
            _ => Err(TargetError {
                kind: ErrorKind::Unavailable,
                reason: "EtagMissing",
                message: "a document that was not read from this target cannot be written".to_owned(),
            }),
        }
    }

    /// The uid of the resource that a document belongs to. It tells a resource from a namesake that was made after it was
    /// deleted.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn resource_uid(&self, document: &DocumentKey) -> Result<String, TargetError> {
        match self {
            Self::Google(client) => Ok(client.resource_uid(document).await?),
            #[cfg(test)]
            Self::Scripted(target) => target.resource_uid(document).await,
        }
    }
}

fn snapshot(policy: google::Policy) -> Snapshot {
    Snapshot { live: Arc::new(google::live(&policy)), edit: Edit::Google(Arc::new(policy)) }
}
