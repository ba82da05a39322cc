//! All differences between policies and what is wanted, for `/drift` on the admin port.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::shown_in;
use crate::model::{Concerns, Difference, DriftKey, DriftKind, MappingKey};
use crate::sync::Engine;

/// Whether a difference is there, or was undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum DriftOutcome {
    /// It is there, and reported.
    Reported,
    /// The grant was made again within the last hour.
    Reverted,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DriftEntry {
    /// The target.
    pub(crate) target: String,
    /// The kind.
    #[serde(rename = "type")]
    pub(crate) kind: DriftKind,
    /// The resource, as projects/P/locations/L/services/S.
    pub(crate) resource: String,
    /// The role; empty for a difference of the whole resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) role: String,
    /// The member; people by id, or by domain and digest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) principal: String,
    /// Digest of the condition of the grant; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) condition: String,
    /// Whether it is there, or was undone.
    pub(crate) outcome: DriftOutcome,
    /// How often a grant was made again; 0 for what is there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) times: u64,
    /// Time of the first observation; of a grant that was made again, the last time that this happened.
    pub(crate) first_seen: Timestamp,
    /// The mappings that it concerns, as NAMESPACE/NAME; none: all that grant something on the resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mappings: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Engine {
    /// All reported differences, by target and kind.
    #[must_use]
    pub(crate) fn drift(&self) -> Vec<DriftEntry> {
        let (inner, now) = (&self.0, self.0.clock.now());
        let state = inner.state();
        let mut all = Vec::new();
        for (document, memory) in &state.documents {
            let Some(target) = state.target_of(document) else { continue };
            let entry = |key: &DriftKey, known: &Difference, outcome, times| DriftEntry {
                target: target.to_string(),
                kind: key.kind,
                resource: document.resource(),
                role: key.role.clone(),
                principal: shown_in(inner, key, known),
                condition: key.condition.as_str().to_owned(),
                outcome,
                times,
                first_seen: known.first_seen,
                mappings: known.concerns.mappings.iter().map(MappingKey::to_string).collect(),
            };
            let reported = state.reported(document);
            let there = memory.drift.of(None, &reported);
            all.extend(there.map(|(key, known)| entry(key, known, DriftOutcome::Reported, 0)));
            for (grant, mappings, times, last) in memory.drift.made_again(now) {
                let key = DriftKey {
                    kind: DriftKind::GrantMissing,
                    role: grant.role.to_string(),
                    condition: grant.condition.clone(),
                    member: Some(grant.member.clone()),
                };
                let concerns = Concerns { mappings: mappings.clone(), subject: memory.drift.subject_of(grant) };
                all.push(entry(&key, &Difference { first_seen: last, concerns }, DriftOutcome::Reverted, times));
            }
        }
        drop(state);
        all.sort();
        all
    }
}
