//! Leader election, and the cluster's checkpoint of the store: both on one Lease in the operator's namespace.
//!
//! The Lease only decides who works. The store prevents writes of a former leader: it refuses ledger writes of an older
//! epoch.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt as _};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::checkpoint::{self, Checkpoint, Comparison};
use crate::api::{FIELD_MANAGER, IdentityProvider, RoleMapping};
use crate::model::FreezeReason;

/// The name of the Lease, whatever the name of the release, so that two releases in one namespace share it.
const LEASE: &str = "rolecall";
/// Duration of a lease without renewal, in seconds.
const DURATION: u64 = 15;
/// Time before the end of the duration at which the lease is renewed, in seconds.
const GRACE: u64 = 10;
/// Delay after an error of the API server.
const AGAIN: Duration = Duration::from_secs(1);

/// Number of mappings per page of a list.
const PAGE: u32 = 250;

const STORE_ID: &str = "rolecall.dev/store-id";
const HIGHEST_SEQ: &str = "rolecall.dev/highest-seq";
const HIGHEST_AUDIT_SEQ: &str = "rolecall.dev/highest-audit-seq";

/// Leadership of this process according to the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaderState {
    /// Another process leads, or none yet.
    Waiting,
    /// This process leads.
    Leader,
    /// This process led and no longer does. This state is final.
    Lost,
}

