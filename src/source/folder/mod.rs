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

#[cfg(test)]
pub(crate) use diff::diff;
pub(crate) use diff::step;
pub(crate) use events::Translation;
pub(crate) use poll::{FolderCommand, PollOptions, poll};
pub(crate) use scan::{FolderScan, lint_files, lint_paths, read_paths};

/// The result of one scan of the folder.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Scan {
    /// Why the folder itself cannot be read, if so.
    pub(crate) missing: Option<String>,
    /// True when everything below the folder could be listed. If not, absences are ignored.
    pub(crate) complete: bool,
    /// True when every file is as it was in the scan before. A file that is still being written is not processed.
    pub(crate) settled: bool,
    /// The manifests by path relative to the folder, with `/` between the parts.
    pub(crate) files: BTreeMap<String, Arc<Vec<ParsedDocument>>>,
}

/// An object that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownObject {
    /// The last file that contained it.
    pub(crate) file: String,
    /// [`Object::hash`] of the version in force; none when it is to be applied again as soon as it can be read.
    pub(crate) hash: Option<[u8; 32]>,
}

/// What is in force, and the findings of the scans so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Known {
    /// The objects in force.
    objects: BTreeMap<ObjectRef, KnownObject>,
    /// The files with problems.
    problems: BTreeMap<String, ScanFailure>,
    /// The missing objects of the last scan, which the next one has to confirm.
    observed: Option<Observation>,
    /// The suspicion, while nothing is deleted because of one.
    alarm: Option<(Suspicion, BTreeSet<ObjectRef>)>,
    /// True when the first scan was processed.
    loaded: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct ScanFailure {
    problems: Vec<Problem>,
    keeps: BTreeSet<ObjectRef>,
    /// True when a document exists whose object cannot even be identified.
    anonymous: bool,
    /// True when that started after the last processed scan.
    fresh: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Observation {
    why: Option<Suspicion>,
    missing: BTreeSet<ObjectRef>,
    complete: bool,
}

impl Known {
    /// Restores the state from when rolecall last ran. `frozen`: the folder was suspicious then, and nobody released
    /// it.
    #[must_use]
    pub(crate) fn new(objects: BTreeMap<ObjectRef, KnownObject>, frozen: bool) -> Self {
        let alarm = frozen.then(|| (Suspicion::StillMissing, BTreeSet::new()));
        Self { objects, alarm, ..Self::default() }
    }

    /// The objects in force.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn objects(&self) -> &BTreeMap<ObjectRef, KnownObject> {
        &self.objects
    }

    /// True when the folder is suspicious.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn is_suspicious(&self) -> bool {
        self.alarm.is_some()
    }

    /// Forgets objects whose removal a person confirmed, or that ended otherwise, so that they no longer count as
    /// missing.
    pub(crate) fn forget(&mut self, objects: &BTreeSet<ObjectRef>) {
        self.objects.retain(|object, _| !objects.contains(object));
    }
}

/// Why an absence in the folder is not treated as a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Suspicion {
    /// The folder cannot be read.
    FolderMissing,
    /// There is no manifest in the folder.
    FolderEmpty,
    /// More than half of the mappings, and more than one, disappeared at once.
    MostMappingsGone,
    /// The folder was suspicious, and some objects are still missing.
    StillMissing,
}

impl Suspicion {
    /// The reason, for a message.
    #[must_use]
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::FolderMissing => "the manifest folder cannot be read",
            Self::FolderEmpty => "the manifest folder has no manifests",
            Self::MostMappingsGone => "more than half of the mappings disappeared from the manifest folder at once",
            Self::StillMissing => "manifests that disappeared together with many others are not back yet",
        }
    }
}

/// A change for the engine. The changes of one scan are sent together, in an order in which objects come before those
/// that refer to them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FolderChange {
    /// The object is new, changed, or moved to another file.
    Apply {
        /// The content of the manifest, with defaults.
        object: Box<Object>,
        /// The file.
        file: String,
        /// [`Object::hash`].
        hash: [u8; 32],
    },
    /// The file has problems. Its last valid content stays in force.
    Unreadable {
        /// The file.
        file: String,
        /// All of its problems.
        problems: Vec<Problem>,
        /// The objects that stay in force because of that.
        keeps: BTreeSet<ObjectRef>,
    },
    /// The file no longer has problems, or is gone.
    Readable {
        /// The file.
        file: String,
    },
    /// The object's file or document was removed: the grants of a mapping are revoked.
    Deleted {
        /// The object.
        object: ObjectRef,
        /// The last file that contained it.
        file: String,
    },
    /// More objects are missing than is plausible: everything freezes and nothing is deleted until all are back or the
    /// removal is confirmed.
    Suspicious {
        /// The suspicion.
        why: Suspicion,
        /// The objects in force that are missing from the folder.
        missing: BTreeSet<ObjectRef>,
    },
    /// The missing objects are back or forgotten: the freeze ends.
    Healthy,
    /// The first scan was processed: all changes before this belong to the initial load.
    Loaded,
}
