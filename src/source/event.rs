//! What a source says about the resources, whichever source it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::folder::Suspicion;
use crate::api::manifest::{Object, ObjectRef, Problem};

/// What is watched as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// `IdentityProvider`s.
    IdentityProviders,
    /// `CloudRunTarget`s.
    CloudRunTargets,
    /// `RoleMapping`s of all namespaces.
    RoleMappings,
    /// The labels of namespaces.
    Namespaces,
}

impl Watched {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::IdentityProviders, Self::CloudRunTargets, Self::RoleMappings, Self::Namespaces];

    /// As the API calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdentityProviders => "identityproviders",
            Self::CloudRunTargets => "cloudruntargets",
            Self::RoleMappings => "rolemappings",
            Self::Namespaces => "namespaces",
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object as its source has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Which object.
    pub object: ObjectRef,
    /// Its metadata, without `managedFields`; empty where the source keeps none.
    pub metadata: ObjectMeta,
    /// Its status, null when it has none; none where the source keeps no statuses.
    pub status: Option<Value>,
    /// The file it stands in, or a word for a cluster.
    pub origin: String,
    /// Field manager or file that wrote it last, as far as known.
    pub written_by: Option<String>,
}

impl Observed {
    /// An object that a file says or said.
    #[must_use]
    pub fn in_file(object: ObjectRef, file: &str) -> Self {
        Self {
            object,
            metadata: ObjectMeta::default(),
            status: None,
            origin: file.to_owned(),
            written_by: Some(file.to_owned()),
        }
    }
}

/// Why an object is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absence {
    /// The API server has it no more. Nothing is known of who deleted it, and when.
    NotObserved,
    /// It is missing from a folder that nobody can take at its word.
    Doubted,
}

/// What a source observed, in the order of each kind. A deletion that was observed is never confused with an absence.
#[derive(Debug, Clone, PartialEq)]
pub enum ResourceEvent {
    /// An object is there: a new one, or one that says something new.
    Applied {
        /// Where and how it stands.
        observed: Box<Observed>,
        /// What it says.
        said: Box<Object>,
    },
    /// An object is there and cannot be read: what it said last stays in force.
    Rejected {
        /// Where and how it stands.
        observed: Box<Observed>,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// Somebody deletes the object: it has a deletion timestamp, or its file was removed while the rest of the folder stands.
    DeletionRequested {
        /// Where and how it stands, or stood.
        observed: Box<Observed>,
        /// What it says, where the source still has it and it can be read.
        said: Option<Box<Object>>,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// An object says what it said before: only its status was written, or nothing at all.
    Restated(Box<Observed>),
    /// An object that was rejected or absent says again what it said last.
    Recovered(ObjectRef),
    /// An object is not there, and nobody saw it being deleted.
    Absent {
        /// Which.
        object: ObjectRef,
        /// Why.
        why: Absence,
    },
    /// All objects of a kind were listed. What is not among them is absent.
    Listed {
        /// Which kind.
        what: Watched,
        /// All there are; empty for namespaces, of which nothing is concluded.
        objects: BTreeSet<ObjectRef>,
    },
    /// A namespace has these labels; none when it is gone.
    NamespaceLabels {
        /// Which.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
    },
    /// A watch does not work; what it said last stays in force, and it is tried again.
    Failing {
        /// Which.
        what: Watched,
        /// What the API server or the network said.
        problem: String,
    },
    /// Whether absence is taken for deletion: none when it is.
    Suspicious(Option<Suspicion>),
    /// The source was read as a whole: what it lacks is known from here on.
    Loaded,
}
