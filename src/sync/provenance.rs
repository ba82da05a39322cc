//! Where a version of a custom resource came from, and what a folder lacks that an API server fills in.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::Inner;
use crate::store::{SpecState, StoreError, StoredSpec, VersionRef};

/// Where a version of a custom resource came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance<'a> {
    /// The file, or a word for a cluster.
    pub source: &'a str,
    /// The field manager or file that wrote it, as far as known.
    pub written_by: Option<&'a str>,
}

impl<'a> Provenance<'a> {
    /// A file of a folder of manifests.
    #[must_use]
    pub fn file(file: &'a str) -> Self {
        Self { source: file, written_by: Some(file) }
    }
}

/// The generation that the API server counts; without one, how often the spec was another one than before.
pub(super) fn generation(metadata: &ObjectMeta, known: Option<(i64, bool)>) -> i64 {
    match (metadata.generation, known) {
        (Some(counted), _) => counted,
        (None, None) => 1,
        (None, Some((generation, true))) => generation,
        (None, Some((generation, false))) => generation.saturating_add(1),
    }
}

/// Gives an object without one the time since which it is known, so that a restart does not make it younger.
pub(super) fn stamp(metadata: &mut ObjectMeta, known: Option<Timestamp>, now: Timestamp) {
    if metadata.creation_timestamp.is_none() {
        metadata.creation_timestamp = Some(Time(known.unwrap_or(now)));
    }
}

pub(super) fn created(metadata: &ObjectMeta, now: Timestamp) -> Timestamp {
    metadata.creation_timestamp.as_ref().map_or(now, |time| time.0)
}

impl Inner {
    /// Stores an object that is in force from now on.
    pub(super) async fn persist_spec(
        &self,
        (kind, namespace, name): (&str, Option<&str>, &str),
        generation: i64,
        from: Provenance<'_>,
        json: String,
    ) -> Result<Option<VersionRef>, StoreError> {
        let spec = StoredSpec {
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            generation,
            state: SpecState::Active,
            source: from.source.to_owned(),
            json,
        };
        self.store.put_spec_version(spec, from.written_by.map(str::to_owned)).await
    }
}
