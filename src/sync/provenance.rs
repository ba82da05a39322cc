//! The origin of a version of a custom resource, and fields that a folder lacks because an API server fills them in.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::Inner;
use crate::model::{Kind, MappingPhase};
use crate::store::{StoreError, StoredSpec, VersionRef};

/// The origin of a version of a custom resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Provenance<'a> {
    /// The file, or a fixed word for a cluster.
    pub(crate) source: &'a str,
    /// The field manager or file that wrote it, where known.
    pub(crate) written_by: Option<&'a str>,
}

#[cfg(test)]
impl<'a> Provenance<'a> {
    /// A file of a folder of manifests.
    #[must_use]
    pub(crate) fn file(file: &'a str) -> Self {
        Self { source: file, written_by: Some(file) }
    }
}

/// The generation counted by the API server; without one, the number of changes of the spec.
pub(super) fn generation(metadata: &ObjectMeta, known: Option<(i64, bool)>) -> i64 {
    match (metadata.generation, known) {
        (Some(counted), _) => counted,
        (None, None) => 1,
        (None, Some((generation, true))) => generation,
        (None, Some((generation, false))) => generation.saturating_add(1),
    }
}

/// Sets the creation time of an object without one to the time since which it is known, so that a restart does not make
/// it younger.
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
        (kind, namespace, name): (Kind, Option<&str>, &str),
        generation: i64,
        from: Provenance<'_>,
        json: String,
    ) -> Result<Option<VersionRef>, StoreError> {
        let spec = StoredSpec {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            generation,
            phase: MappingPhase::Live,
            source: from.source.to_owned(),
            json,
        };
        self.store.put_spec_version(spec, from.written_by.map(str::to_owned)).await
    }
}
