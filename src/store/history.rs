//! What the catalog follows from beside specs and directory, as changes in the one sequence: pins, inventory, labels of
//! namespaces, and directories that wait to be accepted. Only differences from what was stored last are appended.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::query;

use super::audit::AuditDraft;
use super::committer::Transaction;
use super::lanes::cost;
use super::sql::{Columns, json};
use super::versions::TARGET;
use super::{Store, StoreError};
use crate::model::{DocumentKey, GroupId, MappingKey, Pin, ProviderName, ResourceKind, Seq, TargetName};

/// Most changes of an inventory in one transaction.
const CHUNK: usize = 500;

/// What a row of the history is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryKind {
    Pin,
    Resource,
    Listing,
    Namespace,
    Directory,
}

impl HistoryKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Resource => "resource",
            Self::Listing => "listing",
            Self::Namespace => "namespace",
            Self::Directory => "directory",
        }
    }
}

/// One value of the history before it has its position; `value` is JSON, none when it is not so any more.
pub(super) struct HistoryDraft {
    kind: HistoryKind,
    scope: String,
    name: String,
    value: Option<String>,
}

impl HistoryDraft {
    fn columns(&self) -> (&'static str, &str, &str, Option<&str>) {
        (self.kind.as_str(), &self.scope, &self.name, self.value.as_deref())
    }
}

/// A resource as a target listed it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceRecord {
    /// Its policy document.
    pub document: DocumentKey,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The resource does not check `roles/run.invoker` at all.
    pub invoker_iam_disabled: bool,
}

/// What a list of a target's resources gave.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ListingRecord {
    /// All that were listed; none when nothing could be listed, so that the last list stays.
    pub resources: Option<Vec<ResourceRecord>>,
    /// Regions and kinds that could not be listed: nothing is concluded from absence there.
    pub unlisted: BTreeSet<(String, ResourceKind)>,
}

/// The stored form of a resource.
#[derive(Serialize, Deserialize)]
struct StoredResource {
    uid: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    invoker_iam_disabled: bool,
}

