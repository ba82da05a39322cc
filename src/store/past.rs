//! All inputs of the catalog as of a past position.

use std::collections::{BTreeMap, BTreeSet};

use super::events::Sink;
use super::history::HistoryKind;
use super::sqlite::{history, meta, specs};
use super::{ListingRecord, SpecVersion, Store, StoreError};
use crate::model::{Pin, ProviderName, Seq, TargetName};

/// Largest number of directory events in one read.
const BATCH: u32 = 500;

/// All inputs of the catalog besides the directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PastCatalog {
    /// The versions in force, by kind, namespace and name, without removed ones.
    pub(crate) specs: Vec<SpecVersion>,
    /// The pins of all mappings.
    pub(crate) pins: Vec<Pin>,
    /// The inventory of each target, and whether the last attempt to list it failed.
    pub(crate) listings: BTreeMap<TargetName, (ListingRecord, bool)>,
    /// The labels of the namespaces that have any.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Providers under whose name people of a former provider are stored.
    pub(crate) former: BTreeSet<ProviderName>,
    /// Providers whose directory is older than the resolution of nested groups.
    pub(crate) before_nesting: BTreeSet<ProviderName>,
}

impl Store {
    /// The oldest position whose catalog can be rebuilt.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub(crate) async fn oldest_seq(&self) -> Result<Seq, StoreError> {
        self.read(|db| meta::position(db, "history_since")).await
    }

    /// All inputs of the catalog directly after a position; the directory is sent to `sink`, as the changes that built
    /// it. Rows that other processes append meanwhile are not included.
    ///
    /// # Errors
    /// [`StoreError::HistoryNotKept`], when the position is older than the history; [`StoreError::Unavailable`],
    /// [`StoreError::Damaged`].
    pub(crate) async fn catalog_at(&self, seq: Seq, sink: Sink<'_>) -> Result<PastCatalog, StoreError> {
        self.require_kept(seq).await?;
        let catalog = PastCatalog {
            specs: self.read(move |db| specs::in_force_at(db, seq)).await?,
            pins: self.all_pins_at(seq).await?,
            listings: self.listings_at(seq).await?,
            namespaces: self.namespaces_at(seq).await?,
            former: self.former_at(seq).await?,
            before_nesting: self.before_nesting().await?,
        };
        let mut after = 0;
        loop {
            let events = self.events_after(after, BATCH).await?;
            let Some(last) = events.last() else { break };
            after = last.seq;
            for event in events.into_iter().take_while(|event| event.seq <= seq) {
                sink(event.provider, event.change);
            }
            if after >= seq {
                break;
            }
        }
        // The history may have been pruned during the read.
        self.require_kept(seq).await?;
        Ok(catalog)
    }

    async fn require_kept(&self, seq: Seq) -> Result<(), StoreError> {
        let oldest = self.oldest_seq().await?;
        if seq < oldest { Err(StoreError::HistoryNotKept { seq, oldest }) } else { Ok(()) }
    }

    /// The scopes of a kind of history that have a value as of a position.
    async fn history_scopes(&self, kind: HistoryKind, seq: Seq) -> Result<Vec<String>, StoreError> {
        self.read(move |db| history::scopes(db, kind, seq)).await
    }

    async fn all_pins_at(&self, seq: Seq) -> Result<Vec<Pin>, StoreError> {
        let mut pins = Vec::new();
        for mapping in self.history_scopes(HistoryKind::Pin, seq).await? {
            let mapping = mapping.try_into().map_err(|error| damaged(&error))?;
            pins.extend(self.pins_at(&mapping, seq).await?);
        }
        Ok(pins)
    }

    async fn listings_at(&self, seq: Seq) -> Result<BTreeMap<TargetName, (ListingRecord, bool)>, StoreError> {
        let mut listings = BTreeMap::new();
        for target in self.history_scopes(HistoryKind::Listing, seq).await? {
            let target = TargetName::new(&target).map_err(|error| damaged(&error))?;
            if let Some(listing) = self.listing_at(&target, seq).await? {
                listings.insert(target, listing);
            }
        }
        Ok(listings)
    }

    async fn namespaces_at(&self, seq: Seq) -> Result<BTreeMap<String, BTreeMap<String, String>>, StoreError> {
        let mut namespaces = BTreeMap::new();
        for name in self.history_scopes(HistoryKind::Namespace, seq).await? {
            for labels in self.history_values(HistoryKind::Namespace, &name, seq).await?.into_values() {
                let labels = serde_json::from_str(&labels).map_err(|error| damaged(&error))?;
                namespaces.insert(name.clone(), labels);
            }
        }
        Ok(namespaces)
    }

    async fn former_at(&self, seq: Seq) -> Result<BTreeSet<ProviderName>, StoreError> {
        let scopes = self.history_scopes(HistoryKind::Directory, seq).await?;
        scopes.iter().map(|name| ProviderName::new(name).map_err(|error| damaged(&error))).collect()
    }
}

fn damaged(problem: &impl ToString) -> StoreError {
    StoreError::Damaged { what: "history", problem: problem.to_string() }
}
