//! The permissions that a target needs, and which of them the credentials of this process have. Tested with
//! `testIamPermissions`, which changes nothing and needs no permission itself, so it is also done in observe mode.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::{ErrorClass, Target};
use crate::model::{DocumentKey, ResourceKind};

/// Largest number of resources of one kind that are asked for permissions that the project does not give.
const RESOURCES: usize = 50;
/// Number of concurrent tests.
const PARALLEL: usize = 8;

/// A permission, and where it can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Needed {
    permission: &'static str,
    /// True when a role on a single resource can have it; otherwise only roles on the project, or above, can.
    on_resource: bool,
}

/// The permissions needed for the resources of a kind.
fn needed(kind: ResourceKind) -> [Needed; 4] {
    let of = |[list, get, read, write]: [&'static str; 4]| {
        let at = |permission, on_resource| Needed { permission, on_resource };
        [at(list, false), at(get, true), at(read, true), at(write, true)]
    };
    of(match kind {
        ResourceKind::Service => {
            ["run.services.list", "run.services.get", "run.services.getIamPolicy", "run.services.setIamPolicy"]
        }
        ResourceKind::Job => ["run.jobs.list", "run.jobs.get", "run.jobs.getIamPolicy", "run.jobs.setIamPolicy"],
        ResourceKind::WorkerPool => [
            "run.workerpools.list",
            "run.workerpools.get",
            "run.workerpools.getIamPolicy",
            "run.workerpools.setIamPolicy",
        ],
    })
}

/// True for a permission that is needed to write, and therefore not in observe mode.
#[must_use]
pub(crate) fn is_for_writing(permission: &str) -> bool {
    permission.ends_with(".setIamPolicy")
}

/// The permissions of the credentials in one project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preflight {
    /// The project id.
    pub(crate) project: String,
    /// The permissions that the target needs.
    pub(crate) needed: BTreeSet<String>,
    /// Those of them that the credentials lack: on the project, and on at least one of the resources.
    pub(crate) missing: BTreeSet<String>,
    /// Those of them that could not be tested.
    pub(crate) untested: BTreeSet<String>,
    /// Why not all of them could be tested, in Google's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// The permissions of the credentials for one target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetPreflight {
    /// The name of the `CloudRunTarget`.
    pub(crate) target: String,
    /// The permissions by project; empty before the first test.
    pub(crate) projects: Vec<Preflight>,
}

impl Preflight {
    /// What was missing before stays so as long as it cannot be tested again.
    #[must_use]
    pub(crate) fn after(mut self, before: Option<&Self>) -> Self {
        let kept: Vec<String> = before
            .iter()
            .flat_map(|before| &before.missing)
            .filter(|one| self.untested.contains(*one))
            .cloned()
            .collect();
        for permission in kept {
            self.untested.remove(&permission);
            self.missing.insert(permission);
        }
        self
    }

    /// True when every needed permission is held.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.untested.is_empty()
    }
}

/// The resources on which permissions can be tested that the project does not give.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// The resources, of any kind.
    pub(crate) documents: &'a [DocumentKey],
    /// The kinds of which these are all resources. Of the others, more may exist.
    pub(crate) complete: &'a BTreeSet<ResourceKind>,
}

impl Target {
    /// Tests the permissions that the resources of these kinds need. What the project does not give is tested on the
    /// resources, at most 50 of each kind: a role may also be granted on each of them.
    pub(crate) async fn preflight(
        &self,
        project: &str,
        kinds: &BTreeSet<ResourceKind>,
        places: Places<'_>,
    ) -> Preflight {
        let all: BTreeSet<Needed> = kinds.iter().flat_map(|kind| needed(*kind)).collect();
        let names: BTreeSet<&'static str> = all.iter().map(|needed| needed.permission).collect();
        let mut result = Preflight {
            project: project.to_owned(),
            needed: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Preflight::default()
        };
        if names.is_empty() {
            return result;
        }
        let held = match self.held_in_project(project, &names).await {
            Ok(held) => Some(held),
            Err(error) => {
                result.problem = Some(error.to_string());
                if error.class() != ErrorClass::Definitive {
                    result.untested.clone_from(&result.needed);
                    return result;
                }
                None
            }
        };
        for kind in kinds {
            let of_kind = needed(*kind);
            let lacking = of_kind.iter().filter(|one| held.as_ref().is_none_or(|held| !held.contains(one.permission)));
            let lacking: Vec<&Needed> = lacking.collect();
            let asked = lacking.iter().filter(|one| one.on_resource).map(|one| one.permission).collect();
            let answers = self.held_on_resources(*kind, places, &asked, &mut result.problem).await;
            for one in lacking {
                let on_resources = answers.get(one.permission).copied().unwrap_or(Answer::Unknown);
                let answer = match on_resources {
                    // A list is of the project only.
                    Answer::Unknown if !one.on_resource && held.is_some() => Answer::No,
                    answer => answer,
                };
                match answer {
                    Answer::Yes => {}
                    Answer::No => drop(result.missing.insert(one.permission.to_owned())),
                    Answer::Unknown => drop(result.untested.insert(one.permission.to_owned())),
                }
            }
        }
        result
    }

