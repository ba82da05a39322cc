//! What stays in force over a restart: last good specs. Only the leader writes them: one that another process took over
//! from must not bring back what that one forgot.

use super::sqlite::specs;
use super::versions::ObjectId;
use super::{SpecState, Store, StoreError, StoredSpec, VersionRef};

impl Store {
    /// All last good specs, by kind, namespace and name.
    pub async fn specs(&self) -> Result<Vec<StoredSpec>, StoreError> {
        self.read(specs::all).await
    }

    /// One last good spec.
    pub async fn spec(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<StoredSpec>, StoreError> {
        let id = ObjectId::new(kind, namespace, name);
        self.read(move |db| specs::find(db, &id)).await
    }

    /// Says where a spec stands from now on; nothing happens when there is none.
    pub async fn set_spec_state(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        state: SpecState,
    ) -> Result<(), StoreError> {
        let id = ObjectId::new(kind, namespace, name);
        self.commit_leading(move |tx| specs::set_state(tx, &id, state)).await
    }

    /// Stores a spec; the one of the same kind, namespace and name is replaced. The claims of a mapping that is there
    /// again are not abandoned any more.
    pub async fn put_spec(&self, spec: StoredSpec) -> Result<(), StoreError> {
        self.put_spec_version(spec, None).await.map(drop)
    }

    /// As [`Store::put_spec`], with the field manager or file that wrote it. Appends a version when anything changed.
    /// Answers the version that is in force; none for a Secret.
    pub async fn put_spec_version(
        &self,
        spec: StoredSpec,
        written_by: Option<String>,
    ) -> Result<Option<VersionRef>, StoreError> {
        self.commit_leading(move |tx| specs::put(tx, &spec, written_by.as_deref())).await
    }

    /// Forgets a spec.
    pub async fn remove_spec(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<(), StoreError> {
        let id = ObjectId::new(kind, namespace, name);
        self.commit_leading(move |tx| specs::remove(tx, &id)).await
    }
}
