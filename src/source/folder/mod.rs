//! A folder of manifests as a stream of changes: [`FolderScan`] reads it, [`diff`] computes the changes, and [`poll`]
//! runs both about once a second.
//!
//! Missing objects are handled carefully, since deleting a mapping removes access: see [`diff`].

mod diff;
mod events;
mod poll;
mod scan;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::manifest::{Object, ObjectRef, ParsedDocument, Problem};

pub use diff::{diff, step};
pub use events::Translation;
pub use poll::{FolderCommand, PollOptions, poll};
pub use scan::{FolderScan, MAX_FILES, MAX_TOTAL_BYTES, lint_paths};

/// What one look at the folder found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scan {
    /// Why the folder itself cannot be read, if so.
    pub missing: Option<String>,
    /// Could everything below the folder be listed? If not, nothing is concluded from absence.
    pub complete: bool,
    /// Is every file as it was in the look before? A file that is still being written is not judged.
    pub settled: bool,
    /// The manifests by path relative to the folder, with `/` between the parts.
    pub files: BTreeMap<String, Arc<Vec<ParsedDocument>>>,
}

/// An object that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownObject {
    /// The file that said it last.
    pub file: String,
    /// [`Object::hash`] of what is in force; none when it is to be applied again as soon as it is read.
    pub hash: Option<[u8; 32]>,
}

/// What is in force, and what the looks so far have found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Known {
    /// The objects in force.
    objects: BTreeMap<ObjectRef, KnownObject>,
    /// The files with problems.
    problems: BTreeMap<String, ScanFailure>,
    /// The last look's idea of what is missing: it must be confirmed by the next one.
    observed: Option<Observation>,
    /// Why nothing is deleted, once it was suspicious.
    alarm: Option<(Suspicion, BTreeSet<ObjectRef>)>,
    /// Was a first judgement made?
    loaded: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct ScanFailure {
    problems: Vec<Problem>,
    keeps: BTreeSet<ObjectRef>,
    /// Is there a document whose object cannot even be named?
    anonymous: bool,
    /// Did that begin after the last judgement?
    fresh: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Observation {
    why: Option<Suspicion>,
    missing: BTreeSet<ObjectRef>,
    complete: bool,
}

impl Known {
    /// What was in force when rolecall last ran. `frozen`: the folder was suspicious then, and nobody released it.
    #[must_use]
    pub fn new(objects: BTreeMap<ObjectRef, KnownObject>, frozen: bool) -> Self {
        let alarm = frozen.then(|| (Suspicion::StillMissing, BTreeSet::new()));
        Self { objects, alarm, ..Self::default() }
    }

    /// The objects in force.
    #[must_use]
    pub fn objects(&self) -> &BTreeMap<ObjectRef, KnownObject> {
        &self.objects
    }

    /// Is the folder suspicious?
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        self.alarm.is_some()
    }

    /// Somebody confirmed that these objects are to go, or ended them otherwise: their absence is no news any more.
    pub fn forget(&mut self, objects: &BTreeSet<ObjectRef>) {
        self.objects.retain(|object, _| !objects.contains(object));
    }
}

/// Why absence in the folder is not taken for deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// The folder cannot be read.
    FolderMissing,
    /// There is no manifest in it.
    FolderEmpty,
    /// More than half of the mappings, and more than one, are gone at once.
    MostMappingsGone,
    /// It was suspicious, and a part is still missing.
    StillMissing,
}

impl Suspicion {
    /// What is the case, for a message.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::FolderMissing => "the manifest folder cannot be read",
            Self::FolderEmpty => "the manifest folder has no manifests",
            Self::MostMappingsGone => "more than half of the mappings vanished from the manifest folder at once",
            Self::StillMissing => "manifests that vanished together with many others are not back yet",
        }
    }
}

/// What the engine is to do. Those of one look come together, in an order in which what is named stands before what
/// names it.
#[derive(Debug, Clone, PartialEq)]
pub enum FolderChange {
    /// The object is new, changed, or said by another file than before.
    Apply {
        /// What the manifest says, with defaults.
        object: Box<Object>,
        /// Where it stands.
        file: String,
        /// [`Object::hash`].
        hash: [u8; 32],
    },
    /// The file has problems. What it last said stays in force.
    Unreadable {
        /// Which file.
        file: String,
        /// All of them.
        problems: Vec<Problem>,
        /// The objects that stay in force because of that.
        keeps: BTreeSet<ObjectRef>,
    },
    /// The file has no problems any more, or is gone.
    Readable {
        /// Which file.
        file: String,
    },
    /// The object's file or document was removed: a mapping is revoked.
    Deleted {
        /// Which object.
        object: ObjectRef,
        /// Where it stood last.
        file: String,
    },
    /// Too much is missing to be meant: everything freezes and nothing is deleted until all is back or the removal is
    /// confirmed.
    Suspicious {
        /// What is suspicious.
        why: Suspicion,
        /// The objects in force that are not in the folder.
        missing: BTreeSet<ObjectRef>,
    },
    /// What was missing is back or forgotten: the freeze ends.
    Healthy,
    /// The first judgement is made: everything before this was the first load.
    Loaded,
}
