//! The statuses of one process, as a Kubernetes-style list. In a cluster, etcd is the store of statuses; without one,
//! this cache serves them at `/status`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use crate::api::{
    CloudRunTargetStatus, GROUP, IdentityProviderStatus, RoleMappingStatus, VERSION, fit_status, initial_status,
};
use crate::model::{Kind, MappingKey, ProviderName, Pseudonyms, TargetName};

use super::changed::{same_mapping, same_provider, same_target};

/// The part of `metadata` that a status list needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    /// The object's name.
    pub(crate) name: String,
    /// Its namespace, for mappings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// The generation of its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    /// The uid of the object; none without a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// Time of creation; from a folder: when the object was first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) creation_timestamp: Option<Time>,
}

/// The status of one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Status {
    /// Status of an `IdentityProvider`.
    IdentityProvider(Box<IdentityProviderStatus>),
    /// Status of a `CloudRunTarget`.
    CloudRunTarget(Box<CloudRunTargetStatus>),
    /// Status of a `RoleMapping`.
    RoleMapping(Box<RoleMappingStatus>),
}

impl Status {
    fn read(kind: Kind, status: Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::IdentityProvider => Self::IdentityProvider(serde_json::from_value(status)?),
            Kind::CloudRunTarget => Self::CloudRunTarget(serde_json::from_value(status)?),
            Kind::RoleMapping => Self::RoleMapping(serde_json::from_value(status)?),
            Kind::Secret | Kind::Namespace => {
                return Err(serde::de::Error::custom(format!("a {kind} has no status of rolecall")));
            }
        })
    }

    /// Applies `change` to each text that may contain foreign text.
    fn each_text(&mut self, change: &dyn Fn(&mut String)) {
        let conditions = match self {
            Self::IdentityProvider(status) => {
                for finding in &mut status.findings {
                    change(&mut finding.pointer);
                    change(&mut finding.hint);
                }
                &mut status.conditions
            }
            Self::CloudRunTarget(status) => {
                status.drift.iter_mut().for_each(|drift| change(&mut drift.principal));
                &mut status.conditions
            }
            Self::RoleMapping(status) => {
                let subjects = status.subjects.iter_mut().filter_map(|subject| subject.message.as_mut());
                let resources = status.resources.iter_mut().filter_map(|resource| resource.message.as_mut());
                subjects.chain(resources).for_each(&change);
                let drift = status.drift.iter_mut().flat_map(|drift| &mut drift.samples);
                drift.for_each(|sample| change(&mut sample.principal));
                &mut status.conditions
            }
        };
        for condition in conditions.iter_mut() {
            change(&mut condition.message);
        }
    }

    /// The status, cut to what the schema of its kind permits.
    #[must_use]
    pub(crate) fn fitted(self) -> Self {
        let kind = self.kind();
        let Ok(value) = serde_json::to_value(&self) else { return self };
        let fitting = fit_status(kind, value.clone());
        if fitting == value { self } else { Self::read(kind, fitting).unwrap_or(self) }
    }

    /// The kind of the object.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::IdentityProvider(_) => Kind::IdentityProvider,
            Self::CloudRunTarget(_) => Kind::CloudRunTarget,
            Self::RoleMapping(_) => Kind::RoleMapping,
        }
    }

    /// The conditions, in their order.
    #[must_use]
    pub(crate) fn conditions(&self) -> &[Condition] {
        match self {
            Self::IdentityProvider(status) => &status.conditions,
            Self::CloudRunTarget(status) => &status.conditions,
            Self::RoleMapping(status) => &status.conditions,
        }
    }

    /// The condition of this type, if it is present.
    #[must_use]
    pub(crate) fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions().iter().find(|condition| condition.type_ == type_)
    }

    /// True when both have the same meaning to a person. Times and last-seen values are ignored.
    pub(super) fn is_equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::IdentityProvider(one), Self::IdentityProvider(other)) => same_provider(one, other),
            (Self::CloudRunTarget(one), Self::CloudRunTarget(other)) => same_target(one, other),
            (Self::RoleMapping(one), Self::RoleMapping(other)) => same_mapping(one, other),
            _ => false,
        }
    }
}

/// One object of the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "RawItem")]
pub(crate) struct Item {
    /// Group and version.
    pub(crate) api_version: String,
    /// The kind.
    pub(crate) kind: Kind,
    /// The metadata.
    pub(crate) metadata: Metadata,
    /// The spec in force, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spec: Option<Value>,
    /// The status.
    pub(crate) status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawItem {
    api_version: String,
    kind: Kind,
    metadata: Metadata,
    #[serde(default)]
    spec: Option<Value>,
    #[serde(default)]
    status: Value,
}

impl TryFrom<RawItem> for Item {
    type Error = serde_json::Error;

    fn try_from(raw: RawItem) -> Result<Self, Self::Error> {
        // A newly created object has no status yet.
        let status = if raw.status.is_null() { initial_status() } else { raw.status };
        let status = Status::read(raw.kind, status)?;
        Ok(Self { api_version: raw.api_version, kind: raw.kind, metadata: raw.metadata, spec: raw.spec, status })
    }
}

impl Item {
    /// An object of this project's group and version.
    #[must_use]
    pub(crate) fn new(metadata: Metadata, spec: Option<Value>, status: Status) -> Self {
        Self { api_version: format!("{GROUP}/{VERSION}"), kind: status.kind(), metadata, spec, status }
    }

    pub(super) fn key(&self) -> ItemKey {
        (self.kind, self.metadata.namespace.clone().unwrap_or_default(), self.metadata.name.clone())
    }
}

/// A Kubernetes-style list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List {
    /// Always `v1`.
    pub(crate) api_version: String,
    /// Always `List`.
    pub(crate) kind: String,
    /// Sorted by kind, namespace and name.
    pub(crate) items: Vec<Item>,
}

