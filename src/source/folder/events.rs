//! Translates changes of the folder into events of single objects.

use std::collections::{BTreeMap, BTreeSet};

use super::FolderChange;
use crate::api::manifest::{ObjectRef, Problem};
use crate::source::{Absence, Observed, ResourceEvent};

/// State of the translation.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    /// Objects whose text has a problem, by file, with the problems.
    kept: BTreeMap<String, (BTreeSet<ObjectRef>, Vec<Problem>)>,
    /// Objects that are missing and not treated as deleted.
    missing: BTreeSet<ObjectRef>,
}

impl Translation {
    /// Creates the state. `missing`: the objects that were missing when rolecall last ran.
    #[must_use]
    pub(crate) fn new(missing: BTreeSet<ObjectRef>) -> Self {
        Self { kept: BTreeMap::new(), missing }
    }

    /// The events of one change.
    pub(crate) fn events(&mut self, change: FolderChange) -> Vec<ResourceEvent> {
        match change {
            FolderChange::Apply { object, file, .. } => {
                let observed = Box::new(Observed::in_file(object.object_ref(), &file));
                vec![ResourceEvent::Applied { observed, parsed: object }]
            }
            FolderChange::Unreadable { file, problems, keeps } => {
                for problem in problems.iter().take(20) {
                    tracing::warn!("{problem}");
                }
                let (before, _) = self.kept.insert(file.clone(), (keeps.clone(), problems)).unwrap_or_default();
                let cleared = self.cleared(before.difference(&keeps).cloned());
                cleared.into_iter().chain(self.rejected(&file, &keeps)).collect()
            }
            FolderChange::Readable { file } => {
                let (before, _) = self.kept.remove(&file).unwrap_or_default();
                self.cleared(before)
            }
            FolderChange::Deleted { object, file } => {
                let observed = Box::new(Observed::in_file(object, &file));
                vec![ResourceEvent::DeletionRequested { observed, parsed: None, problems: Vec::new() }]
            }
            FolderChange::Suspicious { why, missing } => {
                let mut events = vec![ResourceEvent::Suspicious(Some(why))];
                events.extend(self.back(self.missing.difference(&missing).cloned().collect()));
                events.extend(
                    missing.iter().cloned().map(|object| ResourceEvent::Absent { object, why: Absence::Doubted }),
                );
                self.missing = missing;
                events
            }
            FolderChange::Healthy => {
                let back = std::mem::take(&mut self.missing);
                std::iter::once(ResourceEvent::Suspicious(None)).chain(self.back(back)).collect()
            }
            FolderChange::Loaded => vec![ResourceEvent::Loaded],
        }
    }

    /// The events of objects whose text no longer has a problem. One that is missing is not back because of that.
    fn cleared(&self, objects: impl IntoIterator<Item = ObjectRef>) -> Vec<ResourceEvent> {
        let event = |object| {
            if self.missing.contains(&object) {
                ResourceEvent::ProblemCleared(object)
            } else {
                ResourceEvent::Recovered(object)
            }
        };
        objects.into_iter().map(event).collect()
    }

    /// The events of objects that are no longer missing: an object whose text came back with a problem still has the
    /// problem.
    fn back(&self, objects: BTreeSet<ObjectRef>) -> Vec<ResourceEvent> {
        let rejected: Vec<ResourceEvent> = self
            .kept
            .iter()
            .flat_map(|(file, (keeps, _))| self.rejected(file, &keeps.intersection(&objects).cloned().collect()))
            .collect();
        objects.into_iter().map(ResourceEvent::Recovered).chain(rejected).collect()
    }

