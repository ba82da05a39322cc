//! The last valid specs, which stay in force over a restart. Only the leader writes them: a process that lost the
//! leadership must not restore specs that the new leader removed.

use super::sqlite::specs;
use super::versions::ObjectId;
use super::{Store, StoreError, StoredSpec, VersionRef};
use crate::model::{Kind, MappingPhase};

impl Store {
    /// All last valid specs, by kind, namespace and name.
    pub(crate) async fn specs(&self) -> Result<Vec<StoredSpec>, StoreError> {
        self.read(specs::all).await
    }

    /// One last valid spec.
    pub(crate) async fn spec(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<StoredSpec>, StoreError> {
        let id = ObjectId::new(kind, namespace, name);
        self.read(move |db| specs::find(db, &id)).await
    }

    /// Sets the phase of a spec; does nothing when there is none.
    pub(crate) async fn set_spec_phase(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
        phase: MappingPhase,
    ) -> Result<(), StoreError> {
        let id = ObjectId::new(kind, namespace, name);
        self.commit_leading(move |tx| specs::set_phase(tx, &id, phase)).await
    }

    /// Stores a spec, replacing the one of the same kind, namespace and name. The claims of a mapping that exists again
    /// are no longer orphaned.
    pub(crate) async fn put_spec(&self, spec: StoredSpec) -> Result<(), StoreError> {
        self.put_spec_version(spec, None).await.map(drop)
    }

    /// Like [`Store::put_spec`], with the field manager or file that wrote it. Appends a version when anything changed.
    /// Returns the version in force; none for a Secret.
    pub(crate) async fn put_spec_version(
        &self,
        spec: StoredSpec,
        written_by: Option<String>,
    ) -> Result<Option<VersionRef>, StoreError> {
        self.commit_leading(move |tx| specs::put(tx, &spec, written_by.as_deref())).await
    }

    /// Removes a spec.
    pub(crate) async fn remove_spec(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Result<(), StoreError> {
        let id = ObjectId::new(kind, namespace, name);
        self.commit_leading(move |tx| specs::remove(tx, &id)).await
    }
}
