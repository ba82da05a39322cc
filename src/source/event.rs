//! Events that a source emits about resources, common to all sources.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::folder::Suspicion;
use crate::api::manifest::{Object, ObjectRef, Problem};
use crate::model::Kind;

/// An object as its source has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    /// The object's identity.
    pub(crate) object: ObjectRef,
    /// Its metadata, without `managedFields`; empty where the source keeps none.
    pub(crate) metadata: ObjectMeta,
    /// Its status, null when it has none; none where the source keeps no statuses.
    pub(crate) status: Option<Value>,
    /// The file it is in, or a fixed word for a cluster.
    pub(crate) origin: String,
    /// Field manager or file that wrote it last, where known.
    pub(crate) written_by: Option<String>,
}

impl Observed {
    /// An object that is or was in a file.
    #[must_use]
    pub(crate) fn in_file(object: ObjectRef, file: &str) -> Self {
        Self {
            object,
            metadata: ObjectMeta::default(),
            status: None,
            origin: file.to_owned(),
            written_by: Some(file.to_owned()),
        }
    }
}

/// Why an object is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Absence {
    /// The API server no longer has it. Who deleted it, and when, is not known.
    NotObserved,
    /// It is missing from a folder that is suspicious.
    Doubted,
}

/// An observation of a source, in order for each kind. An observed deletion is never confused with an absence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ResourceEvent {
    /// An object exists: a new one, or one with new content.
    Applied {
        /// The object's metadata and origin.
        observed: Box<Observed>,
        /// Its content.
        parsed: Box<Object>,
    },
    /// An object exists but cannot be read: its last valid version stays in force.
    Rejected {
        /// The object's metadata and origin.
        observed: Box<Observed>,
        /// Its problems.
        problems: Vec<Problem>,
    },
    /// Somebody deletes the object: it has a deletion timestamp, or its file was removed from an otherwise complete
    /// folder.
    DeletionRequested {
        /// The object's metadata and origin.
        observed: Box<Observed>,
        /// Its content, where the source still has it and it can be read.
        parsed: Option<Box<Object>>,
        /// Its problems.
        problems: Vec<Problem>,
    },
    /// An object with unchanged content: only its status was written, or nothing at all.
    Restated(Box<Observed>),
    /// An object that was rejected or absent is back with its last content.
    Recovered(ObjectRef),
    /// An absent object whose text had a problem: the text is gone as well, and the object is still absent.
    ProblemCleared(ObjectRef),
    /// An object is absent, and its deletion was not observed.
    Absent {
        /// The object.
        object: ObjectRef,
        /// The reason.
        why: Absence,
    },
    /// All objects of a kind were listed. An object that is not among them is absent.
    Listed {
        /// The kind.
        kind: Kind,
        /// All existing objects; empty for namespaces, of which absences are ignored.
        objects: BTreeSet<ObjectRef>,
    },
    /// A namespace has these labels; none when it is gone.
    NamespaceLabels {
        /// The namespace.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
    },
    /// A watch failed; its last state stays in force, and it is retried.
    Failing {
        /// The watched kind.
        kind: Kind,
        /// The error of the API server or the network.
        problem: String,
    },
    /// Whether absences are treated as deletions: none when they are.
    Suspicious(Option<Suspicion>),
    /// The source was read completely: from here on, absences are known.
    Loaded,
}