/// The stored form of what a list lacked.
#[derive(Serialize, Deserialize, Default)]
struct StoredListing {
    /// Region and collection.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    unlisted: BTreeSet<(String, String)>,
    /// There is a list, of this attempt or an earlier one.
    listed: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

/// Parameters: last position, time, drafts as JSON.
const APPEND: &str = "INSERT INTO history (seq, at, kind, scope, name, value) \
    SELECT ?1 + row_number() OVER (ORDER BY place), ?2, kind, scope, name, value FROM ( \
        SELECT key AS place, value ->> 0 AS kind, value ->> 1 AS scope, value ->> 2 AS name, value ->> 3 AS value \
        FROM json_each(?3)) given \
    WHERE value IS NOT (SELECT h.value FROM history h WHERE h.kind = given.kind AND h.scope = given.scope \
        AND h.name = given.name ORDER BY h.seq DESC LIMIT 1)";

/// The values of a kind and scope as of a position, by name.
const VALUES: &str = "SELECT h.name, h.value FROM history h WHERE h.kind = ?1 AND h.scope = ?2 AND h.seq <= ?3 \
    AND h.value IS NOT NULL AND h.seq = (SELECT max(l.seq) FROM history l WHERE l.kind = h.kind \
        AND l.scope = h.scope AND l.name = h.name AND l.seq <= ?3) ORDER BY h.name";

/// The scopes of a kind that have a value as of a position.
const SCOPES: &str = "SELECT DISTINCT h.scope FROM history h WHERE h.kind = ?1 AND h.seq <= ?2 AND h.value IS NOT NULL \
    AND h.seq = (SELECT max(l.seq) FROM history l WHERE l.kind = h.kind AND l.scope = h.scope AND l.name = h.name \
        AND l.seq <= ?2) ORDER BY h.scope";

/// Appends what differs from the last value of the same kind, scope and name. Names must differ from each other.
pub(super) async fn append(tx: &mut Transaction, drafts: &[HistoryDraft]) -> Result<u64, StoreError> {
    if drafts.is_empty() {
        return Ok(0);
    }
    let rows: Vec<_> = drafts.iter().map(HistoryDraft::columns).collect();
    let inserted = query(APPEND)
        .bind(tx.seq())
        .bind(tx.now_nanos())
        .bind(json(&rows)?)
        .execute(&mut tx.connection)
        .await?
        .rows_affected();
    tx.take_seqs(inserted);
    Ok(inserted)
}

fn pin_draft(
    mapping: &str,
    provider: &str,
    selector: &str,
    group: Option<GroupId>,
) -> Result<HistoryDraft, StoreError> {
    let value = group.map(|group| json(&group.0.to_string())).transpose()?;
    let name = format!("{provider} {selector}");
    Ok(HistoryDraft { kind: HistoryKind::Pin, scope: mapping.to_owned(), name, value })
}

/// Appends pins as they are from now on; of several for the same place the last counts.
pub(super) async fn append_pins(tx: &mut Transaction, pins: &[Pin]) -> Result<(), StoreError> {
    let mut places = BTreeMap::new();
    for pin in pins {
        let mapping = pin.mapping.to_string();
        let draft = pin_draft(&mapping, pin.provider.as_str(), &pin.selector, Some(pin.group))?;
        places.insert((mapping, draft.name.clone()), draft);
    }
    let drafts: Vec<_> = places.into_values().collect();
    append(tx, &drafts).await.map(drop)
}

/// Appends that a mapping has no pins any more.
pub(super) async fn append_no_pins(tx: &mut Transaction, mapping: &str) -> Result<(), StoreError> {
    let rows = query("SELECT provider, selector FROM pins WHERE mapping = ?")
        .bind(mapping)
        .fetch_all(&mut tx.connection)
        .await?;
    let mut drafts = Vec::new();
    for row in &rows {
        let mut columns = Columns::of(row, "pins");
        let (provider, selector) = (columns.text()?, columns.text()?);
        drafts.push(pin_draft(mapping, &provider, &selector, None)?);
    }
    append(tx, &drafts).await.map(drop)
}

/// Appends whether the directory under this name is that of a former provider.
pub(super) async fn append_former(tx: &mut Transaction, provider: &str, former: bool) -> Result<(), StoreError> {
    let value = former.then(|| json(&true)).transpose()?;
    let draft = HistoryDraft { kind: HistoryKind::Directory, scope: provider.to_owned(), name: String::new(), value };
    append(tx, &[draft]).await.map(drop)
}

/// Appends that nothing is known of what a target lists: it is another one, or gone.
pub(super) async fn append_no_inventory(tx: &mut Transaction, target: &str) -> Result<(), StoreError> {
    let mut drafts = Vec::new();
    for kind in [HistoryKind::Resource, HistoryKind::Listing] {
        let rows = query(VALUES).bind(kind.as_str()).bind(target).bind(Seq::MAX).fetch_all(&mut tx.connection).await?;
        for row in &rows {
            let name = Columns::of(row, "history").text()?;
            drafts.push(HistoryDraft { kind, scope: target.to_owned(), name, value: None });
        }
    }
    append(tx, &drafts).await.map(drop)
}

fn listing_drafts(
    target: &TargetName,
    listing: &ListingRecord,
    known: &BTreeMap<String, String>,
    before: Option<&String>,
) -> Result<Vec<HistoryDraft>, StoreError> {
    let draft = |kind, name: String, value| HistoryDraft { kind, scope: target.as_str().to_owned(), name, value };
    let unlisted = listing.unlisted.iter().map(|(region, kind)| (region.clone(), kind.collection().to_owned()));
    let stored = match &listing.resources {
        Some(_) => StoredListing { unlisted: unlisted.collect(), listed: true, failed: false },
        // The last list stays.
        None => StoredListing {
            failed: true,
            ..before.and_then(|before| serde_json::from_str(before).ok()).unwrap_or_default()
        },
    };
    let mut drafts = vec![draft(HistoryKind::Listing, String::new(), Some(json(&stored)?))];
    let Some(resources) = &listing.resources else { return Ok(drafts) };
    let mut listed = BTreeSet::new();
    for resource in resources {
        let name = resource.document.to_string();
        let value = json(&StoredResource {
            uid: resource.uid.clone(),
            labels: resource.labels.clone(),
            invoker_iam_disabled: resource.invoker_iam_disabled,
        })?;
        if listed.insert(name.clone()) && known.get(&name) != Some(&value) {
            drafts.push(draft(HistoryKind::Resource, name, Some(value)));
        }
    }
    for name in known.keys().filter(|name| !listed.contains(*name)) {
        let document = DocumentKey::try_from(name.clone())
            .map_err(|error| StoreError::Damaged { what: "history", problem: error.to_string() })?;
        // Where nothing could be listed, what was there before stays.
        if !listing.unlisted.contains(&(document.location().to_owned(), document.kind())) {
            drafts.push(draft(HistoryKind::Resource, name.clone(), None));
        }
    }
    Ok(drafts)
}

/// Appends to the audit what changed of the labels of a namespace, as far as a target delegates by them.
async fn audit_delegation(
    tx: &mut Transaction,
    namespace: &str,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<(), StoreError> {
    let rows = query(
        "SELECT DISTINCT label.key FROM specs, json_each(specs.json, '$.spec.allow') allow, \
            json_each(allow.value, '$.namespaces.matchLabels') label WHERE specs.kind = ? ORDER BY label.key",
    )
    .bind(TARGET)
    .fetch_all(&mut tx.connection)
    .await?;
    let parsed = |text: Option<&str>| {
        text.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok()).unwrap_or_default()
    };
    let (before, after) = (parsed(before), parsed(after));
    let mut changed = BTreeMap::new();
    for row in &rows {
        let label = Columns::of(row, "specs").text()?;
        if before.get(&label) != after.get(&label) {
            let change = serde_json::json!({"from": before.get(&label), "to": after.get(&label)});
            changed.insert(label, change);
        }
    }
    if !changed.is_empty() {
        let detail = serde_json::json!({"labels": changed}).to_string();
        let draft = AuditDraft::configuration(tx.now, "cluster", "delegation.change", namespace, Some(tx.seq()));
        tx.audit(draft.with_detail(detail));
    }
    Ok(())
}

impl Store {
    /// The values of a kind and scope as of a position, by name.
    pub(super) async fn history_values(
        &self,
        kind: HistoryKind,
        scope: &str,
        seq: Seq,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let rows = query(VALUES).bind(kind.as_str()).bind(scope).bind(seq).fetch_all(self.readers()).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row, "history");
                Ok((columns.text()?, columns.text()?))
            })
            .collect()
    }

    /// The scopes of a kind that have a value as of a position.
    pub(super) async fn history_scopes(&self, kind: HistoryKind, seq: Seq) -> Result<Vec<String>, StoreError> {
        let rows = query(SCOPES).bind(kind.as_str()).bind(seq).fetch_all(self.readers()).await?;
        rows.iter().map(|row| Columns::of(row, "history").text()).collect()
    }

    /// Appends what a list of a target's resources changed since the last one, also over a restart. Answers how many rows
    /// were appended.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; [`StoreError::Unavailable`].
    pub async fn record_listing(&self, target: &TargetName, listing: &ListingRecord) -> Result<u64, StoreError> {
        let known = self.history_values(HistoryKind::Resource, target.as_str(), Seq::MAX).await?;
        let before = self.history_values(HistoryKind::Listing, target.as_str(), Seq::MAX).await?.into_values().next();
        let mut drafts = listing_drafts(target, listing, &known, before.as_ref())?;
        if let [only] = drafts.as_slice()
            && before == only.value
        {
            return Ok(0);
        }
        let mut appended = 0;
        while !drafts.is_empty() {
            let rest = drafts.split_off(drafts.len().min(CHUNK));
            let chunk = std::mem::replace(&mut drafts, rest);
            appended += self
                .commit_leading_at(cost(chunk.len(), 0), move |tx| Box::pin(async move { append(tx, &chunk).await }))
                .await?;
        }
        Ok(appended)
    }

    /// Appends the labels of a namespace, unless they are the last ones stored.
    ///
    /// # Errors
    /// As [`Store::record_listing`].
    pub async fn record_namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), StoreError> {
        let value = if labels.is_empty() { None } else { Some(json(labels)?) };
        let before = self.history_values(HistoryKind::Namespace, name, Seq::MAX).await?;
        if before.values().next() == value.as_ref() {
            return Ok(());
        }
        let (before, after) = (before.into_values().next(), value.clone());
        let draft = HistoryDraft { kind: HistoryKind::Namespace, scope: name.to_owned(), name: String::new(), value };
        self.commit_leading(move |tx| {
            Box::pin(async move {
                let scope = draft.scope.clone();
                append(tx, &[draft]).await?;
                audit_delegation(tx, &scope, before.as_deref(), after.as_deref()).await
            })
        })
        .await
    }

    /// The pins of a mapping as of a position.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn pins_at(&self, mapping: &MappingKey, seq: Seq) -> Result<Vec<Pin>, StoreError> {
        let damaged = |problem: String| StoreError::Damaged { what: "history", problem };
        let values = self.history_values(HistoryKind::Pin, &mapping.to_string(), seq).await?;
        values
            .into_iter()
            .map(|(name, value)| {
                let (provider, selector) =
                    name.split_once(' ').ok_or_else(|| damaged(format!("`{name}` names no pin")))?;
                let id = serde_json::from_str(&value).map_err(|error| damaged(error.to_string()))?;
                Ok(Pin {
                    mapping: mapping.clone(),
                    provider: ProviderName::new(provider).map_err(|error| damaged(error.to_string()))?,
                    selector: selector.to_owned(),
                    group: GroupId(id),
                })
            })
            .collect()
    }

    /// What a target listed as of a position, and whether the last attempt to list it failed; none before its first
    /// attempt, without resources when none has succeeded yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn listing_at(&self, target: &TargetName, seq: Seq) -> Result<Option<(ListingRecord, bool)>, StoreError> {
        let damaged = |problem: String| StoreError::Damaged { what: "history", problem };
        let listing = self.history_values(HistoryKind::Listing, target.as_str(), seq).await?;
        let Some(text) = listing.values().next() else { return Ok(None) };
        let stored: StoredListing = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let mut resources = Vec::new();
        for (name, value) in self.history_values(HistoryKind::Resource, target.as_str(), seq).await? {
            let StoredResource { uid, labels, invoker_iam_disabled } =
                serde_json::from_str(&value).map_err(|error| damaged(error.to_string()))?;
            let document = DocumentKey::try_from(name).map_err(|error| damaged(error.to_string()))?;
            resources.push(ResourceRecord { document, uid, labels, invoker_iam_disabled });
        }
        let unlisted = stored.unlisted.into_iter().map(|(region, collection)| {
            let kind = ResourceKind::from_collection(&collection);
            kind.map(|kind| (region, kind)).ok_or_else(|| damaged(format!("`{collection}` is no collection")))
        });
        let resources = stored.listed.then_some(resources);
        let listing = ListingRecord { resources, unlisted: unlisted.collect::<Result<_, _>>()? };
        Ok(Some((listing, stored.failed)))
    }
}
