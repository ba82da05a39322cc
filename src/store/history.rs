//! The inputs of the catalog besides specs and directory, as changes in the shared sequence: pins, inventory, labels of
//! namespaces, and directories that wait to be accepted. Only differences from the last stored value are appended.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::encoding::json;
use super::lanes::cost;
use super::sqlite::history;
use super::{Store, StoreError};
use crate::model::{DocumentKey, GroupId, MappingKey, Pin, ProviderName, ResourceKind, Seq, TargetName};

/// Largest number of inventory changes in one transaction.
const CHUNK: usize = 500;

/// The kind of value in a row of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryKind {
    Pin,
    Resource,
    Listing,
    Namespace,
    Directory,
}

impl HistoryKind {
    /// The stored word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Resource => "resource",
            Self::Listing => "listing",
            Self::Namespace => "namespace",
            Self::Directory => "directory",
        }
    }
}

/// One value of the history before it has its position; `value` is JSON, none when the value ends.
pub(super) struct HistoryDraft {
    pub(super) kind: HistoryKind,
    pub(super) scope: String,
    pub(super) name: String,
    pub(super) value: Option<String>,
}

impl HistoryDraft {
    /// The value of a selector that is now bound to a group, or to none.
    pub(super) fn pin(
        mapping: &str,
        provider: &str,
        selector: &str,
        group: Option<GroupId>,
    ) -> Result<Self, StoreError> {
        let value = group.map(|group| json(&group.0.to_string())).transpose()?;
        let name = format!("{provider} {selector}");
        Ok(Self { kind: HistoryKind::Pin, scope: mapping.to_owned(), name, value })
    }
}

/// The labels of a namespace that differ between two stored values, each with both values.
pub(super) fn changed_labels(
    labels: &[String],
    before: Option<&str>,
    after: Option<&str>,
) -> BTreeMap<String, serde_json::Value> {
    let parsed = |text: Option<&str>| {
        text.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok()).unwrap_or_default()
    };
    let (before, after) = (parsed(before), parsed(after));
    let differs = |label: &&String| before.get(*label) != after.get(*label);
    let change = |label: &String| serde_json::json!({"from": before.get(label), "to": after.get(label)});
    labels.iter().filter(differs).map(|label| (label.clone(), change(label))).collect()
}

/// A resource in the list of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ResourceRecord {
    /// Its policy document.
    pub(crate) document: DocumentKey,
    /// Its uid.
    pub(crate) uid: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// The resource does not check `roles/run.invoker` at all.
    pub(crate) invoker_iam_disabled: bool,
}

/// The result of listing a target's resources.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct ListingRecord {
    /// All listed resources; none when nothing could be listed, so that the last list stays valid.
    pub(crate) resources: Option<Vec<ResourceRecord>>,
    /// Regions and kinds that could not be listed: an absence there proves nothing.
    pub(crate) unlisted: BTreeSet<(String, ResourceKind)>,
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

/// The stored form of the gaps in a list.
#[derive(Serialize, Deserialize, Default)]
struct StoredListing {
    /// Region and collection.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    unlisted: BTreeSet<(String, String)>,
    /// True when there is a list, from this attempt or an earlier one.
    listed: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
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
        // The last list stays valid.
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
        // Resources stay where nothing could be listed.
        if !listing.unlisted.contains(&(document.location().to_owned(), document.kind())) {
            drafts.push(draft(HistoryKind::Resource, name.clone(), None));
        }
    }
    Ok(drafts)
}

impl Store {
    /// The values of a kind and scope as of a position, by name.
    pub(super) async fn history_values(
        &self,
        kind: HistoryKind,
        scope: &str,
        seq: Seq,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let scope = scope.to_owned();
        self.read(move |db| history::values(db, kind, &scope, seq)).await
    }

    /// Appends the differences between a list of a target's resources and the last one, also over a restart. Returns
    /// the number of appended rows.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; [`StoreError::Unavailable`].
    pub(crate) async fn record_listing(&self, target: &TargetName, listing: &ListingRecord) -> Result<u64, StoreError> {
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
            appended += self.commit_leading_at(cost(chunk.len(), 0), move |tx| history::append(tx, &chunk)).await?;
        }
        Ok(appended)
    }

    /// Appends the labels of a namespace, unless they are equal to the last stored ones.
    ///
    /// # Errors
    /// Those of [`Store::record_listing`].
    pub(crate) async fn record_namespace(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let value = if labels.is_empty() { None } else { Some(json(labels)?) };
        let before = self.history_values(HistoryKind::Namespace, name, Seq::MAX).await?;
        if before.values().next() == value.as_ref() {
            return Ok(());
        }
        let (before, after) = (before.into_values().next(), value.clone());
        let draft = HistoryDraft { kind: HistoryKind::Namespace, scope: name.to_owned(), name: String::new(), value };
        self.commit_leading(move |tx| history::append_namespace(tx, draft, before.as_deref(), after.as_deref())).await
    }

    /// The pins of a mapping as of a position.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub(crate) async fn pins_at(&self, mapping: &MappingKey, seq: Seq) -> Result<Vec<Pin>, StoreError> {
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

    /// The inventory of a target as of a position, and whether the last attempt to list it failed. None before the
    /// first attempt; without resources when no attempt has succeeded yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub(crate) async fn listing_at(
        &self,
        target: &TargetName,
        seq: Seq,
    ) -> Result<Option<(ListingRecord, bool)>, StoreError> {
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
