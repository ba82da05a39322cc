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
    /// True when every needed permission is held.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.untested.is_empty()
    }
}

impl Target {
    /// Tests the permissions that the resources of these kinds need. What the project does not give is tested on the
    /// given resources, at most 50 of each kind: a role may also be granted on each of them.
    pub(crate) async fn preflight(
        &self,
        project: &str,
        kinds: &BTreeSet<ResourceKind>,
        documents: &[DocumentKey],
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
            Ok(held) => held,
            Err(error) => {
                result.problem = Some(error.to_string());
                result.untested.clone_from(&result.needed);
                if error.class() != ErrorClass::Definitive {
                    return result;
                }
                BTreeSet::new()
            }
        };
        for kind in kinds {
            let of_kind = needed(*kind);
            let lacking: BTreeSet<&'static str> =
                of_kind.iter().map(|one| one.permission).filter(|name| !held.contains(*name)).collect();
            if lacking.is_empty() {
                continue;
            }
            let on_resource =
                of_kind.iter().filter(|one| one.on_resource).map(|one| one.permission).collect::<BTreeSet<_>>();
            let asked: BTreeSet<&'static str> = lacking.intersection(&on_resource).copied().collect();
            let answers = self.held_on_resources(*kind, documents, &asked, &mut result).await;
            for permission in lacking {
                match answers.get(permission) {
                    Some(true) => drop(result.untested.remove(permission)),
                    Some(false) => {
                        result.untested.remove(permission);
                        result.missing.insert(permission.to_owned());
                    }
                    // Without an answer of the project nothing is known of it.
                    None if result.untested.contains(permission) => {}
                    None => drop(result.missing.insert(permission.to_owned())),
                }
            }
        }
        result
    }

    /// For each permission, whether all of the resources of the kind give it. Permissions that no resource was asked
    /// for are not in the answer.
    async fn held_on_resources(
        &self,
        kind: ResourceKind,
        documents: &[DocumentKey],
        asked: &BTreeSet<&'static str>,
        result: &mut Preflight,
    ) -> BTreeMap<&'static str, bool> {
        let mut answers: BTreeMap<&'static str, bool> = BTreeMap::new();
        if asked.is_empty() {
            return answers;
        }
        let of_kind = documents.iter().filter(|document| document.kind() == kind).take(RESOURCES);
        let tests: Vec<_> = of_kind.map(|document| self.held_on(document, asked)).collect();
        let mut found = stream::iter(tests).buffer_unordered(PARALLEL);
        while let Some(held) = found.next().await {
            match held {
                Ok(held) => {
                    for permission in asked {
                        *answers.entry(permission).or_insert(true) &= held.contains(*permission);
                    }
                }
                Err(error) => {
                    result.problem.get_or_insert_with(|| error.to_string());
                }
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Scripted;
    use super::*;

    fn kinds() -> BTreeSet<ResourceKind> {
        BTreeSet::from([ResourceKind::Service, ResourceKind::Job])
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
        let found = Target::Scripted(target).preflight("p", &kinds(), &[]).await;
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
        let found = port.preflight("p", &kinds(), &[service("a")]).await;
        assert_eq!(words(&found.missing), ["run.services.list"], "a list is never of one resource");
        let found = port.preflight("p", &kinds(), &[service("a"), service("b")]).await;
        assert_eq!(words(&found.missing), ["run.services.list", "run.services.setIamPolicy"], "b does not give it");
    }

    #[tokio::test]
    async fn a_target_without_resources_needs_nothing_and_is_not_asked() {
        let found = Target::Scripted(Scripted::default()).preflight("p", &BTreeSet::new(), &[]).await;
        assert!(found.is_complete() && found.needed.is_empty());
    }

    #[test]
    fn every_kind_is_read_and_written_and_only_writing_is_left_out_of_observing() {
        for kind in [ResourceKind::Service, ResourceKind::Job, ResourceKind::WorkerPool] {
            let all = needed(kind);
            assert_eq!(all.iter().filter(|one| is_for_writing(one.permission)).count(), 1, "{kind:?}");
            assert!(!all[0].on_resource && all[0].permission.rsplit('.').next() == Some("list"), "{kind:?}");
        }
    }
}