impl List {
    /// Creates a list of these objects.
    #[must_use]
    pub(crate) fn new(items: Vec<Item>) -> Self {
        Self { api_version: "v1".to_owned(), kind: "List".to_owned(), items }
    }
}

pub(super) type ItemKey = (Kind, String, String);

/// The statuses of one process. Clones share them; no lock is held over an await.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatusCache(Arc<Cache>);

#[derive(Debug, Default)]
struct Cache {
    items: RwLock<BTreeMap<ItemKey, Item>>,
    /// Objects with changes that were not taken yet; at most one entry per object.
    news: Mutex<BTreeSet<ItemKey>>,
    /// Notified when there may be new entries.
    changed: Notify,
    /// The pseudonyms of people; none in tests without a store.
    pseudonyms: OnceLock<Pseudonyms>,
}

impl StatusCache {
    /// Creates an empty cache.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Makes the cache replace people by their pseudonyms in every text from now on.
    pub(crate) fn hide_people(&self, pseudonyms: Pseudonyms) {
        // Set only once: there is one store in a process.
        let _ = self.0.pseudonyms.set(pseudonyms);
    }

    /// The text with pseudonyms, which everybody may read.
    pub(super) fn shown(&self, text: &str) -> String {
        self.0.pseudonyms.get().map_or_else(|| text.to_owned(), |names| names.text(text).into_owned())
    }

    fn items(&self) -> RwLockReadGuard<'_, BTreeMap<ItemKey, Item>> {
        self.0.items.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn items_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<ItemKey, Item>> {
        self.0.items.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn news_mut(&self) -> MutexGuard<'_, BTreeSet<ItemKey>> {
        self.0.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the current status of one object. Returns whether it has new meaning for a person; if not, only the times
    /// and last-seen values are replaced. (Into a cluster, only new meaning is written, together with those values.)
    ///
    /// Whatever the schema of its kind would refuse is cut: if the API server refused a status, the former one would
    /// remain.
    pub(crate) fn publish(&self, mut item: Item) -> bool {
        let key = item.key();
        // Most statuses are unchanged, and those fit already.
        if self.items().get(&key).is_none_or(|old| old.status != item.status) {
            item.status.each_text(&|text| *text = self.shown(text));
            item.status = item.status.fitted();
        }
        if let Some(Value::String(text)) = item.spec.as_mut().and_then(|spec| spec.get_mut("description")) {
            *text = self.shown(text);
        }
        let (announce, news) = {
            let mut items = self.items_mut();
            let old = items.get(&key);
            // A cluster has the spec already.
            let announce =
                old.is_none_or(|old| old.metadata != item.metadata || !old.status.is_equivalent(&item.status));
            let news = announce || old.is_none_or(|old| old.spec != item.spec);
            items.insert(key.clone(), item);
            (announce, news)
        };
        if announce {
            self.announce(key);
        }
        news
    }

    /// Stores what the cluster already shows of an object, without marking it as new.
    pub(crate) fn seed(&self, item: Item) {
        self.items_mut().entry(item.key()).or_insert(item);
    }

    /// Marks an object as new, because the cluster does not show what the cache has.
    pub(crate) fn write_again(&self, kind: Kind, namespace: Option<&str>, name: &str) {
        self.announce((kind, namespace.unwrap_or_default().to_owned(), name.to_owned()));
    }

    pub(super) fn announce(&self, key: ItemKey) {
        self.news_mut().insert(key);
        self.0.changed.notify_one();
    }

    /// Waits for new entries and takes them.
    pub(super) async fn news(&self) -> BTreeSet<ItemKey> {
        loop {
            let news = std::mem::take(&mut *self.news_mut());
            if !news.is_empty() {
                return news;
            }
            self.0.changed.notified().await;
        }
    }

    /// Removes an object. Returns whether it was in the cache.
    pub(crate) fn remove(&self, kind: Kind, namespace: Option<&str>, name: &str) -> bool {
        let key = (kind, namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.news_mut().remove(&key);
        self.items_mut().remove(&key).is_some()
    }

    pub(super) fn get(&self, key: &ItemKey) -> Option<Item> {
        self.items().get(key).cloned()
    }

    /// One object.
    #[must_use]
    pub(crate) fn item(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Option<Item> {
        let key = (kind, namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.get(&key)
    }

    /// The previous status of a mapping, for the next fold.
    #[must_use]
    pub(crate) fn mapping(&self, key: &MappingKey) -> Option<RoleMappingStatus> {
        let key = (Kind::RoleMapping, key.namespace().to_owned(), key.name().to_owned());
        match &self.items().get(&key)?.status {
            Status::RoleMapping(status) => Some((**status).clone()),
            _ => None,
        }
    }

    /// The previous status of a target, for the next fold.
    #[must_use]
    pub(crate) fn target(&self, name: &TargetName) -> Option<CloudRunTargetStatus> {
        match &self.items().get(&(Kind::CloudRunTarget, String::new(), name.to_string()))?.status {
            Status::CloudRunTarget(status) => Some((**status).clone()),
            _ => None,
        }
    }

    /// The previous status of a provider, for the next fold.
    #[must_use]
    pub(crate) fn provider(&self, name: &ProviderName) -> Option<IdentityProviderStatus> {
        match &self.items().get(&(Kind::IdentityProvider, String::new(), name.to_string()))?.status {
            Status::IdentityProvider(status) => Some((**status).clone()),
            _ => None,
        }
    }

    /// All objects, by kind, namespace and name.
    #[must_use]
    pub(crate) fn list(&self) -> List {
        List::new(self.items().values().cloned().collect())
    }
}