    /// For each asked permission, whether all resources of the kind give it.
    async fn held_on_resources(
        &self,
        kind: ResourceKind,
        places: Places<'_>,
        asked: &BTreeSet<&'static str>,
        problem: &mut Option<String>,
    ) -> BTreeMap<&'static str, Answer> {
        let of_kind: Vec<&DocumentKey> =
            places.documents.iter().filter(|document| document.kind() == kind).take(RESOURCES).collect();
        // Without any resource, only the project could give what the first one will need.
        let first = match (places.complete.contains(&kind), of_kind.is_empty()) {
            (true, true) => Answer::No,
            (true, false) => Answer::Yes,
            (false, _) => Answer::Unknown,
        };
        let mut answers: BTreeMap<&'static str, Answer> = asked.iter().map(|permission| (*permission, first)).collect();
        let tests: Vec<_> = of_kind.into_iter().map(|document| self.held_on(document, asked)).collect();
        let mut found = stream::iter(tests).buffer_unordered(PARALLEL);
        while answers.values().any(|answer| *answer != Answer::No)
            && let Some(held) = found.next().await
        {
            match held {
                Ok(held) => {
                    for (permission, answer) in &mut answers {
                        if !held.contains(*permission) {
                            *answer = Answer::No;
                        }
                    }
                }
                Err(error) => {
                    for answer in answers.values_mut().filter(|answer| **answer == Answer::Yes) {
                        *answer = Answer::Unknown;
                    }
                    problem.get_or_insert_with(|| error.to_string());
                    if error.class() == ErrorClass::Throttle {
                        break;
                    }
                }
            }
        }
        answers
    }
}

/// Whether a permission is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Scripted;
    use super::*;

    fn kinds() -> BTreeSet<ResourceKind> {
        BTreeSet::from([ResourceKind::Service, ResourceKind::Job])
    }

    const ALL: [ResourceKind; 3] = [ResourceKind::Service, ResourceKind::Job, ResourceKind::WorkerPool];

    fn places(documents: &[DocumentKey]) -> Places<'_> {
        static COMPLETE: std::sync::LazyLock<BTreeSet<ResourceKind>> = std::sync::LazyLock::new(|| ALL.into());
        Places { documents, complete: &COMPLETE }
    }

    fn service(name: &str) -> DocumentKey {
        DocumentKey::cloud_run("p", "europe-west1", ResourceKind::Service, name).unwrap()
    }

    fn words(all: &BTreeSet<String>) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }

    #[tokio::test]
    async fn what_the_project_gives_is_held_and_the_rest_is_missing() {
        let target = Scripted::default();
        target.permit_all_but(&["run.jobs.list", "run.services.setIamPolicy"]);
        let found = Target::Scripted(target).preflight("p", &kinds(), places(&[])).await;
        assert_eq!(found.needed.len(), 8);
        assert_eq!(words(&found.missing), ["run.jobs.list", "run.services.setIamPolicy"]);
        assert!(found.untested.is_empty() && found.problem.is_none(), "{found:?}");
    }

    #[tokio::test]
    async fn roles_on_every_resource_are_as_good_as_one_on_the_project() {
        let target = Scripted::default();
        target.permit_all_but(&["run.services.setIamPolicy", "run.services.list"]);
        target.permit_on(&service("a"), &["run.services.setIamPolicy", "run.services.list"]);
        let port = Target::Scripted(target.clone());
        let found = port.preflight("p", &kinds(), places(&[service("a")])).await;
        assert_eq!(words(&found.missing), ["run.services.list"], "a list is never of one resource");
        let found = port.preflight("p", &kinds(), places(&[service("a"), service("b")])).await;
        assert_eq!(words(&found.missing), ["run.services.list", "run.services.setIamPolicy"], "b does not give it");
    }

    #[tokio::test]
    async fn what_cannot_be_tested_is_neither_held_nor_missing_and_stays_as_it_was() {
        let target = Scripted::default();
        target.permit_all_but(&["run.services.setIamPolicy"]);
        let port = Target::Scripted(target);
        let unlisted = Places { documents: &[], complete: &BTreeSet::new() };
        let found = port.preflight("p", &kinds(), unlisted).await;
        assert_eq!((words(&found.missing), words(&found.untested)), (vec![], vec!["run.services.setIamPolicy"]));
        let before = port.preflight("p", &kinds(), places(&[])).await;
        assert_eq!(words(&before.missing), ["run.services.setIamPolicy"]);
        let after = found.clone().after(Some(&before));
        assert_eq!((words(&after.missing), words(&after.untested)), (vec!["run.services.setIamPolicy"], vec![]));
        assert_eq!(found.clone().after(None), found);
    }

    #[tokio::test]
    async fn a_target_without_resources_needs_nothing_and_is_not_asked() {
        let found = Target::Scripted(Scripted::default()).preflight("p", &BTreeSet::new(), places(&[])).await;
        assert!(found.is_complete() && found.needed.is_empty());
    }

    #[test]
    fn every_kind_is_read_and_written_and_only_writing_is_left_out_of_observing() {
        for kind in ALL {
            let all = needed(kind);
            assert_eq!(all.iter().filter(|one| is_for_writing(one.permission)).count(), 1, "{kind:?}");
            assert!(!all[0].on_resource && all[0].permission.rsplit('.').next() == Some("list"), "{kind:?}");
        }
    }
}