/// Campaigns for the Lease until `stop` is canceled, and then releases a Lease that it has.
pub(crate) fn campaign(
    client: Client,
    namespace: String,
    identity: String,
    stop: CancellationToken,
) -> (watch::Receiver<LeaderState>, JoinHandle<()>) {
    let (state, leadership) = watch::channel(LeaderState::Waiting);
    let task = tokio::spawn(async move {
        let Some(mut manager) = manager_of(&client, &namespace, &identity, &stop).await else { return };
        loop {
            let changed = tokio::select! {
                changed = manager.changed() => changed,
                () = stop.cancelled() => break,
            };
            let led = *state.borrow() == LeaderState::Leader;
            match changed {
                Ok(true) => {
                    state.send_replace(LeaderState::Leader);
                }
                // The Lease was deleted: the next process creates another one, and leads.
                Ok(false) | Err(LeaseManagerError::NonexistentLease(_)) if led => {
                    state.send_replace(LeaderState::Lost);
                    return;
                }
                Ok(false) => {}
                // Somebody deleted it while this process waited. Only a new manager creates another one.
                Err(LeaseManagerError::NonexistentLease(_)) => {
                    match manager_of(&client, &namespace, &identity, &stop).await {
                        Some(another) => manager = another,
                        None => return,
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the Lease {namespace}/{LEASE}; retrying");
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        if let Err(error) = manager.release().await {
            tracing::warn!(%error, "cannot release the Lease; the next leader has to wait until it expires");
        }
    });
    (leadership, task)
}

async fn manager_of(
    client: &Client,
    namespace: &str,
    identity: &str,
    stop: &CancellationToken,
) -> Option<LeaseManager> {
    loop {
        let built = LeaseManagerBuilder::new(client.clone(), LEASE)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION)
            .with_grace(GRACE)
            .build()
            .await;
        match built {
            Ok(manager) => return Some(manager),
            Err(error) => {
                tracing::warn!(%error, "cannot create or read the Lease {namespace}/{LEASE}; retrying");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => return None,
                }
            }
        }
    }
}

/// The checkpoint of the store in the cluster.
#[derive(Clone)]
pub(crate) struct ClusterCheckpoint {
    client: Client,
    namespace: String,
    leases: Api<Lease>,
}

/// The result of comparing the store with the checkpoint in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compared {
    /// The reason for which nothing may be written.
    pub(crate) freeze: Option<FreezeReason>,
    /// The namespace of another rolecall whose store is named in the providers' statuses.
    pub(crate) other: Option<String>,
    /// True when the cluster has no record of any store.
    pub(crate) first: bool,
}

impl ClusterCheckpoint {
    /// The checkpoint on the Lease in this namespace.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { leases: Api::namespaced(client.clone(), namespace), namespace: namespace.to_owned(), client }
    }

    /// Compares `now` with the Lease. If that has no checkpoint, compares it with the statuses of the
    /// `IdentityProvider`s, because a second rolecall in another namespace has its own Lease. If those name no store,
    /// and the store `is_new`, a `RoleMapping` with acknowledged grants proves that another store was lost.
    pub(crate) async fn compare(&self, now: &Checkpoint, is_new: bool) -> Result<Compared, kube::Error> {
        let lease = self.leases.get_opt(LEASE).await?;
        let annotation = |lease: &Lease, key: &str| lease.annotations().get(key).cloned();
        let remembered = lease.as_ref().and_then(|lease| {
            Some(Checkpoint {
                store_id: annotation(lease, STORE_ID)?.parse().unwrap_or_default(),
                highest_seq: annotation(lease, HIGHEST_SEQ)?.parse().unwrap_or(i64::MAX),
                highest_audit_seq: annotation(lease, HIGHEST_AUDIT_SEQ)?.parse().unwrap_or(i64::MAX),
            })
        });
        if remembered.is_some() {
            let freeze = match checkpoint::compare(remembered.as_ref(), now) {
                Comparison::Match => None,
                Comparison::Mismatch => Some(FreezeReason::StoreMismatch),
                Comparison::Rewound => Some(FreezeReason::StoreRewound),
            };
            return Ok(Compared { freeze, other: None, first: false });
        }
        let ours = now.store_id.to_string();
        let resource = ApiResource::erase::<IdentityProvider>(&());
        let providers: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let listed = providers.list(&ListParams::default()).await?.items;
        let text = |provider: &DynamicObject, field: &str| {
            provider.data.get("status")?.get(field)?.as_str().map(str::to_owned)
        };
        let foreign = listed.iter().find(|provider| text(provider, "storeId").is_some_and(|id| id != ours));
        Ok(match foreign {
            Some(provider) => Compared {
                freeze: Some(FreezeReason::StoreMismatch),
                other: text(provider, "operatorNamespace").filter(|namespace| *namespace != self.namespace),
                first: false,
            },
            None if is_new && self.has_acknowledged_grants().await? => {
                Compared { freeze: Some(FreezeReason::StoreMismatch), other: None, first: false }
            }
            None => Compared { freeze: None, other: None, first: true },
        })
    }

    /// True when the status of a mapping has acknowledged grants, which proves that there was a store.
    async fn has_acknowledged_grants(&self) -> Result<bool, kube::Error> {
        let resource = ApiResource::erase::<RoleMapping>(&());
        let mappings: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = mappings.list(&params).await?;
            let acknowledged = |mapping: &DynamicObject| {
                mapping.data.pointer("/status/grants/acknowledged").and_then(serde_json::Value::as_u64)
            };
            if page.items.iter().any(|mapping| acknowledged(mapping).is_some_and(|grants| grants > 0)) {
                return Ok(true);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
                None => return Ok(false),
            }
        }
    }

    /// Writes the position of the store.
    pub(crate) async fn write(&self, now: &Checkpoint) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"annotations": {
            STORE_ID: now.store_id.to_string(),
            HIGHEST_SEQ: now.highest_seq.to_string(),
            HIGHEST_AUDIT_SEQ: now.highest_audit_seq.to_string(),
        }}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.leases.patch_metadata(LEASE, &params, &Patch::Merge(patch)).await.map(|_| ())
    }

    /// Time of the last renewal by the rolecall of another namespace; none when nobody has the Lease there. Only a
    /// change of the value is meaningful, because it is from another clock.
    pub(crate) async fn sign_of_life(&self, namespace: &str) -> Result<Option<jiff::Timestamp>, kube::Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let spec = leases.get_opt(LEASE).await?.and_then(|lease| lease.spec);
        Ok(spec.filter(|spec| spec.holder_identity.is_some()).and_then(|spec| Some(spec.renew_time?.0)))
    }
}
