//! Tests the permissions that a target needs, with every list of its resources.

use super::{Engine, Inner};
use crate::api::CloudRunTargetSpec;
use crate::catalog::InventoryItem;
use crate::model::DocumentKey;
use crate::target::{Preflight, TargetPreflight};

/// Tests the permissions of a target in its project. `items`: its resources, as just listed.
pub(super) async fn test(inner: &Inner, spec: &CloudRunTargetSpec, items: &[InventoryItem]) -> Vec<Preflight> {
    let delegated = spec.delegated();
    let documents: Vec<DocumentKey> = items
        .iter()
        .map(|item| &item.document)
        .filter(|document| delegated.matches(document.kind(), document.name()))
        .cloned()
        .collect();
    vec![inner.target.preflight(&spec.project, &delegated.kinds(), &documents).await]
}

impl Engine {
    /// The last tests of the permissions of all targets.
    #[must_use]
    pub(crate) fn preflights(&self) -> Vec<TargetPreflight> {
        let state = self.0.state();
        let tested = |(name, memory): (&crate::model::TargetName, &super::state::TargetState)| TargetPreflight {
            target: name.to_string(),
            projects: memory.preflights.clone(),
        };
        state.targets.iter().map(tested).collect()
    }
}
