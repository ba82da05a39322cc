//! What stays in force over a restart: last good specs and pins. Only the leader writes them: one that another process
//! took over from must not bring back what that one forgot.

use sqlx::query;

use super::sql::{Columns, json};
use super::{SpecPhase, SpecState, Store, StoreError, StoredSpec, VersionRef, abandoned, history, versions};
use crate::model::{GroupId, MappingKey, Pin};

impl Store {
    /// All last good specs, by kind, namespace and name.
    pub async fn specs(&self) -> Result<Vec<StoredSpec>, StoreError> {
        let rows = query(
            "SELECT kind, namespace, name, generation, state, source, json FROM specs ORDER BY kind, namespace, name",
        )
        .fetch_all(self.readers())
        .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "specs");
                Ok(StoredSpec {
                    kind: columns.text()?,
                    namespace: Some(columns.text()?).filter(|namespace| !namespace.is_empty()),
                    name: columns.text()?,
                    generation: columns.integer()?,
                    state: columns.word(SpecState::from_word)?,
                    source: columns.text()?,
                    json: columns.text()?,
                })
            })
            .collect()
    }

    /// One last good spec.
    pub async fn spec(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<StoredSpec>, StoreError> {
        let row =
            query("SELECT generation, state, source, json FROM specs WHERE kind = ? AND namespace = ? AND name = ?")
                .bind(kind)
                .bind(namespace.unwrap_or_default())
                .bind(name)
                .fetch_optional(self.readers())
                .await?;
        row.map(|row| {
            let mut columns = Columns::of(&row, "specs");
            Ok(StoredSpec {
                kind: kind.to_owned(),
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
                generation: columns.integer()?,
                state: columns.word(SpecState::from_word)?,
                source: columns.text()?,
                json: columns.text()?,
            })
        })
        .transpose()
    }

    /// Says where a spec stands from now on; nothing happens when there is none.
    pub async fn set_spec_state(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        state: SpecState,
    ) -> Result<(), StoreError> {
        let (kind, namespace, name) = (kind.to_owned(), namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.commit_leading(move |tx| {
            Box::pin(async move {
                let updated = query("UPDATE specs SET state = ? WHERE kind = ? AND namespace = ? AND name = ?")
                    .bind(state.as_str())
                    .bind(&kind)
                    .bind(&namespace)
                    .bind(&name)
                    .execute(&mut tx.connection)
                    .await?;
                if updated.rows_affected() > 0 {
                    versions::append_phase(tx, &kind, &namespace, &name, state.into()).await?;
                }
                Ok(())
            })
        })
        .await
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
        self.commit_leading(move |tx| {
            Box::pin(async move {
                abandoned::reclaim(tx, &spec).await?;
                let version = versions::append(tx, &spec, written_by.as_deref()).await?;
                if spec.kind == versions::SECRET {
                    let id = (spec.namespace.as_deref().unwrap_or_default(), spec.name.as_str());
                    versions::audit_secret(tx, id, Some(&spec), &spec.source).await?;
                }
                query(
                    "INSERT INTO specs (kind, namespace, name, generation, state, source, json) \
                         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET generation = excluded.generation, \
                         state = excluded.state, source = excluded.source, json = excluded.json",
                )
                .bind(spec.kind)
                .bind(spec.namespace.unwrap_or_default())
                .bind(spec.name)
                .bind(spec.generation)
                .bind(spec.state.as_str())
                .bind(spec.source)
                .bind(spec.json)
                .execute(&mut tx.connection)
                .await?;
                Ok(version)
            })
        })
        .await
    }

    /// Forgets a spec.
    pub async fn remove_spec(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<(), StoreError> {
        let (kind, namespace, name) = (kind.to_owned(), namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.commit_leading(move |tx| {
            Box::pin(async move {
                if kind == versions::SECRET {
                    versions::audit_secret(tx, (&namespace, &name), None, "").await?;
                }
                query("DELETE FROM specs WHERE kind = ? AND namespace = ? AND name = ?")
                    .bind(&kind)
                    .bind(&namespace)
                    .bind(&name)
                    .execute(&mut tx.connection)
                    .await?;
                versions::append_phase(tx, &kind, &namespace, &name, SpecPhase::Removed).await?;
                if kind == versions::TARGET {
                    history::append_no_inventory(tx, &name).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// All pins.
    pub async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let rows = query("SELECT mapping, provider, selector, group_id FROM pins ORDER BY mapping, provider, selector")
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "pins");
                Ok(Pin {
                    mapping: columns.parse()?,
                    provider: columns.provider()?,
                    selector: columns.text()?,
                    group: GroupId(columns.id()?),
                })
            })
            .collect()
    }

    /// Stores pins, all or nothing; one of the same mapping, provider and selector is replaced.
    pub async fn put_pins(&self, pins: Vec<Pin>) -> Result<(), StoreError> {
        self.commit_leading(move |tx| {
            Box::pin(async move {
                let rows: Vec<_> = pins
                    .iter()
                    .map(|pin| (&pin.mapping, &pin.provider, &pin.selector, pin.group.0.simple().to_string()))
                    .collect();
                query(
                    "INSERT INTO pins (mapping, provider, selector, group_id) \
                         SELECT value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3) FROM json_each(?) \
                         WHERE true ON CONFLICT DO UPDATE SET group_id = excluded.group_id",
                )
                .bind(json(&rows)?)
                .execute(&mut tx.connection)
                .await?;
                history::append_pins(tx, &pins).await
            })
        })
        .await
    }

    /// Forgets all pins of a mapping.
    pub async fn remove_pins(&self, mapping: &MappingKey) -> Result<(), StoreError> {
        let mapping = mapping.to_string();
        self.commit_leading(move |tx| {
            Box::pin(async move {
                history::append_no_pins(tx, &mapping).await?;
                query("DELETE FROM pins WHERE mapping = ?").bind(mapping).execute(&mut tx.connection).await?;
                Ok(())
            })
        })
        .await
    }
}
