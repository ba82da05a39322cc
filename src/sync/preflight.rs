//! Tests the permissions that a target needs, with every list of its resources.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{Engine, Inner};
use crate::api::CloudRunTargetSpec;
use crate::model::{DocumentKey, ResourceKind, TargetName};
use crate::target::{Places, TargetPreflight};

/// The resources of a target that a mapping may reach, as far as they were listed.
pub(super) fn reachable<'a>(
    spec: &CloudRunTargetSpec,
    documents: impl Iterator<Item = &'a DocumentKey>,
) -> Vec<DocumentKey> {
    let delegated = spec.delegated();
    documents.filter(|document| delegated.matches(document.kind(), document.name())).cloned().collect()
}

/// Tests the permissions of a target in its project, after a list. `documents`: its resources that mappings may reach.
/// `unlisted`: the kinds of which there may be more.
pub(super) async fn test(
    inner: &Inner,
    name: &TargetName,
    spec: &CloudRunTargetSpec,
    mut documents: Vec<DocumentKey>,
    unlisted: &BTreeSet<ResourceKind>,
) {
    let kinds = spec.delegated().kinds();
    let mut complete: BTreeSet<ResourceKind> = kinds.difference(unlisted).copied().collect();
    // Regions that are asked too much already are not asked for this.
    documents.retain(|document| {
        let open = inner.queue().reads_open(&document.region(), Instant::now()).is_none();
        if !open {
            complete.remove(&document.kind());
        }
        open
    });
    let places = Places { documents: &documents, complete: &complete };
    let found = inner.target.preflight(&spec.project, &kinds, places).await;
    {
        let mut state = inner.state();
        let Some(target) = state.targets.get_mut(name) else { return };
        let before = target.preflights.iter().find(|before| before.project == found.project);
        target.preflights = vec![found.after(before)];
        state.changed_targets.insert(name.clone());
    }
    inner.changed.notify_one();
}

impl Engine {
    /// The last tests of the permissions of all targets.
    #[must_use]
    pub(crate) fn preflights(&self) -> Vec<TargetPreflight> {
        let state = self.0.state();
        let tested = |(name, memory): (&TargetName, &super::state::TargetState)| TargetPreflight {
            target: name.to_string(),
            projects: memory.preflights.clone(),
        };
        state.targets.iter().map(tested).collect()
    }
}