    fn rejected(&self, file: &str, objects: &BTreeSet<ObjectRef>) -> Vec<ResourceEvent> {
        let problems = self.kept.get(file).map(|(_, problems)| problems.clone()).unwrap_or_default();
        let observed = |object: &ObjectRef| Box::new(Observed::in_file(object.clone(), file));
        let rejected = |object| ResourceEvent::Rejected { observed: observed(object), problems: problems.clone() };
        objects.iter().map(rejected).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use crate::source::folder::Suspicion;

    fn object(name: &str) -> ObjectRef {
        ObjectRef::new(Kind::RoleMapping, Some("team"), name)
    }

    fn words(events: &[ResourceEvent]) -> Vec<String> {
        let word = |event: &ResourceEvent| match event {
            ResourceEvent::Rejected { observed, .. } => format!("rejected {}", observed.object.name),
            ResourceEvent::Recovered(object) => format!("recovered {}", object.name),
            ResourceEvent::ProblemCleared(object) => format!("cleared {}", object.name),
            ResourceEvent::Absent { object, why: Absence::Doubted } => format!("absent {}", object.name),
            ResourceEvent::DeletionRequested { observed, .. } => format!("deleted {}", observed.object.name),
            ResourceEvent::Suspicious(why) => format!("suspicious {}", why.is_some()),
            other => panic!("{other:?}"),
        };
        events.iter().map(word).collect()
    }

    #[test]
    fn objects_of_a_file_with_problems_are_rejected_until_they_are_whole_or_elsewhere() {
        let mut translation = Translation::default();
        let problems = vec![Problem::of_file("f.yaml", "InvalidManifest", "no".to_owned())];
        let unreadable = |names: &[&str]| FolderChange::Unreadable {
            file: "f.yaml".to_owned(),
            problems: problems.clone(),
            keeps: names.iter().map(|name| object(name)).collect(),
        };
        assert_eq!(words(&translation.events(unreadable(&["a", "b"]))), ["rejected a", "rejected b"]);
        assert_eq!(words(&translation.events(unreadable(&["b"]))), ["recovered a", "rejected b"]);
        let readable = FolderChange::Readable { file: "f.yaml".to_owned() };
        assert_eq!(words(&translation.events(readable.clone())), ["recovered b"]);
        assert!(translation.events(readable).is_empty());
    }

    #[test]
    fn missing_object_is_not_back_because_a_broken_file_that_names_it_is_gone_again() {
        let mut translation = Translation::default();
        let missing = ["a", "b"].map(object).into();
        translation.events(FolderChange::Suspicious { why: Suspicion::MostMappingsGone, missing });
        let problems = vec![Problem::of_file("f.yaml", "InvalidManifest", "no".to_owned())];
        let unreadable = |names: &[&str]| FolderChange::Unreadable {
            file: "f.yaml".to_owned(),
            problems: problems.clone(),
            keeps: names.iter().map(|name| object(name)).collect(),
        };
        assert_eq!(words(&translation.events(unreadable(&["a", "b"]))), ["rejected a", "rejected b"]);
        assert_eq!(words(&translation.events(unreadable(&["b"]))), ["cleared a", "rejected b"]);
        let readable = FolderChange::Readable { file: "f.yaml".to_owned() };
        assert_eq!(words(&translation.events(readable)), ["cleared b"]);
        assert_eq!(
            words(&translation.events(FolderChange::Healthy)),
            ["suspicious false", "recovered a", "recovered b"]
        );
    }

    #[test]
    fn objects_missing_from_a_doubtful_folder_are_absent_and_never_deleted_until_they_are_back() {
        let mut translation = Translation::new([object("z")].into());
        let suspicious = |names: &[&str]| FolderChange::Suspicious {
            why: Suspicion::MostMappingsGone,
            missing: names.iter().map(|name| object(name)).collect(),
        };
        let events = translation.events(suspicious(&["a", "b"]));
        assert_eq!(words(&events), ["suspicious true", "recovered z", "absent a", "absent b"]);
        let events = translation.events(suspicious(&["b"]));
        assert_eq!(words(&events), ["suspicious true", "recovered a", "absent b"]);
        // It is back, and cannot be read.
        let problems = vec![Problem::of_file("f.yaml", "InvalidManifest", "no".to_owned())];
        let keeps = [object("b")].into();
        let unreadable = FolderChange::Unreadable { file: "f.yaml".to_owned(), problems, keeps };
        assert_eq!(words(&translation.events(unreadable)), ["rejected b"]);
        let events = translation.events(FolderChange::Healthy);
        assert_eq!(words(&events), ["suspicious false", "recovered b", "rejected b"]);
        let deleted = FolderChange::Deleted { object: object("a"), file: "f.yaml".to_owned() };
        assert_eq!(words(&translation.events(deleted)), ["deleted a"]);
    }
}
