//! Documents, the unit of work. One document is one IAM policy of a resource, or anything else that is read and written
//! as a whole.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds of Cloud Run resources that have a policy of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ResourceKind {
    /// `services/NAME`
    Service,
    /// `jobs/NAME`
    Job,
    /// `workerPools/NAME`
    WorkerPool,
}

impl ResourceKind {
    /// The name of the collection in paths of Cloud Run v2 and in manifests.
    #[must_use]
    pub(crate) fn collection(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Job => "jobs",
            Self::WorkerPool => "workerPools",
        }
    }

    /// True when policies of this kind accept conditions at Google.
    #[must_use]
    pub(crate) fn takes_conditions(self) -> bool {
        match self {
            Self::Service => true,
            Self::Job | Self::WorkerPool => false,
        }
    }

    /// The kind whose collection has this name.
    #[must_use]
    pub(crate) fn from_collection(name: &str) -> Option<Self> {
        [Self::Service, Self::Job, Self::WorkerPool].into_iter().find(|kind| kind.collection() == name)
    }
}

/// Error for a text that is not the name of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a policy document: write run:projects/P/locations/L/services/S")]
pub(crate) struct DocumentKeyError(String);

/// One policy document of Cloud Run: `run:projects/P/locations/L/(services|jobs|workerPools)/NAME`. The prefix names
/// the surface, so that `iap:` and `project:` documents fit beside it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct DocumentKey {
    project: Arc<str>,
    location: Arc<str>,
    kind: ResourceKind,
    name: Arc<str>,
}

/// A project and region: the scope of one quota at Google.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Region {
    project: Arc<str>,
    location: Arc<str>,
}

impl Region {
    /// The region `location` of `project`.
    #[must_use]
    pub(crate) fn new(project: &str, location: &str) -> Self {
        Self { project: project.into(), location: location.into() }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/locations/{}", self.project, self.location)
    }
}

fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'))
}

impl DocumentKey {
    /// The policy of one Cloud Run resource.
    ///
    /// # Errors
    /// [`DocumentKeyError`] when a part is empty or has characters that such a name cannot contain.
    pub(crate) fn cloud_run(
        project: &str,
        location: &str,
        kind: ResourceKind,
        name: &str,
    ) -> Result<Self, DocumentKeyError> {
        if [project, location, name].into_iter().all(is_segment) {
            Ok(Self { project: project.into(), location: location.into(), kind, name: name.into() })
        } else {
            Err(DocumentKeyError(format!("projects/{project}/locations/{location}/{}/{name}", kind.collection())))
        }
    }

    /// A key that is less than those of all documents in a project and region, and greater than those of the regions
    /// before it. No document has it.
    pub(crate) fn least_in(project: &str, location: &str) -> Self {
        Self { project: project.into(), location: location.into(), kind: ResourceKind::Service, name: "".into() }
    }

    /// The project and region, the scope of one quota at Google.
    #[must_use]
    pub(crate) fn region(&self) -> Region {
        Region { project: self.project.clone(), location: self.location.clone() }
    }

    /// The project id.
    #[must_use]
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// The region.
    #[must_use]
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// The kind of resource the policy belongs to.
    #[must_use]
    pub(crate) fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// The resource's short name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The resource name in Google's v2 API: `projects/P/locations/L/services/S`.
    #[must_use]
    pub(crate) fn resource(&self) -> String {
        format!("projects/{}/locations/{}/{}/{}", self.project, self.location, self.kind.collection(), self.name)
    }

    /// The name within its project and region, as in manifests: `services/S`.
    #[must_use]
    pub(crate) fn short(&self) -> String {
        format!("{}/{}", self.kind.collection(), self.name)
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run:{}", self.resource())
    }
}

impl fmt::Debug for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for DocumentKey {
    type Err = DocumentKeyError;
    fn from_str(text: &str) -> Result<Self, DocumentKeyError> {
        let wrong = || DocumentKeyError(text.chars().take(400).collect());
        let resource = text.strip_prefix("run:").ok_or_else(wrong)?;
        match resource.split('/').collect::<Vec<_>>().as_slice() {
            ["projects", project, "locations", location, collection, name] => {
                let kind = ResourceKind::from_collection(collection).ok_or_else(wrong)?;
                Self::cloud_run(project, location, kind, name)
            }
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for DocumentKey {
    type Error = DocumentKeyError;
    fn try_from(text: String) -> Result<Self, DocumentKeyError> {
        text.parse()
    }
}

impl From<DocumentKey> for String {
    fn from(key: DocumentKey) -> String {
        key.to_string()
    }
}
